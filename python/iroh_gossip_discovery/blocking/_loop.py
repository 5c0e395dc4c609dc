"""The event loop behind all calls that block: one for the process, on a daemon thread."""

import asyncio
import atexit
import contextlib
import os
import sys
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Generic, TypeVar
from weakref import WeakSet

from iroh_gossip_discovery._discovery import GossipDiscovery
from iroh_gossip_discovery._errors import NotRunningError

T = TypeVar("T")

# Seconds that nodes have to close at the interpreter's exit, beyond their `leave_timeout`.
_CLOSE = 1.5
_EXITS = "the interpreter exits: nothing runs any more"


class LoopThread:
    """An event loop on a daemon thread of its own.

    One serves all nodes of the process: it only carries calls and wake-ups, while the network's
    work is done in Rust, and no code of the application runs on it but for bootstrap lookups.
    """

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._nodes: WeakSet[GossipDiscovery] = WeakSet()
        self._exits = False
        self._thread = threading.Thread(
            target=self._run, name="iroh-gossip-discovery-blocking", daemon=True
        )
        self._thread.start()

    def _run(self) -> None:
        # A `sys.exit()` in a function of the application, which runs here for a moment, ends that
        # task. It must not end the loop, on which all nodes of the process depend.
        running = True
        while running:
            try:
                self._loop.run_forever()
                running = False
            except (SystemExit, KeyboardInterrupt):
                continue

    def wait(self, work: Callable[[], Awaitable[T]]) -> T:
        """Await `work()` on the loop and return its result; an interrupt cancels it."""
        call = _Call(work)
        try:
            self._loop.call_soon_threadsafe(call.begin)
        except RuntimeError:
            raise NotRunningError(_EXITS) from None
        try:
            return call.result.result()
        except BaseException:
            self.soon(call.cancel)  # Ctrl-C; where it is what was raised there, this does nothing
            raise

    def soon(self, call: Callable[[], object]) -> None:
        """Call a function on the loop; at the end of the process this does nothing."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call)

    def close_at_exit(self, node: GossipDiscovery) -> None:
        """Let a node say goodbye when the interpreter exits, unless it is closed before."""
        if not self._exits:
            # After the first start, so that it is called before the extension shuts its gate.
            atexit.register(self._exit)
            self._exits = True
        self._nodes.add(node)

    def _exit(self) -> None:
        if _state.thread is not self:
            return  # in a forked child: the nodes are the parent's
        nodes = list(self._nodes)
        if nodes:
            most = max(node.config.leave_timeout for node in nodes) + _CLOSE

            async def close() -> None:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(most):
                        await asyncio.gather(*(node.close() for node in nodes))

            self.wait(close)
        self.wait(self._cancel_rest)
        self.soon(self._loop.stop)
        self._thread.join(_CLOSE)
        if not self._thread.is_alive():
            self._loop.close()

    @staticmethod
    async def _cancel_rest() -> None:
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.wait(rest, timeout=_CLOSE) if rest else None


class _Call(Generic[T]):
    """Work to be awaited on the loop; it is made there, so an interrupt leaves no half of it."""

    __slots__ = ("_task", "_work", "result")

    def __init__(self, work: Callable[[], Awaitable[T]]) -> None:
        self._work = work
        self._task: asyncio.Task[None] | None = None
        self.result: Future[T] = Future()

    def begin(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    def cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        try:
            result = await self._work()
        except asyncio.CancelledError:
            # It was cancelled by an interrupt, after which no one reads the result, or by the exit.
            self.result.set_exception(NotRunningError(_EXITS))
            raise
        except BaseException as error:  # noqa: BLE001  # the waiting thread gets it
            self.result.set_exception(error)
        else:
            self.result.set_result(result)


class _State:
    """The process' thread, and the lock under which it is started."""

    __slots__ = ("lock", "thread")

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Let a forked child start a thread of its own, because its parent's does not run there."""
        self.lock = threading.Lock()
        self.thread: LoopThread | None = None


_state = _State()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_state.forget)


def loop_thread() -> LoopThread:
    """Return the process' thread; start it if need be."""
    with _state.lock:
        if _state.thread is None:
            _state.thread = LoopThread()
        return _state.thread


def wait(work: Callable[[], Awaitable[T]]) -> T:
    """Await `work()` on the process' loop, and return its result.

    Raises:
        RuntimeError: The caller runs on an event loop, which would be blocked meanwhile.
    """
    _refuse_patched_threads()
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        raise RuntimeError(
            "this call blocks, and would stop the event loop that it is made on: use "
            "iroh_gossip_discovery.GossipDiscovery there, or asyncio.to_thread"
        )
    return loop_thread().wait(work)


def _refuse_patched_threads() -> None:
    """Refuse to begin if a monkey patch has made threads of a process into coroutines.

    Raises:
        RuntimeError: It says by what, and what to do: the loop would wait for itself.
    """
    gevent, eventlet = sys.modules.get("gevent.monkey"), sys.modules.get("eventlet.patcher")
    patched = {
        "gevent": gevent is not None and bool(getattr(gevent, "saved", None)),
        "eventlet": eventlet is not None and bool(getattr(eventlet, "already_patched", None)),
    }
    for library, is_patched in patched.items():
        if is_patched:
            raise RuntimeError(
                f"{library} has patched this process' threads or sockets, on which the event loop "
                "would wait for ever: run the node in a process of its own (multiprocessing with "
                "the method spawn), or serve with workers that need no patch, such as gunicorn's "
                "gthread"
            )


async def in_thread(call: Callable[[], T]) -> T:
    """Call a function on a new daemon thread, which does not delay the interpreter's exit."""
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()  # a cancel ends the wait, but not the call

    def run() -> None:
        try:
            result = call()
        except Exception as error:  # noqa: BLE001  # the waiting task gets it
            future.set_exception(error)
        except BaseException as error:  # noqa: BLE001  # as itself, it would end the waiting loop
            future.set_exception(RuntimeError(f"{type(error).__name__}: {error}"))
        else:
            future.set_result(result)

    threading.Thread(target=run, name="iroh-gossip-discovery-call", daemon=True).start()
    return await asyncio.wrap_future(future)
