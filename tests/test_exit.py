"""The interpreter may go away, or be forked, at any moment: no crash, no hang, a clear error."""

import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

REPEATS = 12

# Two nodes that keep each other busy: events flow into Python without a pause.
BUSY = """
import asyncio, atexit, gc, os, selectors, sys, threading, time
from iroh_gossip_discovery import Config, Event, GossipDiscovery

config = Config.local(leave_timeout=0.0)
keep_streams = []

async def update(discovery):
    n = 0
    while True:
        n += 1
        await discovery.update_metadata(n=str(n))

async def read(stream):
    async for _ in stream:
        pass

async def echo(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()

async def write(writer):
    while True:
        writer.write(bytes(100_000))
        await writer.drain()

async def read_all(reader):
    while await reader.read(65536):
        pass

async def pair():
    alice = GossipDiscovery("alice", "fleet", config=config)
    await alice.start()
    bob = GossipDiscovery("bob", "fleet", bootstrap=[alice.ticket], config=config)
    await bob.start()
    await alice.wait_for_peers(1, timeout=30)
    alice.on(Event, lambda event: None)
    tasks = [asyncio.create_task(update(bob)), asyncio.create_task(update(alice))]
    tasks += [asyncio.create_task(read(node.events())) for node in (alice, bob) for _ in range(4)]
    alice.serve("echo/1", echo)
    for _ in range(2):
        reader, writer = await bob.open_stream(alice.id, "echo/1")
        keep_streams.append((reader, writer))
        tasks += [asyncio.create_task(write(writer)), asyncio.create_task(read_all(reader))]
    return alice, bob, tasks
"""

EXITS = {
    "the main coroutine returns with tasks running": """
        async def main():
            global keep
            keep = await pair()
            await asyncio.sleep(0.05)
        asyncio.run(main())
    """,
    "sys.exit inside a task": """
        async def main():
            global keep
            keep = await pair()
            await asyncio.sleep(0.05)
            sys.exit(0)
        asyncio.run(main())
    """,
    "a daemon thread runs the loop": """
        ready = threading.Event()
        async def main():
            global keep
            keep = await pair()
            ready.set()
            await asyncio.sleep(60)
        threading.Thread(target=lambda: asyncio.run(main()), daemon=True).start()
        assert ready.wait(30)
        time.sleep(0.05)
    """,
    "the loop is closed under the tasks": """
        loop = asyncio.new_event_loop()
        keep = loop.run_until_complete(pair())
        loop.run_until_complete(asyncio.sleep(0.05))
        loop._default_executor = None
        for task in asyncio.all_tasks(loop):
            task._log_destroy_pending = False
        loop.close()
        time.sleep(0.05)
    """,
    "an atexit handler uses the package": """
        async def main():
            global keep
            keep = await pair()
            await asyncio.sleep(0.05)
        asyncio.run(main())
        atexit.register(lambda: keep[0].book.snapshot())
        atexit.register(gc.collect)
    """,
}


def run(script: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", *options, "-c", BUSY + textwrap.dedent(script)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


@pytest.mark.parametrize("way", EXITS)
def test_the_interpreter_exits_cleanly_while_events_flow(way: str) -> None:
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(run, [EXITS[way]] * REPEATS))
    codes = [result.returncode for result in results]
    assert codes == [0] * REPEATS, [r.stderr[-2000:] for r in results if r.returncode]
    quiet = [result for result in results if not result.stderr]
    assert len(quiet) == REPEATS, next(r.stderr[-2000:] for r in results if r.stderr)


def test_nothing_enters_python_once_the_exit_has_shut_the_gate() -> None:
    script = """
        seen = 0
        def look():
            told = []
            for _ in range(10):
                told.append(seen)
                time.sleep(0.2)
            os.write(1, f"{told[0] > 0} {len(set(told[5:]))}\\n".encode())
        # Before the package's own, so it is called after it; a daemon thread still runs then.
        atexit.register(look)
        ready = threading.Event()
        def count(event):
            global seen
            seen += 1
        async def main():
            global keep
            keep = await pair()
            keep[0].on(Event, count)
            while seen < 10:
                await asyncio.sleep(0.01)
            ready.set()
            await asyncio.sleep(60)
        threading.Thread(target=lambda: asyncio.run(main()), daemon=True).start()
        assert ready.wait(30)
    """
    result = run(script)
    assert (result.returncode, result.stdout) == (0, "True 1\n"), result.stderr


@pytest.mark.needs("fork")
def test_a_forked_child_is_refused_with_advice_and_exits() -> None:
    script = """
        async def main():
            from iroh_gossip_discovery._core import start
            alice, bob, tasks = await pair()
            stream = alice.events()
            pid = os.fork()
            if pid == 0:
                told = []
                reader, writer = keep_streams[0]
                uses = [alice.book.snapshot, alice.events, lambda: alice.id, lambda: len(bob.book),
                        lambda: writer.write(b"x"), lambda: reader._core.take(1),
                        lambda: start(GossipDiscovery("carol", "fleet")._settings, [])]
                for use in uses:
                    try:
                        use()
                    except RuntimeError as error:
                        told.append("spawn" in str(error))
                del alice, bob, stream, reader, writer
                keep_streams.clear()
                gc.collect()
                os.write(1, str(told).encode() + b"\\n")
                # As a child that was not made for this ends: destructors and atexit handlers run.
                sys.exit(7)
            await asyncio.sleep(0.1)
            done = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            os.write(1, f"child {done}, parent knows {len(alice.book)}\\n".encode())
            for task in tasks:
                task.cancel()
            await asyncio.gather(alice.close(), bob.close())
        # With epoll, a child that ends in order would take the parent's sockets out of its loop.
        selector = lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())
        try:
            with asyncio.Runner(loop_factory=selector) as runner:
                runner.run(main())
        except SystemExit:
            os.write(1, b"exit\\n")
            raise
    """
    with ThreadPoolExecutor(2) as pool:
        for result in pool.map(run, [script] * REPEATS):
            assert result.stdout.splitlines() == [
                str([True] * 7),
                "exit",
                "child 7, parent knows 1",
            ], result.stderr


@pytest.mark.needs("fork")
def test_a_fork_before_the_first_start_is_fine() -> None:
    script = """
        pid = os.fork()
        async def main():
            alice, bob, tasks = await pair()
            for task in tasks:
                task.cancel()
            await asyncio.gather(alice.close(), bob.close())
        asyncio.run(main())
        if pid:
            sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    """
    result = run(script)
    assert (result.returncode, result.stderr) == (0, "")


SPAWN = """
import asyncio, multiprocessing
from iroh_gossip_discovery import Config, GossipDiscovery

def child(ticket):
    async def main():
        async with GossipDiscovery(
            "child", "fleet", bootstrap=[ticket], config=Config.local()
        ) as discovery:
            (peer,) = (await discovery.wait_for_peers(1, timeout=30)).values()
            return peer.name
    return asyncio.run(main())

async def parent():
    async with GossipDiscovery("parent", "fleet", config=Config.local()) as discovery:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            result = pool.apply_async(child, (discovery.ticket,))
            print(await asyncio.to_thread(result.get, 60))

if __name__ == "__main__":
    asyncio.run(parent())
"""


def test_a_spawned_child_works(tmp_path: Path) -> None:
    script = tmp_path / "spawn.py"
    script.write_text(SPAWN)
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=90, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "parent\n", "")


SECOND_INTERPRETER = """
import iroh_gossip_discovery
try:
    import _interpreters as interpreters
    other = interpreters.create("legacy")
except ImportError:  # before 3.13
    import _xxsubinterpreters as interpreters
    other = interpreters.create(isolated=False)
interpreters.run_string(other, '''
try:
    import iroh_gossip_discovery
except ImportError as error:
    print(error, flush=True)
''')
interpreters.destroy(other)
"""


def test_a_second_interpreter_is_refused_the_import_with_the_reason() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SECOND_INTERPRETER],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "serves one interpreter of a process" in done.stdout
