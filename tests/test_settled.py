"""`settled` returns when the books of a node and its neighbors agree and don't change."""

import asyncio

import pytest

from iroh_gossip_discovery import (
    Config,
    ConfigurationError,
    GossipDiscovery,
    NotRunningError,
    PeersTimeoutError,
    blocking,
)
from iroh_gossip_discovery.testing import LocalSwarm

CONFIG = Config.local(connect_timeout=0.3)


@pytest.mark.asyncio
async def test_all_books_are_equal_once_each_node_has_settled() -> None:
    async with LocalSwarm(topic="t") as swarm:
        await swarm.start_many(8)
        # The first node settles alone if it knows nobody yet.
        await asyncio.gather(*(node.wait_for_peers(7, timeout=60) for node in swarm.nodes))
        books = await asyncio.gather(*(node.settled(quiet=0.3, timeout=60) for node in swarm.nodes))
        assert [len(book) for book in books] == [7] * 8
        assert len({node.members.snapshot().digest for node in swarm.nodes}) == 1


@pytest.mark.asyncio
async def test_a_change_is_waited_for_to_be_known() -> None:
    async with LocalSwarm(topic="t") as swarm:
        one, two = await swarm.start_many(2)
        await one.wait_for_peers(1, timeout=60)
        await one.settled(quiet=0, timeout=60)
        await one.update_metadata(role="cache")
        await one.settled(quiet=0, timeout=60)
        assert two.book[one.id].metadata == {"role": "cache"}


@pytest.mark.asyncio
async def test_a_node_that_knows_nobody_settles_alone() -> None:
    async with GossipDiscovery("a", "t", config=CONFIG) as node:
        assert len(await node.settled(quiet=0.05, timeout=60)) == 0


@pytest.mark.asyncio
async def test_a_book_that_changes_again_and_again_does_not_settle() -> None:
    async with LocalSwarm(topic="t") as swarm:
        one, two = await swarm.start_many(2)
        await one.wait_for_peers(1, timeout=60)
        await one.settled(quiet=0, timeout=60)

        async def change() -> None:
            for n in range(1_000_000):
                await two.update_metadata(n=str(n))

        changing = asyncio.create_task(change())
        with pytest.raises(PeersTimeoutError, match="did not agree for 5 s without a change"):
            await one.settled(quiet=5, timeout=0.5)
        changing.cancel()


@pytest.mark.asyncio
async def test_wrong_values_and_an_end_are_errors_of_their_own() -> None:
    async with GossipDiscovery("a", "t", config=CONFIG) as node:
        for quiet in (-1, float("nan"), float("inf")):
            with pytest.raises(ConfigurationError, match="quiet must be a finite number"):
                await node.settled(quiet=quiet)
        waiting = asyncio.create_task(node.settled(quiet=3600))
        await asyncio.sleep(0)
        await node.leave()
        with pytest.raises(NotRunningError):
            await waiting


def test_it_blocks_without_asyncio() -> None:
    with (
        blocking.GossipDiscovery("a", "t", config=CONFIG) as one,
        blocking.GossipDiscovery("b", "t", bootstrap=[one.ticket], config=CONFIG) as two,
    ):
        assert one.id in two.settled(quiet=0, timeout=60)
