"""`PeerStatus`: the state of one peer, as this node sees it."""

from dataclasses import asdict, dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """The state of a peer of the book, as this node sees it; a value of one moment.

    Args:
        state: `"alive"`, or `"suspected"`: it did not answer a probe, or a member accuses it.
        heard_ago: Seconds since its latest record arrived here, from itself or forwarded by others,
            by the local clock. Records are renewed rarely: a third of their expiration apart.
        path: `"direct"` or `"relayed"` if there is a link to it now, else `None`. A node of a large
            topic has links to a few of its peers only.
        round_trip: The link's round trip, in seconds.
        address: Where the link sends packets: `ip:port`, or a relay's URL.
    """

    state: Literal["alive", "suspected"]
    heard_ago: float
    path: Literal["direct", "relayed"] | None
    round_trip: float | None
    address: str | None

    @property
    def linked(self) -> bool:
        """Return true if there is a link to the peer now."""
        return self.path is not None

    def to_dict(self) -> dict[str, object]:
        """Return the fields as plain values, for JSON."""
        return {**asdict(self), "linked": self.linked}
