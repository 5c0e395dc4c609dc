"""`FirstContact`: lets an iterator wait until its node has met the topic, or is alone."""

import asyncio
from collections.abc import Callable

from iroh_gossip_discovery._core import Node


class FirstContact:
    """Waits in the background, so that the iterator can still be closed, or its wait cancelled.

    Args:
        node: The node.
        then: Called once the contact is made, or will never be.
    """

    __slots__ = ("_begun", "_node", "_then", "done")

    def __init__(self, node: Node, then: Callable[[], object]) -> None:
        self._node: Node | None = node
        self._then = then
        self._begun: asyncio.Future[tuple[str | None, list[tuple[str, str]]]] | None = None
        self.done = False

    def begin(self) -> None:
        """Begin to wait, on the running loop; more calls do nothing."""
        if self._begun is None and self._node is not None:
            self._begun = self._node.joined()
            self._begun.add_done_callback(self._end)

    def close(self) -> None:
        """Stop waiting."""
        self._node = None
        if self._begun is not None:
            self._begun.cancel()

    def _end(self, future: asyncio.Future[tuple[str | None, list[tuple[str, str]]]]) -> None:
        if not future.cancelled():
            future.exception()  # the topic was left: the iterator ends by itself
            self.done = True
            self._then()
