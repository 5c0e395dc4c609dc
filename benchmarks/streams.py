"""How fast Python's streams are beside Rust's: the same transfers, in turn, with one Rust node.

    make bench, or: .venv/bin/python benchmarks/streams.py --mib 256 --rounds 5

Each transfer is one stream between two processes over loopback, in writes of 1 MiB, from its first
byte until all of it is there. Then 1,000 streams at a time, each of which writes 64 KiB and reads
them back. Needs the release build of the example `streams`: `cargo build --release -p
iroh-gossip-discovery --example streams`.
"""

import argparse
import asyncio
import os
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from iroh_gossip_discovery import Config, GossipDiscovery

ROOT = Path(__file__).resolve().parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
PROGRAM = str(TARGET / "release" / "examples" / "streams")
MIB = 1024 * 1024
TOPIC = "streams"
STREAMS = 1000
ECHOED = 64 * 1024


@asynccontextmanager
async def served() -> AsyncIterator[str]:
    """Run the Rust node that takes, gives and echoes; give its ticket."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(PROGRAM, "serve", stdout=pipe)
    assert process.stdout is not None
    try:
        yield (await process.stdout.readline()).decode().strip()
    finally:
        process.kill()
        await process.wait()


async def from_rust(what: str, ticket: str, mib: int) -> float:
    """Let Rust write or read `mib` MiB; return the seconds that it took."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(PROGRAM, what, ticket, str(mib), stdout=pipe)
    said, _ = await process.communicate()
    return float(said)


async def from_python(what: str, ticket: str, mib: int) -> float:
    """Write or read `mib` MiB; return the seconds that it took."""
    config = Config.local()
    async with GossipDiscovery("driver", TOPIC, bootstrap=[ticket], config=config) as discovery:
        peer = next(iter(await discovery.wait_for_peers(1, timeout=30)))
        protocol = "sink/1" if what == "write" else "source/1"
        reader, writer = await discovery.open_stream(peer, protocol)
        begin = time.perf_counter()
        if what == "write":
            piece = bytes(MIB)
            for _ in range(mib):
                writer.write(piece)
                await writer.drain()
            writer.write_eof()
            arrived = int.from_bytes(await reader.readexactly(8), "big")
        else:
            writer.write(mib.to_bytes(8, "big"))
            arrived = 0
            while data := await reader.read(MIB):
                arrived += len(data)
        seconds = time.perf_counter() - begin
        if arrived != mib * MIB:
            raise RuntimeError(f"{arrived} bytes arrived")
        return seconds


async def many(ticket: str) -> float:
    """Have STREAMS streams open at a time, and each echo ECHOED bytes; give the seconds for all."""
    config = Config.local()
    everyone = asyncio.Barrier(STREAMS)

    async def one(number: int) -> None:
        reader, writer = await discovery.open_stream(peer, "echo/1")
        await everyone.wait()  # all of them are open
        data = number.to_bytes(4, "big") * (ECHOED // 4)
        writer.write(data)
        writer.write_eof()
        if await reader.read() != data:
            raise RuntimeError("the echo is another one")
        writer.close()
        await writer.wait_closed()

    async with GossipDiscovery("driver", TOPIC, bootstrap=[ticket], config=config) as discovery:
        peer = next(iter(await discovery.wait_for_peers(1, timeout=30)))
        begin = time.perf_counter()
        await asyncio.gather(*(one(number) for number in range(STREAMS)))
        return time.perf_counter() - begin


async def measure(mib: int, rounds: int) -> None:
    """Print a table: median MiB/s of Rust and of Python, and the median of the rounds' ratios."""
    print(f"| {mib} MiB in one stream | Rust MiB/s | Python MiB/s | ratio | rounds |")
    print("|---|---|---|---|---|")
    async with served() as ticket:
        for what in ("write", "read"):
            rust, python = [], []
            for _ in range(rounds):
                rust.append(mib / await from_rust(what, ticket, mib))
                python.append(mib / await from_python(what, ticket, mib))
            ratio = statistics.median(p / r for p, r in zip(python, rust, strict=True))
            medians = f"{statistics.median(rust):.0f} | {statistics.median(python):.0f}"
            print(f"| {what} | {medians} | {ratio:.2f} | {rounds} |")
        took = [await many(ticket) for _ in range(rounds)]
    print(f"\n{STREAMS} streams at a time, {ECHOED // 1024} KiB there and back in each:", end=" ")
    print(f"{statistics.median(took):.2f} s (median of {rounds})")


def main() -> None:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--mib", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    asyncio.run(measure(options.mib, options.rounds))


if __name__ == "__main__":
    main()
