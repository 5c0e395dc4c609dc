"""What is measured: each function starts one swarm of one package and times one thing, in seconds.

Times are taken here, outside of all packages, from giving a command until the last answer.
"""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from compare.driving import Driver, DriverError, sent
from compare.network import two_sides

LOOPBACK = "127.0.0.1"
# Seconds that a link is cut; a swarm is idle before it is measured; it is measured.
CUT = 45.0
IDLE_BEFORE = 60.0
IDLE = 60.0
BENCHMARKS = Path(__file__).resolve().parent.parent


class Swarm(NamedTuple):
    """One run: the command of a driver, how many nodes, and the limit of each wait in seconds.

    `settle` is how many seconds a full swarm is left alone before a fault.
    """

    command: Sequence[str]
    nodes: int
    limit: float
    settle: float


class Idle(NamedTuple):
    """What an idle node costs: bytes/s and CPU per cent of a core, memory in MB.

    `memory` is what a node adds to a process that holds almost all of them, `process` the whole of
    a process that holds one.
    """

    bytes: float
    cpu: float
    memory: float
    process: float


def drive(command: Sequence[str], enter: Sequence[str] = ()) -> Driver:
    """Start a driver, in a namespace of its own if there is a way to enter it."""
    return Driver([*enter, *command], {**os.environ, "PYTHONPATH": str(BENCHMARKS)})


def version(command: Sequence[str]) -> str:
    """Start a driver only to ask for the version of its package."""
    with drive(command) as driver:
        return driver.ready()


def wait(drivers: Sequence[Driver], limit: float, since: float) -> float | None:
    """Wait for what all were asked; return the seconds from `since` until the last was done."""
    ends = [driver.done(limit) for driver in drivers]
    times = [end - since for end in ends if end is not None]
    return max(times) if len(times) == len(ends) and max(times) <= limit else None


def converge(swarm: Swarm) -> float | None:
    """Start all at once in one process, node 0 first; until each lists all."""
    with drive(swarm.command) as driver:
        driver.ready()
        before = time.perf_counter()
        driver.start(swarm.nodes, "n", LOOPBACK, None)
        driver.full(swarm.nodes, swarm.limit, held=swarm.nodes)
        driver.started(swarm.limit)
        return wait([driver], swarm.limit, before)


@contextmanager
def full_swarm(
    swarm: Swarm, parts: Sequence[int], sides: Sequence[tuple[Sequence[str], str]]
) -> Iterator[list[Driver] | None]:
    """Start a swarm in several processes, each with its part; give `None` if it isn't full."""
    with ExitStack() as held:
        drivers = [held.enter_context(drive(swarm.command, enter)) for enter, _ in sides]
        for driver in drivers:
            driver.ready()
        before, bootstrap = time.perf_counter(), None
        for number, (driver, nodes, (_, address)) in enumerate(
            zip(drivers, parts, sides, strict=True)
        ):
            driver.start(nodes, f"n{number}", address, bootstrap)
            if bootstrap is None:
                driver.started(swarm.limit)
                bootstrap = driver.bootstrap
        for driver in drivers[1:]:
            driver.started(swarm.limit)
        for driver in drivers:
            driver.full(swarm.nodes, swarm.limit)
        full = wait(drivers, swarm.limit, before)
        yield drivers if full is not None else None


def departures(swarm: Swarm, wanted: Sequence[str]) -> dict[str, float | None]:
    """Have a node leave, then kill another, until no node lists it.

    Each of the two is in a process of its own.
    """
    took: dict[str, float | None] = dict.fromkeys(wanted)
    sides: list[tuple[Sequence[str], str]] = [([], LOOPBACK)] * 3
    with full_swarm(swarm, [swarm.nodes - 2, 1, 1], sides) as drivers:
        if drivers is None:
            return took
        stay, leaver, crasher = drivers
        time.sleep(swarm.settle)
        if "leave" in wanted:
            others = [stay, crasher]
            before = time.perf_counter()
            leaver.leave()
            for driver in others:
                driver.gone(leaver.members[0], swarm.limit)
            took["leave"] = wait(others, swarm.limit, before)
        if "crash" in wanted:
            before = time.perf_counter()
            crasher.kill_nodes()
            stay.gone(crasher.members[0], swarm.limit)
            took["crash"] = wait([stay], swarm.limit, before)
    return took


def heal(swarm: Swarm) -> float | None:
    """Cut the link between two halves; from its repair until each lists all."""
    half = swarm.nodes // 2
    with two_sides() as (left, right, link):
        sides = [(side.enter, side.address) for side in (left, right)]
        with full_swarm(swarm, [swarm.nodes - half, half], sides) as drivers:
            if drivers is None:
                return None
            time.sleep(swarm.settle)
            link.cut()
            time.sleep(CUT)
            for driver in drivers:
                driver.full(swarm.nodes, 0)
            if None not in [driver.done(0) for driver in drivers]:
                raise DriverError(f"no node noticed a cut of {CUT:g} s")
            before = time.perf_counter()
            link.repair()
            for driver in drivers:
                driver.full(swarm.nodes, swarm.limit)
            return wait(drivers, swarm.limit, before)


def idle(swarm: Swarm) -> Idle | None:
    """Count what an idle swarm sends on loopback and takes of the machine."""
    with full_swarm(swarm, [swarm.nodes - 1, 1], [([], LOOPBACK)] * 2) as drivers:
        if drivers is None:
            return None
        many, single = drivers
        time.sleep(IDLE_BEFORE)
        before, bytes_before = time.perf_counter(), sent()
        cpu_before = many.cpu() + single.cpu()
        time.sleep(IDLE)
        took = time.perf_counter() - before
        cpu = many.cpu() + single.cpu() - cpu_before
        return Idle(
            (sent() - bytes_before) / took / swarm.nodes,
            100 * cpu / took / swarm.nodes,
            many.memory_added() / (swarm.nodes - 1) / 1e6,
            single.memory() / 1e6,
        )
