"""The names of crate 0.6.0: they build, tell and listen as `GossipDiscovery` does."""

import asyncio

import pytest

from iroh_gossip_discovery import (
    Config,
    ConfigurationError,
    GossipDiscovery,
    GossipDiscoveryBuilder,
    GossipDiscoveryReceiver,
    NotRunningError,
    PeerJoined,
    PeerLeft,
    PeerUpdated,
)

pytestmark = pytest.mark.asyncio
LOCAL = Config.local()


async def test_changes_arrive_and_neighbors_are_current() -> None:
    seed_sender, seed = await GossipDiscoveryBuilder("seed", "fleet", config=LOCAL).build()
    async with seed_sender, asyncio.timeout(30):
        builder = GossipDiscoveryBuilder("bob", "fleet", metadata={"role": "cache"}, config=LOCAL)
        sender, receiver = await builder.build_with_peers([seed_sender.discovery.ticket])
        async with sender:
            joined = await anext(seed)
            assert isinstance(joined, PeerJoined)
            assert (joined.peer.name, dict(joined.peer.metadata)) == ("bob", {"role": "cache"})
            assert seed.neighbors == {joined.peer.id: seed.discovery.book[joined.peer.id]}
            assert isinstance(await anext(receiver), PeerJoined)
        async for _ in receiver:  # ends with its node
            pass
        async for event in seed:
            if isinstance(event, PeerLeft):
                assert event.peer.id == joined.peer.id
                break
        assert seed.neighbors == {}


async def test_a_receiver_begins_with_the_known_peers() -> None:
    async with (
        GossipDiscovery("alice", "fleet", config=LOCAL) as alice,
        GossipDiscovery("bob", "fleet", bootstrap=[alice.ticket], config=LOCAL) as bob,
    ):
        await alice.wait_for_peers(1, timeout=30)
        receiver = GossipDiscoveryReceiver(alice)
        assert await anext(receiver) == PeerJoined(alice.book[bob.id])


async def test_peers_can_be_added_while_it_runs() -> None:
    one, _ = await GossipDiscoveryBuilder("one", "fleet", config=LOCAL).build()
    two, _ = await GossipDiscoveryBuilder("two", "fleet", config=LOCAL).build()
    three, found = await GossipDiscoveryBuilder("three", "fleet", config=LOCAL).build()
    async with one, two, three, asyncio.timeout(30):
        await three.add_peer(one.discovery.ticket)
        await three.add_peers([two.discovery.ticket])
        names: set[str] = set()
        while names != {"one", "two"}:
            event = await anext(found)
            if isinstance(event, PeerJoined | PeerUpdated):
                names.add(event.peer.name)
        with pytest.raises(ConfigurationError, match=r"peers\[0\]"):
            await three.add_peer("no ticket")
        with pytest.raises(TypeError, match="callables"):
            await three.discovery.add_bootstrap([asyncio.sleep])  # type: ignore[list-item]
    with pytest.raises(NotRunningError):
        await three.add_peer(one.discovery.ticket)


async def test_an_announcement_has_a_higher_sequence() -> None:
    sender, _ = await GossipDiscoveryBuilder("alice", "fleet", config=LOCAL).build()
    async with (
        sender,
        GossipDiscovery("bob", "fleet", bootstrap=[sender.discovery.ticket], config=LOCAL) as bob,
        asyncio.timeout(30),
    ):
        await bob.wait_for_peers(1)
        before = bob.book[sender.discovery.id].sequence
        await sender.announce()
        while (peer := bob.book[sender.discovery.id]).sequence <= before:
            await asyncio.sleep(0.01)
        assert peer.metadata == {}
        await sender.announce({"role": "cache"})
        while bob.book[sender.discovery.id].metadata != {"role": "cache"}:
            await asyncio.sleep(0.01)


async def test_the_expiration_is_the_one_that_others_see() -> None:
    builder = GossipDiscoveryBuilder("alice", "fleet", config=LOCAL)
    sender, _ = await builder.with_expiration_timeout(42.0).build()
    async with (
        sender,
        GossipDiscovery("bob", "fleet", bootstrap=[sender.discovery.ticket], config=LOCAL) as bob,
    ):
        (peer,) = (await bob.wait_for_peers(1, timeout=30)).values()
        assert peer.expiration == 42.0
    with pytest.raises(ConfigurationError, match="expiration"):
        builder.with_expiration_timeout(0.5)
