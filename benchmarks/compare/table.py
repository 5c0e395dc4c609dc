"""What the measurements amount to: medians, ratios to the best peer, bars, Markdown."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

OURS = "ours"
# The text of a cell without a figure.
NOTHING = "-"
# The other packages look for no node by multicast, so both figures are given.
OURS_NO_MDNS = "ours-no-mdns"


@dataclass
class Sample:
    """The runs of one package in one cell: seconds each, `None` where the limit came first."""

    limit: float
    runs: list[float | None] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def median(self) -> float | None:
        """The median, if more than half of the runs came to their end."""
        whole = sorted(self.limit * 2 if run is None else run for run in self.runs)
        if not whole:
            return None
        middle = statistics.median_high(whole) if None in self.runs else statistics.median(whole)
        return middle if middle <= self.limit else None

    @property
    def worst(self) -> float | None:
        """The worst run; `None` if one met the limit."""
        whole = [run for run in self.runs if run is not None]
        return max(whole) if whole and len(whole) == len(self.runs) else None

    def __str__(self) -> str:
        """Show median and worst, and why runs are missing."""
        failed = f"failed {len(self.errors)} times: {self.errors[-1]}" if self.errors else ""
        if not self.runs:
            return failed or NOTHING
        missing = self.runs.count(None)
        if missing == len(self.runs):
            shown = f"not in {self.limit:g}, {missing} of {len(self.runs)}"
        else:
            shown = f"{seconds(self.median, self.limit)} / {seconds(self.worst, self.limit)}"
        return f"{shown}; {failed}" if failed else shown


@dataclass(frozen=True)
class Verdict:
    """Ours against the best peer: the ratio of medians, and whether it is within the bar."""

    best: str
    ratio: str
    bar: str
    reached: str


def seconds(value: float | None, limit: float) -> str:
    """Show seconds with two or three digits that mean something."""
    if value is None:
        return f"> {limit:g}"
    return f"{value:.3f}" if value < 1 else f"{value:.2f}" if value < 10 else f"{value:.1f}"  # noqa: PLR2004


def judge(samples: Mapping[str, Sample], bar: float | None, mine_is: str = OURS) -> Verdict:
    """Compare medians: ours with the best of the others."""
    ours = samples.get(mine_is)
    mine = None if ours is None else ours.median
    others = {name: it for name, it in samples.items() if name not in (OURS, OURS_NO_MDNS)}
    medians = {name: it.median for name, it in others.items() if it.median is not None}
    wanted = NOTHING if bar is None else f"≤ {bar:g}"
    if ours is None or not ours.runs:
        return Verdict(NOTHING, NOTHING, wanted, "")
    beaten = [it.limit for it in others.values() if it.runs]
    if medians:
        best, value = min(medians.items(), key=lambda item: item[1])
        bound = ""
    elif beaten:
        best, value, bound = "none in time", min(beaten), "< "
    else:
        return Verdict(NOTHING, NOTHING, wanted, "")
    if mine is None:
        missed = "" if bar is None else "**missed**"
        return Verdict(best, f"> {ours.limit / value:.2f}", wanted, missed)
    ratio = mine / value
    reached = "" if bar is None else "reached" if ratio <= bar else "**missed**"
    return Verdict(best, f"{bound}{ratio:.2f}", wanted, reached)


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Make a Markdown table."""
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    lines = [head, ["---"] * len(head), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
