"""docs/migration.md says of every public name of 0.6.0 what became of it, in names that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "migration.md").read_text()

# What 0.6.0 made public: types with their fields and variants, functions, and what it logged.
OLD = {
    "GossipDiscoveryBuilder": ["new", "with_expiration_timeout", "build_with_peers"],
    "GossipDiscoverySender": [
        *("peer_rx", "sender", "secret_key"),
        *("add_peer", "add_peers", "gossip"),
    ],
    "GossipDiscoveryReceiver": [
        *("neighbor_map", "peer_tx", "receiver", "expiration_timeout"),
        *("update_map", "get_neighbors", "cleanup_expired_nodes", "start_cleanup_task"),
    ],
    "Node": ["name", "node_id", "count"],
    "NodeInfo": ["node_id", "last_seen"],
    "GossipDiscoveryError": [
        *("Gossip", "ChannelSend", "Serialization", "Deserialization"),
        *("SignatureVerification", "NodeIdMismatch"),
    ],
    "Result": [],
    "logs": ["Discovered new peer", "Expired node", "NodeId spoofing attempt detected"],
}


def first_cells() -> str:
    """Give what stands under 0.6.0 in the page's tables: their first columns."""
    rows = re.findall(r"^\| (.+?) \| ", PAGE.split("## In Python")[0], re.MULTILINE)
    return "\n".join(rows)


@pytest.mark.parametrize("kind", OLD)
def test_every_public_name_of_0_6_0_has_its_line(kind: str) -> None:
    cells = first_cells()
    for name in [kind, *OLD[kind]] if kind != "logs" else OLD[kind]:
        assert re.search(rf"\b{name}\b", cells), name


def test_the_methods_that_it_points_to_exist() -> None:
    sources = "\n".join(path.read_text() for path in (ROOT / "rust").glob("*/src/**/*.rs"))
    pointed = set(
        re.findall(r"\b(?:receiver|sender|swarm|Discovery|discovery)(?:\.|::)(\w+)\(", PAGE)
    )
    assert {"book", "nodes", "neighbors", "split", "metrics", "join", "spawn"} <= pointed
    for name in pointed - {"next", "clone", "peers", "events"}:  # of traits, and of Python
        assert re.search(rf"pub (?:async )?fn {name}\b", sources), name
