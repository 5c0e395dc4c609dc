"""Blocking iterators over a subscription: an interrupted wait loses nothing."""

import asyncio
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Generic, Self, TypeVar

from iroh_gossip_discovery import _iterators, _leader, _ownership
from iroh_gossip_discovery._changes import ViewChange
from iroh_gossip_discovery._core import Message, MessagesLost, Peer
from iroh_gossip_discovery._errors import NotRunningError
from iroh_gossip_discovery._events import Event
from iroh_gossip_discovery._leader import Leadership
from iroh_gossip_discovery._ownership import OwnershipChange
from iroh_gossip_discovery._require import require_timeout
from iroh_gossip_discovery.blocking._loop import loop_thread, wait

S = TypeVar("S")
T = TypeVar("T")
K = TypeVar("K", bound=str | bytes)


class Stream(Iterable[T]):
    """What comes from now on, taken with `for` or with `get`.

    A `for` ends when the topic is left or the stream is closed. With a `timeout`, it also ends when
    nothing has come for that many seconds, and another `for` continues where it ended. Only one
    thread at a time may take from it. Each call of the method that made it is a subscription of its
    own.

    Args:
        source: Where the items come from.
        timeout: Most seconds that a `for` waits for the next item; `None` waits forever.
    """

    __slots__ = ("_ended", "_filling", "_source", "_taken", "_taking", "_timeout")

    def __init__(self, source: _iterators.Stream[S, T], timeout: float | None) -> None:
        require_timeout(timeout)
        self._source = source
        self._timeout = timeout
        # Items that the loop has taken and the caller has not got yet: an interrupted wait loses
        # none.
        self._taken: deque[T] = deque()
        self._taking = threading.Lock()
        self._filling = asyncio.Lock()
        self._ended = False

    @property
    def ended(self) -> bool:
        """Whether it has ended, and everything in it was taken."""
        return self._ended and not self._taken

    def get(self, *, timeout: float | None = None) -> T:
        """Take the next item; wait for it.

        Args:
            timeout: Most seconds to wait; `None` waits forever.

        Raises:
            TimeoutError: None came in time.
            NotRunningError: It has ended: the topic was left, or it was closed.
            RuntimeError: Another thread takes from it, or the caller runs on an event loop.
        """
        require_timeout(timeout)
        if not self._taking.acquire(blocking=False):
            raise RuntimeError(
                f"another thread takes from this {type(self).__name__}: make one for each"
            )
        try:
            if not self._taken and not self._ended:
                wait(lambda: self._more(timeout))
            return self._taken.popleft()
        except IndexError:
            raise NotRunningError(f"the {type(self).__name__} has ended") from None
        finally:
            self._taking.release()

    def close(self) -> None:
        """End the subscription; a call that waits for its next item ends too."""
        self._ended = True
        self._taken.clear()
        loop_thread().soon(self._source.close)

    def __iter__(self) -> Iterator[T]:
        while True:
            try:
                item = self.get(timeout=self._timeout)
            except (TimeoutError, NotRunningError):
                return
            yield item

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    async def _more(self, timeout: float | None) -> None:  # noqa: ASYNC109  # a limit of its caller
        """Take the items that have come, or wait for the first one."""
        # Ctrl-C may come when this can no longer be cancelled. Then the next call waits for it.
        async with asyncio.timeout(timeout), self._filling:
            if self._taken or self._ended:
                return
            try:
                self._taken.append(await anext(self._source))
            except StopAsyncIteration:
                self._ended = True
                return
            self._taken.extend(self._source._take_ready())  # noqa: SLF001  # made for this


class EventStream(Stream[Event]):
    """As `iroh_gossip_discovery.EventStream`, for code without asyncio."""

    __slots__ = ()


class MessageStream(Stream[Message]):
    """As `iroh_gossip_discovery.MessageStream`, for code without asyncio."""

    __slots__ = ("_messages",)

    def __init__(self, source: _iterators.MessageStream, timeout: float | None) -> None:
        super().__init__(source, timeout)
        self._messages = source

    @property
    def lost(self) -> int:
        """How many messages were dropped until now, because the iteration was too slow."""
        return self._messages.lost


class MessageEventStream(Stream[Message | MessagesLost]):
    """The messages of a channel, with the losses in their places: what callbacks are called for."""

    __slots__ = ()


class PeerStream(Stream[Peer]):
    """As `iroh_gossip_discovery.PeerStream`, for code without asyncio."""

    __slots__ = ()


class ChangeStream(Stream[ViewChange]):
    """As `iroh_gossip_discovery.ChangeStream`, for code without asyncio."""

    __slots__ = ()


class LeaderStream(Stream[Leadership]):
    """As `iroh_gossip_discovery.LeaderStream`, for code without asyncio."""

    __slots__ = ("_leaders",)

    def __init__(self, source: _leader.LeaderStream, timeout: float | None) -> None:
        super().__init__(source, timeout)
        self._leaders = source

    @property
    def current(self) -> Leadership | None:
        """What was taken last; `None` before the first."""
        return self._leaders.current


class OwnershipStream(Stream[OwnershipChange[K]], Generic[K]):
    """As `iroh_gossip_discovery.OwnershipStream`, for code without asyncio."""

    __slots__ = ("_changes",)

    def __init__(self, source: _ownership.OwnershipStream[K], timeout: float | None) -> None:
        super().__init__(source, timeout)
        self._changes = source

    def add(self, keys: Iterable[K]) -> None:
        """Follow more keys; each comes with its present owner. Keys that are followed stay so.

        Raises:
            TypeError: A key is neither text nor bytes, or `keys` is a single text or bytes.
            RuntimeError: The caller runs on an event loop.
        """

        async def add() -> None:
            self._changes.add(keys)

        wait(add)

    def discard(self, keys: Iterable[K]) -> None:
        """Stop following some keys; keys that are not followed do no harm.

        Raises:
            TypeError: `keys` is a single text or bytes.
            RuntimeError: The caller runs on an event loop.
        """

        async def discard() -> None:
            self._changes.discard(keys)

        wait(discard)
