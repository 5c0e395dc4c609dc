"""Callbacks for code without asyncio: each on a daemon thread of its own."""

import contextvars
import logging
import threading
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from iroh_gossip_discovery._core import Message, MessagesLost
from iroh_gossip_discovery._events import Event, Heard
from iroh_gossip_discovery.blocking._iterators import EventStream, MessageEventStream

E = TypeVar("E", bound=Heard, contravariant=True)  # noqa: PLC0105  # one name in all modules

_logger = logging.getLogger("iroh_gossip_discovery")


class Registration(Generic[E]):
    """A registered callback: calls it when called, and unregisters it with `cancel`.

    It has a daemon thread of its own, so it may block. Its calls never overlap and come in the
    order of the events, in a copy of the context that `on` was called in. An exception is logged to
    `iroh_gossip_discovery` at level ERROR, and the next event comes all the same.
    """

    __slots__ = ("_active", "_callback", "_context", "_kinds", "_stream")

    def __init__(self, kinds: tuple[type[Heard], ...], callback: Callable[[E], object]) -> None:
        self._kinds = kinds
        self._callback = callback
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

    def __call__(self, event: E) -> object:
        return self._callback(event)

    def __repr__(self) -> str:
        kinds = " | ".join(kind.__name__ for kind in self._kinds)
        state = "" if self._active else ", cancelled"
        return f"<Registration of {self._callback!r} for {kinds}{state}>"

    @property
    def _of_messages(self) -> bool:
        return Message in self._kinds or MessagesLost in self._kinds

    def _begin(
        self, known: list[Event], stream: EventStream | MessageEventStream
    ) -> threading.Thread | None:
        """Call the callback for these events and those of the stream, unless it was cancelled."""
        self._stream = stream
        if not self._active:
            stream.close()
            return None
        thread = threading.Thread(
            target=lambda: self._context.run(self._run, known, stream),
            name="iroh-gossip-discovery-callback",
            daemon=True,
        )
        thread.start()
        return thread

    def _run(self, known: list[Event], stream: EventStream | MessageEventStream) -> None:
        streams: tuple[Iterable[Heard], ...] = (known, stream)
        for events in streams:
            for event in events:
                if not self._active:
                    break
                if isinstance(event, self._kinds):
                    self._call(event)
        self._active = False

    def _call(self, event: Heard) -> None:
        try:
            self._callback(event)  # type: ignore[arg-type]  # its caller has looked
        except BaseException:  # a `sys.exit()` too: it would end the callback without a word
            kind = type(event).__name__
            _logger.exception("a callback for %s failed: %r", kind, self._callback)
