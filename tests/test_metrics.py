"""What a node counts is true, documented, and what Prometheus gets."""

import asyncio
import dataclasses
import pickle
import re
from pathlib import Path
from typing import get_args

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from iroh_gossip_discovery import (
    Config,
    Event,
    EventsLost,
    GossipDiscovery,
    Metrics,
    NotRunningError,
)
from iroh_gossip_discovery._metrics import about
from iroh_gossip_discovery.contrib.prometheus import PREFIX, DiscoveryCollector

ROOT = Path(__file__).resolve().parent.parent
GUIDE = (ROOT / "docs" / "operating.md").read_text()
FIELDS = about()
DROP_REASONS = dict(
    re.findall(
        r'^    (\w+) = "([^"]+)",$',
        (ROOT / "rust" / "proto" / "src" / "drops.rs").read_text(),
        re.MULTILINE,
    )
)


def node(name: str, *others: GossipDiscovery, **fields: float) -> GossipDiscovery:
    return GossipDiscovery(
        name,
        "metrics",
        bootstrap=[other.ticket for other in others],
        config=Config.local(**fields),  # type: ignore[arg-type]  # all of them are floats here
    )


def rows(heading: str) -> list[list[str]]:
    section = GUIDE.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    cells = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in row] for row in cells]


def test_the_guide_lists_every_metric_with_kind_and_unit_and_no_other() -> None:
    listed = [row for row in rows("Metrics") if len(row) == 4]
    declared = [[f"`{name}`", *described] for name, described in FIELDS.items()]
    assert listed == declared


def test_the_class_documents_every_metric() -> None:
    documented = re.findall(r"^ {8}(\w+): ", Metrics.__doc__ or "", re.MULTILINE)
    assert documented == list(FIELDS)


def test_the_guide_says_what_every_kind_of_drop_means() -> None:
    assert [row[0].strip("`") for row in rows("Drops")] == list(DROP_REASONS.values())


def test_every_reason_of_the_table_of_drops_is_used() -> None:
    sources = "".join(
        path.read_text()
        for crate in ("proto", "discovery")
        for path in sorted((ROOT / "rust" / crate / "src").rglob("*.rs"))
        if path.name != "drops.rs" and "tests" not in path.parts
    )
    assert DROP_REASONS.keys() == set(re.findall(r"DropReason::([A-Z]\w+)", sources))


@pytest.mark.asyncio
async def test_a_node_counts_what_it_does() -> None:
    async with node("alice", expiration=1.0) as alice:
        alone = alice.metrics()
        assert (alone.peers, alone.links, alone.dials, alone.announcements) == (0, 0, 0, 1)
        assert alone.round_trip is None
        async with node("bob", alice, expiration=1.0) as bob:
            await alice.wait_for_peers(1, timeout=20)
            await bob.wait_for_peers(1, timeout=20)
            events = alice.events()
            await bob.update(metadata={"a": "b"})
            async with asyncio.timeout(20):
                await anext(events)
                while alice.metrics().heartbeats < 2:
                    await asyncio.sleep(0.01)
            mine, his = alice.metrics(), bob.metrics()
            assert (mine.peers, mine.links, mine.links_opened, mine.links_relayed) == (1, 1, 1, 0)
            assert (his.dials, his.dials_failed, mine.dials) == (1, 0, 0)
            assert his.announcements >= 4
            assert mine.verifications >= 4
            assert his.syncs_started >= 1
            assert mine.syncs_served >= 1
            assert mine.syncs_completed >= 1
            assert mine.neighbors == 1
            assert mine.events["PeerJoined"] == mine.events["PeerUpdated"] == 1
            assert mine.round_trip is not None
            assert 0 < mine.round_trip < 1
            assert min(mine.frames_sent, mine.frames_received) > 0
            # Hundreds of bytes each, and QUIC's handshake.
            assert min(mine.bytes_sent, mine.bytes_received) > 1000
        async with asyncio.timeout(20):
            while alice.metrics().events["PeerLeft"] < 1:
                await asyncio.sleep(0.01)
        gone = alice.metrics()
        assert (gone.peers, gone.tombstones) == (0, 1)
    with pytest.raises(NotRunningError):
        alice.metrics()


@pytest.mark.asyncio
async def test_dials_that_fail_are_counted() -> None:
    async with node("alice") as alice:
        ticket = alice.ticket
    bob = GossipDiscovery("bob", "metrics", bootstrap=[ticket], config=Config.local())
    async with bob, asyncio.timeout(30):
        while bob.metrics().dials_failed < 1:
            await asyncio.sleep(0.05)
        assert bob.metrics().dials >= 1


@pytest.mark.asyncio
async def test_a_snapshot_stays_as_it_is_and_travels() -> None:
    async with node("alice") as alice:
        before = alice.metrics()
        copy = pickle.loads(pickle.dumps(before))  # noqa: S301  # our own
        await alice.update(metadata={"a": "b"})
        assert before == copy
        assert alice.metrics().announcements == before.announcements + 1
        with pytest.raises(dataclasses.FrozenInstanceError):
            before.peers = 9  # type: ignore[misc]  # that is what is tested
        assert dataclasses.asdict(before)["events"] == dict(before.events)


@pytest.mark.asyncio
async def test_every_kind_of_event_has_its_count() -> None:
    async with node("alice") as alice:
        kinds = {kind.__name__ for kind in get_args(Event)} - {EventsLost.__name__}
        assert alice.metrics().events.keys() == kinds


@pytest.mark.asyncio
async def test_prometheus_gets_every_metric_of_each_node_that_runs() -> None:
    registry = CollectorRegistry()
    alice = node("alice")
    collector = DiscoveryCollector(alice)
    registry.register(collector)
    assert "alice" not in generate_latest(registry).decode()
    async with alice, node("bob", alice) as bob:
        collector.add(bob)
        await alice.wait_for_peers(1, timeout=20)
        await bob.wait_for_peers(1, timeout=20)
        families = list(text_string_to_metric_families(generate_latest(registry).decode()))
        samples = {
            (
                sample.name,
                *(sample.labels.get(label, "") for label in ("id", "event", "topic")),
            ): sample.value
            for family in families
            for sample in family.samples
        }
        for discovery in (alice, bob):
            assert samples[f"{PREFIX}peers", discovery.id, "", "metrics"] == 1
            assert samples[f"{PREFIX}bytes_sent_total", discovery.id, "", "metrics"] > 0
            assert samples[f"{PREFIX}events_total", discovery.id, "PeerJoined", "metrics"] == 1
            assert samples[f"{PREFIX}round_trip_seconds", discovery.id, "", "metrics"] > 0
        exposed = {family.name.removeprefix(PREFIX).removesuffix("_seconds") for family in families}
        assert exposed == FIELDS.keys()
        assert all("(" in family.documentation for family in families)
        for family in families:
            name = family.name.removeprefix(PREFIX).removesuffix("_seconds")
            assert family.type == FIELDS[name].kind
        collector.remove(bob)
        assert bob.id not in generate_latest(registry).decode()
    assert 'id="' not in generate_latest(registry).decode()
