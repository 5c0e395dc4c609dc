"""The command line: the demo shows real nodes and cleans up; a user's mistake is explained."""

import contextlib
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from iroh_gossip_discovery import __version__
from iroh_gossip_discovery._cli._demo import NAMES
from iroh_gossip_discovery._cli._processes import NodeFailedError, NodeGroup, NodeProcess

COMMAND = str(Path(sys.executable).with_name("iroh-gossip-discovery"))


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, *arguments],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
        env=os.environ | {"NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "120"},
    )


def alive(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


def assert_all_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + 20
    while any(map(alive, pids)):
        assert time.monotonic() < deadline, f"left behind: {[*filter(alive, pids)]}"
        time.sleep(0.05)


@contextlib.contextmanager
def demo_under_way() -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """Run the demo until its nodes are up; give their process ids."""
    pids: list[int] = []
    with subprocess.Popen(
        [COMMAND, "demo"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as demo:
        try:
            assert demo.stdout is not None
            for line in demo.stdout:
                pids += map(int, re.findall(r"runs as process (\d+)", line))
                if len(pids) >= 3:
                    break
            yield demo, pids
        finally:
            demo.kill()


def test_the_demo_shows_every_step_in_plain_lines() -> None:
    done = run("demo")
    assert (done.returncode, done.stderr) == (0, "")
    for name in NAMES:
        assert re.search(
            rf"^ +\d+\.\d\d s  {name} runs as process \d+ with id ", done.stdout, re.MULTILINE
        )
        assert re.search(rf"^ +\d+\.\d\d s  {name} found ", done.stdout, re.MULTILINE)
    assert re.search("^ +[0-9.]+ s  .* heard goodbye from dave", done.stdout, re.MULTILINE)
    summary = re.findall(r"^ +(\d+\.\d{3}) s  (.*)$", done.stdout, re.MULTILINE)
    assert [what for _, what in summary] == [
        "five processes run",
        "all five know each other",
        "dave left, and all others know",
        "dave is back, and all five know each other",
    ]
    assert "\x1b" not in done.stdout
    # The end of the nodes is no step: nothing is told of it.
    told = done.stdout.splitlines()
    assert told[-len(summary) - 1].endswith("dave is back, and all five know each other")
    assert_all_gone([int(pid) for pid in re.findall(r"runs as process (\d+)", done.stdout)])


def test_the_demo_draws_a_live_table_on_a_terminal() -> None:
    parent, child = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"}
    with subprocess.Popen(
        [COMMAND, "demo"], stdout=child, stderr=child, stdin=child, env=environment
    ) as demo:
        os.close(child)
        shown = b""
        with contextlib.suppress(OSError):  # the terminal's end, on Linux
            while part := os.read(parent, 65536):
                shown += part
        code = demo.wait(timeout=60)
    os.close(parent)
    text = shown.decode()
    assert code == 0, text[-2000:]
    for expected in (*NAMES, "4 of 4", "left", "came back", "how long it took", "✓"):
        assert expected in text
    assert "…" not in text, "it fits a terminal of 80 columns, cut off nowhere"
    assert "Traceback" not in text


def test_the_demo_fails_if_a_step_takes_too_long() -> None:
    done = run("demo", "--timeout", "0.1")
    assert done.returncode == 1
    assert "not converged: a node did not start within 0.1 s" in done.stdout
    assert "Traceback" not in done.stderr + done.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_no_process_behind(number: signal.Signals) -> None:
    with demo_under_way() as (demo, pids):
        assert all(map(alive, pids))
        demo.send_signal(number)
        _, error = demo.communicate(timeout=30)
        assert demo.returncode == 130
        assert "Traceback" not in error
        assert "every node was stopped" in error
    assert_all_gone(pids)


def test_a_killed_demo_leaves_no_process_behind() -> None:
    with demo_under_way() as (demo, pids):
        demo.kill()
        demo.wait()
        assert_all_gone(pids)


def test_the_version_is_the_packages() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"iroh-gossip-discovery {__version__}\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["no-such-command"],
        ["demo", "--no-such-option"],
        ["demo", "--timeout", "soon"],
        ["demo", "--timeout", "-1"],
        ["demo", "surplus"],
    ],
    ids=" ".join,
)
def test_a_wrong_call_is_explained_without_a_traceback(arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "Usage" in done.stderr


def test_help_tells_the_exit_codes() -> None:
    done = run("demo", "--help")
    assert done.returncode == 0
    assert "Exit code: 0" in " ".join(done.stdout.split())


@pytest.mark.asyncio
async def test_a_node_process_that_cannot_start_says_why() -> None:
    async with NodeGroup() as group:
        with pytest.raises(NodeFailedError, match="name must not be empty") as caught:
            await group.start({"name": "", "topic": "fleet"})
        assert "Traceback" not in str(caught.value)
        with pytest.raises(NodeFailedError, match="name must not be empty"):
            await group.nodes[0].ask_book()


@pytest.mark.asyncio
async def test_a_node_process_answers_by_its_own_book() -> None:
    async with NodeGroup() as group:
        alice = await group.start({"name": "alice", "topic": "fleet"})
        bob = await group.start({"name": "bob", "topic": "fleet", "bootstrap": [alice.ticket]})
        await _until_known(alice, bob)
        await bob.update_metadata(role="cache")
        while (await alice.ask_book())[0]["metadata"] != {"role": "cache"}:
            pass
        (entry,) = await alice.ask_book()
        assert (entry["id"], entry["name"]) == (bob.id, "bob")
        assert await bob.stop() == 0
        while await alice.ask_book():
            pass
        alice.kill()
        assert await alice.stop() == -signal.SIGKILL


async def _until_known(asked: NodeProcess, other: NodeProcess) -> None:
    while other.id not in {entry["id"] for entry in await asked.ask_book()}:
        pass
