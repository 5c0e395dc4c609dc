"""Views for code without asyncio: the same, but for the iterator of changes."""

from collections.abc import Iterable, Mapping
from typing import TypeVar

from iroh_gossip_discovery import _views
from iroh_gossip_discovery._core import Selection
from iroh_gossip_discovery._shared_node import SharedNode
from iroh_gossip_discovery.blocking._iterators import OwnershipStream
from iroh_gossip_discovery.blocking._loop import wait

K = TypeVar("K", bound=str | bytes)


class View(_views.View):
    """As `iroh_gossip_discovery.View`, with an iterator of ownership changes that blocks."""

    __slots__ = ()

    def named(self, name: str) -> "View":
        """Return a view of those nodes of this view that have a name."""
        return self._like(super().named(name))

    def where(
        self, metadata: Mapping[str, str | None] | None = None, /, **equal: str | None
    ) -> "View":
        """Return a view of those nodes of this view whose metadata has all of some values."""
        return self._like(super().where(metadata, **equal))

    def serving(self, protocol: str | bytes) -> "View":
        """Return a view of those nodes of this view that announce a protocol (ALPN)."""
        return self._like(super().serving(protocol))

    def ownership_changes(  # type: ignore[override]  # it is what this class is for
        self, keys: Iterable[K], *, timeout: float | None = None
    ) -> OwnershipStream[K]:
        """Iterate over who owns the keys now, then over every change of that.

        Args:
            keys: Text or bytes.
            timeout: Most seconds that a `for` waits for the next change; `None` for ever.

        Raises:
            NotRunningError: The discovery is not running.
            TypeError: A key is neither text nor bytes, or `keys` is a single text or bytes.
            RuntimeError: The caller runs on an event loop.
        """
        follow = super().ownership_changes

        async def start() -> OwnershipStream[K]:
            return OwnershipStream(follow(keys), timeout)

        return wait(start)

    @staticmethod
    def _like(view: _views.View) -> "View":
        return View(view._shared, view._selection)  # noqa: SLF001  # it is this class' base


def book(shared: SharedNode) -> View:
    """Make the view of all other nodes."""
    return View(shared, Selection())


def members(shared: SharedNode) -> View:
    """Make the view of all nodes."""
    return View(shared, Selection(with_self=True))
