"""Views for code without asyncio: the same, but for the iterator of changes."""

from collections.abc import Iterable, Mapping
from typing import TypeVar

from iroh_gossip_discovery import _views
from iroh_gossip_discovery._changes import Predicate
from iroh_gossip_discovery._core import Selection
from iroh_gossip_discovery._shared_node import SharedNode
from iroh_gossip_discovery._snapshot import Snapshot
from iroh_gossip_discovery.blocking._iterators import ChangeStream, OwnershipStream
from iroh_gossip_discovery.blocking._loop import wait

K = TypeVar("K", bound=str | bytes)


class View(_views.View):
    """As `iroh_gossip_discovery.View`, with an iterator of ownership changes that blocks."""

    __slots__ = ()

    def named(self, name: str) -> "View":
        """Return a view of those nodes of this view that have a name."""
        return self._like(super().named(name))

    def where(
        self,
        metadata: Mapping[str, str | None] | Predicate | None = None,
        /,
        **equal: str | None,
    ) -> "View":
        """Return a view of those nodes of this view whose metadata has all of some values."""
        return self._like(super().where(metadata, **equal))

    def serving(self, protocol: str | bytes, *, ready: bool | None = True) -> "View":
        """Return a view of those nodes of this view that announce a protocol (ALPN)."""
        return self._like(super().serving(protocol, ready=ready))

    def ready(self, ready: bool | None = True) -> "View":  # noqa: FBT001, FBT002  # it is the name
        """Return a view of those nodes of this view that take work, by their own account."""
        return self._like(super().ready(ready))

    def ownership_changes(  # type: ignore[override]  # it is what this class is for
        self, keys: Iterable[K], *, timeout: float | None = None
    ) -> OwnershipStream[K]:
        """Iterate over who owns the keys now, then over every change of that.

        Args:
            keys: Text or bytes.
            timeout: Most seconds that a `for` waits for the next change; `None` waits forever.

        Raises:
            NotRunningError: The discovery is not running.
            TypeError: A key is neither text nor bytes, or `keys` is a single text or bytes.
            RuntimeError: The caller runs on an event loop.
        """
        follow = super().ownership_changes

        async def start() -> OwnershipStream[K]:
            return OwnershipStream(follow(keys), timeout)

        return wait(start)

    def wait(  # type: ignore[override]  # it is what this class is for
        self, n: int, *, timeout: float | None = None
    ) -> Snapshot:
        """Wait until the view holds at least `n` nodes, and return a snapshot of it.

        Args:
            n: How many nodes, at least 0.
            timeout: Most seconds to wait; `None` waits forever.

        Raises:
            PeersTimeoutError: Fewer were there in time; the message says how many. It is a
                `TimeoutError`.
            ConfigurationError: `n` is negative, or `timeout` is NaN.
            NotRunningError: It is not running, or ended while it waited.
            RuntimeError: The caller runs on an event loop.
        """
        waiting = super().wait
        return wait(lambda: waiting(n, timeout=timeout))

    def changes(  # type: ignore[override]  # it is what this class is for
        self, *, window: float = 0.0, timeout: float | None = None
    ) -> ChangeStream:
        """Iterate over the nodes of the view, then over its changes, as cuts.

        Args:
            window: Seconds that changes are gathered for after the first one, 0 to 3,600.
            timeout: Most seconds that a `for` waits for the next change; `None` waits forever.

        Raises:
            ConfigurationError: `window` is outside its limits.
            NotRunningError: The discovery is not running.
            RuntimeError: The caller runs on an event loop.
        """
        follow = super().changes

        async def start() -> ChangeStream:
            return ChangeStream(follow(window=window), timeout)

        return wait(start)

    @staticmethod
    def _like(view: _views.View) -> "View":
        shared, selection = view._shared, view._selection  # noqa: SLF001  # this class' base
        return View(shared, selection, view._predicates)  # noqa: SLF001


def book(shared: SharedNode) -> View:
    """Make the view of all other nodes."""
    return View(shared, Selection())


def members(shared: SharedNode) -> View:
    """Make the view of all nodes."""
    return View(shared, Selection(with_self=True))
