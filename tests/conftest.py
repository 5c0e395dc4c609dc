"""What the tests share: no silent skips, and what a machine must offer.

A skipped test is a failure. A test that not every machine can run states its need with
`@pytest.mark.needs(...)`: if the machine lacks it, the test is left out and listed with the reason.
"""

import functools
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest
from netns import Network, network

ROOT = Path(__file__).resolve().parent.parent

# A shell that runs tests in the background has Ctrl-C ignored; what they start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


def _without_netns() -> str | None:
    tools = [tool for tool in ("unshare", "ip") if shutil.which(tool) is None]
    if tools:
        return f"no {' and no '.join(tools)} on PATH"
    probe = ["unshare", "--net", "ip", "link", "set", "lo", "up"]
    done = subprocess.run(probe, capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else f"no network namespace: {done.stderr.strip()}"


def _without_mounts() -> str | None:
    tools = [tool for tool in ("unshare", "mount") if shutil.which(tool) is None]
    if tools:
        return f"no {' and no '.join(tools)} on PATH"
    probe = ["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"]
    done = subprocess.run(probe, capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else f"no mount namespace: {done.stderr.strip()}"


def _without_nix() -> str | None:
    return None if shutil.which("nix") else "no nix on PATH"


def _without_fork() -> str | None:
    return None if hasattr(os, "fork") else "no fork on this platform"


def _without_proc() -> str | None:
    return None if Path("/proc/self/stat").exists() else "no /proc on this system"


@functools.cache
def find_another_python() -> Path | None:
    """Find a Python of another version than this one, 3.12 or newer: on PATH, or among pyenv's."""
    names = [f"python3.{minor}" for minor in range(12, 20)]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found = [Path(on_path) for name in names if (on_path := shutil.which(name))]
    found += [path for name in names for path in sorted(pyenv.glob(f"versions/*/bin/{name}"))]
    ask = "import sys, venv, ensurepip; print(*sys.version_info[:2])"
    for path in found:  # pyenv's names on PATH may stand for nothing
        command = [str(path), "-c", ask]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        version = tuple(map(int, done.stdout.split()))
        if done.returncode == 0 and version != sys.version_info[:2]:
            return path
    return None


def _without_another_python() -> str | None:
    return None if find_another_python() else "no other Python of version 3.12 or newer"


def _without_nft() -> str | None:
    return _without_netns() or (None if shutil.which("nft") else "no nft on PATH")


def _without_tun() -> str | None:
    reason = _without_netns()
    return reason or (None if Path("/dev/net/tun").exists() else "no /dev/net/tun")


# For each thing that a test may need: why this machine lacks it, or None.
REASONS: dict[str, Callable[[], str | None]] = {
    "another_python": _without_another_python,
    "fork": functools.cache(_without_fork),
    "mounts": functools.cache(_without_mounts),
    "netns": functools.cache(_without_netns),
    "nft": functools.cache(_without_nft),
    "nix": functools.cache(_without_nix),
    "proc": functools.cache(_without_proc),
    "tun": functools.cache(_without_tun),
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


@pytest.fixture(scope="session")
def another_python() -> Path | None:
    """Give a Python of another version than this one, 3.12 or newer."""
    return find_another_python()


@pytest.fixture
def lan() -> Iterator[Network]:
    """Give a network with one switch, `lan`."""
    with network(f"igd{os.getpid()}") as made:
        made.bridge("lan")
        yield made
