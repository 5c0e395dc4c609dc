"""A snapshot shows one moment: whole, in order, and the same for as long as it is kept."""

import asyncio
import copy
import pickle
from collections.abc import Mapping
from contextlib import AsyncExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iroh_gossip_discovery import (
    Config,
    GossipDiscovery,
    Peer,
    PeerLeft,
    PeerUpdated,
    Snapshot,
    _snapshot,
)


def numbered(number: int) -> Peer:
    return Peer(f"{number:064x}", f"peer-{number}", metadata={"number": str(number)})


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 512, 1500])
def test_a_snapshot_of_any_size_is_whole_and_in_order(size: int) -> None:
    peers = {peer.id: peer for peer in map(numbered, range(size))}
    snapshot = Snapshot(reversed(peers.values()))
    assert len(snapshot) == size
    assert list(snapshot) == list(snapshot.keys()) == list(peers)
    assert list(snapshot.values()) == list(peers.values())
    assert list(snapshot.items()) == list(peers.items())
    assert snapshot == peers
    assert snapshot == Snapshot(peers.values())
    assert snapshot != {**peers, numbered(size).id: numbered(size)}
    for number in (0, size // 2, size - 1):
        peer = numbered(max(number, 0))
        assert (snapshot.get(peer.id) == peer) == (peer.id in snapshot) == (size > 0)


@given(st.sets(st.integers(0, 2**256 - 1), max_size=20), st.integers(1, 21))
def test_batches_are_invisible_in_a_snapshot(numbers: set[int], batch: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_snapshot, "BATCH", batch)
        snapshot = Snapshot(map(numbered, numbers))
        assert list(snapshot) == [f"{number:064x}" for number in sorted(numbers)]
        assert [peer.id for peer in snapshot.values()] == list(snapshot)


def test_a_snapshot_is_a_mapping_that_cannot_be_changed() -> None:
    peers = [numbered(number) for number in range(300)]
    snapshot = Snapshot(peers)
    assert isinstance(snapshot, Mapping)
    assert snapshot[peers[7].id] == peers[7]
    assert peers[7] in snapshot.values()
    assert (peers[7].id, peers[7]) in snapshot.items()
    assert Peer(peers[7].id, "another") not in snapshot.values()
    assert snapshot.keys() & {peers[7].id, "bob"} == {peers[7].id}
    absent: list[object] = ["", "bob", numbered(300).id, 7, None, peers[0]]
    for key in absent:
        assert key not in snapshot
        assert key not in snapshot.values() or key is peers[0]
        with pytest.raises(KeyError):
            snapshot[key]  # type: ignore[index]
    with pytest.raises(TypeError):
        snapshot[peers[0].id] = peers[1]  # type: ignore[index]
    with pytest.raises(AttributeError):
        snapshot.other = 1  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match=r"peers\[1\] must be Peer, not str"):
        Snapshot([peers[0], "bob"])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="peers must be a sequence of Peer, not int"):
        Snapshot(7)  # type: ignore[arg-type]
    mine = dict(snapshot.items())
    del mine[peers[0].id]
    assert len(snapshot) == 300
    assert repr(Snapshot(peers[:1])) == f"Snapshot([{peers[0]!r}])"


def test_a_snapshot_pickles_and_copies() -> None:
    snapshot = Snapshot(map(numbered, range(300)))
    for again in (pickle.loads(pickle.dumps(snapshot)), copy.deepcopy(snapshot)):  # noqa: S301
        assert type(again) is Snapshot
        assert again == snapshot
        assert list(again) == list(snapshot)


@pytest.mark.asyncio
async def test_a_snapshot_stays_the_same_while_the_book_changes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Each node is a batch: what has been begun goes on over what was there then.
    monkeypatch.setattr(_snapshot, "BATCH", 1)
    config = Config.local()
    async with AsyncExitStack() as stack, asyncio.timeout(60):
        alice = await stack.enter_async_context(GossipDiscovery("alice", "fleet", config=config))

        def beside(name: str) -> GossipDiscovery:
            return GossipDiscovery(
                name, "fleet", bootstrap=[alice.ticket], metadata={"role": "cache"}, config=config
            )

        bob = await stack.enter_async_context(beside("bob"))
        carol = await stack.enter_async_context(beside("carol"))
        nodes = [alice, bob, carol]
        for node in nodes:
            await node.wait_for_peers(2)
        views = [alice.book, alice.members, alice.book.where(role="cache")]
        before = [dict(view.items()) for view in views]
        assert [len(peers) for peers in before] == [2, 3, 2]
        snapshots = [view.snapshot() for view in views]
        begun = [iter(snapshot.items()) for snapshot in snapshots]
        first = [next(items) for items in begun]
        events = alice.events()
        await carol.update(name="caroline", metadata={})
        while not isinstance(await anext(events), PeerUpdated):
            pass
        gone = bob.id
        await bob.close()
        while not isinstance(await anext(events), PeerLeft):
            pass
        async with beside("dave"):
            while len(alice.book.named("dave")) == 0:
                await anext(events)
            assert {peer.name for peer in alice.book.values()} == {"caroline", "dave"}
            for snapshot, items, item, then in zip(snapshots, begun, first, before, strict=True):
                assert snapshot == then
                assert list(snapshot) == list(then) == sorted(then)
                assert len(snapshot) == len(then)
                assert dict([item, *items]) == then
                assert snapshot[gone].name == "bob"


@pytest.mark.asyncio
async def test_this_node_has_its_place_among_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config.local()
    async with AsyncExitStack() as stack, asyncio.timeout(60):
        nodes: list[GossipDiscovery] = []
        for name in ("alice", "bob", "carol"):
            bootstrap = [node.ticket for node in nodes[:1]]
            node = GossipDiscovery(name, "fleet", bootstrap=bootstrap, config=config)
            nodes.append(await stack.enter_async_context(node))
        for node in nodes:
            await node.wait_for_peers(2)
        everyone = sorted(node.id for node in nodes)
        for batch in (1, 2, 3, 4):
            monkeypatch.setattr(_snapshot, "BATCH", batch)
            for node in nodes:  # each once the first, the one between and the last
                assert list(node.members.snapshot()) == everyone
                assert [peer.id for peer in node.members.snapshot().values()] == everyone
                assert list(node.members.named(node.name)) == [node.id]
                assert len(node.members.snapshot()) == 3
