"""`Snapshot`: the nodes of a view as they were at one moment."""

import html
from abc import abstractmethod
from collections.abc import ItemsView, Iterable, Iterator, Mapping, ValuesView
from itertools import islice
from typing import Self

from iroh_gossip_discovery._core import Peer, Records
from iroh_gossip_discovery._printable import printable
from iroh_gossip_discovery._require import require_key

# How many nodes become Python objects at a time.
BATCH = 256
# Most nodes in a `repr`, and in a table.
_SHOWN = 3
_ROWS = 100


def peers_of(records: Records) -> Iterator[Peer]:
    """Iterate over the core's records, and make each a Python object on the way."""
    after: str | None = None
    while batch := records.peers(after, BATCH):
        yield from batch
        after = batch[-1].id


def shown(snapshot: "Snapshot") -> str:
    """Return the first few nodes and the number of the others, for a `repr`."""
    some = list(islice(snapshot.values(), _SHOWN))
    more = len(snapshot) - len(some)
    return f"{some}" if not more else f"[{', '.join(map(repr, some))}, … {more} more]"


def table_of(snapshot: "Snapshot") -> str:
    """Return the nodes as a table of HTML, for notebooks; no text of theirs steers it."""
    head = "".join(f"<th>{title}</th>" for title in ("name", "id", "addresses", "metadata"))
    rows = [
        (
            peer.name,
            peer.fingerprint,
            ", ".join(peer.addresses),
            ", ".join(f"{key}={value}" for key, value in sorted(peer.metadata.items())),
        )
        for peer in islice(snapshot.values(), _ROWS)
    ]
    body = "".join(
        f"<tr>{''.join(f'<td>{html.escape(printable(cell))}</td>' for cell in row)}</tr>"
        for row in rows
    )
    more = len(snapshot) - len(rows)
    note = f"<p>… {more} more</p>" if more else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{note}"


class _Items(ItemsView[str, Peer]):
    __slots__ = ()
    _mapping: "Snapshot"

    def __iter__(self) -> Iterator[tuple[str, Peer]]:
        for peer in self._mapping.values():
            yield peer.id, peer


class _Values(ValuesView[Peer]):
    __slots__ = ()
    _mapping: "Snapshot"

    def __contains__(self, value: object) -> bool:
        return isinstance(value, Peer) and self._mapping.get(value.id) == value

    def __iter__(self) -> Iterator[Peer]:
        return peers_of(self._mapping._records)  # noqa: SLF001  # it is the snapshot's own


class PeerMapping(Mapping[str, Peer]):
    """Nodes by endpoint id; looking one up does not convert the others."""

    __slots__ = ()

    def __getitem__(self, key: str) -> Peer:
        peer = self._find(key)
        if peer is None:
            raise KeyError(key)
        return peer

    def __contains__(self, key: object) -> bool:
        return self._find(key) is not None

    @abstractmethod
    def _find(self, key: object) -> Peer | None: ...


class Snapshot(PeerMapping):
    """The nodes of a view as they were at one moment, by endpoint id and in the order of the ids.

    It never changes, whatever happens to the nodes, and may be kept, copied, compared and pickled.
    Taking one costs the same for 10 nodes and for 10,000, because a node becomes a `Peer` only when
    it is read. `dict(snapshot.items())` is a copy that can be changed.

    Args:
        peers: The nodes, for one that is made by hand; of two with one id, the later one stays.

    Raises:
        TypeError: One is no `Peer`.

    Example:
        ```python
        before = discovery.book.snapshot()
        await discovery.wait_for_peers(len(before) + 1)
        print("new since then:", discovery.book.keys() - before.keys())
        ```
    """

    __slots__ = ("_records",)

    def __init__(self, peers: Iterable[Peer] = ()) -> None:
        self._records = Records(peers)

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[str]:
        after: str | None = None
        while batch := self._records.ids(after, BATCH):
            yield from batch
            after = batch[-1]

    def values(self) -> ValuesView[Peer]:
        """Return the nodes, in the order of their ids."""
        return _Values(self)

    def items(self) -> ItemsView[str, Peer]:
        """Return the pairs of id and node, in the order of the ids."""
        return _Items(self)

    @property
    def digest(self) -> str:
        """What the nodes say of themselves, as 32 hex digits.

        Equal snapshots have equal digests, on every node and in every language; heartbeats don't
        change it. docs/views.md has the exact hash.
        """
        return self._records.digest()

    def to_dict(self) -> dict[str, object]:
        """Return the snapshot as plain values, as docs/snapshot.schema.json describes."""
        return {"digest": self.digest, "peers": [peer.to_dict() for peer in self.values()]}

    def owner_of(self, key: str | bytes) -> Peer | None:
        """Return the node of this snapshot that a key belongs to; `None` if it is empty.

        Raises:
            TypeError: The key is neither text nor bytes.
            ConfigurationError: It is text that is not valid Unicode.
        """
        owners = self._records.owners(require_key(key), 1)
        return owners[0] if owners else None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({shown(self)})"

    def _repr_html_(self) -> str:
        return table_of(self)

    def __reduce__(self) -> tuple[type[Self], tuple[list[Peer]]]:
        return type(self), (list(self.values()),)

    def _find(self, key: object) -> Peer | None:
        return self._records.get(key) if isinstance(key, str) else None


def snapshot_of(records: Records) -> Snapshot:
    """Make a snapshot of what the core took."""
    snapshot = Snapshot.__new__(Snapshot)
    snapshot._records = records  # noqa: SLF001  # as its constructor does
    return snapshot
