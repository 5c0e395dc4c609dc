"""The soak of real processes: a short one passes, and it would see a wrong book or growth."""

import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import cast

import pytest

import soak

SCRIPT = Path(soak.__file__)


def test_every_book_is_right_after_churn() -> None:
    command = [sys.executable, str(SCRIPT), "--processes", "6", "--minutes", "0.3", "--every", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "at the end: every book is right" in done.stdout
    counts = re.search(r"^done: (.*)$", done.stdout, re.MULTILINE)
    assert counts is not None
    assert any(int(count) for count in re.findall(r"\d+", counts[1]))
    assert "growth is not judged" in done.stdout


@pytest.mark.asyncio
async def test_a_book_that_lists_the_dead_is_wrong(tmp_path: Path) -> None:
    swarm = soak.Swarm(tmp_path, seed=1)
    try:
        for _ in range(3):
            await swarm.start()
        await swarm.settle()
        dead = swarm.nodes.pop()
        await dead.end(signal.SIGKILL)
        wrong = await swarm.wrong_books()
        assert set(wrong) == {node.name for node in swarm.nodes}
        assert set(wrong.values()) == {"lacks 0, has 1 that are gone"}
    finally:
        for node in swarm.nodes:
            await node.end(signal.SIGKILL)


class Held:
    """Stands for a process that held this at each look."""

    def __init__(self, *sizes: tuple[float, int, int]) -> None:
        self.sizes = [soak.Sizes(*size) for size in sizes]


@pytest.mark.parametrize(
    ("end", "grew"),
    [
        ((50.0, 8, 20), []),
        ((60.0, 8, 20), ["memory, MB"]),
        ((50.0, 11, 20), ["threads"]),
        ((50.0, 8, 26), ["descriptors"]),
    ],
)
def test_what_grew_is_named(end: tuple[float, int, int], grew: list[str]) -> None:
    at_first = (50.0, 8, 20)
    node = cast("soak.Node", Held(at_first, at_first, end, end))
    assert soak.table([node]) == grew
