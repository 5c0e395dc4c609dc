"""`make compare`: the script runs, waits for what it says, and compares rightly."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from compare.__main__ import ROWS, idle_verdict, names, numbers, parse, timed, turn
from compare.drivers.commands import wait_for_all
from compare.driving import Driver, DriverError
from compare.table import OURS, OURS_NO_MDNS, Sample, judge, markdown

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 60.0
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / "benchmarks")}


# Says what a datagram from one side to the other meets: before, during and after a cut.
DATAGRAMS = """
import subprocess, sys
from compare.network import two_sides

ECHO = (
    "import socket, sys; port = socket.socket(type=socket.SOCK_DGRAM);"
    "port.bind((sys.argv[1], 7)); print(flush=True);"
    "[port.sendto(*port.recvfrom(9)) for _ in range(9)]"
)
ASK = (
    "import socket, sys; port = socket.socket(type=socket.SOCK_DGRAM); port.settimeout(0.5);"
    "port.setsockopt(socket.IPPROTO_IP, 11, 1);"  # IP_RECVERR: an answer by ICMP is an error
    "port.connect((sys.argv[1], 7)); port.send(bytes(9)); print(len(port.recv(9)))"
)

def ask(side, address):
    command = [*side.enter, sys.executable, "-c", ASK, address]
    done = subprocess.run(command, capture_output=True, text=True)
    return (done.stdout or done.stderr).strip().splitlines()[-1]

with two_sides() as (left, right, link):
    command = [*right.enter, sys.executable, "-c", ECHO, right.address]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as echo:
        echo.stdout.readline()
        print(ask(left, right.address))
        link.cut()
        print(ask(left, right.address))
        link.repair()
        print(ask(left, right.address))
        echo.kill()
"""


def sample(*runs: float | None) -> Sample:
    return Sample(LIMIT, list(runs))


@pytest.mark.parametrize(
    ("ours", "others", "expected"),
    [
        ([1.0, 3.0, 2.0], {"a": [4.0], "b": [8.0]}, ("a", "0.50", "reached")),
        ([2.04], {"a": [4.0]}, ("a", "0.51", "**missed**")),
        ([1.0], {"a": [None], "b": [8.0]}, ("b", "0.12", "reached")),
        ([6.0], {"a": [None]}, ("none in time", "< 0.10", "reached")),
        ([None], {"a": [4.0]}, ("a", "> 15.00", "**missed**")),
        ([1.0, None], {"a": [4.0]}, ("a", "> 15.00", "**missed**")),
        ([1.0], {"a": []}, ("-", "-", "")),
        ([], {"a": [4.0]}, ("-", "-", "")),
    ],
)
def test_medians_are_compared_with_the_best_other_package(
    ours: list[float | None], others: dict[str, list[float | None]], expected: tuple[str, str, str]
) -> None:
    samples = {OURS: sample(*ours), **{name: sample(*runs) for name, runs in others.items()}}
    verdict = judge(samples, 0.5)
    assert (verdict.best, verdict.ratio, verdict.reached) == expected


def test_no_variant_of_ours_is_another_package() -> None:
    samples = {OURS: sample(2.0), OURS_NO_MDNS: sample(1.0), "a": sample(4.0)}
    assert judge(samples, None).ratio == "0.50"
    assert judge(samples, None, OURS_NO_MDNS).ratio == "0.25"
    assert judge(samples, None).best == "a"


@pytest.mark.parametrize(
    ("runs", "shown"),
    [
        ([0.25, 0.75], "0.500 / 0.750"),
        ([1.0, 2.0, None], "2.00 / > 60"),
        ([1.0, None, None], "> 60 / > 60"),
        ([None, None], "not in 60, 2 of 2"),
        ([12.34], "12.3 / 12.3"),
        ([], "-"),
    ],
)
def test_a_cell_shows_median_and_worst(runs: list[float | None], shown: str) -> None:
    assert str(sample(*runs)) == shown


def test_a_package_that_fails_shows_why_in_its_cell() -> None:
    failed = sample(1.0)
    failed.errors.append("a | b")
    assert str(failed) == "1.00 / 1.00; failed 1 times: a | b"
    assert markdown(["x"], [[str(failed)]]).endswith("| 1.00 / 1.00; failed 1 times: a \\| b |")


def test_the_bars_are_those_that_were_set() -> None:
    assert [ROWS["converge"].bar(nodes) for nodes in (10, 50, 100, 200)] == [0.5, 0.35, 0.6, 0.8]
    assert [ROWS["crash"].bar(nodes) for nodes in (10, 50, 100, 200)] == [0.9, 0.6, 0.6, 0.6]
    assert [ROWS[row].bar(10) for row in ("leave", "heal")] == [1.0, 0.5]
    assert [ROWS["converge"].bar(3), ROWS["crash"].bar(3)] == [None, None]


def test_the_bars_of_an_idle_node_are_those_that_were_set() -> None:
    within = "≤ 300 reached, ≤ 0.05 reached, ≤ 35 reached"
    assert idle_verdict(100, (300.0, 0.05, 35.0)) == within
    assert idle_verdict(100, (301.0, 0.06, 36.0)) == within.replace("reached", "**missed**")
    assert idle_verdict(10, (301.0, 0.05, 35.0)) == "≤ 0.05 reached, ≤ 35 reached"


def test_each_run_begins_with_another_package() -> None:
    assert [turn(["a", "b", "c"], run)[0] for run in range(4)] == ["a", "b", "c", "a"]
    assert sorted(turn(["a", "b", "c"], 1)) == ["a", "b", "c"]


def test_options_are_checked(capsys: pytest.CaptureFixture[str]) -> None:
    assert names("serf,ours") == ["ours", "serf"]
    assert numbers("3,10") == [3, 10]
    for wrong in (["--peers", "consul"], ["--sizes", "2"], ["--runs", "0"], ["--only", "speed"]):
        with pytest.raises(SystemExit):
            parse(wrong)
        assert wrong[0] in capsys.readouterr().err


@pytest.mark.asyncio
async def test_waiting_ends_when_all_hold_at_one_time() -> None:
    looks: list[int] = []

    async def forgets(node: int) -> str:
        # Node 0 holds at first, and has forgotten when the last one holds at last.
        looks.append(node)
        lapsed = node == 0 and 2 in looks and looks.count(0) < 5
        late = node == 2 and looks.count(2) < 3
        return "not yet" if lapsed or late else ""

    assert (await wait_for_all(forgets, 3, 30.0))["done"] is True
    assert looks == [0, 1, 2, 2, 2, 0, 0, 0, 0, 1, 2, 0, 1, 2]


@pytest.mark.asyncio
async def test_waiting_tells_why_it_was_in_vain() -> None:
    async def never(node: int) -> str:
        return f"node {node} lists 1 of 2"

    assert await wait_for_all(never, 2, 0.0) == {"done": False, "why": "node 0 lists 1 of 2"}


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("raise SystemExit('it has no such module')", "it has no such module"),
        ('print(\'{"error": "it may not"}\')', "it may not"),
        ("import sys; sys.stdin.read()", "no answer in 0.5 s"),
    ],
)
def test_a_driver_that_fails_tells_why(code: str, why: str) -> None:
    with (
        Driver([sys.executable, "-c", code], dict(os.environ)) as driver,
        pytest.raises(DriverError, match=why),
    ):
        driver.answer(30.0 if "SystemExit" in code or "error" in code else 0.5)


# Starts, and says that it wasn't full in time.
LATE = """
import sys
print('{"version": "1"}', flush=True)
for _ in sys.stdin:
    started = '"members": ["a"], "pids": [], "bootstrap": "a"'
    print(f'{{{started}, "done": false, "why": "a node lists 1 of 3"}}', flush=True)
"""


# Takes commands, and never has started.
STUCK = 'print(\'{"version": "1"}\', flush=True); import sys; sys.stdin.read()'


@pytest.mark.needs("proc")
@pytest.mark.parametrize(
    ("code", "shown"),
    [
        (LATE, "not in 1, 3 of 3"),
        (STUCK, "not in 1, 3 of 3"),
        ("raise SystemExit('no')", "failed 3 times: .*: no"),
    ],
)
def test_a_package_that_is_late_or_fails_three_times_is_left_out_of_other_runs(
    code: str, shown: str
) -> None:
    options = parse(["--runs", "20", "--sizes", "3", "--limit", "1"])
    [cell] = timed(["converge"], options, {"a": [sys.executable, "-c", code]})
    assert re.fullmatch(shown, str(cell.samples["a"]))


@pytest.mark.needs("netns")
def test_the_script_measures_three_nodes_and_ends(tmp_path: Path) -> None:
    runs = tmp_path / "runs.json"
    options = ["--peers", OURS_NO_MDNS, "--sizes", "3", "--runs", "1", "--settle", "0"]
    options += ["--only", "converge", "--only", "leave", "--json", str(runs)]
    command = [sys.executable, "-m", "compare", *options]
    done = subprocess.run(
        command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=True, timeout=100
    )
    cells = json.loads(runs.read_text())["seconds"]
    assert [(cell["row"], cell["nodes"]) for cell in cells] == [("converge", 3), ("leave", 3)]
    for cell in cells:
        assert cell["errors"] == []
        assert len(cell["runs"]) == 1
        assert 0 < cell["runs"][0] < LIMIT
    assert done.stdout.count("\n| 3 | 1 | ") == 2


@pytest.mark.needs("netns")
def test_a_cut_drops_everything_without_a_word() -> None:
    command = ["unshare", "--net", sys.executable, "-c", DATAGRAMS]
    done = subprocess.run(
        command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.splitlines() == ["9", "TimeoutError: timed out", "9"]
