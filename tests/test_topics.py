"""Several topics on one endpoint: one identity, and a book for each."""

import asyncio

import pytest

from iroh_gossip_discovery import (
    Config,
    ConfigurationError,
    DiscoveryError,
    GossipDiscovery,
    NotRunningError,
    blocking,
)

CONFIG = Config.local()


async def until_empty(discovery: GossipDiscovery) -> None:
    async with asyncio.timeout(60):
        while discovery.book:
            await asyncio.sleep(0.01)


@pytest.mark.asyncio
async def test_two_topics_of_one_endpoint_have_books_and_messages_of_their_own() -> None:
    async with (
        GossipDiscovery("alice", "fleet", config=CONFIG) as alice,
        GossipDiscovery("bob", "fleet", bootstrap=[alice.ticket], config=CONFIG) as bob,
        GossipDiscovery("carol", "fleet", bootstrap=[alice.ticket], config=CONFIG) as carol,
        await alice.join("alarms", metadata={"siren": "yes"}) as alarms,
        await bob.join("alarms", name="robert", bootstrap=[alarms.ticket]) as others,
    ):
        assert (alarms.id, alarms.me.name) == (alice.id, "alice")
        await alarms.wait_for_peers(1, timeout=60)
        await others.wait_for_peers(1, timeout=60)
        await carol.wait_for_peers(2, timeout=60)
        await bob.wait_for_peers(2, timeout=60)
        assert [peer.name for peer in alarms.book.values()] == ["robert"]
        assert dict(others.book[alice.id].metadata) == {"siren": "yes"}
        assert dict(bob.book[alice.id].metadata) == {}
        plain, inbox = alice.messages(), alarms.messages()
        async with asyncio.timeout(60):
            await others.send(alice.id, b"fire")
            await bob.send(alice.id, b"hello")
            assert (await anext(inbox)).data == b"fire"
            assert (await anext(plain)).data == b"hello"
        with pytest.raises(DiscoveryError, match="already joined"):
            await alice.join("alarms")
        await others.close()
        await until_empty(alarms)
        assert carol.id in bob.book, "the other topic goes on"
        assert bob.id in alice.book
        async with await bob.join("alarms", bootstrap=[alarms.ticket]) as again:
            await again.wait_for_peers(1, timeout=60)
    with pytest.raises(NotRunningError):
        await alice.join("alarms")


@pytest.mark.asyncio
async def test_arguments_of_a_join_are_checked() -> None:
    async with GossipDiscovery("alice", "fleet", config=CONFIG) as alice:
        with pytest.raises(ConfigurationError, match="topic must not be empty"):
            await alice.join("")
        with pytest.raises(ConfigurationError, match="another topic"):
            await alice.join("alarms", bootstrap=[alice.ticket])
        alarms = await alice.join("alarms")
        with pytest.raises(NotRunningError, match="starts once"):
            await alarms.start()


@pytest.mark.asyncio
async def test_the_close_of_the_endpoint_ends_every_topic_with_a_goodbye() -> None:
    async with GossipDiscovery("bob", "alarms", config=CONFIG) as bob:
        async with GossipDiscovery("alice", "fleet", config=CONFIG) as alice:
            alarms = await alice.join("alarms", bootstrap=[bob.ticket])
            more = await alarms.join("more")
            await bob.wait_for_peers(1, timeout=60)
            events = alarms.events()
        async with asyncio.timeout(60):
            async for _ in events:
                pass  # it ends
        for ended in (alarms, more):
            with pytest.raises(NotRunningError):
                _ = ended.id
            await ended.close()
        await until_empty(bob)


@pytest.mark.asyncio
async def test_a_close_during_a_join_leaves_nothing_open() -> None:
    async with GossipDiscovery("alice", "fleet", config=CONFIG) as alice:
        joining = asyncio.create_task(alice.join("alarms"))
        await asyncio.sleep(0)  # it has begun
        await alice.close()
        try:
            alarms = await joining
        except NotRunningError:
            return
        with pytest.raises(NotRunningError):
            _ = alarms.id


def test_topics_are_joined_without_asyncio() -> None:
    with (
        blocking.GossipDiscovery("alice", "fleet", config=CONFIG) as alice,
        alice.join("alarms") as alarms,
        blocking.GossipDiscovery("bob", "alarms", bootstrap=[alarms.ticket], config=CONFIG) as bob,
    ):
        assert list(bob.wait_for_peers(1, timeout=60)) == [alice.id]
        inbox = bob.messages("cache")
        alarms.send(bob.id, b"fire", channel="cache", timeout=60)
        assert inbox.get(timeout=60).data == b"fire"
