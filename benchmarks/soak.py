"""Real processes under constant churn: is every book right at the end, and does nothing grow?

    make soak-real, or: .venv/bin/python benchmarks/soak.py --processes 50 --minutes 20

Each process is one node, on loopback, with a state directory of its own. A third of them is left
alone and watched. Every `--every` seconds one of the others is killed, told to leave, or stopped
for a while; what ended starts again, with its old key or as a newcomer. At the end the churn stops,
and each process has to list exactly the others. A table shows memory, threads and descriptors of
the processes that ran all the time. The exit code is 1 if a book was wrong or something grew.
"""

import argparse
import asyncio
import json
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from iroh_gossip_discovery import Config, GossipDiscovery

GROWTH = {"memory, MB": 1.15, "threads": 1.25, "descriptors": 1.25}
"""What may become of each between the first half and the end, as a ratio."""
LONG_ENOUGH = 300.0
"""Seconds of churn from which on growth is judged: at first every process grows."""
SETTLE = 90.0
"""Seconds that the books have to become right once the churn has stopped."""


async def child(name: str, state_dir: str, *bootstrap: str) -> None:
    """Be one node: answer each line of standard input with the ids that are in the book."""
    lines = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(lines)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    async with GossipDiscovery(
        name, "soak", bootstrap=bootstrap, state_dir=state_dir, config=Config.local()
    ) as discovery:
        with discovery.stop_on_signals():
            print(json.dumps({"id": discovery.id, "ticket": discovery.ticket}), flush=True)
            while await lines.readline():
                print(json.dumps(list(discovery.members)), flush=True)


class Sizes(NamedTuple):
    """What a process holds."""

    memory: float
    threads: int
    descriptors: int


@dataclass
class Node:
    """A process that is one node, and what it held at each look."""

    name: str
    state_dir: Path
    process: asyncio.subprocess.Process
    id: str = ""
    ticket: str = ""
    sizes: list[Sizes] = field(default_factory=list)

    async def read(self) -> dict[str, str] | list[str]:
        """Read what it says next."""
        if self.process.stdout is None:
            raise AssertionError("it is a pipe")
        line = await asyncio.wait_for(self.process.stdout.readline(), SETTLE)
        if not line:
            raise SystemExit(f"{self.name} ended by itself with {await self.process.wait()}")
        said: dict[str, str] | list[str] = json.loads(line)
        return said

    async def book(self) -> set[str]:
        """Ask for the ids in its book."""
        if self.process.stdin is None:
            raise AssertionError("it is a pipe")
        self.process.stdin.write(b"\n")
        await self.process.stdin.drain()
        return set(await self.read())

    async def end(self, how: signal.Signals) -> None:
        """End it, by SIGKILL or SIGTERM."""
        if self.process.returncode is None:
            self.process.send_signal(how)
        await self.process.wait()

    def look(self) -> None:
        """Note what it holds."""
        proc = Path("/proc") / str(self.process.pid)
        status = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
        memory = int(status["VmRSS"].split()[0]) / 1000
        descriptors = len(list((proc / "fd").iterdir()))
        self.sizes.append(Sizes(memory, int(status["Threads"]), descriptors))


class Swarm:
    """All processes, and what is done to them."""

    def __init__(self, directory: Path, seed: int) -> None:
        """Keep the state of the nodes in a directory."""
        self.directory = directory
        self.chance = random.Random(seed)  # noqa: S311 (it chooses what to try)
        self.nodes: list[Node] = []
        self.started = 0
        self.done = dict.fromkeys(("killed", "left", "stopped", "restarted", "new"), 0)

    async def start(self, state_dir: Path | None = None) -> None:
        """Start a node with a key of its own, or with that of an earlier one."""
        self.started += 1
        name = f"node-{self.started}"
        state_dir = state_dir or self.directory / name
        known = self.chance.sample(self.nodes, min(2, len(self.nodes)))
        command = [sys.executable, __file__, "--child", name, str(state_dir)]
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *command, *(node.ticket for node in known), stdin=pipe, stdout=pipe
        )
        node = Node(name, state_dir, process)
        said = await node.read()
        if not isinstance(said, dict):
            raise TypeError(said)
        node.id, node.ticket = said["id"], said["ticket"]
        self.nodes.append(node)

    async def disturb(self, node: Node) -> None:
        """Do something to a node; start another one if it ended."""
        what = self.chance.choice(["killed", "left", "stopped"])
        self.done[what] += 1
        if what == "stopped":
            # Long enough to be suspected, and too short to be lost.
            node.process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(self.chance.uniform(0.1, 1.0))
            node.process.send_signal(signal.SIGCONT)
            return
        self.nodes.remove(node)
        await node.end(signal.SIGKILL if what == "killed" else signal.SIGTERM)
        again = self.chance.random() < 0.5  # noqa: PLR2004 (one of two)
        self.done["restarted" if again else "new"] += 1
        await self.start(node.state_dir if again else None)

    async def wrong_books(self) -> dict[str, str]:
        """Return how the book of each node differs from the truth."""
        alive = {node.id for node in self.nodes}
        wrong = {}
        for node in self.nodes:
            book = await node.book()
            missing, extra = alive - book - {node.id}, book - alive
            if missing or extra:
                wrong[node.name] = f"lacks {len(missing)}, has {len(extra)} that are gone"
        return wrong

    async def settle(self) -> float:
        """Wait until every book is right; return the seconds that it took."""
        begin = time.monotonic()
        while wrong := await self.wrong_books():
            if time.monotonic() - begin > SETTLE:
                raise SystemExit(f"after {SETTLE:.0f} s: {wrong}")
            await asyncio.sleep(0.2)
        return time.monotonic() - begin


def table(watched: list[Node]) -> list[str]:
    """Print what the watched processes held; return what grew."""
    grew = []
    print(f"{'median of a process':<22}{'first half':>12}{'end':>10}{'ratio':>8}{'limit':>8}")
    for column, (what, limit) in enumerate(GROWTH.items()):
        half = len(watched[0].sizes) // 2
        before = statistics.median(size[column] for node in watched for size in node.sizes[:half])
        end = statistics.median(node.sizes[-1][column] for node in watched)
        print(f"{what:<22}{before:>12.1f}{end:>10.1f}{end / before:>8.2f}{limit:>8.2f}")
        if end / before > limit:
            grew.append(what)
    return grew


async def soak(processes: int, seconds: float, every: float, seed: int) -> int:
    """Run it; return the exit code."""
    directory = Path(tempfile.mkdtemp(prefix="igd-soak-"))
    swarm = Swarm(directory, seed)
    print(f"{processes} processes for {seconds:.0f} s, seed {seed}", flush=True)
    try:
        for _ in range(processes):
            await swarm.start()
        print(f"started: every book is right after {await swarm.settle():.1f} s", flush=True)
        watched = swarm.nodes[: max(1, processes // 3)]
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            turn = time.monotonic() + every
            for node in watched:
                node.look()
            await swarm.disturb(swarm.chance.choice(swarm.nodes[len(watched) :]))
            await asyncio.sleep(max(0.0, turn - time.monotonic()))
        print(f"done: {swarm.done}", flush=True)
        print(f"at the end: every book is right after {await swarm.settle():.1f} s")
        for node in watched:
            node.look()
        grew = table(watched)
        if seconds < LONG_ENOUGH:
            print(f"growth is not judged: that takes {LONG_ENOUGH:.0f} s of churn")
        elif grew:
            print(f"error: grew beyond the limit: {', '.join(grew)}", file=sys.stderr)
        return int(bool(grew) and seconds >= LONG_ENOUGH)
    finally:
        for node in swarm.nodes:
            await node.end(signal.SIGKILL)
        shutil.rmtree(directory)


def main() -> int:
    """Read the arguments, and run."""
    if sys.argv[1:2] == ["--child"]:
        asyncio.run(child(*sys.argv[2:]))
        return 0
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--processes", type=int, default=50)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--every", type=float, default=2, help="seconds between two disturbances")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))  # noqa: S311
    options = parser.parse_args()
    if options.processes < 3:  # noqa: PLR2004 (one is watched, and two others are disturbed)
        parser.error("--processes must be at least 3")
    return asyncio.run(soak(options.processes, options.minutes * 60, options.every, options.seed))


if __name__ == "__main__":
    sys.exit(main())
