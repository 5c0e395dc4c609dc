"""A driver's process, as the runner sees it: commands, answers, and what the processes cost."""

import contextlib
import json
import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

# Seconds that a driver has beyond the limit of a command.
GRACE = 30.0
# Seconds from the start of a driver until it takes commands.
START = 120.0


class DriverError(Exception):
    """A driver failed: it said so, it ended, or it gave no answer."""


class LateError(DriverError):
    """A driver gave no answer in time."""


class Driver:
    """A process that holds nodes of one package. At the end of the `with` block it is killed."""

    def __init__(self, command: Sequence[str], environment: dict[str, str]) -> None:
        """Start the process; `ready` waits for it."""
        self.said = tempfile.TemporaryFile()  # noqa: SIM115  # closed by `__exit__`
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=self.said, env=environment, bufsize=0
        )
        self.pending = b""
        self.members: list[str] = []
        self.pids: list[int] = []
        self.bootstrap = ""
        self.memory_before = 0

    def __enter__(self) -> Self:
        """Give it."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End its nodes and itself, and wait for it."""
        self.kill_nodes()
        if self.process.stdin is not None:
            self.process.stdin.close()
        try:
            self.process.wait(timeout=GRACE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.said.close()

    def ready(self) -> str:
        """Wait until it takes commands; return the version of its package."""
        version = str(self.answer(START)["version"])
        self.memory_before = resident(self.process.pid)
        return version

    def start(self, count: int, prefix: str, address: str, bootstrap: str | None) -> None:
        """Start nodes; return at once if nothing else is to be done, see `started`."""
        self.tell(do="start", count=count, prefix=prefix, address=address, bootstrap=bootstrap)

    def started(self, within: float) -> None:
        """Wait until the nodes are started, and keep their names.

        Raises:
            LateError: They weren't in time.
        """
        answer = self.answer(within)
        members, pids = answer["members"], answer["pids"]
        if not isinstance(members, list) or not isinstance(pids, list):
            raise DriverError("its start names no members")
        self.members = [str(member) for member in members]
        self.pids = [int(pid) for pid in pids]
        self.bootstrap = str(answer["bootstrap"])

    def full(self, total: int, within: float, held: int | None = None) -> None:
        """Begin to wait until each node here lists all; `done` has the answer.

        `held` is how many nodes are here, if `started` was not called yet.
        """
        held = len(self.members) if held is None else held
        self.tell(do="full", held=held, total=total, within=within)

    def gone(self, member: str, within: float) -> None:
        """Begin to wait until no node here lists a member; `done` has the answer."""
        self.tell(do="gone", held=len(self.members), member=member, within=within)

    def done(self, within: float) -> float | None:
        """Wait for `full` or `gone`; return when it was so, `None` if it was not in time."""
        answer = self.answer(within + GRACE)
        if answer["done"] is not True:
            return None
        return time.perf_counter() - float(str(answer["checking"]))

    def leave(self) -> None:
        """Have node 0 begin to leave."""
        self.tell(do="leave", node=0)

    def kill_nodes(self) -> None:
        """Kill the processes that are its nodes, as a crash does."""
        for pid in self.pids:
            # A node that left may have ended, and its number be another process's by now.
            if self.process.pid in (pid, parent(pid)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.pids = []

    def tell(self, **command: object) -> None:
        """Write a command."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(command).encode() + b"\n")
        except BrokenPipeError:
            raise DriverError(self.last_words()) from None

    def answer(self, within: float) -> dict[str, object]:
        """Read an answer.

        Raises:
            LateError: It came not in time.
            DriverError: It is an error.
        """
        assert self.process.stdout is not None
        end = time.monotonic() + within
        while b"\n" not in self.pending:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.process.stdout], [], [], left)[0]:
                raise LateError(f"no answer in {within:g} s")
            data = os.read(self.process.stdout.fileno(), 65536)
            if not data:
                raise DriverError(self.last_words())
            self.pending += data
        line, _, self.pending = self.pending.partition(b"\n")
        found: dict[str, object] = json.loads(line)
        if "error" in found:
            raise DriverError(str(found["error"]))
        return found

    def last_words(self) -> str:
        """Tell what it wrote last to standard error."""
        self.said.seek(0)
        lines = self.said.read().decode(errors="replace").strip().splitlines()
        return f"its driver ended: {lines[-1] if lines else 'it said nothing'}"

    def cpu(self) -> float:
        """Return the CPU seconds that its nodes have taken."""
        return sum(cpu(pid) for pid in self.pids)

    def memory(self) -> int:
        """Return the memory of all processes that are its nodes, in bytes."""
        return sum(resident(pid) for pid in self.pids)

    def memory_added(self) -> int:
        """Return the same, less what the driver's own process had before it had nodes."""
        return self.memory() - (self.memory_before if self.process.pid in self.pids else 0)


def cpu(pid: int) -> float:
    """Return the CPU seconds of a process, from /proc."""
    fields = status(pid)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def parent(pid: int) -> int | None:
    """Return the parent of a process, from /proc; `None` if the process has ended."""
    try:
        return int(status(pid)[1])
    except FileNotFoundError:
        return None


def status(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat after the name: state, parent, …, CPU ticks as 11, 12."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def resident(pid: int) -> int:
    """Return the resident memory of a process in bytes, from /proc."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def sent(interface: str = "lo") -> int:
    """Return the bytes that an interface of this network namespace has sent."""
    for line in Path("/proc/net/dev").read_text().splitlines():
        name, _, counters = line.partition(":")
        if name.strip() == interface:
            return int(counters.split()[8])
    raise DriverError(f"this namespace has no interface {interface}")
