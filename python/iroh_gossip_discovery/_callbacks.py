"""Callbacks: a function or coroutine function, called for events of some kinds, in their order."""

import asyncio
import contextvars
import inspect
from collections.abc import Awaitable, Callable
from types import UnionType
from typing import Generic, TypeAlias, TypeVar, get_args

from iroh_gossip_discovery._core import Message, MessagesLost, Node, PeerJoined
from iroh_gossip_discovery._errors import ConfigurationError
from iroh_gossip_discovery._events import Event, Heard
from iroh_gossip_discovery._iterators import EventStream, MessageEventStream
from iroh_gossip_discovery._printable import shortened
from iroh_gossip_discovery._snapshot import peers_of

E = TypeVar("E", bound=Heard)
E_contra = TypeVar("E_contra", bound=Heard, contravariant=True)

Callback: TypeAlias = Callable[[E], Awaitable[object] | object]
"""Takes an event; if it returns an awaitable, that is awaited before the next event."""

_KINDS = get_args(Event)
_MESSAGES = (Message, MessagesLost)


class Registration(Generic[E_contra]):
    """A registered callback: calls it when called, and unregisters it with `cancel`.

    Calls of one callback never overlap and come in the order of the events; callbacks do not wait
    for each other. They run on the loop, in the context that `GossipDiscovery.on` was called in. An
    exception goes to the loop's exception handler, and the next event comes all the same.
    """

    __slots__ = ("_active", "_callback", "_channel", "_context", "_kinds", "_stream")

    def __init__(
        self, kinds: tuple[type[Heard], ...], callback: Callback[E_contra], channel: str | None
    ) -> None:
        self._kinds = kinds
        self._callback = callback
        self._channel = channel
        self._context = contextvars.copy_context()
        self._stream: EventStream | MessageEventStream | None = None
        self._active = True

    @property
    def active(self) -> bool:
        """True while the callback may still be called."""
        return self._active

    def cancel(self) -> None:
        """Unregister the callback; a call that has begun still completes."""
        self._active = False
        if self._stream is not None:
            self._stream.close()

    def __call__(self, event: E_contra) -> Awaitable[object] | object:
        return self._callback(event)

    def __repr__(self) -> str:
        kinds = " | ".join(kind.__name__ for kind in self._kinds)
        state = "" if self._active else ", cancelled"
        return f"<Registration of {self._callback!r} for {kinds}{state}>"

    async def _run(self, stream: EventStream | MessageEventStream) -> None:
        task = asyncio.current_task()
        async for event in stream:
            if not isinstance(event, self._kinds):
                continue
            try:
                result = self._callback(event)  # type: ignore[arg-type]  # checked a line above
                if inspect.isawaitable(result):
                    await result
            except asyncio.CancelledError as error:
                if task is not None and task.cancelling():
                    raise
                self._report(event, error)
            except Exception as error:  # noqa: BLE001  # whatever it is, it is the application's
                self._report(event, error)
        self._active = False

    def _report(self, event: Heard, error: BaseException) -> None:
        asyncio.get_running_loop().call_exception_handler(
            {
                "message": f"a callback for {type(event).__name__} failed: {self._callback!r}",
                "exception": error,
            }
        )


def start(
    registration: Registration[E], node: Node, *, known: bool = False
) -> asyncio.Task[None] | None:
    """Call a registration's callback from now on, in a task of its own, unless it was cancelled.

    With `known`, the callback first gets a join of each peer in the book, so that a callback that
    was registered before the start misses no peer that came while the node started.
    """
    # These parts of a registration are private for its holder, but not for this module.
    if not registration.active:
        return None
    kinds, channel = registration._kinds, registration._channel  # noqa: SLF001
    stream = _stream_of(kinds, channel, node, known=known)
    registration._stream = stream  # noqa: SLF001
    run = registration._run(stream)  # noqa: SLF001
    return asyncio.get_running_loop().create_task(run, context=registration._context)  # noqa: SLF001


def _stream_of(
    kinds: tuple[type[Heard], ...], channel: str | None, node: Node, *, known: bool
) -> EventStream | MessageEventStream:
    if Message in kinds or MessagesLost in kinds:
        return MessageEventStream(node.messages(channel))
    peers, subscription = node.subscribe()
    stream = EventStream(subscription)
    if known:
        stream._take([PeerJoined(peer) for peer in peers_of(peers)])  # noqa: SLF001
    return stream


def event_kinds(kinds: object, channel: object = None) -> tuple[type[Heard], ...]:
    """Return the event types of a type, a tuple of types or a union of types.

    Raises:
        TypeError: It is none of these, names something that is no event, or mixes messages with
            events.
        ConfigurationError: There is a channel, and the types are not those of messages.
    """
    if isinstance(kinds, UnionType):
        kinds = get_args(kinds)
    chosen: tuple[object, ...] = kinds if isinstance(kinds, tuple) else (kinds,)
    if chosen and all(kind in _MESSAGES for kind in chosen):
        return tuple(kind for kind in _MESSAGES if kind in chosen)
    if not chosen or not all(kind in _KINDS for kind in chosen):
        names = ", ".join(kind.__name__ for kind in _KINDS)
        raise TypeError(
            f"event must be one of {names}, or a tuple or union of them; or Message, "
            f"MessagesLost or both; not {shortened(repr(kinds))}"
        )
    if channel is not None:
        raise ConfigurationError("channel", "is for Message and MessagesLost only")
    return tuple(kind for kind in _KINDS if kind in chosen)
