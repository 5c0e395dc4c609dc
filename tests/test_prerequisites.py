"""The check that runs before anything is built names what is missing or too old."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "scripts" / "prerequisites"

Machine = Callable[..., subprocess.CompletedProcess[str]]
GOOD = {
    "python3": "3.11.2",
    "rustc": "rustc 1.91.0 (0123456789 2025-10-30)",
    "cargo": "cargo 1.91.0 (0123456789 2025-10-30)",
    "make": "GNU Make 3.81\nCopyright (C) 2006  Free Software Foundation, Inc.",
    "cc": "",
}


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Run the check on a machine that has only the given tools, each with what it prints."""

    def run(tools: dict[str, str], **variables: str) -> subprocess.CompletedProcess[str]:
        for name, says in tools.items():
            # An interpreter answers `-c` with its version, or fails to import venv.
            imports = "exit 1" if name == "python-without-venv" else ":"
            version = f"printf '%s\\n' '{says}'"
            body = f"case $2 in 'import ensurepip'*) {imports} ;; *) {version} ;; esac"
            tool = tmp_path / name
            tool.write_text(f"#!/bin/sh\n{body}\n")
            tool.chmod(0o755)
        environment = {"PATH": str(tmp_path), **variables}
        command = ["/bin/sh", str(SCRIPT)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    return run


def test_a_good_machine_passes_and_gets_its_interpreter_named(machine: Machine) -> None:
    done = machine(GOOD)
    assert (done.returncode, done.stdout, done.stderr) == (0, "python3\n", "")


@pytest.mark.parametrize("tool", sorted(GOOD))
def test_each_missing_tool_is_named(machine: Machine, tool: str) -> None:
    done = machine({name: says for name, says in GOOD.items() if name != tool})
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("error:") == 1
    assert tool in done.stderr


@pytest.mark.parametrize(
    ("tool", "says", "told"),
    [
        ("python3", "3.10.13", "Python 3.11 or newer is needed, but python3 is 3.10.13"),
        ("python3", "2.7.18", "Python 3.11 or newer is needed, but python3 is 2.7.18"),
        ("rustc", "rustc 1.90.0 (1159e78c4 2025-09-14)", "Rust 1.91 or newer is needed, but rustc"),
        ("cargo", "cargo 1.63.0", "Rust 1.91 or newer is needed, but cargo is 1.63.0"),
        ("make", "GNU Make 3.80", "GNU make 3.81 or newer is needed, but make is 3.80"),
        ("make", "bmake 20240101", "GNU make is needed, but make is another make"),
    ],
    ids=["python-3.10", "python-2", "rustc", "cargo", "make", "bmake"],
)
def test_each_old_tool_is_named_with_its_version(
    machine: Machine, tool: str, says: str, told: str
) -> None:
    done = machine(GOOD | {tool: says})
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {told}")
    assert done.stderr.count("error:") == 1


@pytest.mark.parametrize("version", ["1.91.0", "1.100.2", "2.0.0-nightly", "1.95.0-beta.3"])
def test_newer_rust_passes(machine: Machine, version: str) -> None:
    tools = {"rustc": f"rustc {version} (x)", "cargo": f"cargo {version} (x)"}
    assert machine(GOOD | tools).returncode == 0


def test_everything_that_is_wrong_is_reported_at_once(machine: Machine) -> None:
    done = machine({"python3": "3.9.2"})
    assert done.returncode == 1
    assert done.stderr.count("error:") == 5


def test_an_old_python_first_on_path_gives_way_to_a_newer_one(machine: Machine) -> None:
    done = machine(GOOD | {"python3": "3.9.2", "python3.12": "3.12.1"})
    assert (done.returncode, done.stdout) == (0, "python3.12\n")


def test_a_missing_python_is_reported(machine: Machine) -> None:
    done = machine({name: says for name, says in GOOD.items() if name != "python3"})
    told = "error: Python 3.11 or newer is needed, but no python3 is on PATH\n"
    assert done.stderr.startswith(told)


def test_python_can_be_chosen(machine: Machine) -> None:
    done = machine(GOOD | {"python3": "3.9.2"}, PYTHON=sys.executable)
    assert (done.returncode, done.stdout) == (0, f"{sys.executable}\n")


def test_a_chosen_python_that_is_too_old_is_not_replaced(machine: Machine) -> None:
    done = machine(GOOD | {"my-python": "3.10.1"}, PYTHON="my-python")
    assert done.returncode == 1
    assert "my-python is 3.10.1" in done.stderr


def test_a_python_without_venv_is_reported(machine: Machine) -> None:
    done = machine(GOOD | {"python-without-venv": "3.11.2"}, PYTHON="python-without-venv")
    assert done.returncode == 1
    assert "python-without-venv (3.11.2) has no venv module" in done.stderr


def test_a_compiler_that_cannot_compile_is_told(machine: Machine, tmp_path: Path) -> None:
    broken = tmp_path / "broken-cc"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    done = machine(GOOD, CC="broken-cc")
    assert done.returncode == 1
    assert "the C compiler broken-cc does not compile" in done.stderr


def test_make_reports_missing_tools_before_it_builds_anything(tmp_path: Path) -> None:
    command = ["make", "PYTHON=no-such-python", f"VENV={tmp_path / 'venv'}", "test"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Python 3.11 or newer is needed, but no-such-python does not run" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_make_alone_lists_every_target() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "MAKEFLAGS"}
    command = ["make", "--silent"]
    listed = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    ).stdout
    phony = (ROOT / "Makefile").read_text().split(".PHONY:")[1].splitlines()[0].split()
    assert phony
    for target in phony:
        assert f"\n  {target} " in listed
