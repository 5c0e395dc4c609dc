"""`Joined`: how the first contact of a node with its topic ended."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from iroh_gossip_discovery._printable import printable

JoinReason: TypeAlias = Literal["synced", "alone"]
"""`"synced"`: the book was compared with that of a member. `"alone"`: no peer answered."""


@dataclass(frozen=True, slots=True)
class Joined:
    """How the first contact of a node with its topic ended.

    Args:
        reason: `"synced"`: what a member knew is in the book. `"alone"`: no peer answered, or there
            was none to ask; the node keeps asking.
        peer: The id of the member that the book was compared with; `None` if alone.
        unanswered: If alone, why each peer that was asked did not answer, by its id, and each name.
    """

    reason: JoinReason
    peer: str | None = None
    unanswered: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __bool__(self) -> bool:
        """Return true if a member was met."""
        return self.reason == "synced"

    def __str__(self) -> str:
        if self.peer is not None:
            return f"synced with {self.peer[:10]}"
        if not self.unanswered:
            return "alone: there was nobody to ask"
        reasons = "; ".join(f"{_short(peer)}: {why}" for peer, why in self.unanswered.items())
        return f"alone: nobody answered ({reasons})"


def _short(asked: str) -> str:
    return asked if ":" in asked else asked[:10]


def joined(answer: tuple[str | None, list[tuple[str, str]]]) -> Joined:
    """Make a value of the core's answer."""
    peer, unanswered = answer
    if peer is not None:
        return Joined("synced", peer)
    # A reason may have words of a peer in it.
    return Joined("alone", None, {asked: printable(why) for asked, why in unanswered})
