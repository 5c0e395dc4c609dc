"""`simulate`: a scenario in a file or of options; its figures as a table or JSON; a shrinker."""

import contextlib
import json
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import TypedDict

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from iroh_gossip_discovery import SimulatedRecovery, Simulation, __version__, _core, simulate
from iroh_gossip_discovery._printable import printable
from iroh_gossip_discovery._simulate import scenario_text

SCHEMA = 1
_COMMAND = "iroh-gossip-discovery simulate"
_MOST_RUNS = 300
_NAMED = 5
# In a plain scenario, nodes start `_START_EACH` seconds apart, and then have `_SETTLE` seconds.
_START_EACH = 0.005
_SETTLE = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What to simulate.

    Args:
        file: A scenario; `None` for the one that the next options make.
        nodes: How many nodes; with a file, in place of its own, if given.
        seed: The seed; with a file, in place of its own, if given.
        loss: The share of packets that are lost.
        crash: How many nodes crash at once.
        random: Faults that follow from the seed, in place of `loss` and `crash`.
        events: Whether the JSON holds the events that nodes emitted.
        as_json: Print one JSON object.
    """

    file: Path | None
    nodes: int | None
    seed: int | None
    loss: float
    crash: int
    random: bool
    events: bool
    as_json: bool

    def text(self) -> str:
        """Return the scenario as TOML, without the options that take the place of its values."""
        if self.file is not None:
            return scenario_text(self.file)
        nodes, seed = self.nodes or 0, self.seed or 0
        if self.random:
            return _core.random_scenario(seed, nodes)
        over = nodes * _START_EACH
        crash = f'[[fault]]\nat = "1s"\ncrash = {self.crash}\n' if self.crash else ""
        return f"""name = "loss {self.loss:g}, crash {self.crash}"
nodes = {nodes}
seed = {seed}
warmup = {over + _SETTLE}

[start]
over = {over}

[network]
loss = {self.loss}

[expect]
nobody_lost = true

{crash}"""

    def command(self, seed: int, *more: str) -> str:
        """Return the command that runs the same again."""
        words = [] if self.file is None else [str(self.file)]
        if self.nodes is not None:
            words += ["--nodes", str(self.nodes)]
        if self.file is None and self.random:
            words += ["--random"]
        elif self.file is None:
            words += ["--loss", f"{self.loss:g}", "--crash", str(self.crash)]
        return f"{_COMMAND} {shlex.join([*words, '--seed', str(seed), *more])}"


class Stop:
    """True once SIGINT or SIGTERM came; inside this block, both only end the run."""

    def __init__(self) -> None:
        self.came = False

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        self.came = True

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Listen for both signals."""
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(number, self._handle) for number in numbers]
        try:
            yield
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)


class Commands(TypedDict):
    """The commands that run the same again, and that make it small."""

    replay: str
    shrink: str


def run_simulate(options: Options) -> int:
    """Run the scenario and print what it found; return the exit code."""
    text, stop = options.text(), Stop()
    began = time.perf_counter()
    with stop.listening(), _bar("simulating") as show:

        def progress(share: float) -> bool:
            show(share, f"{share:4.0%} of the virtual time")
            return not stop.came

        result = simulate(
            text, seed=options.seed, nodes=options.nodes, events=options.events, progress=progress
        )
    wall = time.perf_counter() - began
    commands: Commands = {
        "replay": options.command(result.seed),
        "shrink": options.command(result.seed, "--shrink", "smaller.toml"),
    }
    if options.as_json:
        found = {"schema": SCHEMA, "version": __version__, "wall_s": round(wall, 3)}
        sys.stdout.write(json.dumps(found | commands | asdict(result), indent=2) + "\n")
    else:
        _print(result, wall, commands, interrupted=stop.came)
    sys.stdout.flush()
    if stop.came:
        return 130
    return 0 if result.ok else 1


def run_shrink(options: Options, out: Path) -> int:
    """Make the scenario small for as long as it fails, and write it; return the exit code."""
    text, stop = options.text(), Stop()
    with stop.listening(), _bar("shrinking") as show:

        def progress(tried: int) -> bool:
            show(tried / _MOST_RUNS, f"{tried} of at most {_MOST_RUNS} runs")
            return not stop.came

        shrunk = _core.shrink_scenario(
            text, seed=options.seed, nodes=options.nodes, most=_MOST_RUNS, progress=progress
        )
    if shrunk is None:
        what = "interrupted before it failed" if stop.came else "it does not fail"
        sys.stdout.write(f"{what}; nothing was written\n")
        return 130 if stop.came else 0
    smaller, check, tried = shrunk
    with out.open("x") as file:
        file.write(f"# fails by {check!r}; shrunk in {tried} runs\n{smaller}")
    sys.stdout.write(f"{smaller}\n")
    sys.stdout.write(f"fails by {check!r}; the smallest of {tried} runs is in {out}\n")
    sys.stdout.write(f"replay: {_COMMAND} {shlex.quote(str(out))}\n")
    return 130 if stop.came else 1


@contextlib.contextmanager
def _bar(what: str) -> Iterator[Callable[[float, str], None]]:
    """Show a bar on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda _share, _text: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[text]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=1.0, text="")
        yield lambda share, text: progress.update(task, completed=share, text=text)


def _print(result: Simulation, wall: float, commands: Commands, *, interrupted: bool) -> None:
    console = Console(highlight=False, markup=False)

    def say(text: str) -> None:
        console.print(text, soft_wrap=True)

    name = f"{printable(result.name)}: " if result.name else ""
    say(f"{name}{result.nodes} nodes, seed {result.seed}")
    say("")
    console.print(_figures(result))
    console.print(_traffic(result))
    if result.dropped:
        say("refused or dropped by limits:")
        for what, count in sorted(result.dropped.items()):
            say(f"  {count:>8,}  {what}")
    for failure in result.failures:
        at = "" if failure.node is None else f", node {failure.node}"
        say(f"FAILED: {failure.check}, at {failure.at_s:.6f} s{at}: {printable(failure.text)}")
    say(f"trace {result.trace}")
    took = f"{result.virtual_s:.1f} virtual seconds in {wall:.1f} s"
    if interrupted:
        say(f"interrupted after {took}: this is what was seen until then")
    elif result.ok:
        say(f"OK: every check held over {took}")
    if not result.ok:
        say(f"replay: {commands['replay']}")
        say(f"shrink: {commands['shrink']}")


def _figures(result: Simulation) -> Table:
    table = Table(title="until every book was right", title_justify="left")
    for column in ("at", "after", "nodes", "took", "expected"):
        table.add_column(column, justify="left" if column in {"after", "nodes"} else "right")
    for figure in result.figures:
        took = "never" if figure.took_s is None else f"{figure.took_s:.3f} s"
        within = "" if figure.within_s is None else f"≤ {figure.within_s:g} s"
        table.add_row(f"{figure.at_s:.3f} s", figure.what, _nodes(figure), took, within)
    return table


def _nodes(figure: SimulatedRecovery) -> str:
    named = ", ".join(map(str, figure.nodes[:_NAMED]))
    more = len(figure.nodes) - _NAMED
    return f"{named} and {more} more" if more > 0 else named


def _traffic(result: Simulation) -> Table:
    table = Table(title="sent per node and second", title_justify="left")
    for column in ("", "frames", "bytes"):
        table.add_column(column, justify="right" if column else "left")
    rates = result.rates
    table.add_row("control", f"{rates.control_frames:.2f}", f"{rates.control_bytes:.1f}")
    table.add_row("syncs", f"{rates.sync_frames:.2f}", f"{rates.sync_bytes:.1f}")
    table.add_row("on the wire, estimated", "", f"{rates.wire_bytes:.1f}")
    return table
