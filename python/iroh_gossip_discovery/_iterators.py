"""Async iterators over a subscription: a cancelled wait loses nothing."""

import asyncio
from abc import abstractmethod
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import ClassVar, Generic, Protocol, Self, TypeVar

from iroh_gossip_discovery._core import (
    EventsLost,
    Message,
    MessagesLost,
    Node,
    Peer,
    PeerJoined,
    PeerLeft,
    PeerLost,
    PeerUpdated,
    Selection,
)
from iroh_gossip_discovery._events import Event
from iroh_gossip_discovery._snapshot import peers_of, snapshot_of
from iroh_gossip_discovery._waiters import Waiters

S = TypeVar("S")
T = TypeVar("T")

# Most events that are taken at a time, so that a flood does not hold the loop.
BATCH = 256
# Lives that `peers` remembers after the peer is gone, so that it is not shown twice if it returns.
_DEPARTED = 10_000


class Source(Protocol[S]):
    """A subscription of the core, to items of one kind."""

    def drain(self, limit: int) -> list[S]:
        """Take up to `limit` items, oldest first; never wait."""

    @property
    def ended(self) -> bool:
        """True once it has ended and everything in it was taken."""

    def arm(self, event_loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> None:
        """Call `callback()` once, on the loop, when there is an item or the end."""


class Stream(AsyncIterator[T], Generic[S, T]):
    """Takes batches without waiting, and waits without taking.

    An item that travels inside a future is lost when the future is cancelled; here `__anext__` has
    nothing to wait for once it has taken an item.
    """

    __slots__ = ("__weakref__", "_items", "_subscription", "_waiters")

    # What its calls are named in an error.
    _made_by: ClassVar[str] = "events() or peers()"

    def __init__(self, subscription: Source[S]) -> None:
        self._items: deque[T] = deque()
        self._subscription: Source[S] | None = subscription
        self._waiters = Waiters()

    async def __anext__(self) -> T:
        if not self._items:
            await self._fill()
        return self._items.popleft()

    def close(self) -> None:
        """End the subscription; an iteration that waits for the next item ends too."""
        self._items.clear()
        self._subscription = None
        self._waiters.wake()

    async def aclose(self) -> None:
        """Do as `close`; by this name `contextlib.aclosing` finds it."""
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _take_ready(self) -> list[T]:
        """Take the items that have come, for a caller that hands them on."""
        ready = list(self._items)
        self._items.clear()
        return ready

    @abstractmethod
    def _take(self, items: list[S]) -> None: ...

    async def _fill(self) -> None:
        if self._waiters:
            raise RuntimeError(
                f"another task iterates over this {type(self).__name__}: "
                f"each call of {self._made_by} is a subscription of its own"
            )
        loop = asyncio.get_running_loop()
        while (subscription := self._subscription) is not None:
            if self._items:  # what woke it brought something itself
                return
            taken = subscription.drain(BATCH)
            if taken:
                self._take(taken)
                if not self._items:
                    await asyncio.sleep(0)  # a flood of what isn't yielded must not hold the loop
            elif subscription.ended:
                break
            else:
                if not self._waiters.armed:
                    subscription.arm(loop, self._waiters)
                    self._waiters.armed = True
                await self._waiters.wait(loop)
        raise StopAsyncIteration


class EventStream(Stream[Event, Event]):
    """What happens in the topic from now on; ends when the topic is left or it is closed.

    Each has a buffer of its own, of `Config.event_buffer` events. A reader that lags behind by more
    gets an `EventsLost` in place of the oldest events. The book has the current state.
    """

    __slots__ = ()

    def _take(self, items: list[Event]) -> None:
        self._items.extend(items)


class MessageStream(Stream[Message | MessagesLost, Message]):
    """The messages of a channel from now on; ends when the topic is left or it is closed.

    Each has a buffer of its own, of `Config.message_buffer` messages and 16 MiB. If it lags behind
    by more, the oldest are dropped, and `lost` counts them.
    """

    __slots__ = ("_lost",)
    _made_by = "messages()"

    def __init__(self, subscription: Source[Message | MessagesLost]) -> None:
        super().__init__(subscription)
        self._lost = 0

    @property
    def lost(self) -> int:
        """How many messages were dropped until now, because the iteration was too slow."""
        return self._lost

    def _take(self, items: list[Message | MessagesLost]) -> None:
        for item in items:
            if isinstance(item, Message):
                self._items.append(item)
            else:
                self._lost += item.count


class MessageEventStream(Stream[Message | MessagesLost, Message | MessagesLost]):
    """The messages of a channel, with the losses in their places: what callbacks are called for."""

    __slots__ = ()
    _made_by = "messages()"

    def _take(self, items: list[Message | MessagesLost]) -> None:
        self._items.extend(items)


class PeerStream(Stream[Event, Peer]):
    """The peers known so far, then each new one; ends when the topic is left or it is closed.

    A peer comes once for each of its lives: one that was restarted comes again, one that was only
    out of reach for a while does not.
    """

    __slots__ = ("_departed", "_node", "_present")

    def __init__(self, node: Node) -> None:
        peers, subscription = node.subscribe()
        super().__init__(subscription)
        self._node: Node | None = node
        # The boot id of each peer's last life that was seen: those in the book, and a bounded
        # number of those that are gone.
        self._present: dict[str, int] = {}
        self._departed: OrderedDict[str, int] = OrderedDict()
        for peer in peers_of(peers):
            self._meet(peer)

    def _take(self, items: list[Event]) -> None:
        for event in items:
            match event:
                case PeerJoined(peer) | PeerUpdated(peer):
                    self._meet(peer)
                case PeerLeft(peer) | PeerLost(peer):
                    self._part(peer.id)
                case EventsLost() if self._node is not None:
                    book = snapshot_of(self._node.select(Selection()))
                    for peer_id in self._present.keys() - book.keys():
                        self._part(peer_id)
                    for peer in book.values():
                        self._meet(peer)
                case _:
                    pass

    def _meet(self, peer: Peer) -> None:
        known = self._present.get(peer.id, self._departed.pop(peer.id, None))
        self._present[peer.id] = peer.boot_id
        if known != peer.boot_id:
            self._items.append(peer)

    def _part(self, peer_id: str) -> None:
        boot_id = self._present.pop(peer_id, None)
        if boot_id is not None:
            self._departed[peer_id] = boot_id
            self._departed.move_to_end(peer_id)
            if len(self._departed) > _DEPARTED:
                self._departed.popitem(last=False)

    def close(self) -> None:
        """End the subscription; an iteration that waits for the next peer ends too."""
        super().close()
        self._node = None
