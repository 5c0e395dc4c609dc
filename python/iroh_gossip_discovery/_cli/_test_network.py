"""`test-network`: real processes find each other, are asked for their books, and watched."""

import asyncio
import json
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from iroh_gossip_discovery import __version__
from iroh_gossip_discovery._cli._faults import FAULTS
from iroh_gossip_discovery._cli._lateness import Lateness
from iroh_gossip_discovery._cli._network import SETTLE, TOPIC, Member, Network
from iroh_gossip_discovery._cli._processes import NodeFailedError
from iroh_gossip_discovery._cli._report import (
    SCHEMA,
    FaultReport,
    Hold,
    Report,
    as_text,
    convergence,
    node_report,
)

_FAULT_BOUND = 60.0
START_BOUND = 120.0
"""Seconds in which no process becomes ready, after which the rest counts as frozen."""
_CHECK_EVERY = 1.0
_SAY_EVERY = 5.0
_LAST_WORDS = 2.0
_STATED_ONE_BY_ONE = 10
_FILES_PER_NODE = 4
_FILES_BESIDES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What to do.

    Args:
        nodes: How many processes.
        seconds: How long they may take to converge and then have to stay so; starting them and
            faults come on top.
        at_once: Start all but the first at the same time.
        faults: Names out of `FAULTS`, in the order in which they are made.
        as_json: Print one JSON object, and progress on stderr.
    """

    nodes: int
    seconds: float
    at_once: bool
    faults: Sequence[str]
    as_json: bool


def run_test_network(options: Options) -> bool:
    """Run the test and print the report; return whether all converged and stayed so."""
    _allow_files(options.nodes * _FILES_PER_NODE + _FILES_BESIDES)
    with tempfile.TemporaryDirectory(prefix="iroh-gossip-discovery-test-network-") as state:
        report = asyncio.run(_Run(options, Path(state)).run())
    if options.as_json:
        sys.stdout.write(json.dumps(report, indent=2) + "\n")
    else:
        sys.stdout.write("\n".join(as_text(report)) + "\n")
    sys.stdout.flush()
    return report["ok"]


def _allow_files(wanted: int) -> None:
    """Raise the soft limit of open files: each process takes three pipes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


class _StopError(Exception):
    """The test is over before its time; the text completes the verdict."""


class _Run:
    """One run: its phases, and what was found in each."""

    def __init__(self, options: Options, state: Path) -> None:
        self.options = options
        self.network = Network(state, self.tell)
        self.began = time.monotonic()
        self.phase = "starting"
        self.patience = asyncio.Timeout(None)
        self.lateness = Lateness()
        self.start_s: float | None = None
        self.converged_s: dict[Member, float] = {}
        self.converged = False
        self.faults: list[FaultReport] = []
        self.hold: Hold = {
            "stayed": False,
            "seconds": 0.0,
            "checks": 0,
            "slowest_check_s": 0.0,
            "changes": [],
        }
        self.out: TextIO = sys.stderr if options.as_json else sys.stdout

    def tell(self, text: str) -> None:
        """Print a line of progress."""
        self.out.write(f"{time.monotonic() - self.began:7.2f} s  {text}\n")
        self.out.flush()

    async def run(self) -> Report:
        """Go through the phases, whatever comes; end every process; report."""
        async with self.network.group:
            playing = asyncio.create_task(self._play())
            watching = asyncio.create_task(self.lateness.watch())
            loop = asyncio.get_running_loop()
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, playing.cancel)
            await asyncio.wait({playing})
            watching.cancel()
            self.network.changes = None  # from here on, everything may
            interrupted, trouble = playing.cancelled(), ""
            if not interrupted and (error := playing.exception()) is not None:
                if not isinstance(error, _StopError | NodeFailedError):
                    raise error
                trouble = str(error)
            if interrupted:
                self.tell("interrupted: asking the nodes a last time, then ending them")
                await self.network.ask(_LAST_WORDS)
            ok = self.converged and self.hold["stayed"] and not interrupted and not trouble
            verdict = self._verdict(trouble, interrupted=interrupted)
            report = self._report(verdict, ok=ok, interrupted=interrupted)
            self.tell(f"ending {sum(node.alive for node in self.network.group.nodes)} processes")
        return report

    # --- phases -------------------------------------------------------------------------------

    async def _play(self) -> None:
        await self._start()
        spent = await self._converge()
        for fault in self.options.faults:
            await self._fault(fault)
        await self._hold(max(self.options.seconds - spent, 0.0))

    async def _start(self) -> None:
        count = self.options.nodes
        how = "at once" if self.options.at_once else "one after another"
        self.tell(f"starting {count} processes, {how}; topic '{TOPIC}' on 127.0.0.1")
        first, *rest = [f"node-{number}" for number in range(1, count + 1)]
        try:
            async with asyncio.timeout(START_BOUND) as self.patience:
                seed = await self._enter(first, [])
                if self.options.at_once:
                    await self._all_of(rest, seed.process.ticket)
                else:
                    for name in rest:
                        await self._enter(name, [seed.process.ticket])
        except TimeoutError:
            ready = len(self.network.members)
            raise _StopError(
                f"no process became ready within {START_BOUND:g} s, {ready} of {count} had before"
            ) from None
        self.start_s = round(time.monotonic() - self.began, 3)
        self.lateness.worst = 0.0  # the start alone keeps every processor busy
        self.tell(f"all {count} processes run")

    async def _all_of(self, names: Sequence[str], ticket: str) -> None:
        try:
            async with asyncio.TaskGroup() as starting:
                for name in names:
                    starting.create_task(self._enter(name, [ticket]))
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None

    async def _enter(self, name: str, bootstrap: Sequence[str]) -> Member:
        member = await self.network.enter(self.network.spec(name, bootstrap))
        self.patience.reschedule(asyncio.get_running_loop().time() + START_BOUND)
        count = len(self.network.members)
        if self.options.nodes <= 2 * _STATED_ONE_BY_ONE:
            pid, id_ = member.process.pid, member.process.id
            self.tell(f"{name} runs as process {pid} with id {id_[:10]}")
        elif count % _STATED_ONE_BY_ONE == 0:
            self.tell(f"{count} of {self.options.nodes} processes run")
        return member

    async def _converge(self) -> float:
        """Wait until all books are right; return how many of the test's seconds that took."""
        self.phase = "converging"
        all_run = time.monotonic()
        last_ready = max(member.process.ready_at for member in self.network.members)
        right = await self.network.until_right(self.options.seconds)
        for member in self.network.members:
            if member.right_since is not None:
                self.converged_s[member] = max(member.right_since - last_ready, 0.0)
        took = max(self.converged_s.values(), default=0.0)
        if not await self.network.verify(SETTLE if right else 0.0):
            raise _StopError(f"not converged within {self.options.seconds:g} s: {self._wrong()}")
        if not right:
            raise _StopError(
                f"not converged within {self.options.seconds:g} s: "
                f"{self.network.right()} of {len(self.network.members)} books became right"
            )
        self.converged = True
        self.tell(f"converged {took:.3f} s after the last process ran; asked every node: right")
        return time.monotonic() - all_run

    async def _fault(self, name: str) -> None:
        self.phase = f"in the fault phase {name}"
        self.tell(f"fault {name}: {(FAULTS[name].__doc__ or '').rstrip('.').lower()}")
        try:
            async with asyncio.timeout(START_BOUND):
                fault = await FAULTS[name](self.network)
        except TimeoutError:
            raise _StopError(f"{name} was not done within {START_BOUND:g} s") from None
        self.tell(f"{fault.what}; waiting until {len(self.network.members)} books are right")
        found: FaultReport = {
            "fault": name,
            "node": fault.node,
            "what": fault.what,
            "seconds": None,
            "wrong": [],
        }
        self.faults.append(found)
        right = await self.network.until_right(_FAULT_BOUND)
        since = [member.right_since for member in self.network.members]
        if not await self.network.verify(SETTLE if right else 0.0) or not right:
            found["wrong"] = [member.says() for member in self.network.members if member.wrong]
            raise _StopError(f"not right {_FAULT_BOUND:g} s after {name}: {self._wrong()}")
        took = max(at for at in since if at is not None) - fault.began
        found["seconds"] = round(max(took, 0.0), 4)
        self.tell(f"every book is right {found['seconds']:.3f} s after {name}; asked every node")

    async def _hold(self, seconds: float) -> None:
        self.phase = "holding"
        count = len(self.network.members)
        self.tell(f"holding for {seconds:.1f} s: nothing may change, every node has to answer")
        self.network.changes = self.hold["changes"]
        began = said = time.monotonic()
        while True:
            check = time.monotonic()
            right = await self.network.verify()
            now = time.monotonic()
            self.hold["checks"] += 1
            self.hold["seconds"] = round(now - began, 3)
            slowest = max(self.hold["slowest_check_s"], now - check)
            self.hold["slowest_check_s"] = round(slowest, 3)
            if not right:
                raise _StopError(f"did not stay converged: {self._wrong()}")
            if self.hold["changes"]:
                raise _StopError(f"did not stay converged: {self.hold['changes'][0]}")
            if now - began >= seconds:
                break
            if now - said >= _SAY_EVERY:
                said = now
                self.tell(f"all {count} books are right; {seconds - (now - began):.0f} s to go")
            await asyncio.sleep(min(_CHECK_EVERY, seconds - (now - began)))
        self.hold["stayed"] = True

    # --- findings -----------------------------------------------------------------------------

    def _wrong(self) -> str:
        """Name the first node whose book is wrong, and how many there are."""
        wrong = [member for member in self.network.members if member.wrong]
        if not wrong:
            return "the books changed while they were compared"
        more = f" (and {len(wrong) - 1} more nodes are wrong)" if len(wrong) > 1 else ""
        return f"{wrong[0].says()}{more}"

    def _verdict(self, trouble: str, *, interrupted: bool) -> str:
        if interrupted:
            return f"FAILED: interrupted while {self.phase}, before the test was through."
        if trouble:
            return f"FAILED: {trouble}{self.lateness.says()}."
        took, held = max(self.converged_s.values(), default=0.0), self.hold["seconds"]
        faults = len(self.faults)
        again = f" and again after {'each of ' * (faults > 1)}{faults} fault{'s' * (faults > 1)}"
        return (
            f"OK: all {self.options.nodes} nodes held the same book {took:.3f} s after the last "
            f"one ran{again if faults else ''}, and stayed so for {held:.1f} s."
        )

    def _report(self, verdict: str, *, ok: bool, interrupted: bool) -> Report:
        members = sorted(self.network.members, key=lambda member: (len(member.name), member.name))
        return {
            "schema": SCHEMA,
            "version": __version__,
            "ok": ok,
            "interrupted": interrupted,
            "verdict": verdict,
            "nodes": self.options.nodes,
            "seconds": self.options.seconds,
            "at_once": self.options.at_once,
            "started": len(self.network.group.nodes),
            "start_s": self.start_s,
            "late_s": round(self.lateness.worst, 3),
            "convergence": convergence([*self.converged_s.values()], converged=self.converged),
            "faults": self.faults,
            "hold": self.hold,
            "per_node": [node_report(member, self.converged_s.get(member)) for member in members],
        }
