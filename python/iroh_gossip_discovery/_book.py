"""The address book: a live, read-only mapping of who is there."""

from collections.abc import ItemsView, Iterator, KeysView, Mapping, ValuesView

from iroh_gossip_discovery._core import Node, Peer


class NodeCell:
    """The running node, if there is one: shared by a discovery and its book."""

    __slots__ = ("node",)

    def __init__(self) -> None:
        self.node: Node | None = None


class Book(Mapping[str, Peer]):
    """The other nodes of the topic that are there now, by endpoint id.

    A look-up and `len` show the present moment and never block. Iteration, `items`, `keys` and
    `values` go over a snapshot, so that the book may change meanwhile. The node itself is not in
    it. It is empty before the start and after the end.

    Example:
        ```python
        if peer := discovery.book.get(some_id):
            print(peer.name, peer.addresses)
        ```
    """

    __slots__ = ("_cell",)

    def __init__(self, cell: NodeCell) -> None:
        self._cell = cell

    def snapshot(self) -> dict[str, Peer]:
        """Return a copy of the book as it is at this moment: it is the caller's to keep."""
        node = self._cell.node
        return {} if node is None else node.peers()

    def __getitem__(self, key: str) -> Peer:
        peer = self._find(key)
        if peer is None:
            raise KeyError(key)
        return peer

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self._find(key) is not None

    def __len__(self) -> int:
        node = self._cell.node
        return 0 if node is None else len(node)

    def __iter__(self) -> Iterator[str]:
        return iter(self.snapshot())

    def keys(self) -> KeysView[str]:
        """Return the ids in a snapshot of the book."""
        return self.snapshot().keys()

    def values(self) -> ValuesView[Peer]:
        """Return the peers in a snapshot of the book."""
        return self.snapshot().values()

    def items(self) -> ItemsView[str, Peer]:
        """Return the pairs of id and peer in a snapshot of the book."""
        return self.snapshot().items()

    def __repr__(self) -> str:
        return f"Book({list(self.values())})"

    def _find(self, key: str) -> Peer | None:
        node = self._cell.node
        return None if node is None else node.get(key)
