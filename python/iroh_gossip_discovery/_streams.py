"""Streams of bytes with a peer, with the methods of asyncio's: a reader and a writer.

Nothing is lost by a cancellation: waiting moves no byte, and moving bytes waits for nothing.
"""

import asyncio
from collections.abc import Iterable
from typing import Self

from iroh_gossip_discovery._core import Reader, Writer
from iroh_gossip_discovery._errors import ConfigurationError
from iroh_gossip_discovery._require import require, require_iterable
from iroh_gossip_discovery._waiters import Waiters

LIMIT = 2**16
"""Most bytes that `readuntil` and `readline` look through, by default."""

# Most bytes that are taken from the core at a time.
_TAKE = 256 * 1024
# `drain` waits if more than `_HIGH` bytes are queued, until at most `_LOW` are.
_HIGH = 1024 * 1024
_LOW = 512 * 1024


class StreamReader:
    """The reading half of a stream.

    Its methods are those of `asyncio.StreamReader`, with the same meaning. They raise
    `StreamResetError` if the peer gave the stream up, and `PeerUnreachableError` if the link is
    gone: after all that came before. Up to 1.25 MB that the peer wrote wait until they are read,
    and no other stream waits for that. Iterating gives lines.
    """

    __slots__ = ("_buffer", "_core", "_ended", "_limit", "_waiters")

    def __init__(self, core: Reader, limit: int) -> None:
        self._core = core
        self._limit = limit
        self._buffer = bytearray()
        self._ended = False
        self._waiters = Waiters()

    @property
    def peer(self) -> str:
        """The endpoint id of the peer, authenticated, as 64 hex digits."""
        return self._core.peer

    def at_eof(self) -> bool:
        """Whether the end was reached and everything before it was read."""
        return self._ended and not self._buffer

    async def read(self, n: int = -1) -> bytes:
        """Read up to `n` bytes, as soon as there are any; `b""` at the end.

        Args:
            n: Most bytes; -1 reads until the end.

        Raises:
            StreamResetError: The peer gave the stream up.
            PeerUnreachableError: The link is gone.
        """
        require("n", n, int)
        if n < 0:
            while data := await self._more(_TAKE):
                self._buffer += data
            return self._consume(len(self._buffer))
        if n == 0:
            return b""
        if not self._buffer:
            return await self._more(n)
        return self._consume(n)

    async def readexactly(self, n: int) -> bytes:
        """Read exactly `n` bytes.

        Raises:
            asyncio.IncompleteReadError: The end came first; its `partial` has what there was.
            StreamResetError: The peer gave the stream up.
            PeerUnreachableError: The link is gone.
        """
        require("n", n, int)
        if n < 0:
            raise ValueError(f"n must not be negative, is {n}")
        while (lacking := n - len(self._buffer)) > 0:
            data = await self._more(lacking)
            if len(data) == n:  # nothing to put together
                return data
            if not data:
                raise asyncio.IncompleteReadError(self._consume(n), n)
            self._buffer += data
        return self._consume(n)

    async def readuntil(self, separator: bytes = b"\n") -> bytes:
        """Read up to and with `separator`.

        Raises:
            asyncio.IncompleteReadError: The end came first; its `partial` has what there was.
            asyncio.LimitOverrunError: It is not within the stream's limit; nothing was read.
            StreamResetError: The peer gave the stream up.
            PeerUnreachableError: The link is gone.
        """
        require("separator", separator, bytes, bytearray, memoryview)
        if not separator:
            raise ValueError("separator must be at least one byte")
        searched = 0
        while (at := self._buffer.find(separator, searched)) < 0:
            searched = max(0, len(self._buffer) + 1 - len(separator))
            if searched > self._limit:
                raise asyncio.LimitOverrunError(
                    f"no separator in {self._limit} bytes, the stream's limit", searched
                )
            data = await self._more(self._limit)
            if not data:
                raise asyncio.IncompleteReadError(self._consume(len(self._buffer)), None)
            self._buffer += data
        if at > self._limit:
            raise asyncio.LimitOverrunError(
                f"the separator is beyond {self._limit} bytes, the stream's limit", at
            )
        return self._consume(at + len(separator))

    async def readline(self) -> bytes:
        r"""Read a line with its `\n`; without it at the end, and `b""` after that.

        Raises:
            ValueError: The line is longer than the stream's limit; what came of it was dropped.
            StreamResetError: The peer gave the stream up.
            PeerUnreachableError: The link is gone.
        """
        try:
            return await self.readuntil()
        except asyncio.IncompleteReadError as error:
            return error.partial
        except asyncio.LimitOverrunError as error:
            if self._buffer.startswith(b"\n", error.consumed):
                self._consume(error.consumed + 1)
            else:
                self._buffer.clear()
            raise ValueError(str(error)) from None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        line = await self.readline()
        if not line:
            raise StopAsyncIteration
        return line

    async def _more(self, most: int) -> bytes:
        """Take the next bytes, and wait if there are none; `b""` at the end."""
        if self._waiters:
            raise RuntimeError("another task reads from this stream already")
        while not self._ended:
            data = self._core.take(min(most, _TAKE))
            if data is not None:
                self._ended = not data
                return data
            loop = asyncio.get_running_loop()
            if not self._waiters.armed:
                self._core.arm(loop, self._waiters)
                self._waiters.armed = True
            await self._waiters.wait(loop)
        return b""

    def _consume(self, n: int) -> bytes:
        with memoryview(self._buffer)[:n] as view:
            data = bytes(view)
        del self._buffer[:n]
        return data

    def _end(self) -> None:
        """End reading; a read that waits ends too."""
        self._ended = True
        self._waiters.wake()

    def __repr__(self) -> str:
        state = " at its end" if self.at_eof() else ""
        return f"<StreamReader of peer {self.peer[:10]}{state}>"


class StreamWriter:
    """The writing half of a stream.

    Its methods are those of `asyncio.StreamWriter`, with the same meaning, and `reset`. What is
    written is queued and sent as fast as the peer reads: `drain` waits while more than 1 MiB is
    queued. If the peer stops reading, `write` and `drain` raise `StreamResetError`.
    """

    __slots__ = ("_core", "_finished", "_protocol", "_reader", "_reset", "_waiters")

    def __init__(self, core: Writer, reader: StreamReader, protocol: str) -> None:
        self._core = core
        self._reader = reader
        self._protocol = protocol
        self._finished = False
        self._reset = False
        self._waiters = Waiters()

    @property
    def peer(self) -> str:
        """The endpoint id of the peer, authenticated, as 64 hex digits."""
        return self._core.peer

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Queue bytes to be sent; await `drain` after it.

        Args:
            data: Any bytes; a copy is taken.

        Raises:
            ConfigurationError: More than 64 MiB would wait; nothing of `data` was queued.
            StreamResetError: The peer reads no more.
            PeerUnreachableError: The link is gone.
            RuntimeError: It was closed, or ended with `write_eof`.
        """
        if self._finished:
            raise RuntimeError("the stream was closed here, or ended with write_eof()")
        self._core.write(data)

    def writelines(self, data: Iterable[bytes | bytearray | memoryview]) -> None:
        """Queue each of them, as `write` does."""
        require_iterable("data", data, "bytes, bytearray or memoryview")
        for piece in data:
            self.write(piece)

    async def drain(self) -> None:
        """Wait until no more than 1 MiB is queued: the way not to write faster than the peer reads.

        Raises:
            StreamResetError: The peer reads no more.
            PeerUnreachableError: The link is gone.
        """
        if self._core.waiting() <= _HIGH:
            return
        loop = asyncio.get_running_loop()
        while self._core.waiting() > _LOW:
            if not self._waiters.armed:
                self._core.arm(loop, self._waiters, _LOW)
                self._waiters.armed = True
            await self._waiters.wait(loop)

    def can_write_eof(self) -> bool:
        """Return True: each direction ends by itself."""
        return True

    def write_eof(self) -> None:
        """End this direction after what is queued; reading stays possible."""
        self._finished = True
        self._core.finish()

    def close(self) -> None:
        """End both directions: what is queued is still sent, and nothing more is read."""
        self.write_eof()
        if not self._reader.at_eof():
            self._reader._core.close()  # noqa: SLF001  # two parts of one thing
            self._reader._end()  # noqa: SLF001

    def is_closing(self) -> bool:
        """Whether it was closed, reset, or ended with `write_eof`."""
        return self._finished

    async def wait_closed(self) -> None:
        """Wait until this direction has ended.

        Then the peer's library has everything that was queued, or the peer has closed its end.

        Raises:
            StreamResetError: The peer gave the stream up before that.
            PeerUnreachableError: The link was gone before that.
        """
        try:
            await self._core.ended()
        except BrokenPipeError:  # after a reset of our own
            if not self._reset:
                raise

    def reset(self, code: int = 1, reason: str = "") -> None:
        """Give both directions up, and tell the peer why: there it is a `StreamResetError`.

        What is queued, and what has not arrived yet, may never arrive.

        Args:
            code: A number for programs: 1 to 4294967295.
            reason: Words for humans: at most 256 bytes of UTF-8.

        Raises:
            ConfigurationError: One of them is outside its limits; nothing happened.
        """
        self._core.reset(code, reason)
        self._finished = self._reset = True
        if not self._reader.at_eof():
            self._reader._core.stop(code, reason)  # noqa: SLF001
            self._reader._end()  # noqa: SLF001

    def get_extra_info(self, name: str, default: object = None) -> object:
        """Return what there is to know: `"peer"`, its endpoint id, and `"protocol"`."""
        known: dict[str, object] = {"peer": self.peer, "protocol": self._protocol}
        return known.get(name, default)

    def __repr__(self) -> str:
        state = " closed" if self._finished else ""
        return f"<StreamWriter of {self._protocol!r} to peer {self.peer[:10]}{state}>"


def halves(
    core: tuple[Reader, Writer], protocol: str | bytes, limit: int
) -> tuple[StreamReader, StreamWriter]:
    """Return what a user holds of a stream."""
    name = protocol if isinstance(protocol, str) else protocol.decode(errors="backslashreplace")
    reader = StreamReader(core[0], limit)
    return reader, StreamWriter(core[1], reader, name)


def check_limit(limit: object) -> None:
    """Check the limit of `readuntil`.

    Raises:
        TypeError: It is no int.
        ConfigurationError: It is not positive.
    """
    require("limit", limit, int)
    if isinstance(limit, int) and limit <= 0:
        raise ConfigurationError("limit", f"is {limit}, must be at least 1 byte")
