"""Stopping by a signal: SIGTERM and Ctrl-C end a block, so that the code around it can clean up."""

import asyncio
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Self, TypeAlias

from iroh_gossip_discovery._errors import ConfigurationError

DEFAULT_SIGNALS = (signal.SIGINT, signal.SIGTERM)

_Previous: TypeAlias = Callable[[int, FrameType | None], object] | int | None


def check_signals(numbers: tuple[int, ...]) -> tuple[signal.Signals, ...]:
    """Return the signals to handle; SIGINT and SIGTERM by default.

    Raises:
        ConfigurationError: A number is that of no signal.
        RuntimeError: This is not the main thread, where alone signals are handled.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("signals are handled in the main thread only: call it there")
    try:
        return tuple(signal.Signals(number) for number in numbers or DEFAULT_SIGNALS)
    except ValueError as error:
        raise ConfigurationError("signals", f"has none of this system in it: {error}") from None


class _Handlers:
    """Handlers of signals, and those that were there before."""

    __slots__ = ("_previous",)

    def __init__(self) -> None:
        self._previous: dict[signal.Signals, _Previous] = {}

    def install(
        self, numbers: tuple[signal.Signals, ...], handler: Callable[[int, FrameType | None], None]
    ) -> None:
        for number in numbers:
            self._previous[number] = signal.signal(number, handler)

    def restore(self) -> None:
        for number, previous in self._previous.items():
            # `None` means that the handler was not installed from Python, so it can't be restored.
            signal.signal(number, signal.SIG_DFL if previous is None else previous)
        self._previous.clear()


class StopOnSignals:
    """A block that the first signal ends, for asyncio: made by `stop_on_signals()`.

    The first signal cancels the task that runs the block, wherever it waits, and the block ends
    without an exception. After that the handlers that were there before are back, so a second
    Ctrl-C interrupts a goodbye that takes too long.
    """

    __slots__ = ("_handlers", "_numbers", "_signal", "_task")

    def __init__(self, numbers: tuple[signal.Signals, ...]) -> None:
        self._numbers = numbers
        self._handlers = _Handlers()
        self._signal: signal.Signals | None = None
        self._task: asyncio.Task[object] | None = None

    @property
    def signal(self) -> signal.Signals | None:
        """The signal that has come; `None` if none has."""
        return self._signal

    def __enter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._task = task = asyncio.current_task()

        def stop(number: int) -> None:
            if self._signal is None and task is not None:
                self._signal = signal.Signals(number)
                self._handlers.restore()
                task.cancel()

        def handle(number: int, _frame: FrameType | None) -> None:
            loop.call_soon_threadsafe(stop, number)

        self._handlers.install(self._numbers, handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        self._handlers.restore()
        if self._signal is None or self._task is None:
            return False
        # If other code cancelled the task too, it stays cancelled.
        others = self._task.uncancel()
        return isinstance(error, asyncio.CancelledError) and others == 0


class _Stopped(BaseException):
    """A signal has come. It is no `Exception`, so that no `except Exception` catches it."""


class BlockingStopOnSignals:
    """A block that the first signal ends: made by `stop_on_signals()`.

    The first signal ends the block wherever it is, without an exception outside. After that the
    handlers that were there before are back.
    """

    __slots__ = ("_handlers", "_numbers", "_signal")

    def __init__(self, numbers: tuple[signal.Signals, ...]) -> None:
        self._numbers = numbers
        self._handlers = _Handlers()
        self._signal: signal.Signals | None = None

    @property
    def signal(self) -> signal.Signals | None:
        """The signal that has come; `None` if none has."""
        return self._signal

    def __enter__(self) -> Self:
        def handle(number: int, _frame: FrameType | None) -> None:
            self._signal = signal.Signals(number)
            self._handlers.restore()
            raise _Stopped

        self._handlers.install(self._numbers, handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        self._handlers.restore()
        return isinstance(error, _Stopped)


class BeforeSignals:
    """Calls a function as soon as a signal comes, before the earlier handlers.

    Args:
        early: Called on the loop that runs when the block is entered.
    """

    __slots__ = ("_early", "_handlers")

    def __init__(self, early: Callable[[], object]) -> None:
        self._early = early
        self._handlers = _Handlers()

    def __enter__(self) -> Self:
        if threading.current_thread() is not threading.main_thread():
            return self
        loop = asyncio.get_running_loop()
        previous = {number: signal.getsignal(number) for number in DEFAULT_SIGNALS}

        def handle(number: int, frame: FrameType | None) -> None:
            loop.call_soon_threadsafe(self._early)
            then = previous[signal.Signals(number)]
            if callable(then):
                then(number, frame)
            elif then == signal.SIG_DFL:
                self._handlers.restore()
                signal.raise_signal(number)

        self._handlers.install(DEFAULT_SIGNALS, handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._handlers.restore()
