"""Makes a class that blocks of one that is awaited, with one line for each method."""

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import Concatenate, Generic, ParamSpec, TypeVar

from iroh_gossip_discovery.blocking._loop import wait

A = TypeVar("A")
P = ParamSpec("P")
T = TypeVar("T")


class Waits(Generic[A]):
    """Holds an object whose methods are awaited, and blocks for their results.

    Args:
        awaited: What does the work, on the process' loop.
    """

    __slots__ = ("_awaited", "_patience")

    def __init__(self, awaited: A) -> None:
        self._awaited = awaited
        # Most seconds that a call waits, beside what limits it has itself.
        self._patience: float | None = None

    async def _limited(self, work: Awaitable[T]) -> T:
        async with asyncio.timeout(self._patience):
            return await work


def waits(
    method: Callable[Concatenate[A, P], Awaitable[T]],
) -> Callable[Concatenate[Waits[A], P], T]:
    """Make a method that blocks of one that is awaited, with its documentation."""

    @functools.wraps(method)
    def call(self: Waits[A], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return wait(lambda: self._limited(method(self._awaited, *args, **kwargs)))

    call.__doc__ = (method.__doc__ or "").replace("await ", "")
    return call


def on_loop(method: Callable[Concatenate[A, P], T]) -> Callable[Concatenate[Waits[A], P], T]:
    """Make a method that is called on the loop, because only there it may wake a task."""

    @functools.wraps(method)
    def call(self: Waits[A], /, *args: P.args, **kwargs: P.kwargs) -> T:
        async def work() -> T:
            return method(self._awaited, *args, **kwargs)

        return wait(work)

    return call
