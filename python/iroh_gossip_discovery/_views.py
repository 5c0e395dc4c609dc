"""Views: live, read-only mappings of the nodes that meet some conditions; who owns a key there."""

import asyncio
import sys
import unicodedata
from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from typing import TypeVar

from iroh_gossip_discovery._changes import ChangeStream, Nudges, Predicate
from iroh_gossip_discovery._core import Node, Peer, Records, Selection
from iroh_gossip_discovery._errors import (
    ConfigurationError,
    NobodyError,
    NotRunningError,
    PeersTimeoutError,
)
from iroh_gossip_discovery._ownership import OwnershipStream
from iroh_gossip_discovery._printable import printable
from iroh_gossip_discovery._require import require, require_key, require_timeout
from iroh_gossip_discovery._shared_node import SharedNode
from iroh_gossip_discovery._snapshot import PeerMapping, Snapshot, peers_of, shown, snapshot_of

K = TypeVar("K", bound=str | bytes)

MAX_WINDOW = 3600.0
# Most letters or bytes of a key that an error shows.
_KEY_SHOWN = 60


class View(PeerMapping):
    """The nodes of the topic that are present now and meet the view's conditions, by endpoint id.

    A view is live and costs nothing to keep: it holds conditions, not nodes. A look-up and `len`
    show the present moment and never block. Iteration, `items`, `keys` and `values` go over a
    snapshot in the order of the ids, so that the nodes may change meanwhile. It is empty before the
    start and after the end.

    `GossipDiscovery.members` includes this node itself, and `GossipDiscovery.book` does not. The
    same holds for views that are made of them.

    Example:
        ```python
        caches = discovery.members.where(role="cache", zone="eu").serving("cache/1")
        print(len(caches), [node.name for node in caches.values()])
        ```
    """

    __slots__ = ("_predicates", "_selection", "_shared")

    def __init__(
        self, shared: SharedNode, selection: Selection, predicates: tuple[Predicate, ...] = ()
    ) -> None:
        self._shared = shared
        self._selection = selection
        self._predicates = predicates

    # --- narrower views -----------------------------------------------------------------------

    def named(self, name: str) -> "View":
        """Return a view of those nodes of this view that have a name.

        Args:
            name: The whole name. Several nodes may have it: a name is a label.

        Raises:
            TypeError: The name is no text.
        """
        require("name", name, str)
        return self._narrowed(self._selection.named(unicodedata.normalize("NFC", name)))

    def where(
        self,
        metadata: Mapping[str, str | None] | Predicate | None = None,
        /,
        **equal: str | None,
    ) -> "View":
        """Return a view of those nodes of this view whose metadata has all of some values.

        Args:
            metadata: Values by key, for keys that are no Python names; or a function that takes a
                `Peer` and returns true for the nodes to show. The function is called for each node
                at each look, so conditions on metadata are faster without one.
            **equal: Values by key; `None` asks that the key be absent.

        Raises:
            TypeError: A key is no text, or a value neither text nor `None`.

        Example:
            ```python
            ready = discovery.book.where({"my-app/role": "cache"}, draining=None)
            large = discovery.book.where(lambda peer: int(peer.metadata.get("cores", 1)) >= 8)
            ```
        """
        selection = self._selection
        predicates: tuple[Predicate, ...] = ()
        if not isinstance(metadata, Mapping) and callable(metadata):
            predicates, metadata = (metadata,), None
        require("metadata", metadata, Mapping, type(None))
        for key, value in [*(metadata or {}).items(), *equal.items()]:
            selection = selection.where_(key, value)
        return self._narrowed(selection, predicates)

    def serving(self, protocol: str | bytes, *, ready: bool | None = True) -> "View":
        """Return a view of those nodes of this view that announce a protocol (ALPN).

        Args:
            protocol: The protocol; text stands for its UTF-8 bytes.
            ready: Which nodes: those that take work, those that do not, or with `None` all.

        Raises:
            TypeError: The protocol is neither text nor bytes.
        """
        return self._narrowed(self._selection.serving(protocol)).ready(ready)

    def ready(self, ready: bool | None = True) -> "View":  # noqa: FBT001, FBT002  # it is the name
        """Return a view of those nodes of this view that take work, by their own account.

        Args:
            ready: `False` for those that do not: `draining`, `critical` or `unknown`; `None` for
                all, also in a view that had only those that do.

        Raises:
            TypeError: It is neither a boolean nor `None`.
        """
        require("ready", ready, bool, type(None))
        return self._narrowed(self._selection.ready(ready))

    # --- ownership ----------------------------------------------------------------------------

    def owner(self, key: str | bytes, *, ready: bool | None = True) -> Peer:
        """Return the node of this view that a key belongs to.

        It is a rendezvous hash: nodes that see the same members name the same owner, in every
        language; a node that comes takes over an even share of the keys, those of one that goes
        spread over the others, and no other key moves. docs/views.md has the exact hash.

        Args:
            key: What to find the owner of; text stands for its UTF-8 bytes.
            ready: Which nodes may own it: those that take work, or with `None` all.

        Raises:
            NobodyError: There is no such node in this view. It is a `LookupError`.
            TypeError: The key is neither text nor bytes.

        Example:
            ```python
            owner = discovery.members.owner("user/42")
            print("mine" if owner.id == discovery.id else f"it belongs to {owner.name}")
            ```
        """
        owners = self.owners(key, 1, ready=ready)
        if not owners:
            why = f"has no node for which ready={ready}" if len(self) else "is empty"
            shown = repr(key if len(key) <= _KEY_SHOWN else key[:_KEY_SHOWN])
            raise NobodyError(f"nobody is there to own {shown}: {self._selection!r} {why}")
        return owners[0]

    def owners(self, key: str | bytes, n: int, *, ready: bool | None = True) -> list[Peer]:
        """Return the nodes of this view that the first `n` copies of a key belong to.

        The first is `owner(key)`. If that goes, the second becomes the owner.

        Args:
            key: What to find the owners of; text stands for its UTF-8 bytes.
            n: The number of nodes, at least 1; fewer if there are fewer nodes.
            ready: As for `owner`.

        Raises:
            ConfigurationError: `n` is below 1.
            TypeError: An argument has the wrong type; the message names it.
        """
        require("n", n, int)
        require("ready", ready, bool, type(None))
        if n < 1:
            raise ConfigurationError("n", f"must be at least 1, is {n}")
        data = require_key(key)
        records = self._records()
        return [] if records is None else records.owners(data, min(n, sys.maxsize), ready)

    def ownership_changes(self, keys: Iterable[K]) -> OwnershipStream[K]:
        """Iterate over who owns the keys now, then over every change of that.

        Each key comes first with its present owner, if there is one, and again whenever it belongs
        to another node. The iterator's `add` and `discard` change the keys that it follows.

        Args:
            keys: Text or bytes.

        Raises:
            NotRunningError: The discovery is not running.
            TypeError: A key is neither text nor bytes, or `keys` is no sequence of keys.

        Example:
            ```python
            workers = discovery.members.where(role="worker")
            async for change in workers.ownership_changes(["job/1", "job/2"]):
                if change.gained:
                    print("mine from now on:", change.key)
                elif change.lost:
                    print("somebody else's from now on:", change.key)
            ```
        """
        return OwnershipStream(self._shared, self._running(), self._records, keys)

    # --- changes ------------------------------------------------------------------------------

    async def wait(
        self,
        n: int,
        *,
        timeout: float | None = None,  # noqa: ASYNC109  # its error says what was seen
    ) -> Snapshot:
        """Wait until the view holds at least `n` nodes, and return a snapshot of it.

        Args:
            n: How many nodes, at least 0.
            timeout: Most seconds to wait; `None` waits forever.

        Raises:
            PeersTimeoutError: Fewer were there in time; the message says how many, and what
                `GossipDiscovery.problems` lists. It is a `TimeoutError`.
            ConfigurationError: `n` is negative, or `timeout` is NaN.
            NotRunningError: It is not running, or ended while it waited.

        Example:
            ```python
            caches = await discovery.book.where(role="cache").wait(1, timeout=10)
            ```
        """
        require("n", n, int)
        if n < 0:
            raise ConfigurationError("n", f"must not be negative, is {n}")
        require_timeout(timeout)
        node = self._running()
        most = len(self)
        try:
            async with asyncio.timeout(timeout), Nudges(self, self._shared, node) as nudges:
                while len(self) < n:
                    try:
                        await anext(nudges)
                    except StopAsyncIteration:
                        raise NotRunningError(
                            f"the discovery ended with {most} of {n} peers"
                        ) from None
                    most = max(most, len(self))
        except TimeoutError:
            snapshot = self.snapshot()
            now = len(snapshot)
            if now >= n:
                return snapshot
            seen = f"{now} of {n} peers" + (f" (at most {most} at a time)" if most > now else "")
            why = "".join(f"; {source}: {printable(what)}" for source, what, *_ in node.problems())
            raise PeersTimeoutError(f"saw {seen} within {timeout} s{why}") from None
        return self.snapshot()

    def changes(self, *, window: float = 0.0) -> ChangeStream:
        """Iterate over the nodes of the view, then over its changes, as cuts.

        The first item has every node of the view as joined, if there are any. Each later one has
        together what joined, left, was lost or changed since the one before.

        Args:
            window: Seconds that changes are gathered for after the first one, 0 to 3,600.

        Raises:
            ConfigurationError: `window` is outside its limits.
            NotRunningError: The discovery is not running.

        Example:
            ```python
            async for change in discovery.book.changes(window=0.5):
                print(len(change.snapshot), change.joined, change.left + change.lost)
            ```
        """
        require("window", window, int, float)
        if not 0 <= window <= MAX_WINDOW:
            raise ConfigurationError("window", f"must be 0 to {MAX_WINDOW} seconds, is {window}")
        return ChangeStream(self, self._shared, self._running(), window)

    # --- a mapping ----------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """Return the view as it is at this moment, at the same cost for any number of nodes."""
        records = self._records()
        return Snapshot() if records is None else snapshot_of(records)

    def __len__(self) -> int:
        node = self._shared.node
        if self._predicates:
            return len(self.snapshot())
        return 0 if node is None else node.count(self._selection)

    def __iter__(self) -> Iterator[str]:
        return iter(self.snapshot())

    def keys(self) -> KeysView[str]:
        """Return the ids in a snapshot of the view, in their order."""
        return self.snapshot().keys()

    def values(self) -> ValuesView[Peer]:
        """Return the nodes in a snapshot of the view, in the order of their ids."""
        return self.snapshot().values()

    def items(self) -> ItemsView[str, Peer]:
        """Return the pairs of id and node in a snapshot of the view, in the order of the ids."""
        return self.snapshot().items()

    def __repr__(self) -> str:
        conditions = repr(self._selection) + ".where(…)" * len(self._predicates)
        return f"<{type(self).__name__} {conditions}: {shown(self.snapshot())}>"

    def _repr_html_(self) -> str:
        return self.snapshot()._repr_html_()  # as notebooks call it

    def _records(self) -> Records | None:
        """Take the nodes that are in the view now; `None` if the discovery isn't running."""
        node = self._shared.node
        if node is None:
            return None
        records = node.select(self._selection)
        if not self._predicates:
            return records
        return Records([peer for peer in peers_of(records) if self._meets(peer)])

    def _meets(self, peer: Peer) -> bool:
        return all(predicate(peer) for predicate in self._predicates)

    def _narrowed(self, selection: Selection, predicates: tuple[Predicate, ...] = ()) -> "View":
        return View(self._shared, selection, (*self._predicates, *predicates))

    def _running(self) -> Node:
        if self._shared.node is None:
            raise NotRunningError("the discovery is not running")
        return self._shared.node

    def _find(self, key: object) -> Peer | None:
        node = self._shared.node
        if node is None or not isinstance(key, str):
            return None
        peer = node.find(self._selection, key)
        return peer if peer is not None and self._meets(peer) else None
