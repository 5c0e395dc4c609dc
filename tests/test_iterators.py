"""The async iterators: cancelling loses nothing, one consumer each, one wake-up for a burst."""

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from iroh_gossip_discovery import (
    Config,
    Event,
    EventStream,
    GossipDiscovery,
    PeerUpdated,
)

pytestmark = pytest.mark.asyncio

UPDATES = 2000


@pytest_asyncio.fixture
async def pair() -> AsyncIterator[tuple[GossipDiscovery, GossipDiscovery]]:
    config = Config.local(event_buffer=1_000_000)
    async with (
        GossipDiscovery("alice", "fleet", config=config) as alice,
        GossipDiscovery("bob", "fleet", bootstrap=[alice.ticket], config=config) as bob,
    ):
        await alice.wait_for_peers(1, timeout=30)
        await bob.wait_for_peers(1, timeout=30)
        yield alice, bob


Pair = tuple[GossipDiscovery, GossipDiscovery]


async def update_often(discovery: GossipDiscovery, times: int) -> None:
    for n in range(times):
        await discovery.update_metadata(n=str(n))


def is_last(event: Event) -> bool:
    return isinstance(event, PeerUpdated) and event.peer.metadata.get("n") == str(UPDATES - 1)


async def read_all(stream: EventStream) -> list[Event]:
    events = []
    async for event in stream:
        events.append(event)
        if is_last(event):
            break
    return events


async def test_a_cancelled_anext_loses_nothing(pair: Pair) -> None:
    alice, bob = pair
    calm, harried = alice.events(), alice.events()
    updating = asyncio.create_task(update_often(bob, UPDATES))
    got: list[Event] = []
    cancelled = 0
    async with asyncio.timeout(60):
        while not (got and is_last(got[-1])):
            try:
                async with asyncio.timeout(0.0005):
                    got.append(await anext(harried))
            except TimeoutError:
                cancelled += 1
        await updating
        assert got == await read_all(calm)
    assert cancelled > 100
    assert len(got) > 100


async def test_a_cancelled_task_loses_nothing(pair: Pair) -> None:
    alice, bob = pair
    calm, harried = alice.events(), alice.events()
    updating = asyncio.create_task(update_often(bob, UPDATES))
    got: list[Event] = []

    async def consume() -> None:
        async for event in harried:
            got.append(event)  # noqa: PERF401  # what came before the cancellation counts

    async with asyncio.timeout(60):
        while not (got and is_last(got[-1])):
            consuming = asyncio.create_task(consume())
            for _ in range(3):
                await asyncio.sleep(0)
            consuming.cancel()
            await asyncio.wait([consuming])
            assert consuming.cancelled()
        await updating
        assert got == await read_all(calm)


async def test_each_call_is_a_subscription_of_its_own(pair: Pair) -> None:
    alice, bob = pair
    streams = [alice.events() for _ in range(3)]
    await update_often(bob, 1)
    for stream in streams:
        async with asyncio.timeout(30):
            assert isinstance(await anext(stream), PeerUpdated)


@pytest.mark.parametrize("method", ["events", "peers"])
async def test_a_second_consumer_is_refused(pair: Pair, method: str) -> None:
    stream = getattr(pair[0], method)()
    if method == "peers":
        await anext(stream)
    first = asyncio.create_task(anext(stream))
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="another task iterates over this"):
        await anext(stream)
    assert not first.done()
    stream.close()
    with pytest.raises(StopAsyncIteration):
        await first
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_an_iterator_may_be_handed_to_another_task(pair: Pair) -> None:
    alice, bob = pair
    stream = alice.events()
    for _ in range(3):
        waiting = asyncio.create_task(anext(stream))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        await bob.update_metadata(n=str(_))
        async with asyncio.timeout(30):
            assert isinstance(await asyncio.create_task(anext(stream)), PeerUpdated)


async def test_a_burst_wakes_the_loop_once(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    alice, bob = pair
    stream = alice.events()
    reference = alice.events()
    waiting = asyncio.create_task(anext(stream))
    await asyncio.sleep(0)
    calls = 0
    loop = asyncio.get_running_loop()
    call_soon_threadsafe = loop.call_soon_threadsafe

    def count(callback, *args, context=None):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN002, ANN202
        nonlocal calls
        calls += type(callback).__name__ == "Waiters"
        return call_soon_threadsafe(callback, *args, context=context)

    monkeypatch.setattr(loop, "call_soon_threadsafe", count)
    # While nobody takes, no more wake-ups come, however much happens.
    await update_often(bob, 50)
    await waiting
    while True:
        event = await anext(reference)
        if isinstance(event, PeerUpdated) and event.peer.metadata["n"] == "49":
            break
    woken = calls
    seen = [await waiting]
    while seen[-1] != event:
        seen.append(await anext(stream))
    assert calls == woken
    assert len(seen) > 1


async def test_an_iteration_ends_after_its_last_event(pair: Pair) -> None:
    alice, bob = pair
    stream, reference = alice.events(), alice.events()
    await update_often(bob, 20)
    async with asyncio.timeout(30):
        event = await anext(reference)
        while event.peer.metadata.get("n") != "19":  # type: ignore[union-attr]
            event = await anext(reference)
    await alice.close()
    got = [event async for event in stream]
    assert got[-1] == event
    assert [event async for event in stream] == []


async def test_a_dropped_iterator_is_garbage_collected_while_it_waits(pair: Pair) -> None:
    stream = pair[0].events()
    waiting = asyncio.create_task(anext(stream))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    gone = weakref.ref(stream)
    del stream, waiting
    gc.collect()
    assert gone() is None


async def test_an_iterator_closes_with_its_async_with_block(pair: Pair) -> None:
    async with pair[0].events() as stream:
        pass
    assert [event async for event in stream] == []
    peers = pair[0].peers()
    async with peers:
        assert (await anext(peers)).name == "bob"
    assert [peer async for peer in peers] == []
    await peers.aclose()
