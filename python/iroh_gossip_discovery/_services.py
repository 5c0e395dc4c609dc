"""Serving a protocol: a handler is called for each stream of it that a peer opens."""

import asyncio
import contextvars
import inspect
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from iroh_gossip_discovery._core import Node, Reader, Writer
from iroh_gossip_discovery._errors import PeerUnreachableError, StreamResetError
from iroh_gossip_discovery._iterators import Stream
from iroh_gossip_discovery._streams import StreamReader, StreamWriter, halves

Handler: TypeAlias = Callable[[StreamReader, StreamWriter], Awaitable[object] | object]
"""Takes both halves of a stream; if it returns an awaitable, the stream ends with that."""


class _Incoming(Stream[tuple[Reader, Writer], tuple[Reader, Writer]]):
    """The streams that peers open."""

    __slots__ = ()

    def _take(self, items: list[tuple[Reader, Writer]]) -> None:
        self._items.extend(items)


class Service:
    """A served protocol: calls its handler for each stream, and `cancel` ends that.

    Each call of a coroutine function is a task of its own, in a copy of the context that
    `GossipDiscovery.serve` was called in. When it returns, the stream is closed; when it raises,
    the stream is reset with code 1, and the exception goes to the loop's exception handler, unless
    it says only that the peer is gone. A plain function keeps the stream until it closes it.
    """

    __slots__ = ("_active", "_context", "_handler", "_limit", "_protocol", "_stream", "_tasks")

    def __init__(
        self,
        protocol: str | bytes,
        handler: Handler,
        limit: int,
        tasks: set[asyncio.Task[None]],
    ) -> None:
        self._protocol = protocol
        self._handler = handler
        self._limit = limit
        self._context = contextvars.copy_context()
        self._stream: _Incoming | None = None
        self._tasks = tasks  # of all callbacks and services: who closes waits for them
        self._active = True

    @property
    def protocol(self) -> str | bytes:
        """The protocol, as it was given."""
        return self._protocol

    @property
    def active(self) -> bool:
        """True while it is served."""
        return self._active

    def cancel(self) -> None:
        """Stop serving the protocol, and announce that; open streams go on."""
        self._active = False
        if self._stream is not None:
            self._stream.close()

    def __call__(self, reader: StreamReader, writer: StreamWriter) -> Awaitable[object] | object:
        return self._handler(reader, writer)

    def __repr__(self) -> str:
        state = "" if self._active else ", cancelled"
        return f"<Service of {self._protocol!r} by {self._handler!r}{state}>"

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, incoming: _Incoming) -> None:
        loop = asyncio.get_running_loop()
        async for core in incoming:
            handling = self._handle(*halves(core, self._protocol, self._limit))
            self._keep(loop.create_task(handling, context=self._context.copy()))
        self._active = False

    async def _handle(self, reader: StreamReader, writer: StreamWriter) -> None:
        try:
            result = self._handler(reader, writer)
            if not inspect.isawaitable(result):
                return
            await result
        except asyncio.CancelledError:
            writer.reset(1, "the handler was cancelled")
            raise
        except Exception as error:  # noqa: BLE001  # whatever it is, it is the application's
            writer.reset(1, "the handler failed")
            gone = (
                isinstance(error, StreamResetError | PeerUnreachableError)
                and error.peer == writer.peer
            )
            if not gone:
                asyncio.get_running_loop().call_exception_handler(
                    {
                        "message": f"a handler of {self._protocol!r} failed: {self._handler!r}",
                        "exception": error,
                    }
                )
        else:
            writer.close()


def start(service: Service, node: Node) -> None:
    """Serve from now on, unless it was cancelled."""
    # These parts of a service are private for its holder, but not for this module.
    if service.active:
        service._stream = incoming = _Incoming(node.serve(service.protocol))  # noqa: SLF001
        run = service._run(incoming)  # noqa: SLF001
        loop = asyncio.get_running_loop()
        service._keep(loop.create_task(run, context=service._context))  # noqa: SLF001
