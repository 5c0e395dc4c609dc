"""Fault drills of `make drills`: a subset keeps its promises, and a broken promise is said."""

import subprocess
import sys
from pathlib import Path

import pytest

import drills

SCRIPT = Path(drills.__file__)


@pytest.mark.needs("netns")
def test_drills_measure_what_they_promise() -> None:
    names = ["leave", "crash", "restart", "pause-2", "link-down", "loss-5"]
    only = [argument for name in names for argument in ("--only", name)]
    command = [sys.executable, str(SCRIPT), "--nodes", "4", *only]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    rows = done.stdout.splitlines()[1:]
    # How long something took is for `make drills` on a machine that does nothing else.
    assert {row.split()[0] for row in rows} == set(names), done.stdout + done.stderr
    lost = [row for row in rows if "lost" in row]
    assert lost
    assert not [row for row in lost if row.endswith("BROKEN")], done.stdout


@pytest.mark.parametrize(
    ("measured", "limit", "kept"), [(2.0, 2, True), (2.1, 2, False), (99.0, None, True)]
)
def test_a_promise_is_broken_beyond_its_limit(
    measured: float, limit: float | None, *, kept: bool
) -> None:
    assert drills.Result("s", measured, limit).is_kept is kept
