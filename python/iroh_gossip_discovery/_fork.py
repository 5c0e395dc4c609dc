"""What a forked child must not keep of its parent's nodes: their UDP ports and their lock.

A child shares all open files with its parent, and a port or a lock is free only once both have
closed it. A child that outlives a killed parent would keep the node from starting again.
"""

import os
import socket
import stat
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from pathlib import Path


class _Held(NamedTuple):
    ports: frozenset[tuple[str, int]]
    locks: "tuple[Path, ...]"


_held: WeakKeyDictionary[object, _Held] = WeakKeyDictionary()


def hold(owner: object, bound: list[tuple[str, int]], state_dir: "Path | None") -> None:
    """Note what a node holds, for as long as its owner lives or until it is `release`d."""
    # If no lock file can be made on the disk, the directory itself is locked.
    locks = () if state_dir is None else (state_dir / "lock", state_dir)
    _held[owner] = _Held(frozenset(bound), locks)


def release(owner: object) -> None:
    """Forget what a node held."""
    _held.pop(owner, None)


def _let_go() -> None:
    """In a child: put /dev/null in the place of all that is the parent's, under the same number."""
    nodes = list(_held.values())
    _held.clear()
    if not nodes:
        return
    ports = frozenset[tuple[str, int]]().union(*(node.ports for node in nodes))
    locks = {_identity(path) for node in nodes for path in node.locks}
    from pathlib import Path  # noqa: PLC0415  # a start of the package does without it

    null = os.open(os.devnull, os.O_RDWR)
    try:
        for entry in list(Path("/dev/fd").iterdir()):
            descriptor = int(entry.name)
            if _is_ours(descriptor, ports, locks):
                os.dup2(null, descriptor, inheritable=False)
    finally:
        os.close(null)


def _identity(path: "Path") -> tuple[int, int] | None:
    try:
        about = path.stat()
    except OSError:
        return None
    return about.st_dev, about.st_ino


def _is_ours(
    descriptor: int, ports: frozenset[tuple[str, int]], locks: set[tuple[int, int] | None]
) -> bool:
    try:
        about = os.fstat(descriptor)
        if not stat.S_ISSOCK(about.st_mode):
            return (about.st_dev, about.st_ino) in locks
        with socket.socket(fileno=os.dup(descriptor)) as twin:
            if twin.type != socket.SOCK_DGRAM or twin.family not in _INTERNET:
                return False
            host, port, *_ = twin.getsockname()
            return (host, port) in ports
    except OSError:  # the listing's own descriptor, or a socket of another kind
        return False


_INTERNET = (socket.AF_INET, socket.AF_INET6)

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)
