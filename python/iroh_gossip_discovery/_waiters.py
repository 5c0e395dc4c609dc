"""`Waiters`: the tasks that wait until the core has something to take."""

import asyncio


class Waiters:
    """The callback that Rust calls once there is something to do.

    It knows the tasks that wait, and not the object that they wait for, so a forgotten iterator or
    stream is freed although Rust still holds this callback.
    """

    __slots__ = ("_futures", "armed")

    def __init__(self) -> None:
        self.armed = False
        self._futures: set[asyncio.Future[None]] = set()

    def __call__(self) -> None:
        self.armed = False
        self.wake()

    def __bool__(self) -> bool:
        """Return true if a task waits."""
        return bool(self._futures)

    def wake(self) -> None:
        """Wake every task that waits; each then checks again what it waits for."""
        for future in self._futures:
            if not future.done():
                future.set_result(None)

    async def wait(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wait until the next call of `wake`."""
        future = loop.create_future()
        self._futures.add(future)
        try:
            await future
        finally:
            self._futures.discard(future)
