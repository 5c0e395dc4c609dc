"""Observers: they see the book, and are in nobody's."""

import asyncio
import json
import os
import subprocess
import sys
from contextlib import AsyncExitStack

import pytest

from iroh_gossip_discovery import (
    Config,
    DiscoveryError,
    GossipDiscovery,
    PeerJoined,
    PeerLeft,
    Request,
    blocking,
)
from iroh_gossip_discovery.testing import LocalSwarm, wait_for

CONFIG = Config.local()
PATIENCE = 60.0


def observe(member: GossipDiscovery, **options: object) -> GossipDiscovery:
    bootstrap = [member.ticket]
    return GossipDiscovery(
        "dashboard",
        member.topic,
        bootstrap=bootstrap,
        config=CONFIG,
        observer=True,
        **options,  # type: ignore[arg-type]
    )


@pytest.mark.asyncio
async def test_an_observer_sees_all_and_is_seen_by_nobody() -> None:
    async with LocalSwarm() as swarm:
        nodes = await swarm.start_many(3)
        await swarm.wait_converged(timeout=PATIENCE)
        seen: list[object] = []
        for node in nodes:
            node.on((PeerJoined, PeerLeft), seen.append)
        async with observe(nodes[0]) as observer:
            assert observer.is_observer
            assert not nodes[0].is_observer
            book = await observer.settled(quiet=0.2, timeout=PATIENCE)
            assert set(book) == {node.id for node in nodes}
            events = observer.events()
            dave = await swarm.start("dave")
            async with asyncio.timeout(PATIENCE):
                joined = await anext(events)
            assert isinstance(joined, PeerJoined)
            assert joined.peer.id == dave.id
            await swarm.wait_converged(timeout=PATIENCE)
            assert all(len(node.book) == 3 for node in nodes)
        # All that members were told is about members.
        await wait_for(lambda: len(seen) == 3, timeout=PATIENCE)
        assert {event.peer.id for event in seen if isinstance(event, PeerJoined)} == {dave.id}


@pytest.mark.asyncio
async def test_an_observer_owns_and_leads_nothing() -> None:
    async with LocalSwarm() as swarm:
        nodes = await swarm.start_many(2)
        await swarm.wait_converged(timeout=PATIENCE)
        async with observe(nodes[0]) as observer:
            await observer.settled(quiet=0.2, timeout=PATIENCE)
            assert set(observer.members) == {node.id for node in nodes}
            keys = [str(number) for number in range(100)]
            owners = [nodes[0].members.owner(key).id for key in keys]
            assert [observer.members.owner(key).id for key in keys] == owners
            async with observer.leader("scheduler", expected=3) as stream:
                async with asyncio.timeout(PATIENCE):
                    leadership = await anext(stream)
                assert leadership.present == 2
                assert not leadership.mine


@pytest.mark.asyncio
async def test_an_observer_asks_members_and_is_told_what_it_cannot_do() -> None:
    async with LocalSwarm() as swarm:
        alice = await swarm.start("alice")

        @alice.answer("upper")
        def upper(request: Request) -> bytes:
            return request.data.upper()

        async with observe(alice) as observer:
            book = await observer.settled(quiet=0.2, timeout=PATIENCE)
            (peer,) = book.values()
            assert await observer.request(peer, "upper", b"abc", timeout=PATIENCE) == b"ABC"
            with pytest.raises(DiscoveryError, match="an observer can't broadcast"):
                await observer.broadcast(b"all")
            with pytest.raises(DiscoveryError, match="an observer can't announce a profile"):
                await observer.update(metadata={"a": "b"})
            assert observer.metadata == {}
            with pytest.raises(DiscoveryError, match="an observer can't serve a protocol"):
                observer.answer("upper")(upper)


@pytest.mark.asyncio
async def test_what_is_no_boolean_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match="observer"):
        GossipDiscovery("dashboard", "fleet", observer="yes")  # type: ignore[arg-type]


@pytest.mark.asyncio
async def test_an_observer_that_finds_no_room_says_who_was_asked() -> None:
    async with AsyncExitStack() as stack:
        full = Config.local(observers=0)
        alice = await stack.enter_async_context(GossipDiscovery("alice", "fleet", config=full))
        observer = await stack.enter_async_context(observe(alice))
        joined = await observer.joined(timeout=PATIENCE)
        assert not joined
        assert "as many observers as it may" in str(joined)


def test_the_members_command_is_seen_by_nobody() -> None:
    with blocking.GossipDiscovery("alice", "fleet", config=CONFIG) as alice:
        seen: list[object] = []
        alice.on((PeerJoined, PeerLeft), seen.append)
        call = ["members", alice.ticket, "--preset", "local", "--json"]
        done = subprocess.run(
            [sys.executable, "-m", "iroh_gossip_discovery", *call, "--timeout", str(PATIENCE)],
            capture_output=True,
            timeout=120,
            check=True,
            env=os.environ | {"NO_COLOR": "1"},
        )
        (peer,) = json.loads(done.stdout)["peers"]
        assert peer["id"] == alice.id
        # Something that comes after the visit: whatever the visit caused has come by then.
        with blocking.GossipDiscovery(
            "bob", "fleet", bootstrap=[alice.ticket], config=CONFIG
        ) as bob:
            alice.wait_for_peers(1, timeout=PATIENCE)
            assert set(alice.book) == {bob.id}
            assert len(seen) <= 1
