"""What Python pays: an event out of an iteration, a look into the book.

make bench, or: .venv/bin/python -m pytest benchmarks/bench_python.py
"""

import asyncio
from collections.abc import Iterator
from typing import TypeAlias

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from iroh_gossip_discovery import (
    Config,
    EventsLost,
    EventStream,
    GossipDiscovery,
    Message,
    MessageStream,
)

PEERS = 20
EVENTS = 1000
MESSAGES = 4000
ROUNDS = 5

Watched: TypeAlias = tuple[asyncio.AbstractEventLoop, GossipDiscovery, list[GossipDiscovery]]


@pytest.fixture(scope="module")
def watched() -> Iterator[Watched]:
    """Give a loop, a node on it, and the others, all of which it knows."""
    config = Config.local(event_buffer=1_000_000, message_buffer=100_000)
    with asyncio.Runner() as runner:

        async def begin() -> list[GossipDiscovery]:
            first = GossipDiscovery("first", "benchmark", config=config)
            await first.start()
            others = [
                GossipDiscovery(
                    f"peer-{number}", "benchmark", bootstrap=[first.ticket], config=config
                )
                for number in range(PEERS)
            ]
            await asyncio.gather(*(other.start() for other in others))
            await first.wait_for_peers(PEERS, timeout=60)
            return [first, *others]

        async def end() -> None:
            await asyncio.gather(*(node.close() for node in nodes))

        nodes = runner.run(begin())
        yield runner.get_loop(), nodes[0], nodes[1:]
        runner.run(end())


def test_events_that_are_there_are_iterated(benchmark: BenchmarkFixture, watched: Watched) -> None:
    """Per call: EVENTS events, out of the core's buffer and through `async for`."""
    loop, node, others = watched

    async def produce() -> EventStream:
        stream = node.events()
        async with node.events() as arrivals:
            for number in range(EVENTS):
                await others[0].update(metadata={"n": str(number)})
                # It must have arrived before the next, or the two may come as one.
                await anext(arrivals)
        return stream

    async def consume(stream: EventStream) -> int:
        count = 0
        async for event in stream:
            count += not isinstance(event, EventsLost)
            if count == EVENTS:
                break
        stream.close()
        return count

    def setup() -> tuple[tuple[EventStream], dict[str, object]]:
        return (loop.run_until_complete(produce()),), {}

    count = benchmark.pedantic(  # type: ignore[no-untyped-call]  # that is how it comes
        lambda stream: loop.run_until_complete(consume(stream)), setup=setup, rounds=ROUNDS
    )
    assert count == EVENTS


def test_messages_that_are_there_are_iterated(
    benchmark: BenchmarkFixture, watched: Watched
) -> None:
    """Per call: MESSAGES messages of 16 bytes, out of the core's buffer and through `async for`."""
    loop, node, others = watched

    async def produce() -> MessageStream:
        stream = node.messages()
        await asyncio.gather(*(others[0].send(node.id, bytes(16)) for _ in range(MESSAGES)))
        return stream

    async def consume(stream: MessageStream) -> int:
        count = 0
        async for message in stream:
            count += isinstance(message, Message)
            if count == MESSAGES:
                break
        stream.close()
        return count

    def setup() -> tuple[tuple[MessageStream], dict[str, object]]:
        return (loop.run_until_complete(produce()),), {}

    count = benchmark.pedantic(  # type: ignore[no-untyped-call]  # that is how it comes
        lambda stream: loop.run_until_complete(consume(stream)), setup=setup, rounds=ROUNDS
    )
    assert count == MESSAGES


def test_the_size_of_the_book(benchmark: BenchmarkFixture, watched: Watched) -> None:
    """Per call: one `len(book)`."""
    _, node, _ = watched
    assert benchmark(len, node.book) == PEERS


def test_a_look_up_in_the_book(benchmark: BenchmarkFixture, watched: Watched) -> None:
    """Per call: one `book[id]`."""
    _, node, others = watched
    assert benchmark(node.book.__getitem__, others[7].id).name == "peer-7"


def test_a_snapshot_of_the_book(benchmark: BenchmarkFixture, watched: Watched) -> None:
    """Per call: one `book.snapshot()` of PEERS peers."""
    _, node, _ = watched
    assert len(benchmark(node.book.snapshot)) == PEERS


def test_an_iteration_over_the_book(benchmark: BenchmarkFixture, watched: Watched) -> None:
    """Per call: the names of PEERS peers."""
    _, node, _ = watched
    names = benchmark(lambda: [peer.name for peer in node.book.values()])
    assert len(names) == PEERS
