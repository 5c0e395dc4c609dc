"""The same on asyncio, on uvloop, and under `-X dev` with asyncio's debug mode."""

import subprocess
import sys

import pytest

SCENARIO = """
import asyncio, contextlib, sys
from iroh_gossip_discovery import (
    Config, GossipDiscovery, PeerJoined, PeerLeft, PeerUpdated,
)

async def main():
    # Debug mode writes of callbacks that take 0.1 s, as any may on a busy machine.
    asyncio.get_running_loop().slow_callback_duration = 60
    seen = []
    alice = GossipDiscovery("alice", "fleet", config=Config.local())
    alice.on(PeerJoined | PeerLeft, lambda event: seen.append(type(event).__name__))
    async with alice:
        async with GossipDiscovery(
            "bob", "fleet", bootstrap=[alice.ticket], config=Config.local()
        ) as bob:
            events = alice.events()
            async with asyncio.timeout(30):
                assert (await anext(alice.peers())).name == "bob"
                await bob.wait_for_peers(1)
                assert isinstance(await anext(events), PeerJoined)
                got = 0
                for n in range(200):
                    await bob.update_metadata(n=str(n))
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(0.0005):
                            await anext(events)
                            got += 1
                @alice.serve("echo/1")
                async def echo(reader, writer):
                    while data := await reader.read(65536):
                        writer.write(data)
                        await writer.drain()
                reader, writer = await bob.open_stream(alice.id, "echo/1")
                writer.write(bytes(1_000_000))
                writer.write_eof()
                await writer.drain()
                assert len(await reader.read()) == 1_000_000
                await writer.wait_closed()
                while alice.book[bob.id].metadata.get("n") != "199":
                    event = await anext(events)
                    assert isinstance(event, PeerUpdated)
        async with asyncio.timeout(30):
            async for event in events:
                if isinstance(event, PeerLeft):
                    break
    assert seen == ["PeerJoined", "PeerLeft"], seen
    print(type(asyncio.get_running_loop()).__module__)
"""
RUNS = {
    "asyncio": ("asyncio.run(main())", "asyncio.unix_events"),
    "asyncio-debug": ("asyncio.run(main(), debug=True)", "asyncio.unix_events"),
    "uvloop": ("import uvloop; uvloop.run(main())", "uvloop"),
    "uvloop-debug": ("import uvloop; uvloop.run(main(), debug=True)", "uvloop"),
}


@pytest.mark.parametrize("dev", [False, True], ids=["plain", "dev"])
@pytest.mark.parametrize("loop", RUNS)
def test_discovery_works_the_same_on(loop: str, dev: bool) -> None:  # noqa: FBT001  # a parameter of the test
    call, module = RUNS[loop]
    options = ["-X", "dev", "-W", "error"] if dev else []
    done = subprocess.run(
        [sys.executable, *options, "-c", SCENARIO + call],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == module


def test_import_starts_nothing_and_loads_nothing_heavy() -> None:
    script = """
import asyncio, os, sys, threading
before = set(sys.modules)
from iroh_gossip_discovery import Config, GossipDiscovery
heavy = {"rich", "typer", "textual", "matplotlib", "uvloop", "click", "pathlib", "random"}
heavy |= {f"iroh_gossip_discovery.{name}" for name in ("_metrics", "_simulate", "blocking")}
heavy &= sys.modules.keys() - before
assert not heavy, heavy
assert threading.active_count() == 1
assert sys.platform != "linux" or len(os.listdir("/proc/self/task")) == 1
import logging
assert not logging.getLogger("iroh_gossip_discovery").handlers
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_names_that_are_imported_later_are_there_like_all_others() -> None:
    script = """
import iroh_gossip_discovery as package
assert "iroh_gossip_discovery._simulate" not in __import__("sys").modules
assert set(package.__all__) <= set(dir(package)), set(package.__all__) - set(dir(package))
from iroh_gossip_discovery import Metrics, simulate
from iroh_gossip_discovery._metrics import Metrics as same
assert package.Metrics is Metrics is same
assert "simulate" in vars(package), "asked for once"
names = {}
exec("from iroh_gossip_discovery import *", names)
assert names.keys() >= set(package.__all__)
try:
    package.simulat
except AttributeError as error:
    assert str(error) == "module 'iroh_gossip_discovery' has no attribute 'simulat'", error
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_two_loops_in_two_threads_serve_two_nodes() -> None:
    script = """
import asyncio, threading
from iroh_gossip_discovery import Config, GossipDiscovery
ticket, found = [], []
ready, met, done = threading.Event(), threading.Event(), threading.Event()

async def first():
    async with GossipDiscovery("first", "fleet", config=Config.local()) as node:
        ticket.append(node.ticket)
        ready.set()
        found.extend((await node.wait_for_peers(1, timeout=30)).values())
        met.set()
        await asyncio.to_thread(done.wait, 30)

async def second():
    async with GossipDiscovery(
        "second", "fleet", bootstrap=ticket, config=Config.local()
    ) as node:
        found.extend((await node.wait_for_peers(1, timeout=30)).values())
        await asyncio.to_thread(met.wait, 30)  # a node that leaves at once may never be seen
        done.set()

thread = threading.Thread(target=lambda: asyncio.run(first()))
thread.start()
assert ready.wait(30)
asyncio.run(second())
thread.join()
assert sorted(peer.name for peer in found) == ["first", "second"]
"""
    subprocess.run([sys.executable, "-X", "dev", "-c", script], check=True, timeout=90)
