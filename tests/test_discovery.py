"""The main job: nodes find each other, and notice changes, leaves, crashes and returns."""

import asyncio
import contextlib
import gc
import weakref
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
import pytest_asyncio

from iroh_gossip_discovery import (
    Book,
    Config,
    Event,
    EventsLost,
    EventStream,
    GossipDiscovery,
    Isolated,
    NotRunningError,
    Peer,
    PeerJoined,
    PeerLeft,
    PeerLost,
    PeersTimeoutError,
    PeerUpdated,
    Reconnected,
)
from iroh_gossip_discovery._cli._processes import NodeGroup

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def alice() -> AsyncIterator[GossipDiscovery]:
    async with GossipDiscovery("alice", "fleet", config=Config.local()) as discovery:
        yield discovery


def beside(other: GossipDiscovery, name: str = "bob", **config: float) -> GossipDiscovery:
    return GossipDiscovery(
        name,
        "fleet",
        bootstrap=[other.ticket],
        config=Config.local(**config),  # type: ignore[arg-type]
    )


async def until(stream: EventStream, kind: type[Event]) -> Event:
    async with asyncio.timeout(30):
        async for event in stream:
            if isinstance(event, kind):
                return event
    pytest.fail(f"the stream ended without {kind.__name__}")


async def test_all_find_each_other_through_one(alice: GossipDiscovery) -> None:
    async with contextlib.AsyncExitStack() as stack:
        others = [beside(alice, f"node-{n}") for n in range(9)]
        await asyncio.gather(*(stack.enter_async_context(other) for other in others))
        everyone = [alice, *others]
        books = await asyncio.gather(*(node.wait_for_peers(9, timeout=30) for node in everyone))
        for node, book in zip(everyone, books, strict=True):
            assert {peer.name for peer in book.values()} == {n.name for n in everyone} - {node.name}
            assert node.id not in node.book
            assert all(peer.id == key for key, peer in book.items())


async def test_entering_a_discovery_does_not_wait_for_a_peer(alice: GossipDiscovery) -> None:
    assert len(alice.id) == 64
    assert alice.ticket.startswith("igd1")
    assert len(alice.book) == 0
    nobody = f"{alice.id}@127.0.0.1:1"
    async with asyncio.timeout(5):
        async with GossipDiscovery("bob", "fleet", bootstrap=[nobody], config=Config.local()):
            pass


async def test_peers_of_one_name_do_not_hide_each_other(alice: GossipDiscovery) -> None:
    async with beside(alice, "alice") as second, beside(alice, "alice") as third:
        book = await alice.wait_for_peers(2, timeout=30)
        assert book.keys() == {second.id, third.id}
        assert {peer.name for peer in book.values()} == {"alice"}


async def test_a_peer_shows_what_it_announces(alice: GossipDiscovery) -> None:
    async with GossipDiscovery(
        "bob",
        "fleet",
        bootstrap=[alice.ticket],
        metadata={"role": "cache"},
        protocols=["chat/1"],
        config=Config.local(expiration=60.0),
    ) as bob:
        (peer,) = (await alice.wait_for_peers(1, timeout=30)).values()
        assert (peer.id, peer.name, dict(peer.metadata)) == (bob.id, "bob", {"role": "cache"})
        assert (peer.protocols, peer.expiration) == (("chat/1",), 60.0)
        assert all(address.startswith("127.0.0.1:") for address in peer.addresses)
        assert len(peer.addresses) == 1


async def test_the_book_is_a_live_mapping(alice: GossipDiscovery) -> None:
    book = alice.book
    assert isinstance(book, Mapping)
    assert isinstance(book, Book)
    assert (dict(book), repr(book)) == ({}, "<Book book: []>")
    async with beside(alice) as bob:
        await alice.wait_for_peers(1, timeout=30)
        peer = book[bob.id]
        assert (list(book), list(book.values()), list(book.items())) == (
            [bob.id],
            [peer],
            [(bob.id, peer)],
        )
        assert bob.id in book
        assert book.get(bob.id) == peer
        assert book.get(bob.id.upper()) is None
        for absent in ("", "bob", alice.id, "07" * 32, 7, None):
            assert absent not in book
        with pytest.raises(KeyError):
            book["bob"]
        with pytest.raises(TypeError):
            book["bob"] = peer  # type: ignore[index]
        snapshot = book.snapshot()
        events = alice.events()
    await until(events, PeerLeft)
    assert len(book) == 0
    assert snapshot == {peer.id: peer}


async def test_peers_gives_the_known_first_then_the_new(alice: GossipDiscovery) -> None:
    async with contextlib.AsyncExitStack() as stack, asyncio.timeout(30):
        for n in range(3):
            await stack.enter_async_context(beside(alice, f"early-{n}"))
        await alice.wait_for_peers(3)
        peers = alice.peers()
        known = {(await anext(peers)).name for _ in range(3)}
        assert known == {"early-0", "early-1", "early-2"}
        await stack.enter_async_context(beside(alice, "late"))
        assert (await anext(peers)).name == "late"


async def test_peers_ends_at_close(alice: GossipDiscovery) -> None:
    async with beside(alice) as bob:
        await bob.wait_for_peers(1, timeout=30)
        peers = bob.peers()
        collecting = asyncio.create_task(_collect(peers))
        await asyncio.sleep(0)
    async with asyncio.timeout(5):
        assert [peer.name for peer in await collecting] == ["alice"]
        assert [peer async for peer in peers] == []


async def _collect(peers: AsyncIterator[Peer]) -> list[Peer]:
    return [peer async for peer in peers]


async def test_peers_shows_a_restarted_peer_again_and_an_updated_one_once(
    alice: GossipDiscovery,
) -> None:
    key = bytes(range(32))
    peers = alice.peers()
    lives = []
    for _ in range(2):
        async with (
            GossipDiscovery(
                "bob", "fleet", bootstrap=[alice.ticket], secret_key=key, config=Config.local()
            ) as bob,
            asyncio.timeout(30),
        ):
            await bob.wait_for_peers(1)
            lives.append(await anext(peers))
            events = alice.events()
            await bob.update_metadata(role="cache")
            await until(events, PeerUpdated)
    async with beside(alice, "carol"), asyncio.timeout(30):
        assert (await anext(peers)).name == "carol"
    assert lives[0].id == lives[1].id
    assert lives[0].boot_id != lives[1].boot_id
    assert lives[0].sequence < lives[1].sequence


async def test_a_state_directory_keeps_the_identity(alice: GossipDiscovery, tmp_path: Path) -> None:
    seen: list[Peer] = []
    for _ in range(3):
        bob = GossipDiscovery(
            "bob",
            "fleet",
            bootstrap=[alice.ticket],
            state_dir=tmp_path,
            config=Config.local(),
        )
        events = alice.events()
        async with bob:
            event = await until(events, PeerJoined)
            assert isinstance(event, PeerJoined)
            seen.append(event.peer)
    assert len({peer.id for peer in seen}) == 1
    assert sorted(seen, key=lambda peer: peer.sequence) == seen
    assert (tmp_path / "secret.key").stat().st_mode & 0o777 == 0o600


async def test_a_timeout_of_wait_for_peers_says_how_many_were_seen(alice: GossipDiscovery) -> None:
    async with beside(alice):
        await alice.wait_for_peers(1, timeout=30)
        with pytest.raises(PeersTimeoutError, match=r"saw 1 of 3 peers within 0\.1 s") as caught:
            await alice.wait_for_peers(3, timeout=0.1)
        assert isinstance(caught.value, TimeoutError)
        assert len(await alice.wait_for_peers(1, timeout=0)) == 1
    assert await alice.wait_for_peers(0, timeout=0) == alice.book.snapshot()


async def test_wait_for_peers_ends_with_the_discovery(alice: GossipDiscovery) -> None:
    waiting = asyncio.create_task(alice.wait_for_peers(1))
    await asyncio.sleep(0)
    await alice.close()
    with pytest.raises(NotRunningError, match="ended with 0 of 1"):
        await waiting


async def test_a_timeout_around_wait_for_peers_stays_the_callers(alice: GossipDiscovery) -> None:
    with pytest.raises(TimeoutError) as caught:
        async with asyncio.timeout(0.05):
            await alice.wait_for_peers(1, timeout=30)
    assert not isinstance(caught.value, PeersTimeoutError)


async def test_updates_reach_the_others(alice: GossipDiscovery) -> None:
    async with beside(alice) as bob:
        await alice.wait_for_peers(1, timeout=30)
        events = alice.events()
        await bob.update(name="robert", metadata={"a": "1", "b": "2"})
        assert (bob.name, bob.metadata) == ("robert", {"a": "1", "b": "2"})
        event = await until(events, PeerUpdated)
        assert isinstance(event, PeerUpdated)
        assert (event.peer.name, dict(event.peer.metadata)) == ("robert", {"a": "1", "b": "2"})
        await bob.update_metadata(a=None, c="3")
        event = await until(events, PeerUpdated)
        assert isinstance(event, PeerUpdated)
        assert dict(event.peer.metadata) == {"b": "2", "c": "3"}
        assert alice.book[bob.id] == event.peer
        await bob.update(metadata={})
        event = await until(events, PeerUpdated)
        assert isinstance(event, PeerUpdated)
        assert (event.peer.name, dict(event.peer.metadata)) == ("robert", {})


async def test_concurrent_updates_are_all_announced(alice: GossipDiscovery) -> None:
    keys = [f"k{n}" for n in range(20)]
    await asyncio.gather(*(alice.update_metadata(**{key: "v"}) for key in keys))
    assert alice.metadata == dict.fromkeys(keys, "v")
    async with beside(alice) as bob:
        (peer,) = (await bob.wait_for_peers(1, timeout=30)).values()
        assert dict(peer.metadata) == alice.metadata


async def test_leaving_is_seen_as_leaving(alice: GossipDiscovery) -> None:
    async with beside(alice) as bob:
        await alice.wait_for_peers(1, timeout=30)
        events, own = alice.events(), bob.events()
        await bob.leave()
        event = await until(events, PeerLeft)
        assert isinstance(event, PeerLeft)
        assert event.peer.name == "bob"
        assert bob.id not in alice.book
        async with asyncio.timeout(5):
            async for _ in own:
                pass
        await bob.leave()
        with pytest.raises(NotRunningError):
            await bob.update(name="robert")


async def test_closing_twice_and_at_once_is_one_close(alice: GossipDiscovery) -> None:
    await asyncio.gather(*(alice.close() for _ in range(5)))
    await alice.close()
    assert len(alice.book) == 0
    assert "closed" in repr(alice)


async def test_close_goes_on_when_its_waiter_is_cancelled(alice: GossipDiscovery) -> None:
    async with beside(alice) as bob:
        await alice.wait_for_peers(1, timeout=30)
        events = alice.events()
        closing = asyncio.create_task(bob.close())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert isinstance(await until(events, PeerLeft), PeerLeft)


async def address_once_used() -> str:
    async with GossipDiscovery("bob", "fleet", config=Config.local()) as bob, beside(bob):
        (peer,) = (await bob.wait_for_peers(1, timeout=30)).values()
        return peer.addresses[0]


async def test_a_cancelled_start_leaves_nothing_open() -> None:
    # The port is free again: what the start had bound was closed.
    address = None
    for _ in range(10):
        config = Config.local() if address is None else Config.local(bind=[address])
        discovery = GossipDiscovery("alice", "fleet", config=config)
        starting = asyncio.create_task(discovery.start())
        await asyncio.sleep(0)
        starting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await starting
        await discovery.close()
        if address is None:
            address = await address_once_used()
    async with asyncio.timeout(10):
        while True:
            discovery = GossipDiscovery("a", "fleet", config=Config.local(bind=[str(address)]))
            try:
                await discovery.start()
            except OSError:  # closing goes on in the background
                await asyncio.sleep(0.05)
            else:
                break
    await discovery.close()


async def test_a_forgotten_discovery_warns_and_says_goodbye(alice: GossipDiscovery) -> None:
    bob = beside(alice)
    await bob.start()
    await alice.wait_for_peers(1, timeout=30)
    events = alice.events()
    gone = weakref.ref(bob)
    with pytest.warns(ResourceWarning, match="never closed"):  # noqa: PT031  # both belong to it
        del bob
        gc.collect()
    assert gone() is None
    assert isinstance(await until(events, PeerLeft), PeerLeft)


async def test_a_crash_is_noticed_by_expiration_and_so_is_the_return(
    alice: GossipDiscovery, tmp_path: Path
) -> None:
    config = {"expiration": 1.0, "idle_timeout": 1.0, "keep_alive": 0.2}
    async with NodeGroup() as group, alice.events() as events:
        spec = {
            "name": "bob",
            "topic": "fleet",
            "bootstrap": [alice.ticket],
            "state_dir": str(tmp_path),
            "config": config,
        }
        bob = await group.start(spec)  # type: ignore[arg-type]
        assert isinstance(await until(events, PeerJoined), PeerJoined)
        bob.kill()
        told = [await until(events, kind) for kind in (PeerLost,)]
        lost = told[0]
        assert isinstance(lost, PeerLost)
        assert (lost.peer.id, lost.reason) == (bob.id, "expired")
        assert bob.id not in alice.book
        again = await group.start(spec)  # type: ignore[arg-type]
        joined = await until(events, PeerJoined)
        assert isinstance(joined, PeerJoined)
        assert joined.peer.id == again.id == bob.id


async def test_a_peer_that_was_killed_and_restarted_at_once_comes_again(
    alice: GossipDiscovery, tmp_path: Path
) -> None:
    spec = {
        "name": "bob",
        "topic": "fleet",
        "bootstrap": [alice.ticket],
        "state_dir": str(tmp_path),
    }
    peers = alice.peers()
    async with NodeGroup() as group, asyncio.timeout(60):
        bob = await group.start(spec)  # type: ignore[arg-type]
        first = await anext(peers)
        bob.kill()
        await bob.stop()
        await group.start(spec)  # type: ignore[arg-type]
        second = await anext(peers)
        assert first.id == second.id == bob.id
        assert first.boot_id != second.boot_id
        assert first.sequence < second.sequence


async def test_isolation_and_its_end_are_events() -> None:
    config = {"idle_timeout": 1.0, "keep_alive": 0.2}
    async with NodeGroup() as group:
        bob = await group.start({"name": "bob", "topic": "fleet"})
        async with (
            GossipDiscovery(
                "alice",
                "fleet",
                bootstrap=[bob.ticket],
                config=Config.local(**config),  # type: ignore[arg-type]
            ) as alice,
            alice.events() as events,
        ):
            await alice.wait_for_peers(1, timeout=30)
            bob.kill()
            assert await until(events, Isolated) == Isolated()
            await group.start({"name": "carol", "topic": "fleet", "bootstrap": [alice.ticket]})
            assert await until(events, Reconnected) == Reconnected()


async def test_a_slow_subscriber_reads_how_many_events_it_missed(alice: GossipDiscovery) -> None:
    async with beside(alice, "bob", event_buffer=4) as bob:
        await bob.wait_for_peers(1, timeout=30)
        slow, quick, waiting = bob.events(), bob.events(), bob.peers()
        for n in range(40):
            await alice.update_metadata(n=str(n))
            async with asyncio.timeout(30):
                while (await anext(quick)).peer.metadata.get("n") != str(n):  # type: ignore[union-attr]
                    pass
        first = await anext(slow)
        assert isinstance(first, EventsLost)
        rest = [await anext(slow) for _ in range(4)]
        assert all(isinstance(event, PeerUpdated) for event in rest)
        assert rest[-1] == PeerUpdated(bob.book[alice.id])
        # What was lost does not hide a peer from `peers`, nor show one twice.
        assert (await anext(waiting)).name == "alice"
        async with beside(alice, "carol"), asyncio.timeout(30):
            assert (await anext(waiting)).name == "carol"
