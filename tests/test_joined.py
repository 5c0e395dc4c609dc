"""`joined` returns once the topic is met, or no peer answers, and says which; ownership waits."""

import asyncio
from collections.abc import Iterable

import pytest

from iroh_gossip_discovery import (
    BootstrapPeer,
    Config,
    ConfigurationError,
    GossipDiscovery,
    NotRunningError,
    PeersTimeoutError,
    blocking,
    endpoint_id,
    make_ticket,
)
from iroh_gossip_discovery.testing import LocalSwarm

CONFIG = Config.local(connect_timeout=0.3)
NOBODY = make_ticket(endpoint_id(b"\x07" * 32), "t", ["127.0.0.1:9"])


@pytest.mark.asyncio
async def test_a_newcomer_is_joined_once_the_whole_book_is_there() -> None:
    async with LocalSwarm(topic="t") as swarm:
        await swarm.start_many(12)
        await swarm.wait_converged(timeout=30)
        ticket = swarm.nodes[0].ticket
        async with GossipDiscovery("new", "t", bootstrap=[ticket], config=CONFIG) as node:
            joined = await node.joined(timeout=30)
            assert len(node.book) == 12
            assert (joined.reason, bool(joined), joined.unanswered) == ("synced", True, {})
            assert joined.peer in node.book
            assert await node.joined(timeout=0.5) == joined


@pytest.mark.asyncio
async def test_a_node_with_nobody_to_ask_is_alone_at_once() -> None:
    async with GossipDiscovery("a", "t", config=CONFIG) as node:
        joined = await node.joined(timeout=5)
        assert (joined.reason, joined.peer, bool(joined)) == ("alone", None, False)
        assert str(joined) == "alone: there was nobody to ask"


@pytest.mark.asyncio
async def test_a_node_whose_peers_do_not_answer_says_who_and_why() -> None:
    async with GossipDiscovery("a", "t", bootstrap=[NOBODY], config=CONFIG) as node:
        joined = await node.joined(timeout=20)
        assert joined.reason == "alone"
        assert list(joined.unanswered) == [endpoint_id(b"\x07" * 32)]
        assert "timed out" in str(joined)


@pytest.mark.asyncio
async def test_a_seed_is_joined_when_the_first_member_comes() -> None:
    config = Config.local(connect_timeout=30.0, idle_timeout=30.0)
    async with GossipDiscovery("a", "t", bootstrap=[NOBODY], config=config) as seed:
        waiting = asyncio.create_task(seed.joined(timeout=30))
        async with GossipDiscovery("b", "t", bootstrap=[seed.ticket], config=CONFIG) as other:
            assert (await waiting).peer == other.id


@pytest.mark.asyncio
async def test_it_waits_until_each_lookup_was_called() -> None:
    begun, release = asyncio.Event(), asyncio.Event()
    async with GossipDiscovery("a", "t", config=CONFIG) as other:

        async def look() -> Iterable[BootstrapPeer]:
            begun.set()
            await release.wait()
            return [other.ticket]

        async with GossipDiscovery("b", "t", bootstrap=[look], config=CONFIG) as node:
            waiting = asyncio.create_task(node.joined())
            await begun.wait()
            await asyncio.sleep(0.05)
            assert not waiting.done()
            release.set()
            assert (await waiting).peer == other.id


@pytest.mark.asyncio
async def test_a_peer_that_serves_another_topic_is_named_at_once() -> None:
    async with GossipDiscovery("a", "other", config=CONFIG) as other:
        ticket = make_ticket(other.id, "t", other.me.addresses)
        async with GossipDiscovery("b", "t", bootstrap=[ticket], config=CONFIG) as node:
            joined = await node.joined(timeout=60)
            assert joined.unanswered == {other.id: "it has not joined the topic"}


@pytest.mark.asyncio
async def test_a_limit_and_an_end_are_errors_of_their_own() -> None:
    config = Config.local(connect_timeout=30.0, idle_timeout=30.0)
    async with GossipDiscovery("a", "t", bootstrap=[NOBODY], config=config) as node:
        with pytest.raises(PeersTimeoutError, match=r"within 0\.05 s no member"):
            await node.joined(timeout=0.05)
        with pytest.raises(ConfigurationError, match="timeout is nan"):
            await node.joined(timeout=float("nan"))
        waiting = asyncio.create_task(node.joined())
        await asyncio.sleep(0)
        await node.leave()
        with pytest.raises(NotRunningError):
            await waiting
    with pytest.raises(NotRunningError):
        await node.joined()


@pytest.mark.asyncio
async def test_a_newcomer_owns_no_key_before_it_has_met_the_topic() -> None:
    async with LocalSwarm(topic="t") as swarm:
        await swarm.start_many(5)
        await swarm.wait_converged(timeout=30)
        ticket = swarm.nodes[0].ticket
        keys = [f"key/{n}" for n in range(50)]
        async with (
            GossipDiscovery("new", "t", bootstrap=[ticket], config=CONFIG) as node,
            node.members.ownership_changes(keys) as changes,
        ):
            first = [await anext(changes) for _ in keys]
            assert len(node.book) == 5
            expected = {key: node.members.owner(key).id for key in keys}
            assert {c.key: c.owner and c.owner.id for c in first} == expected


@pytest.mark.asyncio
async def test_an_iteration_that_waits_for_the_topic_ends_when_it_is_closed() -> None:
    config = Config.local(connect_timeout=30.0, idle_timeout=30.0)
    async with GossipDiscovery("a", "t", bootstrap=[NOBODY], config=config) as node:
        changes = node.members.ownership_changes(["key"])
        waiting = asyncio.ensure_future(anext(changes, None))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        changes.close()
        assert await waiting is None


def test_it_blocks_without_asyncio() -> None:
    with (
        blocking.GossipDiscovery("a", "t", config=CONFIG) as one,
        blocking.GossipDiscovery("b", "t", bootstrap=[one.ticket], config=CONFIG) as two,
    ):
        assert two.joined(timeout=30).peer == one.id
        status = two.status(one.id)
        assert status is not None
        assert (status.state, status.path, status.linked) == ("alive", "direct", True)


@pytest.mark.asyncio
async def test_the_status_of_a_peer_is_what_this_node_sees() -> None:
    async with (
        GossipDiscovery("a", "t", config=CONFIG) as one,
        GossipDiscovery("b", "t", bootstrap=[one.ticket], config=CONFIG) as two,
    ):
        assert two.status("07" * 32) is None
        await two.joined(timeout=30)
        status = two.status(two.book[one.id])
        assert status is not None
        assert status.address in two.book[one.id].addresses
        assert 0 < (status.round_trip or 0) < 5
        assert 0 <= status.heard_ago < 30
        assert status.to_dict()["linked"] is True
        with pytest.raises(ConfigurationError, match="peer "):
            two.status("bob")


@pytest.mark.asyncio
async def test_a_peer_that_answers_nothing_is_suspected() -> None:
    async with LocalSwarm(topic="t") as swarm:
        await swarm.start_many(3)
        await swarm.wait_converged(timeout=30)
        one, _, paused = swarm.nodes
        paused_id = paused.id
        await swarm.pause(paused)
        async with asyncio.timeout(30):
            while (status := one.status(paused_id)) is not None and status.state == "alive":
                await asyncio.sleep(0.02)
        assert status is not None, "it is suspected before it is lost"
        assert status.state == "suspected"
        await swarm.resume(paused)
