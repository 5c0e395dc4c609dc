"""This project beside other packages, in one run, alternating, in a network namespace.

    make compare ARGS="--only converge --sizes 10,50 --runs 5"

Prints, for each row, each package's median and worst and the ratio of this project's median to that
of the best other package. What is measured, and how, is in docs/performance.md.
"""

import argparse
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from compare import rows
from compare.driving import DriverError, LateError
from compare.network import ip, unshare
from compare.peers import PEERS, ROOT, prepare
from compare.rows import Idle, Swarm
from compare.table import NOTHING, OURS, OURS_NO_MDNS, Sample, judge, markdown

CACHE = ROOT / "target" / "compare"
# After this number of runs of a cell that were late or failed, the others are left out.
GIVE_UP = 3
CRASH_BARS = {10: 0.9, 50: 0.6}
CONVERGE_BARS = {10: 0.5, 50: 0.35, 100: 0.6, 200: 0.8}
# Most bytes/s (among 100 nodes), CPU per cent and MB of one process of an idle node of ours.
IDLE_BARS = (300.0, 0.05, 35.0)
IDLE_BYTES_AT = 100


class Row(NamedTuple):
    """What is measured: its heading, the sizes, by how much it divides `--runs`, and the bar."""

    title: str
    sizes: Sequence[int]
    part: int
    bar: Callable[[int], float | None]


def crash_bar(nodes: int) -> float | None:
    """Return the bar of a crash: it stands for 10 nodes, and for 50 and more."""
    return CRASH_BARS[50] if nodes >= max(CRASH_BARS) else CRASH_BARS.get(nodes)


ROWS = {
    "converge": Row("All know all, in one process", (10, 50, 100, 200), 1, CONVERGE_BARS.get),
    "leave": Row("A leave is known to all", (10, 50, 100), 4, lambda _: 1.0),
    "crash": Row("A crash is known to all", (10, 50, 100), 4, crash_bar),
    "heal": Row("All know all after a cut of 45 s", (10, 50), 10, lambda _: 0.5),
    "idle": Row("An idle node", (10, 100), 20, lambda _: None),
}


class Measured(NamedTuple):
    """One cell group: a row at a size, with the sample of each package."""

    row: str
    nodes: int
    samples: dict[str, Sample]


def main() -> None:
    """Prepare the packages, then measure in a network namespace."""
    options = parse(sys.argv[1:])
    if options.inside is not None:
        commands, left_out = json.loads(options.inside)
        measure(options, commands, left_out)
        return
    if missing := [
        tool for tool in ("unshare", "nsenter", "setpriv", "ip") if shutil.which(tool) is None
    ]:
        sys.exit(f"error: network namespaces need Linux, with {' and '.join(missing)} on PATH")
    prepared = json.dumps(prepare(options.peers, CACHE))
    again = [*unshare(), sys.executable, "-m", "compare", *sys.argv[1:], "--inside", prepared]
    os.execvp(again[0], again)  # noqa: S606  # one process, so that ending it ends everything


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    first, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        prog="compare", description=first, epilog=rest.split("\n\n")[-1]
    )
    row_help = f"measure this only, of {', '.join(ROWS)}; may be given again"
    parser.add_argument("--only", choices=ROWS, action="append", metavar="ROW", help=row_help)
    peers_help = f"packages, by commas, of {', '.join(PEERS)}"
    parser.add_argument("--peers", type=names, default=list(PEERS), help=peers_help)
    parser.add_argument("--sizes", type=numbers, help="numbers of nodes, by commas, for all rows")
    runs_help = "runs of convergence; a quarter of them for leave and crash, a tenth for heal"
    parser.add_argument("--runs", type=positive, default=20, help=runs_help)
    limit_help = "seconds until one run is given up"
    parser.add_argument("--limit", type=float, default=60.0, help=limit_help)
    settle_help = "seconds that a full swarm is left alone before a fault"
    parser.add_argument("--settle", type=float, default=10.0, help=settle_help)
    parser.add_argument("--json", type=Path, help="write all runs to this file too")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def names(text: str) -> list[str]:
    """Read names of packages."""
    found = [name for name in PEERS if name in text.split(",")]
    for name in text.split(","):
        if name not in PEERS:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(PEERS)}")
    return found


def numbers(text: str) -> list[int]:
    """Read sizes: a swarm has 3 nodes or more, as one leaves and one crashes."""
    found = [int(number) for number in text.split(",")]
    if min(found) < 3:  # noqa: PLR2004
        raise argparse.ArgumentTypeError("a size is 3 nodes or more")
    return found


def positive(text: str) -> int:
    """Read a number of runs."""
    if int(text) < 1:
        raise argparse.ArgumentTypeError("there is 1 run or more")
    return int(text)


def measure(
    options: argparse.Namespace, commands: dict[str, list[str]], left_out: dict[str, str]
) -> None:
    """Measure each row and print its table as soon as it is whole."""
    ip("link set lo up")
    began = time.monotonic()
    about = describe(commands, left_out)
    print("\n".join(f"- {key}: {value}" for key, value in about.items()), flush=True)
    wanted = options.only or list(ROWS)
    all_measured: list[Measured] = []
    all_idle: list[dict[str, object]] = []
    for together in (["converge"], ["leave", "crash"], ["heal"]):
        if asked := [name for name in together if name in wanted]:
            measured = list(timed(asked, options, commands))
            for name in asked:
                print(f"\n{table(name, measured)}", flush=True)
            all_measured += measured
    if "idle" in wanted:
        all_idle = list(idled(options, commands))
        print(f"\n{idle_table(all_idle)}", flush=True)
    after = f"{time.monotonic() - began:.0f} s, load average at the end {load()}"
    print(f"\nMeasured in {after}.", flush=True)
    if options.json is not None:
        cells = [
            {"row": one.row, "nodes": one.nodes, "peer": peer, "runs": s.runs, "errors": s.errors}
            for one in all_measured
            for peer, s in one.samples.items()
        ]
        text = json.dumps(
            {"about": about, "end": after, "seconds": cells, "idle": all_idle}, indent=1
        )
        options.json.write_text(f"{text}\n")


def describe(commands: dict[str, list[str]], left_out: dict[str, str]) -> dict[str, str]:
    """Describe the machine, the day and the packages."""
    model = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    about = {
        "day": time.strftime("%Y-%m-%d %H:%M"),
        "machine": f"{os.cpu_count()} cores, {model[0] if model else platform.machine()}",
        "load average": load(),
    }
    for name, command in commands.items():
        try:
            about[PEERS[name].title] = rows.version(command)
        except DriverError as error:
            about[PEERS[name].title] = str(error)
    ours = {OURS, OURS_NO_MDNS} & commands.keys()
    profiles = [path.name for path in Path(sys.prefix).glob(".extension-*")]
    if ours and profiles != [".extension-release"]:
        about["note"] = "the extension of this project is not a release build"
    return about | {f"left out: {PEERS[name].title}": why for name, why in left_out.items()}


def load() -> str:
    """Return the load average of the last minute."""
    return f"{os.getloadavg()[0]:.2f}"


def timed(
    asked: Sequence[str], options: argparse.Namespace, commands: dict[str, list[str]]
) -> Iterator[Measured]:
    """Measure rows that one swarm serves: at each size, run after run, the packages in turn."""
    row = ROWS[asked[0]]
    for nodes in options.sizes or row.sizes:
        samples = {name: {peer: Sample(options.limit) for peer in commands} for name in asked}
        for run in range(max(1, options.runs // row.part)):
            for peer in turn(list(commands), run):
                sample = samples[asked[-1]][peer]
                if sample.runs.count(None) + len(sample.errors) >= GIVE_UP:
                    continue
                swarm = Swarm(commands[peer], nodes, options.limit, options.settle)
                try:
                    took = once(asked, swarm)
                except (DriverError, OSError) as error:
                    for name in asked:
                        samples[name][peer].errors.append(str(error))
                    said = str(error)
                else:
                    for name in asked:
                        samples[name][peer].runs.append(took[name])
                    said = str(took)
                print(f"{nodes} nodes, run {run + 1}, {peer}: {said}", file=sys.stderr)
        for name in asked:
            yield Measured(name, nodes, samples[name])


def once(asked: Sequence[str], swarm: Swarm) -> dict[str, float | None]:
    """Measure once."""
    try:
        match asked:
            case ["converge"]:
                return {"converge": rows.converge(swarm)}
            case ["heal"]:
                return {"heal": rows.heal(swarm)}
        return rows.departures(swarm, asked)
    except LateError:
        return dict.fromkeys(asked)


def turn(peers: list[str], run: int) -> list[str]:
    """Begin each run with another package."""
    first = run % len(peers)
    return peers[first:] + peers[:first]


def table(name: str, measured: Sequence[Measured]) -> str:
    """Make the table of a row: median / worst of each package, and ours against the best."""
    mine = [one for one in measured if one.row == name]
    peers = list(mine[0].samples)
    titles = [PEERS[peer].title for peer in peers]
    head = ["nodes", "runs", *titles, "best other", "bar"]
    variants = [peer for peer in (OURS, OURS_NO_MDNS) if peer in peers] or [OURS]
    head += [f"ratio{', without mDNS' if peer == OURS_NO_MDNS else ''}" for peer in variants]
    lines = []
    for one in mine:
        verdicts = [judge(one.samples, ROWS[name].bar(one.nodes), peer) for peer in variants]
        runs = max(len(sample.runs) + len(sample.errors) for sample in one.samples.values())
        best = PEERS[verdicts[0].best].title if verdicts[0].best in PEERS else verdicts[0].best
        cells = [str(sample) for sample in one.samples.values()]
        against = [best, verdicts[0].bar, *(f"{it.ratio} {it.reached}".rstrip() for it in verdicts)]
        lines.append([str(one.nodes), str(runs), *cells, *against])
    return f"**{ROWS[name].title}**, seconds, median / worst:\n\n{markdown(head, lines)}"


def idled(
    options: argparse.Namespace, commands: dict[str, list[str]]
) -> Iterator[dict[str, object]]:
    """Measure idle swarms, one of each package and size."""
    for nodes in options.sizes or ROWS["idle"].sizes:
        for peer, command in commands.items():
            found: Idle | None = None
            try:
                found = rows.idle(Swarm(command, nodes, options.limit, options.settle))
                why = "" if found else f"not full in {options.limit:g} s"
            except (DriverError, OSError) as error:
                why = str(error)
            print(f"{nodes} nodes, idle, {peer}: {found or why}", file=sys.stderr)
            figures = {} if found is None else found._asdict()
            yield {"nodes": nodes, "peer": peer, "why": why, **figures}


def idle_verdict(nodes: object, figures: tuple[float, float, float]) -> str:
    """Say for each figure of ours whether it is within its bar."""
    judged = [
        f"≤ {bar:g} {'reached' if figure <= bar else '**missed**'}"
        for figure, bar in zip(figures, IDLE_BARS, strict=True)
    ]
    return ", ".join(judged if nodes == IDLE_BYTES_AT else judged[1:])


def idle_table(measured: Sequence[dict[str, object]]) -> str:
    """Make the table of idle nodes; a bar stands for our own rows."""
    head = [
        "nodes",
        "package",
        "sent, B/s",
        "CPU, %",
        "memory a node, MB",
        "one process, MB",
        "bars",
    ]
    lines = []
    for one in measured:
        cells = [str(one["nodes"]), PEERS[str(one["peer"])].title]
        if one["why"]:
            lines.append([*cells, NOTHING, NOTHING, NOTHING, NOTHING, str(one["why"])])
            continue
        sent, cpu, memory, process = (
            float(str(one[key])) for key in ("bytes", "cpu", "memory", "process")
        )
        ours = one["peer"] in (OURS, OURS_NO_MDNS)
        verdict = idle_verdict(one["nodes"], (sent, cpu, process)) if ours else ""
        lines.append(
            [*cells, f"{sent:.0f}", f"{cpu:.3f}", f"{memory:.2f}", f"{process:.1f}", verdict]
        )
    when = f"over {rows.IDLE:.0f} s, {rows.IDLE_BEFORE:.0f} s after all knew all"
    return f"**{ROWS['idle'].title}**, {when}:\n\n{markdown(head, lines)}"


if __name__ == "__main__":
    main()
