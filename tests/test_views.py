"""Views are live, narrow and ordered; ownership is the documented hash, and follows the members."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from iroh_gossip_discovery import (
    Config,
    ConfigurationError,
    GossipDiscovery,
    NobodyError,
    NotRunningError,
    OwnershipChange,
    OwnershipStream,
    Peer,
    PeerUpdated,
    View,
)

VECTORS = json.loads((Path(__file__).parent.parent / "docs" / "ownership.json").read_text())
LABEL = b"iroh-gossip-discovery/owner/1"


def ranked(key: bytes, ids: list[str]) -> list[str]:
    """What docs/views.md says, in other words than the package's."""
    digest = hashlib.sha256(LABEL + key).digest()

    def score(id_: str) -> bytes:
        return hashlib.sha256(digest + bytes.fromhex(id_)).digest()

    return sorted(ids, key=score, reverse=True)


class Fleet:
    """Nodes of one topic that all know each other."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        self.nodes: dict[str, GossipDiscovery] = {}

    async def start(
        self, name: str, protocols: tuple[str, ...] = (), **metadata: str
    ) -> GossipDiscovery:
        first = next(iter(self.nodes.values()), None)
        node = GossipDiscovery(
            name,
            "fleet",
            bootstrap=[first.ticket] if first else [],
            metadata=metadata,
            protocols=protocols,
            config=Config.local(),
        )
        await self._stack.enter_async_context(node)
        self.nodes[name] = node
        for each in self.nodes.values():
            await each.wait_for_peers(len(self.nodes) - 1, timeout=30)
        return node

    async def stop(self, name: str) -> None:
        node = self.nodes.pop(name)
        gone = node.id
        await node.close()
        for each in self.nodes.values():
            await until(each, lambda view: gone not in view)


async def until(node: GossipDiscovery, condition: Callable[[View], bool]) -> None:
    events = node.events()
    async with asyncio.timeout(30):
        while not condition(node.members):
            await anext(events)


@pytest_asyncio.fixture
async def fleet() -> AsyncIterator[Fleet]:
    async with AsyncExitStack() as stack:
        yield Fleet(stack)


def names(view: View) -> set[str]:
    return {peer.name for peer in view.values()}


async def changes_until_quiet(stream: OwnershipStream[str]) -> list[OwnershipChange[str]]:
    """Take what there is to take now."""
    stream._contact.begin()
    while not stream._contact.done:  # it waits for the topic first
        await asyncio.sleep(0.001)
    taken: list[OwnershipChange[str]] = []
    while True:
        waiting = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        if not waiting.done():
            waiting.cancel()
            return taken
        taken.append(waiting.result())


@pytest.mark.asyncio
async def test_views_narrow_and_compose(fleet: Fleet) -> None:
    alice = await fleet.start("alice", role="cache", zone="eu")
    await fleet.start("bob", ("cache/1",), role="cache", zone="us")
    await fleet.start("carol", ("cache/1", "chat/1"), role="web")
    await fleet.start("Amélie")
    book, members = alice.book, alice.members
    assert names(book) == {"bob", "carol", "Amélie"}
    assert names(members) == {"alice", "bob", "carol", "Amélie"}
    assert names(members.where(role="cache")) == {"alice", "bob"}
    assert names(book.where(role="cache")) == {"bob"}
    assert names(members.where({"role": "cache"}, zone="us")) == {"bob"}
    assert names(members.where(role="cache").where(role="web")) == set()
    assert names(members.where(zone=None)) == {"carol", "Amélie"}
    assert names(members.where()) == names(members)
    assert names(book.serving("cache/1").serving(b"chat/1")) == {"carol"}
    assert names(book.named("bob")) == {"bob"}
    assert names(book.named("bob").named("carol")) == set()
    assert names(book.named("Ame\u0301lie")) == {"Amélie"}  # composed or not
    assert names(members.named("alice").where(role="cache")) == {"alice"}


@pytest.mark.asyncio
async def test_a_view_is_a_mapping_in_the_order_of_the_ids(fleet: Fleet) -> None:
    alice = await fleet.start("alice", role="cache")
    bob = await fleet.start("bob", role="cache")
    carol = await fleet.start("carol")
    caches = alice.members.where(role="cache")
    assert list(caches) == sorted([alice.id, bob.id])
    assert list(alice.members) == sorted([alice.id, bob.id, carol.id])
    assert list(alice.book.keys()) == sorted([bob.id, carol.id])
    assert [peer.id for peer in caches.values()] == [id_ for id_, _ in caches.items()]
    assert len(caches) == 2
    assert bob.id in caches
    assert carol.id not in caches
    assert caches[alice.id] == alice.me
    assert alice.id not in alice.book
    assert caches.get(carol.id) is None
    assert caches == caches.snapshot() == {alice.id: alice.me, bob.id: alice.book[bob.id]}
    assert 7 not in caches  # type: ignore[comparison-overlap]
    for absent in (carol.id, 7):
        with pytest.raises(KeyError):
            caches[absent]  # type: ignore[index]
    assert repr(caches).startswith('<View members.where(role="cache"): [<Peer ')


@pytest.mark.asyncio
async def test_a_view_is_live_and_empty_outside_of_a_life(fleet: Fleet) -> None:
    early = GossipDiscovery("early", "fleet", config=Config.local())
    assert (dict(early.members), len(early.book), early.members.owners("key", 3)) == ({}, 0, [])
    alice = await fleet.start("alice")
    caches = alice.members.where(role="cache")
    assert len(caches) == 0
    bob = await fleet.start("bob", role="cache")
    assert names(caches) == {"bob"}
    await alice.update_metadata(role="cache")
    assert names(caches) == {"alice", "bob"}
    events = alice.events()
    await bob.update_metadata(role="draining")
    async with asyncio.timeout(30):
        while not isinstance(await anext(events), PeerUpdated):
            pass
    assert names(caches) == {"alice"}
    await alice.leave()
    assert not caches
    await alice.close()
    assert not caches


@pytest.mark.asyncio
async def test_an_invalid_condition_of_a_view_is_refused(fleet: Fleet) -> None:
    alice = await fleet.start("alice")
    with pytest.raises(TypeError, match="name must be str, not int"):
        alice.book.named(1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match='metadata\\["role"\\] must be str or None, not int'):
        alice.book.where(role=1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="metadata must be Mapping or NoneType, not list"):
        alice.book.where([("role", "cache")])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="metadata key must be str, not int"):
        alice.book.where({1: "x"})  # type: ignore[dict-item]
    with pytest.raises(TypeError, match="protocol must be str or bytes, not int"):
        alice.book.serving(1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="key must be str or bytes, not int"):
        alice.members.owner(1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="keys must be a sequence of str or bytes, not one str"):
        alice.members.ownership_changes("key")
    with pytest.raises(TypeError, match="n must be int, not bool"):
        alice.members.owners("key", True)  # noqa: FBT003  # what is refused
    with pytest.raises(ConfigurationError, match="n must be at least 1, is 0"):
        alice.members.owners("key", 0)
    with pytest.raises(NobodyError, match="nobody is there to own 'key': book is empty"):
        alice.book.owner("key")
    with pytest.raises(LookupError):
        alice.members.where(role="cache").owner(b"key")
    with pytest.raises(NotRunningError):
        GossipDiscovery("early", "fleet").members.ownership_changes(["key"])


def test_the_vectors_in_the_docs_hold() -> None:
    assert VECTORS["label"].encode() == LABEL
    for vector in VECTORS["vectors"]:
        key = bytes.fromhex(vector["key_hex"])
        if "key_text" in vector:
            assert vector["key_text"].encode() == key
        assert ranked(key, VECTORS["members"]) == vector["owners"]


@pytest.mark.asyncio
async def test_owners_are_those_of_the_documented_hash_on_every_node(fleet: Fleet) -> None:
    for name in ("alice", "bob", "carol", "dave"):
        await fleet.start(name)
    ids = [node.id for node in fleet.nodes.values()]
    for key in (b"", b"user/42", "Straße".encode(), bytes(range(256)), b"k" * 5000):
        for node in fleet.nodes.values():
            assert [peer.id for peer in node.members.owners(key, 4)] == ranked(key, ids)
            assert [peer.id for peer in node.members.owners(key, 2)] == ranked(key, ids)[:2]
            assert len(node.members.owners(key, 99)) == 4
            assert node.members.owner(key).id == ranked(key, ids)[0]
            others = [id_ for id_ in ids if id_ != node.id]
            assert node.book.owner(key).id == ranked(key, others)[0]
    alice = fleet.nodes["alice"]
    assert alice.members.owner("Straße") == alice.members.owner("Straße".encode())


@given(
    st.sets(st.binary(min_size=32, max_size=32), min_size=2, max_size=12).map(sorted), st.binary()
)
def test_only_the_keys_of_a_changed_node_move(ids: list[bytes], key: bytes) -> None:
    texts = [id_.hex() for id_ in ids]
    rest = [id_ for id_ in ranked(key, texts) if id_ != texts[0]]
    assert ranked(key, texts[1:]) == rest


@pytest.mark.asyncio
async def test_each_key_comes_first_with_its_owner_and_then_only_what_moves(fleet: Fleet) -> None:
    alice = await fleet.start("alice")
    keys = [f"key/{n}" for n in range(200)]
    async with alice.members.ownership_changes(keys) as stream:
        first = await changes_until_quiet(stream)
        assert [change.key for change in first] == keys
        assert all(change.gained and change.previous is None for change in first)
        bob = await fleet.start("bob")
        moved = await changes_until_quiet(stream)
        expected = {key for key in keys if ranked(key.encode(), [alice.id, bob.id])[0] == bob.id}
        assert {change.key for change in moved} == expected
        assert 50 < len(moved) < 150
        for change in moved:
            assert (change.lost, change.gained) == (True, False)
            assert change.previous is not None
            assert change.owner is not None
            assert (change.previous.id, change.owner.id) == (alice.id, bob.id)
        await fleet.stop("bob")
        back = await changes_until_quiet(stream)
        assert {change.key for change in back} == expected
        assert all(change.gained for change in back)


@pytest.mark.asyncio
async def test_all_nodes_agree_on_the_next_owner(fleet: Fleet) -> None:
    keys = [f"job/{n}" for n in range(100)]
    for name in ("alice", "bob", "carol"):
        await fleet.start(name)
    streams = {name: node.members.ownership_changes(keys) for name, node in fleet.nodes.items()}
    mine: dict[str, set[str]] = {name: set() for name in streams}

    async def follow(name: str) -> None:
        async with asyncio.timeout(30):
            async for change in streams[name]:
                if change.gained:
                    mine[name].add(change.key)
                elif change.lost:
                    mine[name].discard(change.key)

    tasks = [asyncio.create_task(follow(name)) for name in streams]
    async with asyncio.timeout(30):
        while sum(map(len, mine.values())) < 100:
            await asyncio.sleep(0.005)
    orphans = set(mine["carol"])
    assert orphans
    assert set.union(*mine.values()) == set(keys)
    await fleet.stop("carol")
    async with asyncio.timeout(30):
        while not orphans <= mine["alice"] | mine["bob"]:
            await asyncio.sleep(0.005)
    assert mine["alice"] | mine["bob"] == set(keys)
    assert not mine["alice"] & mine["bob"]
    for node in list(fleet.nodes.values()):
        await node.close()
    await asyncio.gather(*tasks)  # the iterations end with their nodes


@pytest.mark.asyncio
async def test_an_owner_that_held_only_meanwhile_is_not_reported(fleet: Fleet) -> None:
    alice = await fleet.start("alice")
    keys = [f"key/{n}" for n in range(50)]
    stream = alice.members.ownership_changes(keys)
    await changes_until_quiet(stream)
    await fleet.start("bob")
    await fleet.stop("bob")
    assert await changes_until_quiet(stream) == []


@pytest.mark.asyncio
async def test_an_outdated_change_is_not_reported_even_after_others_were_taken(
    fleet: Fleet,
) -> None:
    alice = await fleet.start("alice")
    keys = [f"key/{n}" for n in range(50)]
    stream = alice.members.ownership_changes(keys)
    await changes_until_quiet(stream)
    await fleet.start("bob")
    one = await anext(stream)
    assert one.lost
    await fleet.stop("bob")
    (back,) = await changes_until_quiet(stream)
    assert (back.key, back.gained) == (one.key, True)


@pytest.mark.asyncio
async def test_a_change_of_the_node_itself_is_followed(fleet: Fleet) -> None:
    alice = await fleet.start("alice", role="worker")
    stream = alice.members.where(role="worker").ownership_changes(["job"])
    async with asyncio.timeout(30):
        assert (await anext(stream)).gained
        waiting = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        await alice.update_metadata(role="draining")
        change = await waiting
    assert (change.lost, change.owner) == (True, None)
    await alice.update_metadata(role="worker")
    async with asyncio.timeout(30):
        assert (await anext(stream)).gained


@pytest.mark.asyncio
async def test_keys_may_come_and_go(fleet: Fleet) -> None:
    alice = await fleet.start("alice")
    stream: OwnershipStream[str] = alice.members.ownership_changes([])
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    assert not waiting.done()
    stream.add(["one", "two"])
    async with asyncio.timeout(30):
        assert (await waiting).key == "one"
    stream.discard(["two", "three"])
    stream.add(["one"])
    assert await changes_until_quiet(stream) == []
    with pytest.raises(TypeError, match="keys must be a sequence"):
        stream.add("one")
    with pytest.raises(TypeError, match="keys must be a sequence"):
        stream.discard("one")
    stream.discard(["one"])
    stream.add(["one"])
    assert [change.key for change in await changes_until_quiet(stream)] == ["one"]


@pytest.mark.asyncio
async def test_cancelled_waits_lose_no_change(fleet: Fleet) -> None:
    alice = await fleet.start("alice")
    keys = [f"key/{n}" for n in range(300)]
    stream = alice.members.ownership_changes(keys)
    owners: dict[str, str] = {}

    async def take() -> None:
        change = await anext(stream)
        owners[change.key] = change.owner.id if change.owner else ""

    async def take_with_cancellations() -> None:
        async with asyncio.timeout(60):
            while True:
                try:
                    async with asyncio.timeout(0.0005):
                        await take()
                except TimeoutError:
                    ids = [*alice.members]
                    if owners == {key: ranked(key.encode(), ids)[0] for key in keys}:
                        return

    await take_with_cancellations()
    await fleet.start("bob")
    await take_with_cancellations()
    await fleet.stop("bob")
    await take_with_cancellations()


@pytest.mark.asyncio
async def test_a_closed_iterator_ends_and_is_forgotten(fleet: Fleet) -> None:
    alice = await fleet.start("alice")
    stream = alice.members.ownership_changes(["key"])
    stream.close()
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    stream.add(["more"])
    await alice.update_metadata(role="cache")
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


@pytest.mark.asyncio
async def test_me_is_what_the_others_see(fleet: Fleet) -> None:
    alice = await fleet.start("alice", ("chat/1",), role="cache")
    bob = await fleet.start("bob")
    assert isinstance(alice.me, Peer)
    assert alice.me == bob.book[alice.id]
    assert (alice.me.name, alice.me.protocols) == ("alice", ("chat/1",))
