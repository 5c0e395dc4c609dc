"""The changes of a view, as cuts: what joined, left, was lost or changed since the cut before."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, TypeVar

from iroh_gossip_discovery._core import Node, Peer, PeerLost
from iroh_gossip_discovery._events import Event
from iroh_gossip_discovery._iterators import BATCH, Stream
from iroh_gossip_discovery._shared_node import SharedNode
from iroh_gossip_discovery._snapshot import Snapshot

if TYPE_CHECKING:
    from iroh_gossip_discovery._views import View

T = TypeVar("T")

# Most lost peers that wait to be reported; further ones are reported as left.
_LOST = 10_000


@dataclass(frozen=True, slots=True)
class ViewChange:
    """What differs between a view and the cut before.

    Args:
        joined: Nodes that are in the view now and were not.
        updated: Nodes that changed what they say of themselves, or started again.
        left: Nodes that said goodbye, or meet the view's conditions no more; as they were last.
        lost: Nodes that are gone without a goodbye; as they were last.
        snapshot: The whole view at this cut.
    """

    joined: tuple[Peer, ...]
    updated: tuple[Peer, ...]
    left: tuple[Peer, ...]
    lost: tuple[Peer, ...]
    snapshot: Snapshot = field(hash=False)

    def to_dict(self) -> dict[str, object]:
        """Return the change as plain values, without the snapshot; for JSON."""
        kinds = ("joined", "updated", "left", "lost")
        return {kind: [peer.to_dict() for peer in getattr(self, kind)] for kind in kinds}


class ViewWatch(Stream[Event, T]):
    """Checks a view whenever something happens in the topic, or to this node's own record.

    A subclass computes its next item when it is taken, so no reader gets an outdated one.
    """

    __slots__ = ("_look_due", "_shared", "_view")

    _made_by: ClassVar[str] = "changes()"

    def __init__(self, view: "View", shared: SharedNode, node: Node) -> None:
        _, subscription = node.subscribe()
        super().__init__(subscription)
        self._view = view
        self._shared = shared
        self._look_due = True
        shared.watchers.add(self)

    def self_changed(self) -> None:
        """Check again: this node's own record has changed, for which there is no event."""
        self._nudge()

    def close(self) -> None:
        """End the subscription; an iteration that waits for the next item ends too."""
        super().close()
        self._shared.watchers.discard(self)

    def _nudge(self) -> None:
        self._look_due = True
        self._waiters.wake()

    def _take_ready(self) -> list[T]:
        return []  # what is kept may hold no longer when it is handed on

    def _note(self, events: list[Event]) -> None:
        """Remember what can't be read from the view later."""

    def _take(self, items: list[Event]) -> None:
        self._note(items)
        self._look_due = True

    def _drain(self) -> bool:
        """Take the events so far; return true if something has happened, now or before."""
        while self._subscription is not None and (events := self._subscription.drain(BATCH)):
            self._take(events)
        return self._look_due

    async def _changed(self) -> None:
        """Wait until something has happened since the last check.

        Raises:
            StopAsyncIteration: The topic was left, or this was closed.
        """
        if self._waiters:
            raise RuntimeError(
                f"another task iterates over this {type(self).__name__}: "
                f"each call of {self._made_by} is a subscription of its own"
            )
        loop = asyncio.get_running_loop()
        while not self._drain():
            subscription = self._subscription
            if subscription is None or subscription.ended:
                raise StopAsyncIteration
            if not self._waiters.armed:
                subscription.arm(loop, self._waiters)
                self._waiters.armed = True
            await self._waiters.wait(loop)
        if self._subscription is None:
            raise StopAsyncIteration


class Nudges(ViewWatch[None]):
    """An item at the start, and whenever a view may have changed."""

    __slots__ = ()

    async def __anext__(self) -> None:
        await self._changed()
        self._look_due = False


class ChangeStream(ViewWatch[ViewChange]):
    """The nodes of a view, then every change of it, as cuts; ends when the topic is left.

    A cut is made when it is taken, against the cut before. A slow reader gets fewer and
    larger cuts, and misses nothing that still holds.
    """

    __slots__ = ("_due_at", "_lost", "_told", "_window")

    def __init__(self, view: "View", shared: SharedNode, node: Node, window: float) -> None:
        super().__init__(view, shared, node)
        self._window = window
        self._told: dict[str, Peer] = {}
        self._lost: dict[str, None] = {}
        # The end of the open window, by the loop's clock; `None` if none is open.
        self._due_at: float | None = None

    async def __anext__(self) -> ViewChange:
        """Wait for the next change, unless there is one; a cancelled wait loses nothing."""
        loop = asyncio.get_running_loop()
        while True:
            await self._changed()
            if self._told and self._window > 0:
                if self._due_at is None:
                    self._due_at = loop.time() + self._window
                await asyncio.sleep(max(0.0, self._due_at - loop.time()))
                self._drain()
            if self._subscription is None:
                raise StopAsyncIteration
            self._due_at = None
            self._look_due = False
            change = self._difference()
            if change is not None:
                return change

    def _note(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, PeerLost) and event.peer.id in self._told:
                self._lost[event.peer.id] = None
                if len(self._lost) > _LOST:
                    self._lost.pop(next(iter(self._lost)))

    def _difference(self) -> ViewChange | None:
        snapshot = self._view.snapshot()
        now = dict(snapshot.items())
        before, self._told = self._told, now
        gone = [peer for peer_id, peer in before.items() if peer_id not in now]
        change = ViewChange(
            joined=tuple(peer for peer_id, peer in now.items() if peer_id not in before),
            updated=tuple(
                peer
                for peer_id, peer in now.items()
                if peer_id in before and _said(before[peer_id]) != _said(peer)
            ),
            left=tuple(peer for peer in gone if peer.id not in self._lost),
            lost=tuple(peer for peer in gone if peer.id in self._lost),
            snapshot=snapshot,
        )
        self._lost.clear()
        any_change = change.joined or change.updated or change.left or change.lost
        return change if any_change else None


def _said(peer: Peer) -> tuple[object, ...]:
    """Return what a peer says of itself: a heartbeat changes none of it."""
    return peer.boot_id, peer.name, peer.addresses, peer.metadata, peer.protocols


Predicate = Callable[[Peer], bool]
"""Returns true for the nodes that a view shows."""
