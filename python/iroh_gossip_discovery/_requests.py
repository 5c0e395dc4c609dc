"""Requests and replies: each has a stream of its own, a deadline, and errors that come back."""

import asyncio
import contextlib
import contextvars
import inspect
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

from iroh_gossip_discovery._errors import (
    ConfigurationError,
    MessageTooLargeError,
    NotAnsweredError,
    RequestFailedError,
    RequestTimeoutError,
    StreamResetError,
)
from iroh_gossip_discovery._require import require, require_callable, require_text
from iroh_gossip_discovery._streams import StreamReader, StreamWriter

PROTOCOL = "igd-request/1"
"""The protocol of requests: a node that answers any announces it."""

MAX_DATA = 4 * 1024 * 1024
"""Most bytes of a request, and of a reply."""

MAX_NAME = 64
"""Most bytes of a request's name."""

MAX_HELD = 256 * 1024 * 1024
"""Most bytes of all requests that arrive, wait for their turn or are worked on.

A peer may take half of what nobody has taken then: 85 MiB if it is alone. So several peers that
send as much as they can leave room for others.
"""

CONCURRENCY = 64
"""Most requests that one answer works on at a time, by default; others wait for their turn."""

# A request: its version, the bytes of its name, the milliseconds it may take (0: any), its bytes.
_REQUEST = struct.Struct("!BBII")
# A reply: how it ended, and the bytes after it.
_REPLY = struct.Struct("!BI")
_VERSION = 1
_DONE, _FAILED, _NO_ANSWER, _TOO_LATE = range(4)
_MAX_REASON = 1024
_PIECE = 64 * 1024
_OVERLOADED = b"Overloaded\0the requests of this node take too much memory there"
_HEADER_TIMEOUT = 30.0  # seconds that a request may take to arrive


@dataclass(frozen=True, slots=True)
class Request:
    """A request, as the handler of an answer gets it.

    Args:
        peer: The endpoint id of the node that asks, authenticated.
        name: The name of the request.
        data: Its bytes.
        deadline: When the asking node waits no longer, by the loop's clock; `None` for never. The
            handler is cancelled then.
    """

    peer: str
    name: str
    data: bytes
    deadline: float | None


AnswerHandler: TypeAlias = Callable[[Request], Awaitable[bytes | None] | bytes | None]
"""Takes a request, and returns the reply: bytes, or `None` for an empty one."""


class Answer:
    """A registered answer: its handler is called for each request of a name, until `cancel`.

    Calls are tasks of their own, in a copy of the context that `answer` was called in. When the
    asking node gives up, is gone or its deadline passes, the handler is cancelled.
    """

    __slots__ = ("_answers", "_context", "_handler", "_name", "_places")

    def __init__(
        self, answers: "Answers", name: str, handler: AnswerHandler, concurrency: int
    ) -> None:
        self._answers = answers
        self._name = name
        self._handler = handler
        self._context = contextvars.copy_context()
        self._places = asyncio.Semaphore(concurrency)

    @property
    def name(self) -> str:
        """The name of the requests that it answers."""
        return self._name

    @property
    def active(self) -> bool:
        """True while it is called for requests."""
        return self._answers.get(self._name) is self

    def cancel(self) -> None:
        """Stop answering; requests that are under way go on."""
        self._answers.discard(self)

    def __call__(self, request: Request) -> Awaitable[bytes | None] | bytes | None:
        return self._handler(request)

    def __repr__(self) -> str:
        state = "" if self.active else ", cancelled"
        return f"<Answer to {self._name!r} by {self._handler!r}{state}>"

    async def _reply(self, request: Request) -> bytes:
        async with self._places:
            result = self._context.copy().run(self._handler, request)
            if inspect.isawaitable(result):
                loop = asyncio.get_running_loop()
                task = loop.create_task(_awaited(result), context=self._context.copy())
                try:
                    result = await task
                finally:
                    task.cancel()
        if result is None:
            return b""
        if not isinstance(result, bytes):
            raise TypeError(f"an answer must return bytes or None, not {type(result).__name__}")
        if len(result) > MAX_DATA:
            raise MessageTooLargeError(len(result), MAX_DATA)
        return result


async def _awaited(result: Awaitable[bytes | None]) -> bytes | None:
    return await result


class _Room:
    """Counts the bytes of requests, of each peer and of all."""

    def __init__(self) -> None:
        self._of_peer: dict[str, int] = {}

    def take(self, peer: str, count: int) -> bool:
        """Take room for a peer, unless it has its share of it."""
        rest = MAX_HELD - sum(self._of_peer.values()) - count
        taken = self._of_peer.get(peer, 0) + count
        if taken > rest // 2:
            return False
        self._of_peer[peer] = taken
        return True

    def give_back(self, peer: str, count: int) -> None:
        """Give back what was taken."""
        left = self._of_peer.pop(peer, 0) - count
        if left > 0:
            self._of_peer[peer] = left


class Answers:
    """The answers of one node, by name, and the handler of the protocol that they share."""

    def __init__(self) -> None:
        self._by_name: dict[str, Answer] = {}
        self._room = _Room()

    def get(self, name: str) -> Answer | None:
        """Return the answer to a name."""
        return self._by_name.get(name)

    def add(self, name: str, handler: AnswerHandler, concurrency: int) -> Answer:
        """Register an answer.

        Raises:
            ConfigurationError: The name is answered already, or a value is outside its limits.
            TypeError: An argument has the wrong type.
        """
        encode_name(name)
        require("concurrency", concurrency, int)
        if concurrency < 1:
            raise ConfigurationError("concurrency", f"must be at least 1, is {concurrency}")
        require_callable("handler", handler)
        if name in self._by_name:
            raise ConfigurationError("name", f"{name!r} is answered already")
        answer = self._by_name[name] = Answer(self, name, handler, concurrency)
        return answer

    def discard(self, answer: Answer) -> None:
        """Stop answering with this one."""
        if self._by_name.get(answer.name) is answer:
            del self._by_name[answer.name]

    async def handle(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Read one request of a stream, and write the reply to it."""
        taken = 0
        try:
            async with asyncio.timeout(_HEADER_TIMEOUT):
                header = _REQUEST.unpack(await reader.readexactly(_REQUEST.size))
                version, name_size, limit_ms, size = header
                if version != _VERSION or size > MAX_DATA:
                    writer.reset(2, f"version {version} with {size} bytes is not understood here")
                    return None
                name = (await reader.readexactly(name_size)).decode(errors="replace")
                pieces: list[bytes] = []
                while taken < size:
                    piece = await reader.readexactly(min(_PIECE, size - taken))
                    if not self._room.take(reader.peer, len(piece)):
                        pieces.clear()
                        return await _write(writer, _FAILED, _OVERLOADED)
                    taken += len(piece)
                    pieces.append(piece)
            data = b"".join(pieces)
            del pieces
            answer = self.get(name)
            if answer is None:
                return await _write(writer, _NO_ANSWER, b"")
            limit = limit_ms / 1000 if limit_ms else None
            deadline = None if limit is None else asyncio.get_running_loop().time() + limit
            request = Request(reader.peer, name, data, deadline)
            code, body = await self._work(answer, request, limit, reader)
            return await _write(writer, code, body)
        except (TimeoutError, asyncio.IncompleteReadError):
            # What a peer does not send is no failure of this node, and no line of its log.
            writer.reset(2, f"the request was not whole at its end, or after {_HEADER_TIMEOUT:g} s")
        finally:
            self._room.give_back(reader.peer, taken)

    @staticmethod
    async def _work(
        answer: Answer, request: Request, limit: float | None, reader: StreamReader
    ) -> tuple[int, bytes]:
        loop = asyncio.get_running_loop()
        working = loop.create_task(answer._reply(request))  # noqa: SLF001  # its other half
        # The asking node sends nothing more, so a read returns only when it has given up.
        listening = loop.create_task(reader.read(1))
        patience = asyncio.timeout(limit)
        try:
            async with patience:
                await asyncio.wait({working, listening}, return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                working.cancel()
                await asyncio.wait({working})
                return _FAILED, b"CancelledError\0the asking node gave up"
            if working.cancelled():
                return _FAILED, b"CancelledError\0the handler was cancelled"
            return _DONE, working.result()
        except TimeoutError as error:
            if patience.expired():
                return _TOO_LATE, b""
            return _FAILED, _describe(error)
        except Exception as error:  # noqa: BLE001  # whatever it is, the asking node hears of it
            return _FAILED, _describe(error)
        finally:
            working.cancel()
            listening.cancel()
            await asyncio.gather(working, listening, return_exceptions=True)


def _describe(error: BaseException) -> bytes:
    try:
        text = str(error)
    except Exception:  # noqa: BLE001  # the class is the application's
        text = "it has no text, because its __str__ failed"
    kind = type(error).__name__.encode(errors="replace")
    return kind[:_MAX_REASON] + b"\0" + text.encode(errors="replace")[:_MAX_REASON]


async def _write(writer: StreamWriter, code: int, body: bytes) -> None:
    writer.write(_REPLY.pack(code, len(body)) + body)
    await writer.drain()


def encode_name(name: object) -> bytes:
    """Return a request's name as it is sent.

    Raises:
        TypeError: It is no text.
        ConfigurationError: It is empty, over its limit, or no valid Unicode.
    """
    encoded = require_text("name", name)
    if not 1 <= len(encoded) <= MAX_NAME:
        raise ConfigurationError("name", f"must be 1 to {MAX_NAME} bytes, is {len(encoded)}")
    return encoded


def check_data(data: object) -> bytes:
    """Return a request's bytes.

    Raises:
        TypeError: They are no bytes.
        MessageTooLargeError: They are over their limit; nothing was sent.
    """
    if not isinstance(data, bytes | bytearray | memoryview):
        raise TypeError(f"data must be bytes, bytearray or memoryview, not {type(data).__name__}")
    if memoryview(data).nbytes > MAX_DATA:
        raise MessageTooLargeError(memoryview(data).nbytes, MAX_DATA)
    return bytes(data)


async def ask(
    ends: tuple[StreamReader, StreamWriter],
    name: str,
    data: bytes,
    timeout: float | None,  # noqa: ASYNC109  # it travels to the peer
) -> bytes:
    """Send a request over a stream, and wait for the reply.

    A cancelled wait resets the stream, which cancels the handler.
    """
    reader, writer = ends
    encoded = encode_name(name)
    limit_ms = 0 if timeout is None else min(max(1, int(timeout * 1000)), 2**32 - 1)
    try:
        writer.write(_REQUEST.pack(_VERSION, len(encoded), limit_ms, len(data)) + encoded + data)
        # A peer that has replied stops reading. If there is no reply, the reader says why.
        with contextlib.suppress(StreamResetError):
            await writer.drain()
        code, size = _REPLY.unpack(await reader.readexactly(_REPLY.size))
        # What is over the limit is not read: the code then says that the reply is refused.
        body = b"" if size > MAX_DATA else await reader.readexactly(size)
    except asyncio.IncompleteReadError:
        writer.reset(1, "no reply came")
        raise RequestFailedError(reader.peer, name, "EOFError", "it closed the stream") from None
    except BaseException:
        writer.reset(3, "the request was given up")
        raise
    if size > MAX_DATA:
        writer.reset(2, "the reply is over the limit")
        raise RequestFailedError(reader.peer, name, "MessageTooLargeError", f"{size} bytes")
    writer.close()
    if code == _DONE:
        return body
    if code == _NO_ANSWER:
        raise NotAnsweredError(reader.peer, name)
    if code == _TOO_LATE:
        raise RequestTimeoutError(f"peer {reader.peer[:10]} gave {name!r} up at its deadline")
    kind, _, text = body.decode(errors="replace").partition("\0")
    raise RequestFailedError(reader.peer, name, kind, text)
