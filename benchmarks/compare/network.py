"""Network namespaces that end with the processes that hold them: one, or two and a router."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

# Where the two sides are; the router has .1 on each.
SIDES = ("10.77.1", "10.77.2")


def unshare() -> list[str]:
    """Return what runs a command in a namespace of its own, root or not."""
    rights = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    return ["unshare", *rights, "--net"]


def ip(arguments: str, within: list[str] | None = None) -> None:
    """Run `ip` with these arguments."""
    subprocess.run([*(within or []), "ip", *arguments.split()], check=True)


@dataclass(frozen=True)
class Side:
    """One side of the router: how to run a command there, and its address."""

    enter: list[str]
    address: str


class Cut:
    """The link between both sides. It is cut without a word: the router drops what it forwards."""

    def cut(self) -> None:
        """Drop all from here on."""
        for side in SIDES:
            ip(f"route add blackhole {side}.2/32")

    def repair(self) -> None:
        """Forward again."""
        for side in SIDES:
            ip(f"route del blackhole {side}.2/32")


@contextmanager
def two_sides() -> Iterator[tuple[Side, Side, Cut]]:
    """Make two namespaces, joined by this one, which forwards between them."""
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    with ExitStack() as held:
        left, right = (held.enter_context(side(prefix)) for prefix in SIDES)
        yield left, right, Cut()


@contextmanager
def side(prefix: str) -> Iterator[Side]:
    """Make a namespace with an interface that leads here. A process holds it."""
    hold = ["unshare", "--net", "sh", "-c", "echo; exec cat"]
    pipe = subprocess.PIPE
    with subprocess.Popen(hold, stdin=pipe, stdout=pipe) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        holder.stdout.readline()  # now it is in its own namespace
        enter = ["nsenter", f"--net=/proc/{holder.pid}/ns/net"]
        near = f"to-{prefix.rpartition('.')[2]}"
        try:
            ip(f"link add {near} type veth peer name eth0 netns {holder.pid}")
            ip(f"addr add {prefix}.1/24 dev {near}")
            ip(f"link set {near} up")
            ip("link set lo up", enter)
            ip(f"addr add {prefix}.2/24 dev eth0", enter)
            ip("link set eth0 up", enter)
            ip(f"route add default via {prefix}.1", enter)
            yield Side(enter, f"{prefix}.2")
        finally:
            ip(f"link del {near}")
            holder.stdin.close()
