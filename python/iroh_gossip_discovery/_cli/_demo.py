"""The demo: five node processes fill each other's books; one leaves and comes back."""

import asyncio
import signal
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.live import Live
from rich.table import Table

from iroh_gossip_discovery._cli._console import PipeConsole
from iroh_gossip_discovery._cli._processes import NodeGroup, NodeProcess

if TYPE_CHECKING:
    from iroh_gossip_discovery._cli._node import Message

NAMES = ("alice", "bob", "carol", "dave", "erin")
LEAVER = "dave"
_TOPIC = "demo"
_FRAMES = 12  # of the live table, per second
# From how many columns on the table shows ids and processes, and below how many only initials.
_WIDE, _NARROW = 78, 56


class _Stage:
    """The nodes of the demo, the table on the screen, and the clock."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.began = time.monotonic()
        self.changed = asyncio.Event()
        self.present: dict[str, NodeProcess] = {}
        self.states = dict.fromkeys(NAMES, "not started")
        self.live: Live | None = None

    def say(self, text: str) -> None:
        """Print a line of the demo's log, if there is no table to watch."""
        if self.live is None:
            self.console.print(f"{time.monotonic() - self.began:6.2f} s  {text}", highlight=False)

    def hear(self, node: NodeProcess, message: "Message") -> None:
        """Handle a message of a node."""
        if self.present.get(node.name) is node and "peer" in message and "event" in message:
            known = ", ".join(sorted(peer["name"] for peer in node.book.values())) or "nobody"
            verb = {
                "PeerJoined": "found",
                "PeerLeft": "heard goodbye from",
                "PeerSuspected": "suspects",
                "PeerRecovered": "trusts again",
                "PeerLost": "lost",
            }.get(message["event"], "heard from")
            self.say(f"{node.name} {verb} {message['peer']['name']} and knows {known}")
        self.changed.set()
        if self.live is not None:
            self.live.update(self.table())

    def right(self) -> bool:
        """True if every book holds exactly the other nodes of the demo."""
        ids = {node.id for node in self.present.values()}
        return all(node.book.keys() == ids - {node.id} for node in self.present.values())

    def table(self) -> Table:
        """Return every node's book as it is now."""
        # Without lines between its columns it fits a terminal of 80 columns, and without the ids
        # and processes one of 60. Below that, its columns are marked by initials.
        wide, narrow = self.console.width >= _WIDE, self.console.width < _NARROW
        title = f"who knows whom in topic '{_TOPIC}' on 127.0.0.1"
        table = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
        table.add_column("node", style="bold", no_wrap=True)
        if wide:
            table.add_column("id", no_wrap=True)
            table.add_column("process", justify="right", no_wrap=True)
        table.add_column("state", no_wrap=True)
        for name in NAMES:
            table.add_column(name[0] if narrow else name, justify="center", no_wrap=True)
        table.add_column("book", justify="right", no_wrap=True)
        for name in NAMES:
            node = self.present.get(name)
            if node is None or not node.id:
                who = [name, "", ""] if wide else [name]
                table.add_row(*who, self.states[name], *[""] * len(NAMES), "")
                continue
            known = {peer["name"] for peer in node.book.values()}
            marks = [
                "·" if other == name else "[green]✓[/]" if other in known else "" for other in NAMES
            ]
            size = f"{len(known)} of {len(self.present) - 1}"
            who = [name, node.id[:10], str(node.pid)] if wide else [name]
            table.add_row(*who, self.states[name], *marks, size)
        return table


class _StepFailedError(Exception):
    """A step was not completed in time."""


async def run_demo(timeout: float, console: Console | None = None) -> bool:  # noqa: ASYNC109
    """Run the demo; return whether every book became right in time.

    Args:
        timeout: Most seconds for each step.
        console: Where to show it; stdout by default.
    """
    task = asyncio.current_task()
    if task is not None:  # as Ctrl-C: asyncio.run does that for SIGINT only
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    if console is None:
        console = reading = PipeConsole()
        reading.task = task
        try:
            return await _run(timeout, console)
        except asyncio.CancelledError:
            if reading.reader_gone:
                reading.end()
            raise
    return await _run(timeout, console)


async def _run(timeout: float, console: Console) -> bool:  # noqa: ASYNC109
    stage = _Stage(console)
    with tempfile.TemporaryDirectory(prefix="iroh-gossip-discovery-demo-") as state:
        async with NodeGroup(stage.hear) as group:
            try:
                if not console.is_terminal:
                    steps = await _play(stage, group, Path(state), timeout)
                else:
                    with Live(
                        stage.table(), console=console, refresh_per_second=_FRAMES
                    ) as stage.live:
                        steps = await _play(stage, group, Path(state), timeout)
            except _StepFailedError as error:
                console.print(f"not converged: {error}", style="red", highlight=False)
                return False
            finally:  # what the nodes tell while they end is not of the demo
                stage.present.clear()
    _summarize(console, steps)
    return True


async def _play(
    stage: _Stage,
    group: NodeGroup,
    state: Path,
    timeout: float,  # noqa: ASYNC109
) -> list[tuple[str, float]]:
    """Go through the steps; return what each was and how many seconds it took."""
    steps: list[tuple[str, float]] = []

    async def enter(name: str, bootstrap: Sequence[str]) -> NodeProcess:
        stage.states[name] = "starting"
        node = await group.start(
            {
                "name": name,
                "topic": _TOPIC,
                "bootstrap": list(bootstrap),
                "state_dir": str(state / name),
            }
        )
        stage.present[name] = node
        stage.states[name] = "running"
        stage.say(f"{name} runs as process {node.pid} with id {node.id[:10]}…")
        return node

    async def step(what: str, began: float) -> None:
        await _until(stage, stage.right, what, timeout)
        steps.append((what, time.monotonic() - began))
        await _verify(stage, what)
        stage.say(what)

    try:
        async with asyncio.timeout(timeout):
            first, *rest = NAMES
            seed = await enter(first, [])
            await asyncio.gather(*(enter(name, [seed.ticket]) for name in rest))
        running = time.monotonic()
        steps.append(("five processes run", running - stage.began))
        await step("all five know each other", running)
        leaver = stage.present.pop(LEAVER)
        left = await leaver.leave()
        stage.states[LEAVER] = "left"
        await step(f"{LEAVER} left, and all others know", left)
        await leaver.stop()
        await asyncio.sleep(1 if stage.live else 0)  # for the eye
        back = time.monotonic()
        async with asyncio.timeout(timeout):
            await enter(LEAVER, [stage.present["bob"].ticket])
        stage.states[LEAVER] = "came back"
        await step(f"{LEAVER} is back, and all five know each other", back)
    except TimeoutError:
        raise _StepFailedError(f"a node did not start within {timeout:g} s") from None
    return steps


async def _until(
    stage: _Stage,
    condition: Callable[[], bool],
    what: str,
    timeout: float,  # noqa: ASYNC109
) -> None:
    try:
        async with asyncio.timeout(timeout):
            while not condition():
                stage.changed.clear()
                await stage.changed.wait()
    except TimeoutError:
        books = "; ".join(
            f"{node.name} knows {sorted(peer['name'] for peer in node.book.values())}"
            for node in stage.present.values()
        )
        raise _StepFailedError(f"not true within {timeout:g} s: {what} ({books})") from None


async def _verify(stage: _Stage, what: str) -> None:
    """Ask every node for its book itself, because its events may not give the same book."""
    for node in stage.present.values():
        told = {peer["id"] for peer in await node.ask_book()}
        expected = {other.id for other in stage.present.values()} - {node.id}
        if told != expected:
            names = sorted(peer["name"] for peer in await node.ask_book())
            raise _StepFailedError(f"{what}: but {node.name}'s own book holds {names}")


def _summarize(console: Console, steps: Sequence[tuple[str, float]]) -> None:
    if not console.is_terminal:
        for what, seconds in steps:
            console.print(f"{seconds:8.3f} s  {what}", highlight=False)
        return
    table = Table(title="what happened, and how long it took")
    table.add_column("step")
    table.add_column("seconds", justify="right")
    for what, seconds in steps:
        table.add_row(what, f"{seconds:.3f}")
    console.print(table)
