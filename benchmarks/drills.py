"""Fault drills: real processes on hosts of their own, real faults, and what is promised of each.

    make drills, or: .venv/bin/python benchmarks/drills.py --only crash --only partition

Each node is a process in a network namespace of its own; all are joined to one bridge. A drill
waits until all books are right, brings about one fault, and measures. The table says what is
promised and what was measured. The exit code is 1 if a promise was broken. It needs Linux, root,
`ip` and `nft`.
"""

import argparse
import asyncio
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from iroh_gossip_discovery import Config, GossipDiscovery

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from netns import Network, ip, network

PATIENCE = 90.0
"""Seconds until a drill gives up."""


async def child(name: str, state_dir: str, *bootstrap: str) -> None:
    """Be one node: tell each event, announce each line of standard input.

    An empty line is answered with the book.
    """
    lines = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(lines)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)

    def tell(**what: object) -> None:
        sys.stdout.write(json.dumps({"at": time.monotonic(), **what}) + "\n")
        sys.stdout.flush()

    async def tell_events() -> None:
        async for event in events:
            peer = getattr(event, "peer", None)
            if peer is not None:
                tell(event=type(event).__name__, name=peer.name, addresses=peer.addresses)

    async with GossipDiscovery(
        name, "drills", bootstrap=bootstrap, state_dir=state_dir, config=Config.lan(mdns=False)
    ) as discovery:
        with discovery.stop_on_signals():
            events = discovery.events()
            tell(ticket=discovery.ticket)
            watching = asyncio.create_task(tell_events())
            while line := await lines.readline():
                if step := line.decode().strip():
                    await discovery.update_metadata(step=step)
                else:
                    tell(book=sorted(peer.name for peer in discovery.members.values()))
            watching.cancel()


class Told(NamedTuple):
    """An event, when and by whom it was told."""

    at: float
    by: str
    event: str
    name: str
    addresses: list[str]


class Result(NamedTuple):
    """What was promised and what was measured: seconds, or a number of nodes."""

    what: str
    measured: float
    limit: float | None

    @property
    def is_kept(self) -> bool:
        """Whether the promise was kept."""
        return self.limit is None or self.measured <= self.limit


@dataclass
class Node:
    """A process that is one node, on a host of its own."""

    name: str
    host: str
    state_dir: Path
    process: asyncio.subprocess.Process
    told: list[Told]
    ticket: str = ""
    books: asyncio.Queue[list[str]] = field(default_factory=asyncio.Queue)
    up: asyncio.Event = field(default_factory=asyncio.Event)
    up_at: float = 0.0
    reader: asyncio.Task[None] | None = None

    async def read(self) -> None:
        """Take what it tells, until it ends."""
        if self.process.stdout is None:
            raise AssertionError("it is a pipe")
        while line := await self.process.stdout.readline():
            said = json.loads(line)
            if "ticket" in said:
                self.ticket, self.up_at = said["ticket"], said["at"]
                self.up.set()
            elif "book" in said:
                self.books.put_nowait(said["book"])
            else:
                told = (said["event"], said["name"], said["addresses"])
                self.told.append(Told(said["at"], self.name, *told))

    async def say(self, line: str) -> None:
        """Write a line to it."""
        if self.process.stdin is None:
            raise AssertionError("it is a pipe")
        self.process.stdin.write(line.encode() + b"\n")
        await self.process.stdin.drain()

    async def book(self) -> list[str]:
        """Ask for the names in its book."""
        await self.say("")
        return await asyncio.wait_for(self.books.get(), PATIENCE)

    async def end(self, how: signal.Signals = signal.SIGKILL) -> float:
        """End it; return when the signal was sent."""
        at = time.monotonic()
        if self.process.returncode is None:
            self.process.send_signal(how)
        await self.process.wait()
        return at


class Fleet:
    """All nodes, and the network that joins them."""

    def __init__(self, lan: Network, directory: Path) -> None:
        """Begin with a network without nodes."""
        self.lan, self.directory = lan, directory
        self.nodes: list[Node] = []
        self.told: list[Told] = []
        self.hosts = self.moves = 0
        self.ports: dict[str, str] = {}
        lan.bridge("lan")
        lan.bridge("other")

    async def start(self, state_dir: Path | None = None, host: str | None = None) -> Node:
        """Start a node, with a new key on a new host if no others are named."""
        name = f"n{self.hosts}" if host is None else host.rpartition("-")[2]
        if host is None:
            self.hosts += 1
            host = self.lan.host(name)
            self.lan.cable(host, "eth0", "lan", f"10.60.0.{self.hosts}/24")
            self.ports[host] = f"port{self.lan.cables}"
        state_dir = state_dir or Path(tempfile.mkdtemp(dir=self.directory))
        tickets = [node.ticket for node in self.nodes[:2]]
        command = ["ip", "netns", "exec", host, sys.executable, __file__, "--child", name]
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *command, str(state_dir), *tickets, stdin=pipe, stdout=pipe
        )
        node = Node(name, host, state_dir, process, self.told)
        node.reader = asyncio.create_task(node.read())
        await asyncio.wait_for(node.up.wait(), PATIENCE)
        self.nodes.append(node)
        return node

    async def are_right(self) -> bool:
        """Return whether each book lists exactly those that run."""
        names = {node.name for node in self.nodes}
        books = await asyncio.gather(*(node.book() for node in self.nodes))
        pairs = zip(self.nodes, books, strict=True)
        return all({*book, node.name} == names for node, book in pairs)

    async def settle(self) -> float:
        """Wait until each book lists exactly those that run; return when that was seen."""
        await until(self.are_right, "the books are right")
        return time.monotonic()

    async def heard(self, event: str, name: str, since: float, by: Iterable[Node]) -> float:
        """Wait until nodes have told an event of a node; return when the last did."""
        names = {node.name for node in by}

        def firsts() -> dict[str, float]:
            first: dict[str, float] = {}
            for told in self.told:
                if (told.event, told.name) == (event, name) and told.at >= since:
                    first.setdefault(told.by, told.at)
            return first

        async def all_told() -> bool:
            return names <= firsts().keys()

        await until(all_told, f"{event} of {name}")
        return max(firsts()[one] for one in names)

    async def end(self) -> None:
        """Kill all nodes."""
        while self.nodes:
            await self.nodes.pop().end()

    def lost(self, since: float, *, but: str | None = None, event: str = "PeerLost") -> int:
        """Return how many times a node was said to be lost, or to be what the event says."""
        told = (one for one in self.told if one.event == event and one.at >= since)
        return sum(but not in (one.name, one.by) for one in told)

    def lost_by_one(self, name: str, since: float) -> int:
        """Return how many times the same node said that this one was lost, at most."""
        told = (one for one in self.told if one.event == "PeerLost" and one.at >= since)
        return max(Counter(one.by for one in told if one.name == name).values(), default=0)


async def until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + PATIENCE
    while not await condition():
        if time.monotonic() > end:
            raise TimeoutError(f"not in {PATIENCE:.0f} s: {what}")
        await asyncio.sleep(0.02)


async def leave(fleet: Fleet) -> list[Result]:
    """A node gets SIGTERM."""
    node = fleet.nodes.pop()
    at = await node.end(signal.SIGTERM)
    took = await fleet.heard("PeerLeft", node.name, at, fleet.nodes) - at
    return [Result("s until all know of the leave", took, 0.5)]


async def crash(fleet: Fleet) -> list[Result]:
    """A node gets SIGKILL."""
    node = fleet.nodes.pop()
    at = await node.end()
    took = await fleet.heard("PeerLost", node.name, at, fleet.nodes) - at
    return [Result("s until all know of the crash", took, 6.5)]


async def restart(fleet: Fleet) -> list[Result]:
    """A node gets SIGKILL, and starts again with its state."""
    node = fleet.nodes.pop()
    await node.end()
    again = await fleet.start(node.state_dir, node.host)
    took = await fleet.settle() - again.up_at
    return [Result("s from its start until all books are right", took, 2)]


async def kills(fleet: Fleet) -> list[Result]:
    """A node gets SIGKILL 20 times while the others change, and starts again with its state."""
    victim = fleet.nodes.pop()
    step, lost = 0, 0.0
    for kill in range(20):
        sent: list[tuple[float, str]] = []
        end = time.monotonic() + 0.2 + 0.37 * kill % 1.8
        while time.monotonic() < end:
            for node in fleet.nodes:
                step += 1
                sent.append((time.monotonic(), f"{node.name}-{step:06d}"))
                await node.say(sent[-1][1])
            await asyncio.sleep(0.2)
        at = await victim.end()
        missing = [when for when, text in sent if not is_kept(victim.state_dir, text)]
        lost = max([lost, *(at - when for when in missing)])
        await fleet.start(victim.state_dir, victim.host)
        await fleet.settle()
        victim = fleet.nodes.pop()
    fleet.nodes.append(victim)
    return [Result("s of others' records lost, at most", lost, 1)]


def is_kept(state_dir: Path, text: str) -> bool:
    """Return whether the kept book has this step of a node, or a later one."""
    name, _, step = text.partition("-")
    kept = b"".join(path.read_bytes() for path in state_dir.glob("book-*"))
    steps = re.findall(name.encode() + rb"-([0-9]{6})", kept)
    return any(int(other) >= int(step) for other in steps)


async def new_key(fleet: Fleet) -> list[Result]:
    """A node gets SIGKILL, and its host starts another one, without its state."""
    node = fleet.nodes.pop()
    at = await node.end()
    again = await fleet.start(host=node.host)
    known = await fleet.heard("PeerJoined", again.name, at, fleet.nodes[:-1])
    await fleet.settle()
    return [Result("s from its start until all know it", max(0.0, known - again.up_at), 2)]


async def pause(fleet: Fleet, seconds: float, back: float | None) -> list[Result]:
    """A node is stopped for a while."""
    node = fleet.nodes[-1]
    begin = time.monotonic()
    node.process.send_signal(signal.SIGSTOP)
    await asyncio.sleep(seconds)
    node.process.send_signal(signal.SIGCONT)
    at = time.monotonic()
    took = await fleet.settle() - at
    others = fleet.lost(begin, but=node.name)
    results = [Result("others lost", others, 0)]
    if back is None:
        return [Result("nodes lost", fleet.lost(begin), 0), *results]
    return [Result("s until all books are right again", took, back), *results]


async def short_pause(fleet: Fleet) -> list[Result]:
    """A node is stopped for 2 s."""
    return await pause(fleet, 2, None)


async def long_pause(fleet: Fleet) -> list[Result]:
    """A node is stopped for 20 s."""
    return await pause(fleet, 20, 2)


async def partition(fleet: Fleet, seconds: float) -> list[Result]:
    """Half of the hosts are joined to another bridge; the bootstrap node is killed meanwhile."""
    half = fleet.nodes[: len(fleet.nodes) // 2]
    for node in half:
        ip(f"link set {fleet.ports[node.host]} master other", inside=fleet.lan.hub)
    first = fleet.nodes.pop(0)
    await first.end()
    await asyncio.sleep(seconds)
    for node in half:
        ip(f"link set {fleet.ports[node.host]} master lan", inside=fleet.lan.hub)
    at = time.monotonic()
    return [Result("s until all books are right again", await fleet.settle() - at, 2)]


async def partition_25(fleet: Fleet) -> list[Result]:
    """The network is cut in two halves for 25 s."""
    return await partition(fleet, 25)


async def partition_120(fleet: Fleet) -> list[Result]:
    """The network is cut in two halves for 120 s."""
    return await partition(fleet, 120)


async def link_down(fleet: Fleet) -> list[Result]:
    """The cable of a node is out for 3 s."""
    return await flap(fleet, [(3, 0)])


async def flapping(fleet: Fleet) -> list[Result]:
    """The cable of a node is out for half a second, five times."""
    return await flap(fleet, [(0.5, 1.0)] * 5)


async def flap(fleet: Fleet, times: list[tuple[float, float]]) -> list[Result]:
    """Pull and put the cable of a node."""
    node, begin = fleet.nodes[-1], time.monotonic()
    for out, in_place in times:
        ip("link set eth0 down", inside=node.host)
        await asyncio.sleep(out)
        ip("link set eth0 up", inside=node.host)
        await asyncio.sleep(in_place)
    at = time.monotonic()
    took = await fleet.settle() - at
    lost = fleet.lost(begin, but=node.name)
    return [Result("s until all books are right again", took, 2), Result("others lost", lost, 0)]


async def address(fleet: Fleet) -> list[Result]:
    """The address of a node changes."""
    node, begin = fleet.nodes[-1], time.monotonic()
    ip("addr flush dev eth0", inside=node.host)
    fleet.moves += 1
    subnet = f"10.60.{fleet.moves}"
    new = f"{subnet}.1"
    ip(f"addr add {new}/16 dev eth0", inside=node.host)
    others = fleet.nodes[:-1]
    for other in others:
        ip(f"route add {subnet}.0/24 dev eth0", inside=other.host)

    def knowing() -> dict[str, float]:
        first: dict[str, float] = {}
        for told in fleet.told:
            has = any(one.startswith(f"{new}:") for one in told.addresses)
            if told.name == node.name and has and told.at >= begin:
                first.setdefault(told.by, told.at)
        return first

    async def all_know() -> bool:
        return {other.name for other in others} <= knowing().keys()

    await until(all_know, f"all know {new}")
    took = max(knowing().values()) - begin
    await fleet.settle()
    lost = fleet.lost(begin)
    return [Result("s until all know the new address", took, 2), Result("nodes lost", lost, 0)]


async def loss(fleet: Fleet, percent: int, limit: float | None) -> list[Result]:
    """The bridge drops frames by chance for 30 s."""
    begin = time.monotonic()
    with dropping(fleet, f"numgen random mod 100 < {percent}"):
        await asyncio.sleep(30)
    lost = fleet.lost(begin)
    at = time.monotonic()
    took = await fleet.settle() - at
    return [Result("nodes lost", lost, limit), Result("s until all books are right", took, 2)]


@contextmanager
def dropping(fleet: Fleet, *which: str) -> Iterator[None]:
    """Let the bridge drop these frames."""
    nft(fleet, "add table bridge drills")
    nft(fleet, "add chain bridge drills lossy { type filter hook forward priority 0; }")
    for frames in which:
        nft(fleet, f"add rule bridge drills lossy {frames} drop")
    try:
        yield
    finally:
        nft(fleet, "delete table bridge drills")


def nft(fleet: Fleet, commands: str) -> None:
    """Change the filter of the hub."""
    run("ip", "netns", "exec", fleet.lan.hub, "nft", commands)


def run(*command: str) -> None:
    """Run a command that takes no time."""
    subprocess.run(command, check=True)


async def loss_5(fleet: Fleet) -> list[Result]:
    """5 % of all packets are lost for 30 s."""
    return await loss(fleet, 5, 0)


async def loss_20(fleet: Fleet) -> list[Result]:
    """20 % of all packets are lost for 30 s."""
    return await loss(fleet, 20, None)


async def crash_many(fleet: Fleet) -> list[Result]:
    """A fifth of the nodes get SIGKILL at once."""
    count = max(1, len(fleet.nodes) // 5)
    gone = [fleet.nodes.pop() for _ in range(count)]
    at = time.monotonic()
    await asyncio.gather(*(node.end() for node in gone))
    known = [await fleet.heard("PeerLost", node.name, at, fleet.nodes) for node in gone]
    took = max(known) - at
    others = sum(one.event == "PeerLost" and one.at >= at for one in fleet.told)
    others -= len(gone) * len(fleet.nodes)
    return [Result("s until all know of the crashes", took, 6.5), Result("others lost", others, 0)]


async def ingress(fleet: Fleet) -> list[Result]:
    """Nothing that others send reaches a node for 20 s, twice."""
    node, begin = fleet.nodes[-1], time.monotonic()
    times, back = 0, 0.0
    for _ in range(2):
        since = time.monotonic()
        with dropping(fleet, f"oifname {fleet.ports[node.host]}"):
            await asyncio.sleep(20)
        at = time.monotonic()
        back = max(back, await fleet.settle() - at)
        await asyncio.sleep(max(0.0, at + 20 - time.monotonic()))
        times = max(times, fleet.lost_by_one(node.name, since))
    return [
        Result("s until all books are right again", back, 15),
        Result("times that one node lost it each time", times, 1),
        Result("others lost", fleet.lost(begin, but=node.name), 0),
    ]


async def loss_80(fleet: Fleet) -> list[Result]:
    """80 % of what a node sends and of what others send it are lost for 30 s."""
    node, begin = fleet.nodes[-1], time.monotonic()
    port, share = fleet.ports[node.host], "numgen random mod 100 < 80"
    with dropping(fleet, f"oifname {port} {share}", f"iifname {port} {share}"):
        await asyncio.sleep(30)
    at = time.monotonic()
    took = await fleet.settle() - at
    return [
        Result("s until all books are right again", took, 15),
        Result("times that one node lost it", fleet.lost_by_one(node.name, begin), None),
        Result("others lost", fleet.lost(begin, but=node.name), 0),
    ]


async def blackhole(fleet: Fleet) -> list[Result]:
    """Nothing passes between two nodes for 30 s."""
    begin = time.monotonic()
    one, other = (fleet.ports[node.host] for node in fleet.nodes[:2])
    with dropping(fleet, f"iifname {one} oifname {other}", f"iifname {other} oifname {one}"):
        await asyncio.sleep(30)
    await fleet.settle()
    suspected = fleet.lost(begin, event="PeerSuspected")
    return [
        Result("nodes lost", fleet.lost(begin), 0),
        Result("nodes suspected", suspected, 0),
    ]


async def descriptors(fleet: Fleet) -> list[Result]:
    """A node may open no more descriptors for 10 s, and another one joins meanwhile."""
    node, begin = fleet.nodes[-1], time.monotonic()
    held = descriptors_of(node.process.pid)
    before = resource.prlimit(node.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(node.process.pid, resource.RLIMIT_NOFILE, (held, before[1]))
    newcomer = await fleet.start()
    fleet.nodes.insert(0, fleet.nodes.pop())
    took = await fleet.settle() - newcomer.up_at
    await asyncio.sleep(10)
    resource.prlimit(node.process.pid, resource.RLIMIT_NOFILE, before)
    lost = fleet.lost(begin)
    return [Result("s until all know the newcomer", took, 2), Result("nodes lost", lost, 0)]


def descriptors_of(process: int) -> int:
    """Count the descriptors that a process has."""
    return len(list(Path(f"/proc/{process}/fd").iterdir()))


async def disk_full(fleet: Fleet) -> list[Result]:
    """The disk of a node is full when another one joins."""
    disk = Path(tempfile.mkdtemp(dir=fleet.directory))
    run("mount", "-t", "tmpfs", "-o", "size=512k", "drills", str(disk))
    try:
        node = await fleet.start(disk / "state")
        await fleet.settle()
        with suppress(OSError), (disk / "filler").open("wb", buffering=0) as filler:
            while filler.write(bytes(4096)):
                pass
        newcomer = await fleet.start()
        took = await fleet.settle() - newcomer.up_at
        fleet.nodes.remove(node)
        at = await node.end(signal.SIGTERM)
        await fleet.heard("PeerLeft", node.name, at, fleet.nodes)
    finally:
        run("umount", "--lazy", str(disk))
    return [Result("s until all know the newcomer", took, 2)]


async def busy(fleet: Fleet) -> list[Result]:
    """Each core has another process that never rests, for 15 s."""
    begin = time.monotonic()
    cores = os.cpu_count() or 1
    burners = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", "while True: pass")
        for _ in range(cores)
    ]
    await asyncio.sleep(15)
    for burner in burners:
        burner.kill()
        await burner.wait()
    return [Result("nodes lost", fleet.lost(begin), 0)]


DRILLS = {
    "leave": leave,
    "crash": crash,
    "restart": restart,
    "kills": kills,
    "new-key": new_key,
    "pause-2": short_pause,
    "pause-20": long_pause,
    "partition-25": partition_25,
    "partition-120": partition_120,
    "link-down": link_down,
    "flapping": flapping,
    "address": address,
    "loss-5": loss_5,
    "loss-20": loss_20,
    "crash-many": crash_many,
    "ingress": ingress,
    "loss-80": loss_80,
    "blackhole": blackhole,
    "descriptors": descriptors,
    "disk-full": disk_full,
    "busy": busy,
}


async def drill(names: list[str], nodes: int) -> int:
    """Run drills, print the table; return the exit code."""
    directory = Path(tempfile.mkdtemp(prefix="igd-drills-"))
    broken = 0
    print(f"{'drill':<15}{'what was measured':<46}{'measured':>10}{'promise':>10}", flush=True)
    task = asyncio.current_task()
    if task is not None:  # it is: this removes the hosts however the run ends
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    with network(f"igd-drill-{os.getpid()}") as lan:
        fleet = Fleet(lan, directory)
        try:
            for name in names:
                try:
                    while len(fleet.nodes) < nodes:
                        await fleet.start()
                    await fleet.settle()
                    results = await DRILLS[name](fleet)
                except TimeoutError as error:
                    broken += 1
                    print(f"{name:<15}{error}  BROKEN", flush=True)
                    await fleet.end()
                    continue
                for result in results:
                    broken += not result.is_kept
                    promise = "none" if result.limit is None else f"<= {result.limit:g}"
                    verdict = "" if result.is_kept else "  BROKEN"
                    line = f"{name:<15}{result.what:<46}{result.measured:>10.3g}{promise:>10}"
                    print(line + verdict, flush=True)
        finally:
            await fleet.end()
            shutil.rmtree(directory, ignore_errors=True)
    return int(bool(broken))


def main() -> int:
    """Read the arguments, and run."""
    if sys.argv[1:2] == ["--child"]:
        asyncio.run(child(*sys.argv[2:]))
        return 0
    summary = "\n".join(f"    {name:<14}{one.__doc__}" for name, one in DRILLS.items())
    parser = argparse.ArgumentParser(
        description=f"{__doc__}\ndrills:\n{summary}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", action="append", choices=DRILLS, help="run this one; repeatable")
    parser.add_argument("--nodes", type=int, default=10)
    options = parser.parse_args()
    if options.nodes < 4:  # noqa: PLR2004 (two halves of two)
        parser.error("--nodes must be at least 4")
    return asyncio.run(drill(options.only or list(DRILLS), options.nodes))


if __name__ == "__main__":
    sys.exit(main())
