"""A leader by view: one for all who see the same, handed over when it goes, none in a minority."""

import asyncio

import pytest

from iroh_gossip_discovery import (
    Config,
    ConfigurationError,
    GossipDiscovery,
    Leadership,
    LeaderStream,
    blocking,
)
from iroh_gossip_discovery.testing import LocalSwarm

CONFIG = Config.local()


async def following(stream: LeaderStream) -> Leadership:
    async with asyncio.timeout(60):
        return await anext(stream)


async def settle(node: GossipDiscovery, leader_id: str | None, expected: int | None) -> Leadership:
    """Follow a fresh stream until it names this leader."""
    async with node.leader("scheduler", expected=expected) as stream, asyncio.timeout(60):
        async for leadership in stream:
            if (leadership.leader and leadership.leader.id) == leader_id:
                return leadership
    raise AssertionError("the stream has ended")


@pytest.mark.asyncio
async def test_all_nodes_name_one_leader_and_another_when_it_goes() -> None:
    async with LocalSwarm(topic="t") as swarm:
        nodes = await swarm.start_many(4)
        await swarm.wait_converged(timeout=30)
        firsts = []
        for node in nodes:
            async with node.leader("scheduler") as stream:
                firsts.append(await following(stream))
        leaders = {first.leader.id for first in firsts if first.leader}
        assert len(leaders) == 1
        assert sorted(first.mine for first in firsts) == [False, False, False, True]
        assert {(first.term, first.present) for first in firsts} == {(1, 4)}
        leader = next(node for node in nodes if node.id in leaders)
        other = next(node for node in nodes if node is not leader)
        async with other.leader("scheduler") as stream:
            assert not (await following(stream)).mine
            await leader.close()
            second = await following(stream)
            assert second.leader is not None
            assert second.leader.id not in leaders
            assert (second.term, second.present) == (2, 3)
            assert stream.current == second
            assert second.to_dict()["leader"] == second.leader.to_dict()


@pytest.mark.asyncio
async def test_a_newcomer_does_not_take_itself_for_the_leader() -> None:
    async with LocalSwarm(topic="t") as swarm:
        nodes = await swarm.start_many(5)
        await swarm.wait_converged(timeout=30)
        for number in range(5):
            ticket = nodes[0].ticket
            node = GossipDiscovery(f"new-{number}", "t", bootstrap=[ticket], config=CONFIG)
            async with node, node.leader("scheduler") as stream:
                first = await following(stream)
                assert first.present >= 6
                assert first.leader == node.members.owner(b"iroh-gossip-discovery/leader/scheduler")


@pytest.mark.asyncio
async def test_the_smaller_half_of_a_partition_has_no_leader() -> None:
    async with LocalSwarm(topic="t") as swarm:
        nodes = await swarm.start_many(5)
        await swarm.wait_converged(timeout=30)
        small, large = nodes[:2], nodes[2:]
        await swarm.partition(small, large)
        for node in small:
            leadership = await settle(node, None, expected=5)
            assert (leadership.mine, leadership.present) == (False, 2)
        await swarm.wait_converged(timeout=60)
        found = set()
        for node in large:
            async with node.leader("scheduler", expected=5) as stream:
                leadership = await following(stream)
                assert leadership.leader is not None
                found.add(leadership.leader.id)
        assert len(found) == 1
        assert found <= {node.id for node in large}


@pytest.mark.asyncio
async def test_exactly_half_is_no_majority() -> None:
    async with GossipDiscovery("a", "t", config=CONFIG) as node:
        async with node.leader("scheduler", expected=2) as stream:
            first = await following(stream)
            assert (first.leader, first.mine, first.present) == (None, False, 1)
        async with node.leader("scheduler", expected=1) as stream:
            assert (await following(stream)).mine


@pytest.mark.asyncio
async def test_candidates_are_those_of_a_view() -> None:
    async with LocalSwarm(topic="t") as swarm:
        one = await swarm.start("one")
        two = await swarm.start("two", metadata={"role": "scheduler"})
        await swarm.wait_converged(timeout=30)
        candidates = one.members.where(role="scheduler")
        async with one.leader("scheduler", among=candidates) as stream:
            first = await following(stream)
            assert first.leader is not None
            assert (first.leader.id, first.mine) == (two.id, False)
            await two.update_metadata(role=None)
            assert (await following(stream)).leader is None


@pytest.mark.asyncio
async def test_what_is_no_leadership_is_refused() -> None:
    async with GossipDiscovery("a", "t", config=CONFIG) as node:
        with pytest.raises(ConfigurationError, match="name must not be empty"):
            node.leader("")
        with pytest.raises(ConfigurationError, match="expected must be at least 1, is 0"):
            node.leader("x", expected=0)
        with pytest.raises(TypeError, match="expected must be int"):
            node.leader("x", expected=True)
        stream = node.leader("x")
        await following(stream)
        waiting = asyncio.ensure_future(anext(stream, None))
        await asyncio.sleep(0)
        stream.close()
        assert await waiting is None


def test_it_blocks_without_asyncio() -> None:
    with blocking.GossipDiscovery("a", "t", config=CONFIG) as node:
        stream = node.leader("scheduler", timeout=0.2)
        changes = list(stream)
        assert [change.mine for change in changes] == [True]
        assert stream.current == changes[0]
