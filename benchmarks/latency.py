"""How long until Python hears of a change elsewhere, and what a large book costs it.

    make bench, or: .venv/bin/python benchmarks/latency.py --changes 500 --peers 10000

A change: a node in a process of its own changes its metadata, with the time in it; both processes
read one clock. What is measured ends in the callback here. A large book: the example `burst` fills
it with signed records, each verified. The events of that are iterated, and while the book is read
over and over, the loop wakes every millisecond: the longest time that it was blocked beyond that
is printed. Beside the time on the clock stands the CPU time of the thread alone, as the machine may
be busy with other work. Needs the release build of that example: `cargo build --release -p
iroh-gossip-discovery --example burst`.
"""

import argparse
import asyncio
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from iroh_gossip_discovery import Config, EventStream, GossipDiscovery, PeerJoined, PeerUpdated

ROOT = Path(__file__).resolve().parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
BURST = str(TARGET / "release" / "examples" / "burst")
# Time between two changes, in seconds: each comes alone.
PAUSE = 0.02
LOOKS = 50


async def change(ticket: str, count: int) -> None:
    """Change the metadata so often, with the time of each change in it."""
    config = Config.local()
    async with GossipDiscovery("changing", "latency", bootstrap=[ticket], config=config) as node:
        await node.wait_for_peers(1, timeout=30)
        await asyncio.sleep(1)  # the join is over
        for _ in range(count):
            await node.update(metadata={"at": str(time.monotonic_ns())})
            await asyncio.sleep(PAUSE)
        await asyncio.sleep(1)


async def changes(count: int) -> None:
    """Print how long changes took to a callback."""
    took: list[float] = []

    def heard(event: PeerUpdated) -> None:
        now = time.monotonic_ns()
        took.append((now - int(event.peer.metadata["at"])) / 1e6)

    async with GossipDiscovery("hearing", "latency", config=Config.local()) as node:
        node.on(PeerUpdated, heard)
        child = [__file__, "--child", node.ticket, "--changes", str(count)]
        process = await asyncio.create_subprocess_exec(sys.executable, *child)
        await process.wait()
    took.sort()
    print("| a change elsewhere, until the callback | p50 ms | p99 ms | worst ms | heard |")
    print("|---|---|---|---|---|")
    figures = (statistics.median(took), took[len(took) * 99 // 100], took[-1])
    print(f"| | {' | '.join(f'{f:.2f}' for f in figures)} | {len(took)} of {count} |\n")


@asynccontextmanager
async def filled(peers: int) -> AsyncIterator[tuple[GossipDiscovery, EventStream]]:
    """Run a node with `peers` peers in its book; give it with all events from the start."""
    config = Config.local(capacity=2 * peers, event_buffer=10 * peers)
    async with GossipDiscovery("filled", "samples", config=config) as node:
        events = node.events()
        stdin = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(BURST, node.ticket, str(peers), stdin=stdin)
        try:
            await node.wait_for_peers(peers, timeout=120)
            yield node, events
        finally:
            process.kill()
            await process.wait()


async def burst(events: EventStream, peers: int) -> None:
    """Print what an event costs that waits with many others."""
    clock, thread, count = time.perf_counter(), time.thread_time(), 0
    async for event in events:
        count += isinstance(event, PeerJoined)
        if count == peers:
            break
    took = [(time.thread_time() - thread) / peers, (time.perf_counter() - clock) / peers]
    print(f"| {peers} `PeerJoined` that wait, through `async for` | thread µs | clock µs |")
    print("|---|---|---|")
    print(f"| each | {' | '.join(f'{seconds * 1e6:.2f}' for seconds in took)} |\n")


async def standstill(look: Callable[[], Awaitable[object]]) -> tuple[float, float, float]:
    """Look LOOKS times; give medians of a look, and the loop's longest standstill, in ms."""
    worst, took, worked = 0.0, [], []

    async def tick() -> None:
        nonlocal worst
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.001)
            worst = max(worst, time.perf_counter() - before - 0.001)

    ticking = asyncio.create_task(tick())
    for _ in range(LOOKS):
        await asyncio.sleep(0.005)
        before, thread = time.perf_counter(), time.thread_time()
        await look()
        worked.append(time.thread_time() - thread)
        took.append(time.perf_counter() - before)
    ticking.cancel()
    return statistics.median(worked) * 1000, statistics.median(took) * 1000, worst * 1000


async def large_book(peers: int) -> None:
    """Print what reading a large book costs, and how long it holds up the loop."""

    async def nothing() -> None:
        pass

    async def snapshot() -> object:
        return node.book.snapshot()

    async def in_thread() -> object:
        return await asyncio.to_thread(node.book.snapshot)

    async def narrowed() -> object:
        return list(node.book.where(role="none").snapshot())

    async def iterated() -> object:
        return sum(1 for peer in node.book.values())

    async def copied() -> object:
        return dict(node.book.items())

    async with filled(peers) as (node, events):
        await asyncio.sleep(1)
        await burst(events, peers)
        print(f"| a book of {len(node.book)} | thread ms | clock ms | longest standstill, ms |")
        print("|---|---|---|---|")
        looks: dict[str, Callable[[], Awaitable[object]]] = {
            "nothing": nothing,
            "`book.snapshot()`": snapshot,
            "`await asyncio.to_thread(book.snapshot)`": in_thread,
            "an iteration over `book.values()`": iterated,
            "`dict(book.items())`": copied,
            '`list(book.where(role="none").snapshot())`, which is empty': narrowed,
        }
        for what, look in looks.items():
            figures = await standstill(look)
            print(f"| {what} | {' | '.join(f'{figure:.2f}' for figure in figures)} |")


def main() -> None:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--changes", type=int, default=500)
    parser.add_argument("--peers", type=int, default=10_000)
    parser.add_argument("--child", metavar="TICKET", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        asyncio.run(change(options.child, options.changes))
        return
    asyncio.run(changes(options.changes))
    asyncio.run(large_book(options.peers))


if __name__ == "__main__":
    main()
