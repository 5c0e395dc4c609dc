"""What a node keeps on disk: over kill -9, forks, full and read-only disks, and a power cut."""

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PATIENCE = 120.0

PRELUDE = """
import asyncio, os, sys, time
from iroh_gossip_discovery import Config, GossipDiscovery, StateDamaged, StateDirError

def say(*words):
    print(*words, flush=True)

async def until(what, condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, what
        await asyncio.sleep(0.02)

def sources(node):
    return [problem.source for problem in node.problems()]
"""


class Process:
    """A Python process that prints lines."""

    def __init__(self, script: str, *arguments: object, wrap: tuple[str, ...] = ()) -> None:
        command = [*wrap, sys.executable, "-c", PRELUDE + script, *map(str, arguments)]
        self.popen = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def line(self) -> str:
        """Return the next line."""
        assert self.popen.stdout is not None
        ready, _, _ = select.select([self.popen.stdout], [], [], PATIENCE)
        assert ready, "no line came"
        line = self.popen.stdout.readline().strip()
        assert line, f"the process ended: {self.popen.wait(PATIENCE)}"
        return line

    def kill(self) -> None:
        """End it as a power cut does."""
        self.popen.kill()
        self.popen.wait(PATIENCE)
        for pipe in (self.popen.stdin, self.popen.stdout):
            if pipe is not None:
                pipe.close()

    def stop(self) -> None:
        """Ask it to end."""
        assert self.popen.stdin is not None
        self.popen.stdin.close()

    def end(self) -> int:
        """Ask it to end, and return its exit code."""
        self.stop()
        return self.popen.wait(PATIENCE)


@contextmanager
def processes() -> Iterator[list[Process]]:
    started: list[Process] = []
    try:
        yield started
    finally:
        for process in started:
            process.kill()


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.mark.needs("fork")
def test_a_child_that_outlives_its_killed_parent_keeps_neither_port_nor_lock(
    tmp_path: Path,
) -> None:
    script = """
async def main():
    config = Config.local(bind=["127.0.0.1:" + sys.argv[2]])
    async with GossipDiscovery("alice", "fleet", state_dir=sys.argv[1], config=config) as node:
        child = os.fork() if sys.argv[3] == "fork" else 0
        if sys.argv[3] == "fork" and child == 0:
            time.sleep(120)
            os._exit(0)
        say(node.id, child)
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(main())
"""
    port = free_port()
    with processes() as started:
        parent = Process(script, tmp_path / "state", port, "fork")
        started.append(parent)
        identity, child = parent.line().split()
        parent.kill()
        os.kill(int(child), 0)  # it lives
        try:
            again = Process(script, tmp_path / "state", port, "alone")
            started.append(again)
            assert again.line().split()[0] == identity
            os.kill(int(child), 0)
        finally:
            os.kill(int(child), signal.SIGKILL)
        assert again.end() == 0


FULL = """
async def main():
    state, ballast = sys.argv[1], sys.argv[1] + "/../ballast"
    def fill():
        with open(ballast, "wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(256))
            except OSError:
                pass
    fill()
    node = GossipDiscovery("alice", "fleet", state_dir=state, config=Config.local())
    async with node:
        identity = node.id
        assert sources(node) == ["state directory"], node.problems()
        await node.update_metadata(step="1")
        os.remove(ballast)
        await until("the disk has room again", lambda: not sources(node))
        fill()
        await node.update_metadata(step="2")
    os.remove(ballast)
    async with GossipDiscovery("alice", "fleet", state_dir=state, config=Config.local()) as node:
        assert node.id == identity and not sources(node)
    say("well")

asyncio.run(main())
"""


@pytest.mark.needs("mounts")
def test_a_full_disk_stops_no_node_and_is_said_until_it_has_room(tmp_path: Path) -> None:
    mount = 'mount -t tmpfs -o size=128k none $0 && mkdir $0/state && exec "$@"'
    with processes() as started:
        wrap = ("unshare", "-m", "sh", "-ec", mount, str(tmp_path))
        started.append(Process(FULL, tmp_path / "state", wrap=wrap))
        assert started[0].line() == "well"


READ_ONLY = """
import subprocess

async def main():
    state = sys.argv[1]
    def start(**options):
        return GossipDiscovery("alice", "fleet", state_dir=state, config=Config.local(), **options)
    async with start() as node:
        identity, sequence = node.id, node.me.sequence
    subprocess.run(["mount", "-o", "remount,bind,ro", state], check=True)
    async with start() as node:
        assert node.id == identity and node.me.sequence > sequence
        sequence = node.me.sequence
        assert sources(node) == ["state directory"], node.problems()
        try:
            async with start():
                say("a second node started")
        except StateDirError as error:
            assert f"process {os.getpid()}" in str(error), error
        subprocess.run(["mount", "-o", "remount,bind,rw", state], check=True)
        await until("the disk can be written", lambda: not sources(node))
        subprocess.run(["mount", "-o", "remount,bind,ro", state], check=True)
        await node.update_metadata(step="1")
        sequence = node.me.sequence
    async with start() as node:
        assert node.id == identity and node.me.sequence > sequence
    say("well")

asyncio.run(main())
"""


@pytest.mark.needs("mounts")
def test_a_read_only_disk_stops_no_node_and_no_sequence_number_comes_twice(tmp_path: Path) -> None:
    mount = 'mkdir $0/state && mount --bind $0/state $0/state && exec "$@"'
    with processes() as started:
        wrap = ("unshare", "-m", "sh", "-ec", mount, str(tmp_path))
        started.append(Process(READ_ONLY, tmp_path / "state", wrap=wrap))
        assert started[0].line() == "well"


def test_a_relative_state_dir_stays_where_it_was_at_the_start(tmp_path: Path) -> None:
    script = """
async def main():
    home, elsewhere = sys.argv[1:]
    os.chdir(home)
    async with GossipDiscovery("bob", "fleet", config=Config.local()) as bob:
        node = GossipDiscovery("alice", "fleet", state_dir="state", bootstrap=[bob.ticket],
                               config=Config.local())
        async with node:
            os.chdir(elsewhere)
            def is_kept():
                return any(path.startswith("book-") for path in os.listdir(home + "/state"))
            await until("the book is kept", is_kept)
            assert not sources(node), node.problems()
    say(*os.listdir(elsewhere), "well")

asyncio.run(main())
"""
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    home.mkdir()
    elsewhere.mkdir()
    with processes() as started:
        started.append(Process(script, home, elsewhere))
        assert started[0].line() == "well"


def test_a_damaged_key_is_an_event_and_no_end(tmp_path: Path) -> None:
    script = """
async def main():
    def start():
        return GossipDiscovery("alice", "fleet", state_dir=sys.argv[1], config=Config.local())
    async with start() as node:
        identity = node.id
    with open(sys.argv[1] + "/secret.key", "w") as file:
        file.write("no key")
    node, heard = start(), []
    node.on(StateDamaged, heard.append)
    async with node, node.events() as events:
        assert node.id != identity
        event = await anext(events)
        assert "secret.key" in event.reason and "new identity" in event.reason, event
        await until("the callback hears it too", lambda: heard == [event])
        assert node.metrics().events["StateDamaged"] == 1
    say("well")

asyncio.run(main())
"""
    with processes() as started:
        started.append(Process(script, tmp_path / "state"))
        assert started[0].line() == "well"


NODE = """
async def main():
    name, state, *tickets = sys.argv[1:]
    node = GossipDiscovery(name, "fleet", state_dir=state, bootstrap=tickets,
                           config=Config.local())
    async with node:
        say(node.ticket, node.id)
        await node.wait_for_peers(2, timeout=110)
        say("full")
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(main())
"""


NAMES = ("alice", "bob", "carol")


def start_all(tmp_path: Path, started: list[Process]) -> dict[str, tuple[str, str]]:
    """Start three nodes, and wait until each knows the others; give ticket and id of each."""
    known: dict[str, tuple[str, str]] = {}
    for name in NAMES:
        tickets = [ticket for ticket, _ in known.values()]
        started.append(Process(NODE, name, tmp_path / name, *tickets))
        ticket, identity = started[-1].line().split()
        known[name] = (ticket, identity)
    assert [process.line() for process in started] == ["full"] * 3
    return known


def test_after_a_power_cut_old_tickets_lead_to_all_again(tmp_path: Path) -> None:
    with processes() as started:
        known = start_all(tmp_path, started)
        for process in started:
            process.kill()
        for name in NAMES:
            others = [ticket for other, (ticket, _) in known.items() if other != name]
            started.append(Process(NODE, name, tmp_path / name, *others))
            started[-1].line()
        assert [process.line() for process in started[3:]] == ["full"] * 3


def wait_until_kept(state: Path, identities: set[str]) -> None:
    """Wait until the kept book of a node has these ids in it."""
    end = time.monotonic() + PATIENCE
    while True:
        # A file that is being written ends in .tmp, and has another name a moment later.
        files = [path for path in state.glob("book-*") if path.suffix != ".tmp"]
        content = b"".join(path.read_bytes() for path in files)
        if all(bytes.fromhex(identity) in content for identity in identities):
            return
        assert time.monotonic() < end, "the book was not kept"
        time.sleep(0.02)


@pytest.mark.parametrize("cut", ["one", "all", "all in order"])
def test_a_kept_book_leads_back_without_tickets(tmp_path: Path, cut: str) -> None:
    with processes() as started:
        ids = {name: identity for name, (_, identity) in start_all(tmp_path, started).items()}
        for name in NAMES:
            wait_until_kept(tmp_path / name, set(ids.values()) - {ids[name]})
        killed = NAMES[:1] if cut == "one" else NAMES
        for _, process in zip(killed, started, strict=False):
            if cut == "all in order":
                process.stop()
            else:
                process.kill()
        if cut == "all in order":
            assert [process.popen.wait(PATIENCE) for process in started] == [0] * 3
        # Some come back with another port.
        for name in killed[:2]:
            (tmp_path / name / "endpoint").unlink()
        for name in killed:
            again = Process(NODE, name, tmp_path / name)
            started.append(again)
            assert again.line().split()[1] == ids[name]
        for again in started[3:]:
            assert again.line() == "full"
