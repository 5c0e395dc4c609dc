"""Answering requests in code without asyncio: each call of a handler on a thread of its own."""

import contextvars
from collections.abc import Callable
from typing import Final, TypeAlias

from iroh_gossip_discovery import _requests
from iroh_gossip_discovery._requests import Request
from iroh_gossip_discovery.blocking._loop import in_thread
from iroh_gossip_discovery.blocking._waits import Waits, on_loop

AnswerHandler: TypeAlias = Callable[[Request], bytes | None]
"""Takes a request, and returns the reply: bytes, or `None` for an empty one; it may block."""


class Answer(Waits[_requests.Answer]):
    """A registered answer: its handler is called for each request of a name, until `cancel`.

    Each call has a daemon thread of its own, in a copy of the context that `answer` was called in.
    When the asking node gives up or its deadline passes, the reply is dropped; the thread runs on.
    """

    __slots__ = ("_handler",)

    def __init__(self, awaited: _requests.Answer, handler: AnswerHandler) -> None:
        super().__init__(awaited)
        self._handler = handler

    @property
    def name(self) -> str:
        """The name of the requests that it answers."""
        return self._awaited.name

    @property
    def active(self) -> bool:
        """True while it is called for requests."""
        return self._awaited.active

    cancel: Final = on_loop(_requests.Answer.cancel)

    def __call__(self, request: Request) -> bytes | None:
        return self._handler(request)

    def __repr__(self) -> str:
        state = "" if self.active else ", cancelled"
        return f"<Answer to {self.name!r} by {self._handler!r}{state}>"


def in_threads(handler: AnswerHandler) -> _requests.AnswerHandler:
    """Make an awaitable handler of one that blocks; each call gets a thread of its own."""
    context = contextvars.copy_context()

    async def handle(request: Request) -> bytes | None:
        copy = context.copy()
        return await in_thread(lambda: copy.run(handler, request))

    return handle
