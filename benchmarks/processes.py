"""How long until Python processes, started at once, all know each other.

    make bench, or: .venv/bin/python benchmarks/processes.py --processes 10 --runs 20

Counted from the last spawn, so the start of an interpreter and the imports are in it. `up` is when
the last process has bound and announced: what is left of the time is finding each other.
"""

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import IO, NamedTuple

from iroh_gossip_discovery import Config, GossipDiscovery


class Run(NamedTuple):
    """Seconds from the last spawn until all processes are up, and until all books are full."""

    up: float
    full: float


async def child(name: str, others: int, *bootstrap: str) -> None:
    """Be one node: say when it is up, with its ticket, and when its book is full."""
    config = Config.local()
    async with GossipDiscovery(name, "processes", bootstrap=bootstrap, config=config) as discovery:
        print(discovery.ticket, flush=True)
        await discovery.wait_for_peers(others, timeout=60)
        print("full", flush=True)
        await asyncio.to_thread(sys.stdin.read)  # until the parent has seen all


@contextmanager
def spawn(*arguments: str) -> Iterator[tuple[IO[str], IO[str]]]:
    """Start a child; give its standard input and output."""
    command = [sys.executable, __file__, "--child", *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        if process.stdin is None or process.stdout is None:
            raise AssertionError("both are pipes")
        yield process.stdin, process.stdout


def read(stdout: IO[str]) -> tuple[str, float]:
    """Read a line; give it with the moment when it came."""
    return stdout.readline().strip(), time.perf_counter()


def one_run(processes: int) -> Run:
    """Start all processes, node 0 first: the others are given its ticket."""
    others = str(processes - 1)
    with ThreadPoolExecutor(processes) as pool, ExitStack() as children:
        seed = children.enter_context(spawn("node-0", others))
        ticket, _ = read(seed[1])
        pipes = [seed]
        pipes += [
            children.enter_context(spawn(f"node-{number}", others, ticket))
            for number in range(1, processes)
        ]
        spawned = time.perf_counter()
        up = [at for _, at in pool.map(read, [out for _, out in pipes[1:]])]
        said = list(pool.map(read, [out for _, out in pipes]))
        for stdin, _ in pipes:
            stdin.close()
    if any(line != "full" for line, _ in said):
        raise SystemExit("error: a book was not full in 60 s")
    return Run(max(up) - spawned, max(at for _, at in said) - spawned)


def main() -> None:
    """Print a table row: median and worst of the runs."""
    import argparse
    import statistics

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--processes", type=int, default=10)
    parser.add_argument("--runs", type=int, default=20)
    options = parser.parse_args()
    runs = [one_run(options.processes) for _ in range(options.runs)]
    up = statistics.median(run.up for run in runs)
    full = [run.full for run in runs]
    print(
        "| Python processes | median s | worst s | median s until all are up |\n|---|---|---|---|"
    )
    print(f"| {options.processes} | {statistics.median(full):.3f} | {max(full):.3f} | {up:.3f} |")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        name, others, *bootstrap = sys.argv[2:]
        asyncio.run(child(name, int(others), *bootstrap))
    else:
        main()
