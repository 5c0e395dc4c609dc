"""What `test-network` found: one object, as JSON or to be read."""

import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, TypedDict

from iroh_gossip_discovery._cli._lateness import BUSY
from iroh_gossip_discovery._cli._network import Condition, Member, listed

SCHEMA = 1


class Convergence(TypedDict):
    """How long it took, over the nodes, from when the last one ran until a book was right."""

    converged: bool
    p50_s: float | None
    p99_s: float | None
    max_s: float | None


class FaultReport(TypedDict):
    """A fault, and the time until every book was right; `null` if that did not come about."""

    fault: str
    node: str
    what: str
    seconds: float | None
    wrong: list[str]


class Hold(TypedDict):
    """The time after convergence, in which nothing should change."""

    stayed: bool
    seconds: float
    checks: int
    slowest_check_s: float
    changes: list[str]


class NodeReport(TypedDict):
    """One node, as it was at the end."""

    name: str
    id: str
    pid: int
    condition: Condition
    converged_s: float | None
    book: int
    missing: list[str]
    extra: list[str]
    stale: list[str]
    messages_sent: int
    messages_received: int
    bytes_sent: int
    bytes_received: int
    links: int
    links_opened: int
    cpu_s: float | None
    memory_bytes: int | None


class Report(TypedDict):
    """All of it."""

    schema: int
    version: str
    ok: bool
    interrupted: bool
    verdict: str
    nodes: int
    seconds: float
    at_once: bool
    started: int
    start_s: float | None
    late_s: float
    convergence: Convergence
    faults: list[FaultReport]
    hold: Hold
    per_node: list[NodeReport]


def convergence(seconds: Sequence[float], *, converged: bool) -> Convergence:
    """Summarize the seconds of all nodes whose book became right."""
    ordered = sorted(seconds)
    if not ordered:
        return {"converged": converged, "p50_s": None, "p99_s": None, "max_s": None}
    rank = math.ceil(0.99 * len(ordered)) - 1
    return {
        "converged": converged,
        "p50_s": round(statistics.median(ordered), 4),
        "p99_s": round(ordered[rank], 4),
        "max_s": round(ordered[-1], 4),
    }


def node_report(member: Member, converged_s: float | None) -> NodeReport:
    """Describe a node as it was when it was last asked."""
    state, usage = member.state, member.usage
    metrics = {} if state is None else state.metrics
    return {
        "name": member.name,
        "id": member.process.id,
        "pid": member.process.pid,
        "condition": member.condition,
        "converged_s": None if converged_s is None else round(converged_s, 4),
        "book": 0 if state is None else len(state.book),
        "missing": member.missing,
        "extra": member.extra,
        "stale": member.stale,
        "messages_sent": metrics.get("frames_sent", 0),
        "messages_received": metrics.get("frames_received", 0),
        "bytes_sent": metrics.get("bytes_sent", 0),
        "bytes_received": metrics.get("bytes_received", 0),
        "links": metrics.get("links", 0),
        "links_opened": metrics.get("links_opened", 0),
        "cpu_s": None if usage is None else usage.cpu_s,
        "memory_bytes": None if usage is None else usage.memory_bytes,
    }


_WRONG: Sequence[Literal["missing", "extra", "stale"]] = ("missing", "extra", "stale")
_COLUMNS = (
    "node",
    "id",
    "condition",
    "book",
    "missing",
    "extra",
    "stale",
    "right after s",
    "messages out/in",
    "kB out/in",
    "links now/ever",
    "CPU s",
    "MB",
)


def _row(node: NodeReport, others: int) -> tuple[str, ...]:
    cpu, memory = node["cpu_s"], node["memory_bytes"]
    return (
        node["name"],
        node["id"][:10],
        node["condition"],
        f"{node['book']} of {others}",
        *(str(len(names) or "-") for names in (node["missing"], node["extra"], node["stale"])),
        "-" if node["converged_s"] is None else f"{node['converged_s']:.3f}",
        f"{node['messages_sent']}/{node['messages_received']}",
        f"{node['bytes_sent'] / 1000:.0f}/{node['bytes_received'] / 1000:.0f}",
        f"{node['links']}/{node['links_opened']}",
        "-" if cpu is None else f"{cpu:.2f}",
        "-" if memory is None else f"{memory / 1e6:.0f}",
    )


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Align a table: its first two columns to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (
            cell.ljust(width) if number < 3 else cell.rjust(width)  # noqa: PLR2004  # of text
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "  ".join(cells).rstrip()


def as_text(report: Report) -> Iterator[str]:
    """Yield the lines to be read; the last one is the verdict."""
    nodes = report["per_node"]
    if nodes:
        yield ""
        yield from _aligned([_COLUMNS, *(_row(node, len(nodes) - 1) for node in nodes)])
        yield ""
    if report["start_s"] is not None:
        how = "at once" if report["at_once"] else "one after another"
        yield f"start        {report['nodes']} processes, {how}, in {report['start_s']:.2f} s"
    found = report["convergence"]
    if found["max_s"] is not None:
        yield (
            f"convergence  p50 {found['p50_s']:.3f} s, p99 {found['p99_s']:.3f} s, "
            f"max {found['max_s']:.3f} s over the nodes, from when the last process ran"
        )
    for fault in report["faults"]:
        took = fault["seconds"]
        outcome = f"right after {took:.3f} s" if took is not None else "NOT right"
        yield f"fault        {fault['fault']}: {fault['what']}; every book {outcome}"
    hold = report["hold"]
    if hold["checks"]:
        yield (
            f"hold         {hold['seconds']:.1f} s, asked {hold['checks']} times, "
            f"the books were the same within {hold['slowest_check_s']:.2f} s each time"
            if hold["stayed"]
            else f"hold         broken after {hold['seconds']:.1f} s"
        )
    costs = [*_costs(nodes)]
    if costs:
        yield f"per node     {', '.join(costs)} (median)"
    if report["late_s"] >= BUSY:
        yield f"machine      busy: the test itself waited up to {report['late_s']:.1f} s to run"
    yield from wrong_lines(report)
    yield ""
    yield report["verdict"]


def _costs(nodes: Iterable[NodeReport]) -> Iterator[str]:
    nodes = list(nodes)
    if not nodes:
        return
    yield f"{statistics.median(node['messages_sent'] for node in nodes):.0f} messages"
    yield f"{statistics.median(node['bytes_sent'] for node in nodes) / 1000:.0f} kB sent"
    cpu = [node["cpu_s"] for node in nodes if node["cpu_s"] is not None]
    memory = [node["memory_bytes"] for node in nodes if node["memory_bytes"] is not None]
    if cpu and memory:
        yield f"{statistics.median(cpu):.2f} s of CPU"
        yield f"{statistics.median(memory) / 1e6:.0f} MB"


def wrong_lines(report: Report) -> Iterator[str]:
    """Yield what is wrong, node by node and change by change."""
    for fault in report["faults"]:
        for line in fault["wrong"]:
            yield f"wrong        after {fault['fault']}: {line}"
    for node in report["per_node"]:
        parts = [f"{what} {listed(node[what])}" for what in _WRONG if node[what]]
        if node["condition"] != "running":
            parts = [node["condition"], *parts]
        if parts:
            yield f"wrong        {node['name']}: {'; '.join(parts)}"
    for change in report["hold"]["changes"]:
        yield f"wrong        while nothing should change: {change}"
