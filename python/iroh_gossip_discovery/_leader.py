"""A leader by view: which present node a name belongs to, and when that changes."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from iroh_gossip_discovery._changes import ViewWatch
from iroh_gossip_discovery._core import Node, Peer
from iroh_gossip_discovery._errors import ConfigurationError
from iroh_gossip_discovery._first_contact import FirstContact
from iroh_gossip_discovery._require import require, require_text
from iroh_gossip_discovery._shared_node import SharedNode

if TYPE_CHECKING:
    from iroh_gossip_discovery._views import View


@dataclass(frozen=True, slots=True)
class Leadership:
    """The leader from now on, as this node sees it.

    Args:
        name: What is led.
        leader: The leader; `None` if this node is not in a majority of what is expected.
        mine: Whether this node is the leader.
        term: How many times this node has seen the leadership change, from 1: it rises with each
            change, but two nodes count for themselves.
        present: How many candidates this node sees, itself included if it is one.
    """

    name: str
    leader: Peer | None
    mine: bool
    term: int
    present: int

    def to_dict(self) -> dict[str, object]:
        """Return the fields as plain values, for JSON."""
        leader = None if self.leader is None else self.leader.to_dict()
        fields = {"name": self.name, "mine": self.mine, "term": self.term}
        return {**fields, "present": self.present, "leader": leader}


class LeaderStream(ViewWatch[Leadership]):
    """The leader now, then every change of hands; ends when the topic is left or it is closed.

    A change is computed when it is taken, so a slow reader gets what is true by then. The first one
    comes once this node has met its topic, or knows that it is alone.
    """

    __slots__ = ("_contact", "_current", "_expected", "_id", "_key", "_name", "_term")

    _made_by: ClassVar[str] = "leader()"

    def __init__(
        self, name: str, view: "View", shared: SharedNode, node: Node, expected: int | None
    ) -> None:
        super().__init__(view, shared, node)
        self._name = name
        self._key = leader_key(name)
        self._expected = expected
        self._id = node.id
        self._term = 0
        self._current: Leadership | None = None
        self._contact = FirstContact(node, self._nudge)

    @property
    def current(self) -> Leadership | None:
        """What was taken last; `None` before the first."""
        return self._current

    def close(self) -> None:
        """End the subscription; an iteration that waits for the next change ends too."""
        super().close()
        self._contact.close()

    async def __anext__(self) -> Leadership:
        """Wait for the next change, unless there is one; a cancelled wait loses nothing."""
        self._contact.begin()
        while True:
            await self._changed()
            self._look_due = False
            if not self._contact.done:
                continue
            now = self._look()
            before = self._current
            if before is None or _id(before.leader) != _id(now.leader):
                self._term += 1
                self._current = now
                return now

    def _look(self) -> Leadership:
        view = self._view.snapshot()
        owner = view.owner_of(self._key)
        if self._expected is not None and len(view) <= self._expected // 2:
            owner = None
        mine = _id(owner) == self._id
        return Leadership(self._name, owner, mine, self._term + 1, len(view))


def leader_key(name: str) -> bytes:
    """Return the key whose owner leads, apart from the keys of applications."""
    return b"iroh-gossip-discovery/leader/" + require_text("name", name)


def check_leader(name: object, expected: object) -> None:
    """Check the arguments of a leadership.

    Raises:
        TypeError: An argument has the wrong type.
        ConfigurationError: The name is empty or no valid Unicode, or `expected` is below 1.
    """
    encoded = require_text("name", name)
    require("expected", expected, int, type(None))
    if not encoded:
        raise ConfigurationError("name", "must not be empty")
    if isinstance(expected, int) and expected < 1:
        raise ConfigurationError("expected", f"must be at least 1, is {expected}")


def _id(peer: Peer | None) -> str | None:
    return None if peer is None else peer.id
