"""What `to_dict` gives is JSON of the schemas in docs/."""

import json
from pathlib import Path
from typing import get_args

import jsonschema
import pytest
from referencing import Registry, Resource

from iroh_gossip_discovery import Event, EventsLost, IdentityConflict, Peer, PeerJoined, Snapshot

FOLDER = Path(__file__).parent.parent / "docs"
NAMES = ("peer", "event", "snapshot")
SCHEMAS = {name: json.loads((FOLDER / f"{name}.schema.json").read_text()) for name in NAMES}
REGISTRY = Registry().with_resources(
    (f"{name}.schema.json", Resource.from_contents(schema)) for name, schema in SCHEMAS.items()
)

PEER = Peer(
    "07" * 32,
    "bob <b>",
    addresses=["127.0.0.1:1", "https://relay.example/"],
    metadata={"role": "cache"},
    protocols=["chat/1", b"\xff"],
    boot_id=2**64 - 1,
    sequence=5,
    expiration=900.0,
)
GIVEN = {"peer": PEER, "reason": "expired", "count": 3, "boot_id": 7}


def check(name: str, value: object) -> None:
    validator = jsonschema.Draft202012Validator(SCHEMAS[name], registry=REGISTRY)
    validator.validate(json.loads(json.dumps(value)))


def test_a_peer_is_json_of_its_schema_and_has_every_field() -> None:
    check("peer", PEER.to_dict())
    assert set(PEER.to_dict()) == set(SCHEMAS["peer"]["properties"])
    assert PEER.to_dict()["boot_id"] == "f" * 16


@pytest.mark.parametrize("kind", get_args(Event), ids=lambda kind: kind.__name__)
def test_an_event_is_json_of_its_schema(kind: type[Event]) -> None:
    event = kind(*(GIVEN[field] for field in kind.__match_args__))  # type: ignore[arg-type]
    fields = event.to_dict()
    check("event", fields)
    assert set(fields) == {"event", *kind.__match_args__}
    assert fields["event"] == kind.__name__


def test_the_schema_of_events_refuses_what_lacks_a_field() -> None:
    cases: list[tuple[Event, str]] = [
        (PeerJoined(PEER), "peer"),
        (EventsLost(3), "count"),
        (IdentityConflict(7), "boot_id"),
    ]
    for event, field in cases:
        fields = event.to_dict()
        del fields[field]
        with pytest.raises(jsonschema.ValidationError):
            check("event", fields)


def test_a_snapshot_is_json_of_its_schema() -> None:
    check("snapshot", Snapshot([PEER]).to_dict())
    check("snapshot", Snapshot().to_dict())


def test_equal_snapshots_have_equal_digests_and_others_do_not() -> None:
    def with_(**changes: object) -> Snapshot:
        fields = PEER.to_dict() | {"boot_id": PEER.boot_id, "protocols": ["chat/1", b"\xff"]}
        fields |= changes
        peer = Peer(fields.pop("id"), fields.pop("name"), **fields)  # type: ignore[arg-type]
        return Snapshot([peer])

    digest = Snapshot([PEER]).digest
    assert with_().digest == digest
    assert with_(sequence=6, expiration=1.0).digest == digest, "a heartbeat changes nothing"
    others = [
        with_(name="bob"),
        with_(metadata={"role": "", "cache": ""}),
        with_(metadata={}),
        with_(addresses=["https://relay.example/", "127.0.0.1:1"]),
        with_(protocols=["chat/1"]),
        with_(boot_id=1),
        with_(id="08" * 32),
        Snapshot(),
    ]
    assert len({digest, *(other.digest for other in others)}) == 1 + len(others)


def test_the_digest_is_the_documented_hash() -> None:
    import hashlib
    import struct

    def text(value: str | bytes) -> bytes:
        data = value if isinstance(value, bytes) else value.encode()
        return struct.pack("!I", len(data)) + data

    def many(values: list[bytes]) -> bytes:
        return struct.pack("!I", len(values)) + b"".join(values)

    data = b"iroh-gossip-discovery/snapshot/1"
    data += bytes.fromhex(PEER.id) + struct.pack("!Q", PEER.boot_id) + text(PEER.name)
    data += many([text(key) + text(value) for key, value in sorted(PEER.metadata.items())])
    data += many([text("chat/1"), text(b"\xff")])
    data += many([text(address) for address in PEER.addresses])
    data += text(PEER.readiness)
    assert Snapshot([PEER]).digest == hashlib.sha256(data).hexdigest()[:32]


def test_a_repr_stays_short_and_html_escapes_what_others_say() -> None:
    peers = [Peer(f"{n:064x}", "<script>" * 8) for n in range(20)]
    assert len(repr(Snapshot(peers))) < 400
    assert "17 more" in repr(Snapshot(peers))
    page = Snapshot([PEER])._repr_html_()
    assert "bob &lt;b&gt;" in page
    assert "<b>" not in page
    said = {"note": "\x1b[2J\u202egnp\nforged"}
    page = Snapshot([Peer("a" * 64, "eve", metadata=said)])._repr_html_()
    assert r"note=\x1b[2J\u202egnp\nforged" in page
