"""The `admit` callback: asked whether a node may be a member here."""

import asyncio
import contextvars
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

from iroh_gossip_discovery._core import Peer, Question, Questions

# As many as the core asks at a time, and as long as it waits. A callback that does not end when it
# is cancelled keeps its place.
CONCURRENT = 16
_TIMEOUT = 10.0


@dataclass(frozen=True, slots=True)
class Newcomer:
    """A node that wants to be a member here, as far as it is known.

    Args:
        id: Its endpoint id, 64 lower-case hex digits: its public key.
        addresses: Where it is, as far as known: the far end of its connection, and what it or the
            user claims. Only the far end of a connection is proven.
        peer: What it says of itself: name, metadata and protocols, signed by it. `None` if it
            opened a link before anybody told of it.
    """

    id: str
    addresses: tuple[str, ...]
    peer: Peer | None


Admit: TypeAlias = Callable[[Newcomer], Awaitable[bool] | bool]
"""Takes a `Newcomer` and returns whether it may be a member here."""


async def answer_questions(questions: Questions, admit: Admit) -> None:
    """Call the callback for each question, in tasks of their own, until this is cancelled."""
    loop, context = asyncio.get_running_loop(), contextvars.copy_context()
    reported: set[type[Exception]] = set()
    tasks: set[asyncio.Task[None]] = set()
    try:
        while True:
            if len(tasks) >= CONCURRENT:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            question = await questions.next()
            answering = _answer(question, admit, reported)
            task = loop.create_task(answering, context=context.copy())
            tasks.add(task)
            task.add_done_callback(tasks.discard)
    finally:
        for task in tasks:
            task.cancel()


async def _answer(question: Question, admit: Admit, reported: set[type[Exception]]) -> None:
    newcomer = Newcomer(question.id, question.addresses, question.peer)
    try:
        async with asyncio.timeout(_TIMEOUT):
            answer = admit(newcomer)
            if inspect.isawaitable(answer):
                answer = await answer
        question.answer(_yes_or_no(answer))
    except Exception as error:  # noqa: BLE001  # whatever it is, it is the application's
        question.fail(f"{type(error).__name__}: {error}")
        # With its traceback once: a flood of newcomers is no flood of tracebacks.
        if type(error) not in reported:
            reported.add(type(error))
            asyncio.get_running_loop().call_exception_handler(
                {"message": f"the admit callback failed: {admit!r}", "exception": error}
            )


def _yes_or_no(answer: object) -> bool:
    if not isinstance(answer, bool):
        raise TypeError(f"admit must return bool, not {type(answer).__name__}")
    return answer
