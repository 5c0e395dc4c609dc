"""`simulate`, from Python and on the command line: what it finds, how it ends, how it fails."""

import json
import os
import pickle
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from dataclasses import FrozenInstanceError, asdict
from pathlib import Path

import jsonschema
import pytest

from iroh_gossip_discovery import ConfigurationError, simulate

COMMAND = str(Path(sys.executable).with_name("iroh-gossip-discovery"))
DOCS = Path(__file__).parent.parent / "docs"
ENVIRONMENT = os.environ | {"NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "120"}
CRASH = """
nodes = 8
seed = 3
warmup = "10s"
[[fault]]
at = "1s"
crash = 1
within = "6.5s"
"""
# Nobody can know of a crash that soon.
IMPOSSIBLE = CRASH.replace("6.5s", "1ms")
# Would take minutes to simulate.
LONG = "nodes = 200\nduration = '1d'"


def call(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, "simulate", *arguments],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
        cwd=cwd,
        env=ENVIRONMENT,
    )


@pytest.fixture
def failing(tmp_path: Path) -> Path:
    (tmp_path / "failing.toml").write_text(IMPOSSIBLE)
    return tmp_path / "failing.toml"


# --- from Python ------------------------------------------------------------------------------


def test_a_simulated_crash_is_measured_and_its_events_are_recorded() -> None:
    found = simulate(CRASH, events=True)
    assert found.ok
    assert found.complete
    assert found.failures == ()
    start, crash = found.figures
    assert (start.what, start.fault, crash.what, crash.fault) == ("start", None, "crash", 0)
    assert crash.took_s is not None
    assert 0.5 < crash.took_s < 6.5
    assert (found.nodes, found.up, found.seed, found.virtual_s) == (8, 7, 3, 71.0)
    lost = [event for event in found.events if event.event == "PeerLost"]
    assert len(lost) == found.emitted["PeerLost"] == 7
    assert {event.peer for event in lost} == {f"node-{crash.nodes[0]}"}
    assert max(event.at_s for event in lost) == pytest.approx(crash.at_s + crash.took_s)
    assert 0 < found.sent.control_bytes + found.sent.sync_bytes < found.sent.wire_bytes


def test_a_simulation_without_events_differs_in_nothing_else() -> None:
    with_events, without = simulate(CRASH, events=True), simulate(CRASH)
    assert without.events == () != with_events.events
    assert asdict(without) == asdict(with_events) | {"events": ()}


def test_the_result_of_a_simulation_is_frozen_and_can_be_copied() -> None:
    found = simulate(CRASH, events=True)
    with pytest.raises(FrozenInstanceError):
        found.ok = False  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(found)) == found  # noqa: S301  # our own


def test_the_same_seed_gives_the_same_trace_in_another_process() -> None:
    script = f"from iroh_gossip_discovery import simulate; print(simulate({CRASH!r}).trace)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == simulate(CRASH).trace
    assert simulate(CRASH, seed=4).trace != simulate(CRASH).trace


def test_seed_and_nodes_take_the_place_of_the_scenarios() -> None:
    found = simulate(CRASH, seed=2**63 - 1, nodes=5)
    assert (found.seed, found.nodes) == (2**63 - 1, 5)


def test_a_file_is_read(tmp_path: Path, failing: Path) -> None:
    assert not simulate(failing).ok
    with pytest.raises(FileNotFoundError):
        simulate(tmp_path / "missing.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff")
    with pytest.raises(ConfigurationError, match="scenario is a file that is not UTF-8"):
        simulate(tmp_path / "binary.toml")
    (tmp_path / "huge.toml").write_bytes(b"#" * 1_048_577)
    with pytest.raises(ConfigurationError, match="more than 1,048,576 bytes"):
        simulate(tmp_path / "huge.toml")


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("nodes = 0", "nodes"),
        ("nodes = 20_001", "nodes"),
        ("[[fault]]\nat = '1s'", "fault[0]"),
        ("[network]\nloss = 1.0", "network.loss"),
        ("[expect]\nbytes_per_second = -1.0", "expect.bytes_per_second"),
        ("[config]\nneighbors = 0", "config"),
        ("duration = 5\n[[fault]]\ncrash = 1\nwithin = 6", "fault[0].within"),
        ("nodes = 3\n[[fault]]\ncrash = [3]", "fault[0].crash"),
    ],
)
def test_a_value_outside_its_limits_is_named(text: str, field: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        simulate(text)
    assert refused.value.field == field


def test_an_unknown_key_is_named() -> None:
    with pytest.raises(ConfigurationError, match="nodse"):
        simulate("nodse = 3")


@pytest.mark.parametrize("number", [-1, 2**63, 2**64])
def test_a_seed_outside_its_limits_is_refused(number: int) -> None:
    with pytest.raises(ConfigurationError, match=r"seed must (not )?be"):
        simulate(CRASH, seed=number)


def test_progress_rises_and_may_end_the_run() -> None:
    shares: list[float] = []

    def enough(share: float) -> bool:
        shares.append(share)
        return len(shares) < 3

    found = simulate(LONG, progress=enough)
    assert (found.complete, found.ok, len(shares)) == (False, False, 3)
    assert shares == sorted(shares)
    assert 0.0 <= shares[0] <= shares[-1] < 1.0
    assert found.sent.control_frames > 0, "the report holds what was sent until then"


def test_an_exception_in_the_progress_function_is_raised() -> None:
    def fails(_share: float) -> bool:
        raise LookupError("enough")

    with pytest.raises(LookupError, match="enough"):
        simulate(LONG, progress=fails)
    with pytest.raises(TypeError, match="what progress returns must be bool, not NoneType"):
        simulate(LONG, progress=lambda _share: None)  # type: ignore[arg-type,return-value]


def test_other_threads_go_on_meanwhile() -> None:
    counted, over = 0, threading.Event()

    def run() -> None:
        simulate(LONG, progress=lambda _share: not over.is_set())

    thread = threading.Thread(target=run)
    thread.start()
    while counted < 100_000:
        counted += 1
    assert thread.is_alive()
    over.set()
    thread.join(timeout=30)
    assert not thread.is_alive()


def test_ctrl_c_raises_keyboard_interrupt() -> None:
    script = f"""
from iroh_gossip_discovery import simulate
said = False
def progress(share):
    global said
    if not said:
        print("runs", flush=True)
        said = True
    return True
try:
    simulate({LONG!r}, progress=progress)
except KeyboardInterrupt:
    print("interrupted")
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "runs\n"
        run.send_signal(signal.SIGINT)
        assert run.stdout.readline() == "interrupted\n"
        assert run.wait(timeout=30) == 0


# --- on the command line ----------------------------------------------------------------------


def test_options_make_a_scenario_and_its_table_is_shown() -> None:
    done = call("--nodes", "8", "--loss", "0.02", "--crash", "1", "--seed", "7")
    assert (done.returncode, done.stderr) == (0, "")
    assert "loss 0.02, crash 1: 8 nodes, seed 7" in done.stdout
    assert re.search(r"crash .* \d\.\d{3} s ", done.stdout)
    assert re.search(r"^trace [0-9a-f]{64}$", done.stdout, re.MULTILINE)
    assert re.search(r"^OK: every check held over 91\.0 virtual", done.stdout, re.MULTILINE)


@pytest.mark.parametrize("more", [[], ["--events"]])
def test_the_json_is_what_the_docs_describe(more: list[str], tmp_path: Path) -> None:
    (tmp_path / "crash.toml").write_text(CRASH)
    done = call(tmp_path / "crash.toml", "--json", *more)
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    jsonschema.validate(report, json.loads((DOCS / "simulate.schema.json").read_text()))
    assert report["ok"]
    assert report["trace"] == simulate(CRASH).trace
    assert bool(report["events"]) == bool(more)


def test_a_failure_prints_the_commands_that_replay_and_shrink_it(failing: Path) -> None:
    done = call(failing.name, cwd=failing.parent)
    assert done.returncode == 1
    assert "FAILED: right in time, at 11.001000 s" in done.stdout
    replay = re.search("^replay: (.*)$", done.stdout, re.MULTILINE)
    shrink = re.search("^shrink: (.*)$", done.stdout, re.MULTILINE)
    trace = re.search("^trace .*$", done.stdout, re.MULTILINE)
    assert replay is not None
    assert shrink is not None
    assert trace is not None
    again = call(*shlex.split(replay[1])[2:], cwd=failing.parent)
    assert (again.returncode, trace[0] in again.stdout) == (1, True)
    small = call(*shlex.split(shrink[1])[2:], cwd=failing.parent)
    assert small.returncode == 1
    assert "fails by 'right in time'" in small.stdout
    found = simulate(failing.parent / "smaller.toml")
    assert found.failures[0].check == "right in time"
    assert found.nodes < 8, "nodes that do not matter are gone"


def test_a_scenario_that_holds_is_not_shrunk(tmp_path: Path) -> None:
    done = call("--nodes", "3", "--shrink", tmp_path / "smaller.toml")
    assert (done.returncode, done.stdout) == (0, "it does not fail; nothing was written\n")
    assert not (tmp_path / "smaller.toml").exists()


def test_random_faults_follow_from_the_seed() -> None:
    done = call("--random", "--nodes", "5", "--seed", "2", "--json")
    assert done.returncode == 0, done.stdout
    report = json.loads(done.stdout)
    assert report["name"] == "random 2"
    assert report["figures"][-1]["what"] == "network", "at its end nothing is lost any more"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--nodes", "0"], "--nodes"),
        (["--nodes", "20001"], "--nodes"),
        (["--loss", "1"], "--loss"),
        (["--loss", "nan"], "--loss"),
        (["--seed", "-1"], "--seed"),
        (["--nodes", "3", "--crash", "3"], "--crash must be below the 3 nodes"),
        (["missing.toml"], "missing.toml"),
        (["failing.toml", "--crash", "1"], "go without a file"),
        (["failing.toml", "--loss", "0"], "go without a file"),
        (["failing.toml", "--shrink", "failing.toml"], "is not overwritten"),
        (["--shrink", "missing/smaller.toml"], "is in no directory that exists"),
        (["--random", "--crash", "1"], "go without --random"),
        (["--events"], "--events goes with --json"),
        (["--json", "--shrink", "smaller.toml"], "--shrink goes without --json"),
        (["wrong.toml"], "nodes must be 1 to 20,000"),
    ],
)
def test_a_wrong_call_is_explained(arguments: list[str], says: str, failing: Path) -> None:
    (failing.parent / "wrong.toml").write_text("nodes = 0")
    done = call(*arguments, cwd=failing.parent)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in re.sub(r"\s*[│╭╮╰╯─]*\n[│╭╮╰╯─]*\s*", " ", done.stderr)


@pytest.mark.needs("proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_simulation_with_what_was_seen(
    number: signal.Signals, tmp_path: Path
) -> None:
    (tmp_path / "long.toml").write_text(LONG)
    command = [COMMAND, "simulate", str(tmp_path / "long.toml")]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    ) as run:
        wait_until_it_handles(number, run.pid)
        run.send_signal(number)
        out, err = run.communicate(timeout=30)
    assert (run.returncode, err) == (130, "")
    assert "interrupted after" in out
    assert "OK" not in out
    assert re.search("^trace ", out, re.MULTILINE)


def wait_until_it_handles(number: signal.Signals, pid: int) -> None:
    """Wait until a process has a handler of its own for SIGTERM, which Python has not."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        status = Path(f"/proc/{pid}/status").read_text()
        caught = re.search("^SigCgt:\t([0-9a-f]+)$", status, re.MULTILINE)
        assert caught is not None
        if int(caught[1], 16) >> (signal.SIGTERM - 1) & 1:
            return
        time.sleep(0.01)
    raise AssertionError(f"no handler for {number.name} in time")
