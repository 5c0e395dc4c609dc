"""Streams of bytes with a peer for code without asyncio, and serving them."""

import contextvars
from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeAlias, TypeVar

from iroh_gossip_discovery import _services, _streams
from iroh_gossip_discovery._require import require_timeout
from iroh_gossip_discovery.blocking._loop import in_thread
from iroh_gossip_discovery.blocking._waits import Waits, on_loop, waits

H = TypeVar("H", _streams.StreamReader, _streams.StreamWriter)


class _Half(Waits[H]):
    """What both halves of a stream have."""

    __slots__ = ()

    @property
    def peer(self) -> str:
        """The endpoint id of the peer, authenticated, as 64 hex digits."""
        return self._awaited.peer

    @property
    def timeout(self) -> float | None:
        """Most seconds that a call waits; `None`, the first value, waits forever.

        Then it raises `TimeoutError`. What has come is not lost, and another call continues.
        """
        return self._patience

    @timeout.setter
    def timeout(self, seconds: float | None) -> None:
        require_timeout(seconds)
        self._patience = seconds

    def __repr__(self) -> str:
        return f"<blocking.{repr(self._awaited).removeprefix('<')}"


class StreamReader(_Half[_streams.StreamReader]):
    """As `iroh_gossip_discovery.StreamReader`, for code without asyncio; iterating gives lines."""

    __slots__ = ()

    def at_eof(self) -> bool:
        """Whether the end was reached and everything before it was read."""
        return self._awaited.at_eof()

    read: Final = waits(_streams.StreamReader.read)
    readexactly: Final = waits(_streams.StreamReader.readexactly)
    readuntil: Final = waits(_streams.StreamReader.readuntil)
    readline: Final = waits(_streams.StreamReader.readline)

    def __iter__(self) -> Iterator[bytes]:
        while line := self.readline():
            yield line


class StreamWriter(_Half[_streams.StreamWriter]):
    """As `iroh_gossip_discovery.StreamWriter`, for code without asyncio."""

    __slots__ = ()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Queue bytes to be sent; call `drain` after it.

        Args:
            data: Any bytes; a copy is taken.

        Raises:
            ConfigurationError: More than 64 MiB would wait; nothing of `data` was queued.
            StreamResetError: The peer reads no more.
            PeerUnreachableError: The link is gone.
            RuntimeError: It was closed, or ended with `write_eof`.
        """
        self._awaited.write(data)

    def writelines(self, data: Iterable[bytes | bytearray | memoryview]) -> None:
        """Queue each of them, as `write` does."""
        self._awaited.writelines(data)

    drain: Final = waits(_streams.StreamWriter.drain)

    def can_write_eof(self) -> bool:
        """Return True: each direction ends by itself."""
        return self._awaited.can_write_eof()

    write_eof: Final = on_loop(_streams.StreamWriter.write_eof)
    close: Final = on_loop(_streams.StreamWriter.close)
    reset: Final = on_loop(_streams.StreamWriter.reset)

    def is_closing(self) -> bool:
        """Whether it was closed, reset, or ended with `write_eof`."""
        return self._awaited.is_closing()

    wait_closed: Final = waits(_streams.StreamWriter.wait_closed)

    def get_extra_info(self, name: str, default: object = None) -> object:
        """Return what there is to know: `"peer"`, its endpoint id, and `"protocol"`."""
        return self._awaited.get_extra_info(name, default)


Handler: TypeAlias = Callable[[StreamReader, StreamWriter], object]
"""Takes both ends of a stream; the stream ends when it returns."""


class Service(Waits[_services.Service]):
    """A served protocol: calls its handler for each stream, and `cancel` ends that.

    Each call has a daemon thread of its own, and a copy of the context that `serve` was called in.
    When it returns, the stream is closed; when it raises, the stream is reset with code 1, and the
    exception is logged, unless it says only that the peer is gone.
    """

    __slots__ = ("_handler",)

    def __init__(self, awaited: _services.Service, handler: Handler) -> None:
        super().__init__(awaited)
        self._handler = handler

    @property
    def protocol(self) -> str | bytes:
        """The protocol, as it was given."""
        return self._awaited.protocol

    @property
    def active(self) -> bool:
        """True while it is served."""
        return self._awaited.active

    cancel: Final = on_loop(_services.Service.cancel)

    def __call__(self, reader: StreamReader, writer: StreamWriter) -> object:
        return self._handler(reader, writer)

    def __repr__(self) -> str:
        state = "" if self.active else ", cancelled"
        return f"<Service of {self.protocol!r} by {self._handler!r}{state}>"


def halves(
    awaited: tuple[_streams.StreamReader, _streams.StreamWriter],
) -> tuple[StreamReader, StreamWriter]:
    """Return what a user holds of a stream."""
    return StreamReader(awaited[0]), StreamWriter(awaited[1])


def in_threads(handler: Handler) -> _services.Handler:
    """Make an awaitable handler of one that blocks; each call gets a thread of its own."""
    context = contextvars.copy_context()

    async def handle(reader: _streams.StreamReader, writer: _streams.StreamWriter) -> None:
        ends, copy = halves((reader, writer)), context.copy()
        await in_thread(lambda: copy.run(handler, *ends))

    return handle
