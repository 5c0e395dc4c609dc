"""Readiness: what chooses a node for work passes over those that take none."""

import asyncio
import copy
import pickle

import pytest

from iroh_gossip_discovery import (
    ConfigurationError,
    GossipDiscovery,
    NobodyError,
    Peer,
    PeerUpdated,
    Snapshot,
)
from iroh_gossip_discovery.testing import LocalSwarm, wait_for

PATIENCE = 60.0
KEYS = [str(number) for number in range(50)]


async def sees(node: GossipDiscovery, other: GossipDiscovery, readiness: str) -> None:
    await wait_for(
        lambda: node.book[other.id].readiness == readiness,
        timeout=PATIENCE,
        what=f"{other.name} is {readiness}",
    )


@pytest.mark.asyncio
async def test_a_node_that_is_not_ready_owns_and_leads_nothing_and_stays_in_the_book() -> None:
    async with LocalSwarm() as swarm:
        alice, bob = await swarm.start("alice"), await swarm.start("bob")
        await swarm.wait_converged(timeout=PATIENCE)
        assert (alice.readiness, bob.book[alice.id].readiness) == ("ready", "ready")
        before = {key: bob.members.owner(key).id for key in KEYS}
        assert set(before.values()) == {alice.id, bob.id}
        events = bob.events()
        await alice.set_readiness("draining")
        assert (alice.readiness, alice.me.readiness) == ("draining", "draining")
        async with asyncio.timeout(PATIENCE):
            event = await anext(events)
        assert isinstance(event, PeerUpdated)
        assert event.peer.readiness == "draining"
        for node in (alice, bob):
            assert len(node.members) == 2
            assert {node.members.owner(key).id for key in KEYS} == {bob.id}
            assert {node.members.owner(key, ready=False).id for key in KEYS} == {alice.id}
            assert {key: node.members.owner(key, ready=None).id for key in KEYS} == before
            assert len(node.members.owners("k", 2)) == 1
            async with node.leader("scheduler") as stream, asyncio.timeout(PATIENCE):
                leadership = await anext(stream)
            assert leadership.leader is not None
            assert (leadership.leader.id, leadership.present) == (bob.id, 2)
        await bob.set_readiness("critical")
        await sees(alice, bob, "critical")
        with pytest.raises(NobodyError, match="members has no node for which ready=True"):
            alice.members.owner("k")
        await alice.set_readiness("ready")
        await bob.set_readiness("ready")
        await sees(alice, bob, "ready")
        await sees(bob, alice, "ready")
        assert {key: bob.members.owner(key).id for key in KEYS} == before


@pytest.mark.asyncio
async def test_views_narrow_to_ready_nodes_and_keys_move_when_it_changes() -> None:
    async with LocalSwarm() as swarm:
        alice = await swarm.start("alice", protocols=["echo/1"], metadata={"role": "cache"})
        bob = await swarm.start("bob")
        await swarm.wait_converged(timeout=PATIENCE)
        async with bob.members.where(role="cache").ownership_changes(["k"]) as changes:
            async with asyncio.timeout(PATIENCE):
                first = await anext(changes)
                assert first.owner is not None
                assert first.owner.id == alice.id
                await alice.set_readiness("draining")
                assert (await anext(changes)).owner is None
        assert len(bob.book.serving("echo/1")) == 0
        assert set(bob.book.serving("echo/1", ready=None)) == {alice.id}
        assert set(bob.book.serving("echo/1", ready=False)) == {alice.id}
        assert set(bob.book.where(role="cache")) == {alice.id}
        assert len(bob.book.where(role="cache").ready()) == 0
        assert set(bob.book.ready().ready(None)) == {alice.id}
        assert "ready()" in repr(bob.book.ready())
        # Another change of the record leaves it as it is.
        await alice.update_metadata(load="high")
        assert alice.me.readiness == "draining"


@pytest.mark.asyncio
async def test_what_no_node_can_announce_is_refused() -> None:
    async with LocalSwarm() as swarm:
        alice = await swarm.start("alice")
        for wrong in ("unknown", "", "Ready"):
            with pytest.raises(ConfigurationError, match="readiness"):
                await alice.set_readiness(wrong)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="readiness"):
            await alice.set_readiness(None)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="ready"):
            alice.members.ready("yes")  # type: ignore[arg-type]
        assert alice.me.readiness == "ready"


@pytest.mark.parametrize("readiness", ["ready", "draining", "critical", "unknown"])
def test_a_peer_keeps_its_readiness_when_it_is_copied(readiness: str) -> None:
    peer = Peer("07" * 32, "alice", readiness=readiness)  # type: ignore[arg-type]
    assert peer.readiness == peer.to_dict()["readiness"] == readiness
    assert pickle.loads(pickle.dumps(peer)) == peer  # noqa: S301  # made here
    assert copy.deepcopy(peer) == peer
    other = Peer("07" * 32, "alice", readiness="ready" if readiness != "ready" else "critical")
    assert other != peer
    assert Snapshot([other]).digest != Snapshot([peer]).digest
