"""The command `test-network`: what it finds is so; whatever happens, it reports and cleans up."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeAlias

import jsonschema
import pytest

from iroh_gossip_discovery._cli import _test_network
from iroh_gossip_discovery._cli._faults import FAULTS
from iroh_gossip_discovery._cli._lateness import Lateness
from iroh_gossip_discovery._cli._network import SETTLE, Member, Network
from iroh_gossip_discovery._cli._node import NodeSpec, Request
from iroh_gossip_discovery._cli._processes import NodeProcess
from iroh_gossip_discovery._cli._report import Report, as_text, node_report
from iroh_gossip_discovery._cli._usage import usage_of

ROOT = Path(__file__).resolve().parent.parent
COMMAND = [str(Path(sys.executable).with_name("iroh-gossip-discovery")), "test-network"]
ENVIRONMENT = os.environ | {"NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "120"}
Running: TypeAlias = subprocess.Popen[str]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
        env=ENVIRONMENT,
    )


def report_of(stdout: str) -> Report:
    """Read the report, which must be what the documentation says."""
    schema = json.loads((ROOT / "docs" / "test-network.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    told = json.loads(stdout)
    jsonschema.validate(told, schema, cls=jsonschema.Draft202012Validator)
    report: Report = told
    return report


def pids_in(progress: str) -> list[int]:
    return [int(pid) for pid in re.findall(r"runs as process (\d+)", progress)]


def alive(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


@contextmanager
def under_way(*arguments: str, until: str) -> Iterator[tuple[Running, list[int]]]:
    """Run a test until a line of its progress matches; give it with its nodes' process ids."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [*COMMAND, *arguments, "--json"], stdout=pipe, stderr=pipe, text=True, env=ENVIRONMENT
    ) as test:
        try:
            assert test.stderr is not None
            progress = ""
            for line in test.stderr:
                progress += line
                if re.search(until, line):
                    break
            assert re.search(until, progress), progress
            yield test, pids_in(progress)
        finally:
            test.kill()


def test_a_network_that_converges_is_reported_as_documented() -> None:
    done = run("3", "2", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    report = report_of(done.stdout)
    assert (report["ok"], report["interrupted"], report["nodes"]) == (True, False, 3)
    assert report["verdict"].startswith("OK: all 3 nodes held the same book ")
    assert report["convergence"]["converged"]
    assert report["hold"]["stayed"]
    assert report["hold"]["seconds"] > 1
    assert report["hold"]["checks"] > 1
    assert len({node["id"] for node in report["per_node"]}) == 3
    for node in report["per_node"]:
        assert (node["book"], node["missing"], node["extra"], node["stale"]) == (2, [], [], [])
        assert node["converged_s"] is not None
        assert min(node["messages_sent"], node["messages_received"], node["links"]) > 0
        assert min(node["bytes_sent"], node["bytes_received"]) > 1000
    pids = pids_in(done.stderr)
    assert pids == [node["pid"] for node in report["per_node"]]
    assert not any(map(alive, pids))


def test_the_text_report_lists_each_node_and_ends_with_the_verdict() -> None:
    done = run("2", "1", "--at-once")
    assert (done.returncode, done.stderr) == (0, "")
    for expected in (
        r"^ +\d+\.\d\d s  starting 2 processes, at once",
        r"^ +\d+\.\d\d s  converged \d+\.\d{3} s after the last process ran",
        r"^node-1 +[0-9a-f]{10} +running +1 of 1 +- +- +- +\d+\.\d{3} +\d+/\d+ ",
        r"^convergence  p50 \d+\.\d{3} s, p99 \d+\.\d{3} s, max \d+\.\d{3} s ",
        r"^OK: all 2 nodes held the same book .* and stayed so for \d+\.\d s\.\Z",
    ):
        assert re.search(expected, done.stdout.rstrip("\n"), re.MULTILINE), done.stdout
    assert "wrong" not in done.stdout


def test_every_book_is_right_again_after_each_fault() -> None:
    done = run("4", "1", "--json", "--faults", ",".join(FAULTS))
    assert done.returncode == 0, done.stdout + done.stderr
    report = report_of(done.stdout)
    assert [fault["fault"] for fault in report["faults"]] == [*FAULTS]
    assert all(fault["seconds"] is not None for fault in report["faults"])
    names = {node["name"] for node in report["per_node"]}
    assert names == {"node-1", "node-2", "late-seed", "early-joiner"}
    assert not any(map(alive, pids_in(done.stderr)))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("until", "phase"),
    [
        (r"node-1 runs as process", "starting"),
        (r"was killed; waiting until", "in the fault phase kill"),
    ],
    ids=["starting", "in a fault"],
)
def test_an_interrupted_test_ends_its_nodes_and_reports(
    until: str, phase: str, number: signal.Signals
) -> None:
    with under_way("3", "60", "--faults", "kill", until=until) as (test, pids):
        test.send_signal(number)
        stdout, stderr = test.communicate(timeout=30)
        assert test.returncode == 1
        report = report_of(stdout)
        assert (report["ok"], report["interrupted"]) == (False, True)
        assert report["verdict"].startswith(f"FAILED: interrupted while {phase}")
        assert "Traceback" not in stderr
        assert not any(map(alive, [*pids, *pids_in(stderr)]))


def test_a_test_interrupted_in_its_last_phase_reports_what_it_found() -> None:
    with under_way("3", "60", until="holding for") as (test, pids):
        test.send_signal(signal.SIGINT)
        stdout, _ = test.communicate(timeout=30)
        report = report_of(stdout)
        assert (test.returncode, report["ok"]) == (1, False)
        assert report["convergence"]["converged"]
        assert [node["book"] for node in report["per_node"]] == [2, 2, 2]
        assert not any(map(alive, pids))


def test_a_killed_test_leaves_no_process_behind() -> None:
    with under_way("3", "60", until="holding for") as (test, pids):
        assert all(map(alive, pids))
        test.kill()
        test.wait()
        deadline = time.monotonic() + 20
        while any(map(alive, pids)):
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.mark.parametrize(
    ("number", "condition", "says"),
    [
        (signal.SIGSTOP, "frozen", "node-3 does not answer"),
        (signal.SIGKILL, "ended", "node-3 has ended: exit code -9"),
    ],
    ids=["frozen", "ended"],
)
def test_a_node_that_stops_in_the_last_phase_fails_the_test(
    number: signal.Signals, condition: str, says: str
) -> None:
    with under_way("3", "60", until="holding for") as (test, pids):
        os.kill(pids[2], number)
        stdout, _ = test.communicate(timeout=100)
        report = report_of(stdout)
        assert test.returncode == 1
        assert report["verdict"].startswith("FAILED: did not stay converged: ")
        assert says in report["verdict"]
        assert report["per_node"][2]["condition"] == condition
        assert report["per_node"][2]["stale"] == []
        assert f"wrong        node-3: {condition}" in as_text(report)
        assert not any(map(alive, pids))


def test_a_test_that_fails_on_a_busy_machine_says_so() -> None:
    with under_way("2", "60", until="holding for") as (test, pids):
        # A thread that does not run is late, as if others had every processor.
        test.send_signal(signal.SIGSTOP)
        time.sleep(1)
        test.send_signal(signal.SIGCONT)
        os.kill(pids[1], signal.SIGKILL)
        stdout, _ = test.communicate(timeout=60)
    report = report_of(stdout)
    assert (test.returncode, report["late_s"] > 0.8) == (1, True)
    told = f"the test itself waited up to {report['late_s']:.1f} s"
    assert report["verdict"].endswith(
        f"; but this machine was too busy to be sure: {told} for a processor."
    )
    assert f"machine      busy: {told} to run" in as_text(report)


@pytest.mark.asyncio
async def test_waiting_for_a_processor_is_lateness_and_working_is_not() -> None:
    lateness = Lateness()
    watching = asyncio.create_task(lateness.watch())
    await asyncio.sleep(0)
    began, end = time.monotonic(), time.process_time() + 0.4
    while time.process_time() < end:
        pass
    await asyncio.sleep(0.1)
    # Others may have had the processor meanwhile: that counts, and the work does not.
    assert lateness.worst < time.monotonic() - began - 0.4
    time.sleep(0.6)  # noqa: ASYNC251  # off the processor, like a thread that waits for one
    await asyncio.sleep(0.1)
    watching.cancel()
    assert lateness.worst > 0.5
    assert f"waited up to {lateness.worst:.1f} s" in lateness.says()


@pytest.mark.asyncio
async def test_a_change_that_is_undone_before_the_next_question_fails_the_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    verify = Network.verify

    async def verify_late(network: Network, bound: float = SETTLE) -> bool:
        right = await verify(network, bound)
        if network.changes is not None:  # nothing may change from here on
            one, two = network.members
            peer = one.process.book[two.process.id]
            for event in ("PeerLost", "PeerJoined"):
                network._hear(
                    one.process,
                    {"kind": "event", "at": time.monotonic(), "event": event, "peer": peer},
                )
        return right

    monkeypatch.setattr(Network, "verify", verify_late)
    options = _test_network.Options(nodes=2, seconds=30.0, at_once=False, faults=[], as_json=True)
    report = await _test_network._Run(options, tmp_path).run()
    changes = ["node-1 told PeerLost of node-2", "node-1 told PeerJoined of node-2"]
    assert report["hold"]["changes"] == changes
    assert not report["ok"]
    assert report["verdict"] == f"FAILED: did not stay converged: {changes[0]}."


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("nth", "verdict"),
    [
        (2, "FAILED: no process became ready within 1 s, 1 of 2 had before."),
        (3, "FAILED: restart was not done within 1 s."),
    ],
    ids=["starting", "in a fault"],
)
async def test_a_node_that_freezes_before_it_is_ready_fails_the_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nth: int, verdict: str
) -> None:
    started: list[NodeProcess] = []
    write = NodeProcess._write

    def write_and_freeze(node: NodeProcess, message: NodeSpec | Request) -> None:
        if "name" in message:
            started.append(node)
            if len(started) == nth - 1:  # the others had all the time they need
                monkeypatch.setattr(_test_network, "START_BOUND", 1.0)
            if len(started) == nth:
                os.kill(node.pid, signal.SIGSTOP)
        write(node, message)

    monkeypatch.setattr(NodeProcess, "_write", write_and_freeze)
    options = _test_network.Options(
        nodes=2, seconds=60.0, at_once=False, faults=["restart"], as_json=True
    )
    report = await _test_network._Run(options, tmp_path).run()
    assert not report["ok"]
    assert report["verdict"] == verdict
    assert not any(node.alive for node in started)


@pytest.mark.parametrize(
    "arguments",
    [
        ["0"],
        ["1"],
        ["-5"],
        ["501"],
        ["abc"],
        ["2.5"],
        ["5", "0"],
        ["5", "-1"],
        ["5", "nan"],
        ["5", "inf"],
        ["5", "soon"],
        ["5", "5", "5"],
        ["--faults", "flood"],
        ["--faults", "kill,kill"],
        ["--faults", "kill,"],
        ["2", "--faults", "kill"],
        ["--no-such-option"],
    ],
    ids=" ".join,
)
def test_a_wrong_call_is_explained(arguments: list[str]) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Usage" in done.stderr
    assert "Traceback" not in done.stderr


async def enter_two(network: Network, *, apart: bool = False) -> tuple[Member, Member]:
    one = await network.enter(network.spec("one", []))
    bootstrap = [] if apart else [one.process.ticket]
    return one, await network.enter(network.spec("two", bootstrap))


@pytest.mark.asyncio
async def test_a_book_that_misses_a_member_is_wrong(tmp_path: Path) -> None:
    network = Network(tmp_path, print)
    async with network.group:
        one, two = await enter_two(network, apart=True)
        assert not await network.until_right(0.5)
        assert not await network.verify(0.1)
        assert [one.says(), two.says()] == ["one misses two", "two misses one"]
        assert node_report(one, None)["missing"] == ["two"]


@pytest.mark.asyncio
async def test_a_book_that_holds_a_non_member_is_wrong(tmp_path: Path) -> None:
    network = Network(tmp_path, print)
    async with network.group:
        one, two = await enter_two(network)
        assert await network.until_right(30)
        assert await network.verify()
        network.drop(two)
        assert network.right() == 0
        assert not await network.verify(0.1)
        assert one.says() == "one still holds two"


@pytest.mark.asyncio
async def test_an_old_record_is_wrong(tmp_path: Path) -> None:
    network = Network(tmp_path, print)
    async with network.group:
        one, two = await enter_two(network)
        assert await network.until_right(30)
        assert await network.verify()
        assert one.state is not None
        assert two.state is not None
        (entry,) = one.state.book
        own = {member.process.id: network._own(member) for member in (one, two)}
        for changed in ({"sequence": own[entry["id"]]["sequence"] - 1}, {"name": "another"}):
            old = one.state._replace(book=[{**entry, **changed}])  # type: ignore[typeddict-item]  # of two types
            one.state = old
            assert not network._compare(own)
            assert one.says() == "one has an old record of two"


@pytest.mark.asyncio
async def test_a_node_that_is_in_its_next_life_is_not_right_before_others_know(
    tmp_path: Path,
) -> None:
    network = Network(tmp_path, print)
    async with network.group:
        _, two = await enter_two(network)
        assert await network.until_right(30)
        first = two.process.boot_id
        fault = await FAULTS["restart"](network)
        assert fault.node == "two"
        assert network.members[1].process.boot_id != first
        assert await network.until_right(30)
        assert await network.verify()
        # Another life, of which nobody has heard: only its own book is right.
        network.members[1].process.boot_id += 1
        network._judge_all(time.monotonic())
        assert network.right() == 1


@pytest.mark.asyncio
async def test_a_restart_keeps_the_id_and_a_rekey_does_not(tmp_path: Path) -> None:
    network = Network(tmp_path, print)
    async with network.group:
        _, two = await enter_two(network)
        first = two.process.id
        await FAULTS["restart"](network)
        assert network.members[1].process.id == first
        await FAULTS["rekey"](network)
        assert network.members[1].process.id != first
        assert network.members[1].name == "two"
        assert await network.until_right(60)
        assert await network.verify()


@pytest.mark.needs("proc")
def test_usage_is_that_of_the_process() -> None:
    own = usage_of(os.getpid())
    assert own is not None
    assert own.memory_bytes > 1_000_000
    assert abs(own.cpu_s - time.process_time()) < 1
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert usage_of(child.pid) is None
