"""Every kind of bootstrap peer leads to the others, and lookups are asked again and again."""

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from iroh_gossip_discovery import (
    BootstrapSource,
    Config,
    GossipDiscovery,
    Isolated,
    Peer,
    PeersTimeoutError,
    Reconnected,
    _bootstrap,
)
from iroh_gossip_discovery._cli._processes import NodeGroup

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def seed() -> AsyncIterator[GossipDiscovery]:
    async with GossipDiscovery("seed", "fleet", config=Config.local()) as discovery:
        yield discovery


def node(name: str, *sources: BootstrapSource) -> GossipDiscovery:
    return GossipDiscovery(name, "fleet", bootstrap=sources, config=Config.local())


async def as_seen(seed: GossipDiscovery) -> Peer:
    """Return the seed as it stands in another node's book."""
    async with node("witness", seed.ticket) as witness:
        return (await witness.wait_for_peers(1, timeout=30))[seed.id]


@pytest.mark.parametrize("kind", ["ticket", "host", "peer", "lookup", "several"])
async def test_a_node_finds_the_others_by_any_kind(seed: GossipDiscovery, kind: str) -> None:
    peer = await as_seen(seed)
    host = f"{seed.id}@{peer.addresses[0].replace('127.0.0.1', 'localhost')}"

    async def lookup() -> list[str | Peer]:
        await asyncio.sleep(0)
        return [seed.ticket]

    sources: dict[str, list[BootstrapSource]] = {
        "ticket": [seed.ticket],
        "host": [host],
        "peer": [peer],
        "lookup": [lookup],
        "several": [f"{'07' * 32}@127.0.0.1:1", lookup, peer, host],
    }
    async with node("bob", *sources[kind]) as bob:
        assert (await bob.wait_for_peers(1, timeout=30)).keys() == {seed.id}


async def test_a_lookup_is_asked_until_it_finds_a_peer() -> None:
    asked = 0
    found: list[str | Peer] = []

    async def lookup() -> list[str | Peer]:
        nonlocal asked
        await asyncio.sleep(0)
        asked += 1
        return found

    async with node("bob", lookup) as bob:
        async with asyncio.timeout(30):
            while asked < 3:
                await asyncio.sleep(0.01)
        async with node("seed") as seed:
            found.append(seed.ticket)
            await bob.wait_for_peers(1, timeout=30)


async def test_a_lookup_is_asked_again_when_the_node_is_isolated() -> None:
    asked = 0
    found: list[str | Peer] = []

    async def lookup() -> list[str | Peer]:
        nonlocal asked
        await asyncio.sleep(0)
        asked += 1
        return found

    async with NodeGroup() as group:
        first = await group.start({"name": "first", "topic": "fleet"})
        found[:] = [first.ticket]
        async with (
            GossipDiscovery("bob", "fleet", bootstrap=[lookup], config=Config.local()) as bob,
            bob.events() as events,
        ):
            await bob.wait_for_peers(1, timeout=30)
            asked_while_linked = asked
            second = await group.start({"name": "second", "topic": "fleet"})
            found[:] = [second.ticket]
            assert asked == asked_while_linked
            first.kill()
            async with asyncio.timeout(30):
                while await anext(events) != Isolated():
                    pass
                while await anext(events) != Reconnected():
                    pass
            await bob.wait_for_peers(1, timeout=30)
            assert second.id in bob.book
            assert asked > asked_while_linked


async def test_two_groups_that_met_by_lookups_merge_within_the_period(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_bootstrap, "_PERIOD", 1.0)
    registry: list[str | Peer] = []

    async def lookup() -> list[str | Peer]:
        await asyncio.sleep(0)
        return list(registry)

    async with (
        node("a") as a,
        node("c") as c,
        node("b", a.ticket, lookup) as b,
        node("d", c.ticket, lookup) as d,
    ):
        for each in (a, b, c, d):
            await each.wait_for_peers(1, timeout=30)
        assert a.id not in d.book
        assert d.id not in a.book
        # Only now do the pairs see each other: nobody is isolated.
        registry += [a.ticket, c.ticket]
        for each in (a, b, c, d):
            await each.wait_for_peers(3, timeout=30)


async def test_a_lookup_is_asked_soon_after_a_loss(
    seed: GossipDiscovery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_bootstrap, "_AFTER_LOSS", 0.1)
    monkeypatch.setattr(_bootstrap, "_LOSS_INTERVAL", 0.1)
    asked = 0

    async def lookup() -> list[str | Peer]:
        nonlocal asked
        await asyncio.sleep(0)
        asked += 1
        return [seed.ticket]

    async with node("bob", lookup) as bob:
        await bob.wait_for_peers(1, timeout=30)
        async with node("carol", seed.ticket):
            await bob.wait_for_peers(2, timeout=30)
            before = asked
        async with asyncio.timeout(30):
            while asked == before:
                await asyncio.sleep(0.01)
        assert seed.id in bob.book


async def test_a_lookup_that_hangs_delays_no_other(seed: GossipDiscovery) -> None:
    hanging = asyncio.Event()

    async def hangs() -> list[str | Peer]:
        hanging.set()
        await asyncio.Event().wait()
        raise AssertionError

    async def good() -> list[str | Peer]:
        await hanging.wait()
        return [seed.ticket]

    async with node("bob", hangs, good) as bob:
        # Its own limit is 30 s.
        await bob.wait_for_peers(1, timeout=15)


async def problems_of(bob: GossipDiscovery, count: int) -> dict[str, str]:
    """Wait until this many sources of peers are among the problems of a node."""
    async with asyncio.timeout(30):
        while True:
            problems = bob.problems()
            found = {one.source: one.what for one in problems if "bootstrap[" in one.source}
            if len(found) == count:
                return found
            await asyncio.sleep(0.01)


async def test_what_is_wrong_in_a_lookups_answer_does_not_cost_the_rest(
    seed: GossipDiscovery,
) -> None:
    async def lookup() -> list[str | Peer]:
        await asyncio.sleep(0)
        return ["nonsense", *(f"{number:064x}" for number in range(1, 4)), seed.ticket]

    async with node("bob", lookup) as bob:
        await bob.wait_for_peers(1, timeout=30)
        [what] = (await problems_of(bob, 1)).values()
    assert "1 of 5 results not used: ConfigurationError: bootstrap[0]" in what


async def test_the_living_peer_is_found_after_a_life_of_dead_ids(seed: GossipDiscovery) -> None:
    async with node("bob") as bob:
        for start in range(0, 3000, 500):
            dead = [f"{'07' * 28}{number:08x}@127.0.0.1:9" for number in range(start, start + 500)]
            await bob.add_bootstrap(dead)
        await bob.add_bootstrap([seed.ticket])
        await bob.wait_for_peers(1, timeout=90)  # 20 s on a quiet machine
        assert bob.metrics().dropped["bootstrap peers aged out"] == 3001 - 1024


async def test_a_failing_lookup_is_a_problem_until_it_works_and_harms_no_other(
    seed: GossipDiscovery, caplog: pytest.LogCaptureFixture
) -> None:
    fails = True
    works: set[str] = set()

    async def broken() -> list[str | Peer]:
        await asyncio.sleep(0)
        if fails:
            raise ValueError("no such table")
        works.add("broken")
        return []

    async def cancelled() -> list[str | Peer]:
        task = asyncio.create_task(asyncio.sleep(60))
        task.cancel()
        if fails:
            await task
        works.add("cancelled")
        return []

    async def malformed() -> list[str | Peer]:
        await asyncio.sleep(0)
        return ["nonsense"]

    def not_async() -> list[str]:
        return [seed.ticket]

    async def good() -> list[str | Peer]:
        await asyncio.sleep(0)
        # Once a peer is linked, lookups are called rarely.
        return [seed.ticket] if len(works) == 2 else []

    caplog.set_level(logging.WARNING, "iroh_gossip_discovery")
    sources: list[BootstrapSource] = [broken, cancelled, malformed, not_async, good]  # type: ignore[list-item]
    async with node("bob", *sources) as bob:
        problems = await problems_of(bob, 4)
        for source, what in {
            "bootstrap[0] (broken)": "no such table",
            "bootstrap[1] (cancelled)": "CancelledError",
            "bootstrap[2] (malformed)": "nonsense",
            "bootstrap[3] (not_async)": "must be async",
        }.items():
            assert what in problems[source]
        with pytest.raises(PeersTimeoutError, match="no such table"):
            await bob.wait_for_peers(1, timeout=0.1)
        fails = False
        await bob.wait_for_peers(1, timeout=30)
        assert len(await problems_of(bob, 2)) == 2
    # Each is logged once, however often it is called.
    assert caplog.text.count("no such table") <= 1


async def test_a_bootstrap_peer_that_starts_late_is_found(tmp_path: Path) -> None:
    state = str(tmp_path)
    async with NodeGroup() as group:
        # It gives its key, and a port that is free.
        trial = await group.start({"name": "late", "topic": "fleet", "state_dir": state})
        (address, *_) = (await trial.ask_state()).addresses
        await trial.stop()
        async with node("bob", trial.ticket) as bob, asyncio.timeout(90):
            while bob.metrics().dials_failed < 2:
                await asyncio.sleep(0.05)
            assert not bob.book
            again = await group.start({**trial.spec, "config": {"bind": [address]}})
            assert (await bob.wait_for_peers(1)).keys() == {again.id} == {trial.id}
