"""Peers and events are plain values: they compare, hash, copy, pickle, match and print."""

import copy
import importlib
import pickle
import subprocess
import sys
from typing import get_args

import pytest

import iroh_gossip_discovery as package
from iroh_gossip_discovery import (
    BindError,
    ConfigurationError,
    DiscoveryError,
    Event,
    EventsLost,
    IdentityConflict,
    Isolated,
    NotRunningError,
    Peer,
    PeerJoined,
    PeerLeft,
    PeerLost,
    PeerRecovered,
    PeersTimeoutError,
    PeerSuspected,
    PeerUpdated,
    Reconnected,
    StateDamaged,
    StateDirError,
    blocking,
)

ID = "07" * 32


def make_peer(name: str = "alice") -> Peer:
    return Peer(
        ID,
        name,
        addresses=["127.0.0.1:4433", "[::1]:4433", "https://relay.example/"],
        metadata={"role": "cache"},
        protocols=["chat/1", b"\xff\x00"],
        sequence=2**62 - 1,
        boot_id=2**64 - 1,
        expiration=900.0,
    )


VALUES: list[Peer | Event] = [
    make_peer(),
    Peer(ID, "nothing else"),
    PeerJoined(make_peer()),
    PeerUpdated(make_peer()),
    PeerSuspected(make_peer()),
    PeerRecovered(make_peer()),
    PeerLeft(make_peer()),
    PeerLost(make_peer(), "expired"),
    IdentityConflict(2**64 - 1),
    StateDamaged("sequence is damaged"),
    Isolated(),
    Reconnected(),
    EventsLost(7),
]
ERRORS: list[DiscoveryError] = [
    DiscoveryError("text"),
    ConfigurationError("name", "must not be empty"),
    BindError(98, "bind address 127.0.0.1:1: in use"),
    StateDirError("state directory /x is in use by process 1"),
    NotRunningError("the discovery is closed"),
    PeersTimeoutError("saw 1 of 2 peers within 3 s"),
]


def by_type(value: object) -> str:
    return type(value).__name__


@pytest.mark.parametrize("value", VALUES, ids=[*map(str, range(len(VALUES)))])
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_value_survives_pickle(value: Peer | Event, protocol: int) -> None:
    again = pickle.loads(pickle.dumps(value, protocol))  # noqa: S301  # made a line above
    assert again == value
    assert repr(again) == repr(value)


@pytest.mark.parametrize("value", VALUES, ids=[*map(str, range(len(VALUES)))])
def test_a_value_survives_copying(value: Peer | Event) -> None:
    for again in (copy.copy(value), copy.deepcopy(value)):
        assert again == value
        assert hash(again) == hash(value)


@pytest.mark.parametrize("value", VALUES, ids=[*map(str, range(len(VALUES)))])
def test_a_value_is_frozen(value: Peer | Event) -> None:
    for field in (*value.__match_args__, "anything"):
        with pytest.raises(AttributeError):
            setattr(value, field, None)


def test_values_of_different_kinds_differ() -> None:
    assert len(set(VALUES)) == len(VALUES)
    assert PeerJoined(make_peer("alice")) != PeerJoined(make_peer("bob"))
    assert PeerJoined(make_peer()) != PeerUpdated(make_peer())
    assert EventsLost(1) != EventsLost(2)


def test_a_peer_has_what_it_was_made_with() -> None:
    peer = make_peer()
    assert peer.id == ID
    assert peer.fingerprint == ID[:10]
    assert peer.name == "alice"
    assert peer.addresses == ("127.0.0.1:4433", "[::1]:4433", "https://relay.example/")
    assert dict(peer.metadata) == {"role": "cache"}
    assert peer.protocols == ("chat/1", r"\xff\x00")
    assert (peer.sequence, peer.boot_id, peer.expiration) == (2**62 - 1, 2**64 - 1, 900.0)


def test_metadata_of_a_peer_is_read_only() -> None:
    with pytest.raises(TypeError):
        make_peer().metadata["role"] = "other"  # type: ignore[index]


def test_a_repr_shows_the_name_and_the_fingerprint_beside_it() -> None:
    assert repr(make_peer("al'ice")) == """<Peer "al'ice" 0707070707>"""
    assert repr(PeerLost(Peer(ID, "bob"), "expired")) == (
        "PeerLost(<Peer 'bob' 0707070707>, reason='expired')"
    )
    assert [repr(value) for value in VALUES[-3:]] == [
        "Isolated()",
        "Reconnected()",
        "EventsLost(7)",
    ]


def test_values_match_by_position() -> None:
    told = []
    for value in VALUES:
        match value:
            case PeerLost(Peer(_, name), reason):
                told.append(f"{name} {reason}")
            case PeerJoined(peer) | PeerUpdated(peer) | PeerLeft(peer):
                told.append(peer.name)
            case PeerSuspected(peer) | PeerRecovered(peer):
                told.append(f"{peer.name}?")
            case EventsLost(number) | IdentityConflict(number):
                told.append(str(number))
            case StateDamaged(reason):
                told.append(reason)
            case Isolated() | Reconnected():
                told.append("-")
            case Peer(peer_id, name):
                told.append(f"{peer_id[:2]} {name}")
    assert told == [
        "07 alice",
        "07 nothing else",
        "alice",
        "alice",
        "alice?",
        "alice?",
        "alice",
        "alice expired",
        "18446744073709551615",
        "sequence is damaged",
        "-",
        "-",
        "7",
    ]


def test_the_union_of_events_serves_isinstance() -> None:
    assert all(isinstance(value, Event) for value in VALUES[2:])
    assert {type(value) for value in VALUES[2:]} == {*get_args(Event)}
    assert not isinstance(make_peer(), Event)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"id": "07"}, "id '07' is not"),
        ({"id": 7}, "id must be str"),
        ({"name": None}, "name must be str"),
        ({"addresses": "127.0.0.1:1"}, "addresses must be a sequence of str"),
        ({"addresses": ["nowhere"]}, "addresses[0] 'nowhere' is neither"),
        ({"metadata": {"a": 1}}, "metadata['a'] must be str"),
        ({"sequence": -1}, "sequence must be 0 to"),
        ({"expiration": -1.0}, "expiration must not be negative"),
    ],
)
def test_a_peer_refuses_wrong_fields_by_name(fields: dict[str, object], message: str) -> None:
    arguments = {"id": ID, "name": "alice", **fields}
    with pytest.raises((TypeError, ConfigurationError)) as caught:
        Peer(**arguments)  # type: ignore[arg-type]
    assert message in str(caught.value).replace('"', "'")


def test_what_a_node_says_of_its_start_and_its_view_can_be_hashed() -> None:
    joined = package.Joined("alone", None, {ID: "timed out"})
    change = package.ViewChange((make_peer(),), (), (), (), package.Snapshot([make_peer()]))
    assert len({joined, copy.deepcopy(joined), change, copy.deepcopy(change)}) == 2


def test_a_node_is_neither_copied_nor_pickled() -> None:
    awaited = package.GossipDiscovery("alice", "fleet", config=package.Config.local())
    blocks = blocking.GossipDiscovery("alice", "fleet", config=package.Config.local())
    for node in (awaited, blocks):
        for copied in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError, match="a GossipDiscovery can't be copied or pickled"):
                copied(node)


@pytest.mark.parametrize("error", ERRORS, ids=by_type)
def test_an_error_survives_pickle(error: DiscoveryError) -> None:
    again = pickle.loads(pickle.dumps(error))  # noqa: S301  # made a line above
    assert type(again) is type(error)
    assert (str(again), again.args) == (str(error), error.args)


def test_every_error_has_the_root_and_a_built_in_base() -> None:
    bases = {
        ConfigurationError: ValueError,
        BindError: OSError,
        StateDirError: OSError,
        NotRunningError: RuntimeError,
        PeersTimeoutError: TimeoutError,
    }
    for error, base in bases.items():
        assert issubclass(error, DiscoveryError)
        assert issubclass(error, base)
    assert BindError(98, "in use").errno == 98
    assert ConfigurationError("name", "is wrong").field == "name"


def test_every_public_name_says_that_it_is_of_this_package() -> None:
    for name in package.__all__:
        value = getattr(package, name)
        if isinstance(value, type):
            assert value.__module__.partition(".")[0] == "iroh_gossip_discovery", name
            assert value.__doc__, name


def test_peers_that_nobody_holds_take_no_memory() -> None:
    script = """
import asyncio, resource, sys
from iroh_gossip_discovery import Config, GossipDiscovery, Peer

def most():
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size if sys.platform == "linux" else size // 1024

def make(count):
    for number in range(count):
        Peer("07" * 32, "bob", metadata={"number": str(number), "x": "x" * 900})

async def main():
    make(20_000)  # before there is a worker that could free them
    async with GossipDiscovery("alice", "fleet", config=Config.local()):
        before = most()
        make(120_000)
        assert most() - before < 50_000, f"{most() - before} KiB more"

asyncio.run(main())
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


@pytest.mark.parametrize("name", ["iroh_gossip_discovery", "iroh_gossip_discovery.blocking"])
def test_dir_of_the_package_lists_public_names_only(name: str) -> None:
    package = importlib.import_module(name)
    assert dir(package) == sorted(package.__all__)
    assert all(hasattr(package, public) for public in dir(package))


def test_the_name_of_every_error_ends_in_error() -> None:
    values = [getattr(package, name) for name in package.__all__]
    errors = [value for value in values if isinstance(value, type) and issubclass(value, Exception)]
    assert package.DiscoveryError in errors
    assert [error.__name__ for error in errors if not error.__name__.endswith("Error")] == []
