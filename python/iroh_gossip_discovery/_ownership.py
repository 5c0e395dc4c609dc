"""The owners of keys, followed over time; a change that no longer holds is never given."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from iroh_gossip_discovery._core import (
    EventsLost,
    Node,
    Peer,
    PeerJoined,
    PeerLeft,
    PeerLost,
    PeerUpdated,
    Records,
)
from iroh_gossip_discovery._events import Event
from iroh_gossip_discovery._first_contact import FirstContact
from iroh_gossip_discovery._iterators import BATCH, Stream
from iroh_gossip_discovery._require import require_iterable, require_key
from iroh_gossip_discovery._shared_node import SharedNode

K = TypeVar("K", bound=str | bytes)

_MEMBERSHIP = (PeerJoined, PeerUpdated, PeerLeft, PeerLost, EventsLost)


@dataclass(frozen=True, slots=True)
class OwnershipChange(Generic[K]):
    """A key belongs to another node than before.

    Args:
        key: The key.
        previous: The node that it belonged to; `None` if the key is new, or no node was there.
        owner: The node that it belongs to now; `None` if no node is present.
        gained: Whether it belongs to this node now and did not before.
        lost: Whether it belonged to this node before and does not now.
    """

    key: K
    previous: Peer | None
    owner: Peer | None
    gained: bool
    lost: bool


class OwnershipStream(Stream[Event, OwnershipChange[K]], Generic[K]):
    """The owner of each key, then every change; ends when the topic is left or it is closed.

    A change is computed when it is taken, against what was given before. So a slow reader gets the
    current owners, and nothing that held only meanwhile. At most one change per key waits. When
    nodes of the topic change, it costs one hash per key and node, 0.1 to 0.2 µs.

    The first changes come once this node has met its topic, or knows that it is alone, as with
    `GossipDiscovery.joined`: a node that has just started would take every key for its own.
    """

    __slots__ = ("_contact", "_id", "_keys", "_records", "_shared", "_told")

    def __init__(
        self,
        shared: SharedNode,
        node: Node,
        records: Callable[[], Records | None],
        keys: Iterable[K],
    ) -> None:
        _, subscription = node.subscribe()
        super().__init__(subscription)
        self._shared = shared
        self._id = node.id
        self._records = records
        self._contact = FirstContact(node, self._look)
        self._keys: dict[K, bytes] = {}
        self._told: dict[K, Peer] = {}
        shared.watchers.add(self)
        self.add(keys)

    def add(self, keys: Iterable[K]) -> None:
        """Follow more keys; each comes with its present owner. Keys that are followed stay so.

        Raises:
            TypeError: A key is neither text nor bytes, or `keys` is no sequence of keys.
        """
        require_iterable("keys", keys, "str or bytes")
        self._keys |= {key: require_key(key, f"keys[{n}]") for n, key in enumerate(keys)}
        self._look()

    def discard(self, keys: Iterable[K]) -> None:
        """Stop following some keys; keys that are not followed do no harm.

        Raises:
            TypeError: `keys` is no sequence of keys.
        """
        require_iterable("keys", keys, "str or bytes")
        for key in keys:
            self._keys.pop(key, None)
            self._told.pop(key, None)
        self._look()

    def close(self) -> None:
        """End the subscription; an iteration that waits for the next change ends too."""
        super().close()
        self._shared.watchers.discard(self)
        self._contact.close()

    async def __anext__(self) -> OwnershipChange[K]:
        """Wait for the next change, unless there is one; a cancelled wait loses nothing."""
        self._contact.begin()
        self._catch_up()
        change = await super().__anext__()
        if change.owner is None:
            self._told.pop(change.key, None)
        else:
            self._told[change.key] = change.owner
        return change

    def self_changed(self) -> None:
        """Check again: this node's own record has changed, for which there is no event."""
        self._look()

    def _catch_up(self) -> None:
        """Take the events so far, so that no outdated change is given."""
        stale = False
        while self._subscription is not None and (events := self._subscription.drain(BATCH)):
            stale = stale or any(isinstance(event, _MEMBERSHIP) for event in events)
        if stale:
            self._look()

    def _take_ready(self) -> list[OwnershipChange[K]]:
        return []  # what is kept may hold no longer when it is handed on

    def _take(self, items: list[Event]) -> None:
        if any(isinstance(event, _MEMBERSHIP) for event in items):
            self._look()

    def _look(self) -> None:
        """Compute the changes again, against the owners that were given before."""
        self._items.clear()
        records = self._records() if self._contact.done and self._keys else None
        if records is None:
            return
        owners = records.owner_of_each(list(self._keys.values()))
        for key, owner in zip(self._keys, owners, strict=True):
            previous = self._told.get(key)
            before, now = previous and previous.id, owner and owner.id
            if before != now:
                gained, lost = now == self._id, before == self._id
                self._items.append(OwnershipChange(key, previous, owner, gained, lost))
        if self._items:
            self._waiters.wake()
