"""Views: live, read-only mappings of the nodes that meet some conditions; who owns a key there."""

import unicodedata
from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from typing import TypeVar

from iroh_gossip_discovery._core import Peer, Selection
from iroh_gossip_discovery._errors import ConfigurationError, NobodyError, NotRunningError
from iroh_gossip_discovery._ownership import OwnershipStream, key_bytes
from iroh_gossip_discovery._require import require
from iroh_gossip_discovery._shared_node import SharedNode
from iroh_gossip_discovery._snapshot import PeerMapping, Snapshot, snapshot_of

K = TypeVar("K", bound=str | bytes)


class View(PeerMapping):
    """The nodes of the topic that are there now and meet the view's conditions, by endpoint id.

    A view is live and costs nothing to keep: it holds conditions, not nodes. A look-up and `len`
    show the present moment and never block. Iteration, `items`, `keys` and `values` go over a
    snapshot in the order of the ids, so that the nodes may change meanwhile. It is empty before the
    start and after the end.

    `GossipDiscovery.members` has this node itself in it, `GossipDiscovery.book` has not; views that
    are made of them are like them in this.

    Example:
        ```python
        caches = discovery.members.where(role="cache", zone="eu").serving("cache/1")
        print(len(caches), [node.name for node in caches.values()])
        ```
    """

    __slots__ = ("_selection", "_shared")

    def __init__(self, shared: SharedNode, selection: Selection) -> None:
        self._shared = shared
        self._selection = selection

    # --- narrower views -----------------------------------------------------------------------

    def named(self, name: str) -> "View":
        """Return a view of those nodes of this view that have a name.

        Args:
            name: The whole name. Several nodes may have it: a name is a label.

        Raises:
            TypeError: The name is no text.
        """
        require("name", name, str)
        return View(self._shared, self._selection.named(unicodedata.normalize("NFC", name)))

    def where(
        self, metadata: Mapping[str, str | None] | None = None, /, **equal: str | None
    ) -> "View":
        """Return a view of those nodes of this view whose metadata has all of some values.

        Args:
            metadata: Values by key, for keys that are no Python names.
            **equal: Values by key; `None` asks that the key be absent.

        Raises:
            TypeError: A key is no text, or a value neither text nor `None`.

        Example:
            ```python
            ready = discovery.book.where({"my-app/role": "cache"}, draining=None)
            ```
        """
        require("metadata", metadata, Mapping, type(None))
        selection = self._selection
        for key, value in [*(metadata or {}).items(), *equal.items()]:
            selection = selection.where_(key, value)
        return View(self._shared, selection)

    def serving(self, protocol: str | bytes) -> "View":
        """Return a view of those nodes of this view that announce a protocol (ALPN).

        Args:
            protocol: The protocol; text stands for its UTF-8 bytes.

        Raises:
            TypeError: The protocol is neither text nor bytes.
        """
        return View(self._shared, self._selection.serving(protocol))

    # --- ownership ----------------------------------------------------------------------------

    def owner(self, key: str | bytes) -> Peer:
        """Return the node of this view that a key belongs to.

        It is a rendezvous hash: nodes that see the same members name the same owner, in every
        language; a node that comes takes over an even share of the keys, those of one that goes
        spread over the others, and no other key moves. docs/views.md has the exact hash.

        Args:
            key: What to find the owner of; text stands for its UTF-8 bytes.

        Raises:
            NobodyError: There is no node in this view. It is a `LookupError`.
            TypeError: The key is neither text nor bytes.

        Example:
            ```python
            owner = discovery.members.owner("user/42")
            print("mine" if owner.id == discovery.id else f"it belongs to {owner.name}")
            ```
        """
        owners = self.owners(key, 1)
        if not owners:
            raise NobodyError(f"nobody is there to own {key!r}: {self._selection!r} is empty")
        return owners[0]

    def owners(self, key: str | bytes, n: int) -> list[Peer]:
        """Return the nodes of this view that the first `n` copies of a key belong to.

        The first is `owner(key)`. If that goes, the second becomes the owner.

        Args:
            key: What to find the owners of; text stands for its UTF-8 bytes.
            n: At most so many, at least 1; fewer if there are fewer nodes.

        Raises:
            ConfigurationError: `n` is below 1.
            TypeError: An argument has the wrong type; the message names it.
        """
        require("n", n, int)
        if n < 1:
            raise ConfigurationError("n", f"must be at least 1, is {n}")
        data = key_bytes(key)
        node = self._shared.node
        return [] if node is None else node.owners(self._selection, data, n)

    def ownership_changes(self, keys: Iterable[K]) -> OwnershipStream[K]:
        """Iterate over who owns the keys now, then over every change of that.

        Each key comes first with its present owner, if there is one, and again whenever it belongs
        to another node. The iterator's `add` and `discard` change the keys that it follows.

        Args:
            keys: Text or bytes.

        Raises:
            NotRunningError: The discovery is not running.
            TypeError: A key is neither text nor bytes, or `keys` is a single text or bytes.

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
        if self._shared.node is None:
            raise NotRunningError("the discovery is not running")
        return OwnershipStream(self._shared, self._shared.node, self._selection, keys)

    # --- a mapping ----------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """Return the view as it is at this moment, which costs the same however many there are."""
        node = self._shared.node
        return Snapshot() if node is None else snapshot_of(node.select(self._selection))

    def __len__(self) -> int:
        node = self._shared.node
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
        return f"<{type(self).__name__} {self._selection!r}: {list(self.values())}>"

    def _find(self, key: object) -> Peer | None:
        node = self._shared.node
        if node is None or not isinstance(key, str):
            return None
        return node.find(self._selection, key)
