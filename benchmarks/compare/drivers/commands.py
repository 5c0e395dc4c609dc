"""The commands that every driver obeys: a JSON object in a line, answered by one.

A driver holds some nodes of one package. `start` starts them, all at once but for the first of a
swarm; `full` and `gone` wait until every node here lists what is asked; `leave` has a node leave in
good order. A crash needs no command: the process is killed. At the end of its input a driver ends,
and with it its nodes. A command that fails is answered with `error`.

The driver of memberlist, in Go, obeys the same commands.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from typing import Protocol

Command = dict[str, object]


@dataclass(frozen=True)
class Started:
    """What `start` made: a way in for other nodes, the nodes' names, and the processes they are."""

    bootstrap: str
    members: list[str]
    pids: list[int] = field(default_factory=lambda: [os.getpid()])


class Nodes(Protocol):
    """The nodes of one package in one driver. A node is known by its number, from 0."""

    async def start(self, count: int, prefix: str, address: str, bootstrap: str | None) -> Started:
        """Start `count` nodes at an IP address; without `bootstrap`, the first begins a swarm."""

    async def listed(self, node: int) -> int:
        """Return how many living nodes a node lists, itself included."""

    async def lists(self, node: int, member: str) -> bool:
        """Say whether a node lists another as living; a suspected one still is."""

    async def leave(self, node: int) -> None:
        """Have a node leave in good order."""

    async def end(self) -> None:
        """End all nodes at once, which is not measured."""


async def start_after_first(
    first: Callable[[], Awaitable[str]],
    other: Callable[[int, str], Awaitable[object]],
    count: int,
    bootstrap: str | None,
) -> str:
    """Start node 0 if the swarm begins here, then all others at once; return the way in."""
    numbers = range(count)
    if bootstrap is None:
        bootstrap, numbers = await first(), range(1, count)
    way_in: str = bootstrap
    await asyncio.gather(*(other(number, way_in) for number in numbers))
    return way_in


async def wait_for_all(
    holds: Callable[[int], Awaitable[str]], count: int, within: float
) -> dict[str, object]:
    """Wait until `holds` has no objection to any node, at one time; report the last objection.

    Only the first node that objects is asked again, so that waiting costs little, whatever a list
    of members costs in a package. A second check of all nodes follows. `checking` is what that
    took, in seconds, to be subtracted from the time that is measured.
    """
    every = max(0.001, count * 1e-5)
    end = time.monotonic() + within
    node, checked_from = 0, None
    while True:
        objection = await holds(node)
        if objection:
            checked_from = None
            if time.monotonic() > end:
                return {"done": False, "why": objection}
            await asyncio.sleep(every)
        elif node + 1 < count:
            node += 1
        elif checked_from is None:
            # Now once more: no node may have forgotten what it listed before.
            node, checked_from = 0, time.monotonic()
        else:
            return {"done": True, "checking": time.monotonic() - checked_from}


async def obey(nodes: Nodes, command: Command) -> dict[str, object]:
    """Carry out one command; return the answer."""
    held = int(str(command.get("held", 0)))
    within = float(str(command.get("within", 0)))
    match command["do"]:
        case "start":
            bootstrap = command["bootstrap"]
            way_in = None if bootstrap is None else str(bootstrap)
            count = int(str(command["count"]))
            prefix, address = str(command["prefix"]), str(command["address"])
            return asdict(await nodes.start(count, prefix, address, way_in))
        case "full":
            total = int(str(command["total"]))

            async def full(node: int) -> str:
                listed = await nodes.listed(node)
                return "" if listed == total else f"a node lists {listed} of {total}"

            return await wait_for_all(full, held, within)
        case "gone":
            member = str(command["member"])

            async def gone(node: int) -> str:
                return f"node {node} lists it" if await nodes.lists(node, member) else ""

            return await wait_for_all(gone, held, within)
        case "leave":
            await nodes.leave(int(str(command["node"])))
            return {}
        case other:
            return {"error": f"there is no command {other}"}


async def serve(nodes: Nodes, version: str) -> None:
    """Obey commands until the input ends, then end the nodes."""
    loop = asyncio.get_running_loop()
    tell({"version": version})
    try:
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            try:
                answer = await obey(nodes, json.loads(line))
            except Exception as error:  # noqa: BLE001  # the runner shows it
                answer = {"error": f"{type(error).__name__}: {error}"}
            tell(answer)
    finally:
        await nodes.end()


def tell(answer: dict[str, object]) -> None:
    """Write one line."""
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def run(nodes: Nodes, version: str) -> None:
    """Be a driver; leave without waiting for the threads of a package."""
    try:
        asyncio.run(serve(nodes, version))
    finally:
        sys.stdout.flush()
    os._exit(0)
