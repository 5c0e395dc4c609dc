"""What the tests share: no silent skips, and what a machine must offer.

A skipped test is a failure. A test that not every machine can run says what it wants with
`@pytest.mark.needs(...)`: where that is lacking it is left out, and listed with the reason.
"""

import functools
import os
import shutil
import subprocess
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def _without_netns() -> str | None:
    tools = [tool for tool in ("unshare", "ip") if shutil.which(tool) is None]
    if tools:
        return f"no {' and no '.join(tools)} on PATH"
    probe = ["unshare", "--net", "ip", "link", "set", "lo", "up"]
    done = subprocess.run(probe, capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else f"no network namespace: {done.stderr.strip()}"


def _without_nix() -> str | None:
    return None if shutil.which("nix") else "no nix on PATH"


def _without_fork() -> str | None:
    return None if hasattr(os, "fork") else "no fork on this platform"


def _without_proc() -> str | None:
    return None if Path("/proc/self/stat").exists() else "no /proc on this system"


# For each thing that a test may need: why this machine lacks it, or None.
REASONS: dict[str, Callable[[], str | None]] = {
    "fork": functools.cache(_without_fork),
    "netns": functools.cache(_without_netns),
    "nix": functools.cache(_without_nix),
    "proc": functools.cache(_without_proc),
}
_left_out = pytest.StashKey[list[tuple[str, str]]]()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out = config.stash.setdefault(_left_out, [])
    kept, deselected = [], []
    for item in items:
        needs = [REASONS[what]() for mark in item.iter_markers("needs") for what in mark.args]
        reasons = [reason for reason in needs if reason is not None]
        if reasons:
            left_out.append((item.nodeid, "; ".join(reasons)))
            deselected.append(item)
        else:
            kept.append(item)
    if deselected:
        config.hook.pytest_deselected(items=deselected)
        items[:] = kept


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    left_out = config.stash.get(_left_out, [])
    if left_out:
        terminalreporter.section("left out: this machine lacks something")
        for nodeid, reason in left_out:
            terminalreporter.write_line(f"{nodeid}: {reason}")


def _fail_if_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.outcome == "skipped" and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"a skip is a failure here, use @pytest.mark.needs: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _fail_if_skipped(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _fail_if_skipped(report)
    return report


@pytest.fixture(scope="session")
def rust_example() -> Callable[[str], Path]:
    """Find an example program of the workspace, as `make test` builds it (dev profile)."""

    def find(name: str) -> Path:
        target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
        path = target / "debug" / "examples" / name
        assert path.exists(), f"{path} is not built: run the tests with `make test`"
        return path

    return find
