"""The packages that are compared, and what their drivers need, made in a cache directory."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from compare.table import OURS, OURS_NO_MDNS

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CASTY_NEEDS = (3, 12)


class LeftOutError(Exception):
    """Why a package can't take part here."""


class Peer(NamedTuple):
    """A package: its heading, and how to make what its driver needs and what starts the driver."""

    title: str
    prepare: Callable[[Path], list[str]]


def run(*command: str | Path) -> None:
    """Run a command that makes something.

    Raises:
        LeftOutError: It failed; with the last line that it wrote.
    """
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines() or ["it said nothing"]
        raise LeftOutError(f"`{Path(command[0]).name}` failed: {said[-1]}")


def module(name: str, *arguments: str) -> Callable[[Path], list[str]]:
    """Drive from the environment that this runs in."""

    def prepare(_: Path) -> list[str]:
        return [sys.executable, "-m", f"compare.drivers.{name}", *arguments]

    return prepare


def casty(cache: Path) -> list[str]:
    """Make an environment of a newer Python, if there is one."""
    environment = cache / "casty"
    python = environment / "bin" / "python"
    stamp = environment / ".made"
    if not stamp.exists():
        run(newer_python(), "-m", "venv", "--clear", environment)
        run(python, "-m", "pip", "install", "--quiet", "pip>=25.1")
        run(python, "-m", "pip", "install", "--quiet", "--group", "compare-casty")
        stamp.touch()
    return [str(python), "-m", "compare.drivers.casty_driver"]


def newer_python() -> Path:
    """Find a Python that casty runs on: this one, one on PATH, or one of pyenv's."""
    names = ["python3", *(f"python3.{minor}" for minor in range(CASTY_NEEDS[1], 20))]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found = [Path(sys.executable)]
    found += [Path(path) for name in names if (path := shutil.which(name))]
    found += [path for name in names for path in sorted(pyenv.glob(f"versions/*/bin/{name}"))]
    ask = "import sys, venv, ensurepip; print(*sys.version_info[:2])"
    for python in found:  # pyenv's names on PATH may stand for nothing
        done = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=False)
        if done.returncode == 0 and tuple(map(int, done.stdout.split())) >= CASTY_NEEDS:
            return python
    raise LeftOutError(f"no Python {'.'.join(map(str, CASTY_NEEDS))} or newer")


def memberlist(cache: Path) -> list[str]:
    """Build the driver with Go, if it is there."""
    if shutil.which("go") is None:
        raise LeftOutError("no `go` on PATH")
    program = cache / "memberlist"
    run("go", "build", "-C", HERE / "memberlist", "-o", program, ".")
    return [str(program)]


def serf(cache: Path) -> list[str]:
    """Take serf from PATH, or unpack Debian's package."""
    program = shutil.which("serf")
    if program is None:
        unpacked = cache / "serf"
        found = unpacked / "usr" / "bin" / "serf"
        if not found.exists():
            unpack_serf(unpacked)
        program = str(found)
    return [sys.executable, "-m", "compare.drivers.serf_driver", program]


def unpack_serf(into: Path) -> None:
    """Download Debian's package, without installing it."""
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        raise LeftOutError("no `serf` on PATH, and no Debian to take it from")
    into.mkdir(parents=True, exist_ok=True)
    run("sh", "-c", 'cd "$1" && apt-get download serf', "sh", into)
    run("dpkg", "-x", *into.glob("serf_*.deb"), into)


PEERS = {
    OURS: Peer("this project", module("ours")),
    OURS_NO_MDNS: Peer("this project, without mDNS", module("ours", "--no-mdns")),
    "kinship": Peer("kinship", module("kinship_driver")),
    "kinship-caps": Peer("kinship, caps raised", module("kinship_driver", "--caps")),
    "casty": Peer("casty", casty),
    "memberlist": Peer("memberlist", memberlist),
    "serf": Peer("serf", serf),
}


def prepare(names: Iterable[str], cache: Path) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Make what the drivers need: their commands, and why a package is left out."""
    cache.mkdir(parents=True, exist_ok=True)
    commands: dict[str, list[str]] = {}
    left_out: dict[str, str] = {}
    for name in names:
        try:
            commands[name] = PEERS[name].prepare(cache)
        except LeftOutError as reason:
            left_out[name] = str(reason)
    return commands, left_out
