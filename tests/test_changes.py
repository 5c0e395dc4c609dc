"""Views that are waited for and followed: predicates, `wait`, and changes as cuts."""

import asyncio

import pytest

from iroh_gossip_discovery import (
    ChangeStream,
    Config,
    ConfigurationError,
    GossipDiscovery,
    NotRunningError,
    Peer,
    PeersTimeoutError,
    ViewChange,
    blocking,
)
from iroh_gossip_discovery.testing import LocalSwarm

CONFIG = Config.local()


def names(peers: tuple[Peer, ...]) -> list[str]:
    return sorted(peer.name for peer in peers)


async def following(stream: ChangeStream) -> ViewChange:
    async with asyncio.timeout(30):
        return await anext(stream)


@pytest.mark.asyncio
async def test_a_predicate_narrows_a_view_in_all_its_looks() -> None:
    async with LocalSwarm(topic="t") as swarm:
        one = await swarm.start("one", metadata={"cores": "2"})
        two = await swarm.start("two", metadata={"cores": "16"})
        await swarm.wait_converged(timeout=30)
        large = one.members.where(lambda peer: int(peer.metadata["cores"]) >= 8)
        assert (len(large), list(large), two.id in large) == (1, [two.id], True)
        assert one.id not in large
        assert one.members.get(one.id) is not None
        assert large.owner("key").id == two.id
        assert large.snapshot()[two.id].name == "two"
        assert repr(large).startswith("<View members.where(…): [<Peer 'two' ")
        none = large.named("one")
        assert (len(none), none.owners("key", 2)) == (0, [])
        with pytest.raises(TypeError, match="metadata must be Mapping"):
            one.members.where(7)  # type: ignore[arg-type]


@pytest.mark.asyncio
async def test_wait_returns_once_enough_nodes_meet_the_conditions() -> None:
    async with LocalSwarm(topic="t") as swarm:
        one = await swarm.start("one")
        caches = one.members.where(role="cache")
        waiting = asyncio.create_task(caches.wait(2, timeout=30))
        two = await swarm.start("two", metadata={"role": "cache"})
        await one.wait_for_peers(1, timeout=30)
        assert not waiting.done()
        # Of its own change there is no event.
        await one.update_metadata(role="cache")
        assert set(await waiting) == {one.id, two.id}
        assert await caches.wait(0) == caches.snapshot()
        with pytest.raises(PeersTimeoutError, match=r"saw 2 of 3 peers within 0\.05 s"):
            await caches.wait(3, timeout=0.05)
        for wait in (caches.wait, one.wait_for_peers):
            with pytest.raises(ConfigurationError, match="n must not be negative, is -1"):
                await wait(-1)
        ended = asyncio.create_task(caches.wait(3))
        await asyncio.sleep(0)
        await one.leave()
        with pytest.raises(NotRunningError, match="of 3 peers"):
            await ended


@pytest.mark.asyncio
async def test_changes_are_cuts_of_what_joined_left_was_lost_and_changed() -> None:
    async with LocalSwarm(topic="t") as swarm:
        one = await swarm.start("one")
        two = await swarm.start("two")
        await swarm.wait_converged(timeout=30)
        async with one.book.changes() as changes:
            first = await following(changes)
            assert (names(first.joined), first.updated, first.left) == (["two"], (), ())
            three = await swarm.start("three")
            assert names((await following(changes)).joined) == ["three"]
            await two.update_metadata(role="cache")
            change = await following(changes)
            assert (names(change.updated), change.joined) == (["two"], ())
            assert change.snapshot[two.id].metadata == {"role": "cache"}
            await two.close()
            change = await following(changes)
            assert (names(change.left), change.lost) == (["two"], ())
            await swarm.kill(three)
            change = await following(changes)
            assert (change.left, names(change.lost)) == ((), ["three"])
            assert change.to_dict()["lost"] == [change.lost[0].to_dict()]


@pytest.mark.asyncio
async def test_a_window_gathers_what_happens_within_it() -> None:
    async with LocalSwarm(topic="t") as swarm:
        one = await swarm.start("one")
        await swarm.start("two")
        await swarm.wait_converged(timeout=30)
        async with one.book.changes(window=3.0) as changes:
            await following(changes)
            waiting = asyncio.create_task(following(changes))
            await swarm.start_many(3)
            change = await waiting
            assert len(change.joined) == 3


@pytest.mark.asyncio
async def test_a_cancelled_wait_for_a_change_loses_nothing() -> None:
    async with LocalSwarm(topic="t") as swarm:
        one = await swarm.start("one")
        async with one.book.changes(window=0.05) as changes:
            seen: list[str] = []
            await swarm.start_many(4)
            async with asyncio.timeout(30):
                while len(seen) < 4:
                    try:
                        async with asyncio.timeout(0.01):
                            seen += names((await anext(changes)).joined)
                    except TimeoutError:
                        pass
            assert len(set(seen)) == 4


@pytest.mark.asyncio
async def test_a_node_that_meets_the_conditions_no_more_has_left_the_view() -> None:
    async with LocalSwarm(topic="t") as swarm:
        one = await swarm.start("one", metadata={"role": "cache"})
        async with one.members.where(role="cache").changes() as changes:
            assert names((await following(changes)).joined) == ["one"]
            await one.update_metadata(role=None)
            assert names((await following(changes)).left) == ["one"]


@pytest.mark.asyncio
async def test_changes_end_with_the_topic_and_refuse_a_second_task() -> None:
    async with GossipDiscovery("a", "t", config=CONFIG) as node:
        changes = node.book.changes()
        waiting = asyncio.ensure_future(anext(changes, None))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match=r"each call of changes\(\)"):
            await anext(changes)
        await node.leave()
        assert await waiting is None
        with pytest.raises(ConfigurationError, match="window must be 0 to 3600"):
            node.book.changes(window=-1)
        with pytest.raises(ConfigurationError, match="window must be 0 to 3600"):
            node.book.changes(window=float("nan"))
    with pytest.raises(NotRunningError):
        node.book.changes()


def test_views_block_without_asyncio() -> None:
    with (
        blocking.GossipDiscovery("a", "t", config=CONFIG) as one,
        blocking.GossipDiscovery(
            "b", "t", bootstrap=[one.ticket], metadata={"n": "5"}, config=CONFIG
        ) as two,
    ):
        fives = one.book.where(lambda peer: peer.metadata.get("n") == "5")
        assert list(fives.wait(1, timeout=30)) == [two.id]
        change = fives.changes(timeout=30).get(timeout=30)
        assert names(change.joined) == ["b"]
        with pytest.raises(ConfigurationError, match="n must not be negative"):
            fives.wait(-1)
