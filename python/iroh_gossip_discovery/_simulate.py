"""`simulate`: a whole network on a virtual clock, and its report as frozen values."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from iroh_gossip_discovery import _core
from iroh_gossip_discovery._errors import ConfigurationError
from iroh_gossip_discovery._require import require

MAX_FILE = 1_048_576
"""Most bytes of a file with a scenario."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedRecovery:
    """How long it took after something until every book was right again.

    Args:
        what: The action of a fault, as in the scenario, or "start".
        fault: The number of the fault in the scenario, from 0; `None` for the start.
        nodes: The nodes that it befell, by number from 0.
        at_s: When it had come about, in virtual seconds since the first start. A pause or a
            partition has come about when it is over.
        took_s: Seconds from then on until every book was right; `None` if that did not come about.
        within_s: What the scenario expects, in seconds; `None` if nothing.
    """

    what: str
    fault: int | None
    nodes: tuple[int, ...]
    at_s: float
    took_s: float | None
    within_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedFailure:
    """A check that failed.

    Args:
        check: Which one; the guide to the simulator lists them.
        at_s: When, in virtual seconds since the first start.
        node: The node at which it was seen, if at one.
        text: What was seen.
    """

    check: str
    at_s: float
    node: int | None
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedEvent:
    """An event that a simulated node emitted to its application.

    Args:
        at_s: When, in virtual seconds since the first start.
        node: The node, by number from 0.
        event: The name of its class here. Also events that applications do not get
            elsewhere: Announced, PeerRefreshed (a heartbeat), NeighborUp, NeighborDown, Closed.
        peer: The name of the peer that it is about, if about one.
        id: That peer's endpoint id, as 64 hex digits.
    """

    at_s: float
    node: int
    event: str
    peer: str | None
    id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedTraffic:
    """What all nodes sent in the whole run.

    Args:
        control_frames: Frames on the lane for all that must be quick.
        control_bytes: Their bytes, with the four that say the length of each.
        sync_frames: Frames on the lane for reconciliations.
        sync_bytes: Their bytes.
        wire_bytes: Bytes on the wire, with the heads of packets, acknowledgements, repetitions,
            keep-alives and handshakes: an estimate.
        dials: Dials that were begun.
    """

    control_frames: int
    control_bytes: int
    sync_frames: int
    sync_bytes: int
    wire_bytes: int
    dials: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedRates:
    """What a node sent in a second, the mean over all nodes and the timeline without the warm-up.

    Args:
        control_frames: Frames on the lane for all that must be quick.
        control_bytes: Their bytes.
        sync_frames: Frames on the lane for reconciliations.
        sync_bytes: Their bytes.
        wire_bytes: Bytes on the wire, an estimate.
        dials: Dials.
    """

    control_frames: float
    control_bytes: float
    sync_frames: float
    sync_bytes: float
    wire_bytes: float
    dials: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """The report of a simulated network.

    Args:
        name: The scenario's name.
        seed: Everything random followed from it.
        nodes: How many nodes started at the beginning.
        up: How many run the protocol at the end.
        ok: Whether the run came to its end, and every check and expectation held.
        complete: Whether it came to its end; not if `progress`, or a first failure, ended it.
        trace: A hash over all frames and their times, 64 hex digits: the same scenario, seed and
            version give the same.
        virtual_s: How long the run was, in virtual seconds.
        figures: How long it took until all books were right, for the start and each fault.
        failures: Checks and expectations that did not hold, the first 100.
        sent: What all nodes sent.
        rates: What a node sent in a second.
        dropped: What limits refused or dropped at all nodes, by what it was.
        steps: How many events the simulator handled.
        emitted: How many events nodes emitted to their applications, by the name of the event.
        events: The emitted events in order, if `events=True`: the first two million.
        events_left_out: How many events are not in `events`.
    """

    name: str
    seed: int
    nodes: int
    up: int
    ok: bool
    complete: bool
    trace: str
    virtual_s: float
    figures: tuple[SimulatedRecovery, ...]
    failures: tuple[SimulatedFailure, ...]
    sent: SimulatedTraffic
    rates: SimulatedRates
    dropped: Mapping[str, int]
    steps: int
    emitted: Mapping[str, int]
    events: tuple[SimulatedEvent, ...]
    events_left_out: int


def simulate(  # noqa: PLR0913  # all but one have a default
    scenario: str | PathLike[str],
    *,
    seed: int | None = None,
    nodes: int | None = None,
    events: bool = False,
    fail_fast: bool = False,
    progress: Callable[[float], bool] | None = None,
) -> Simulation:
    """Run a network of complete nodes in this thread, without sockets, on a virtual clock.

    It takes processor time and, with thousands of nodes, gigabytes; other threads go on meanwhile.
    Under asyncio: `await asyncio.to_thread(simulate, scenario)`. What fails in the scenario is in
    the result. A signal's handler runs within a moment, so Ctrl-C raises KeyboardInterrupt here.

    Args:
        scenario: TOML text, or the path of a file with it (a `Path`), as the guide to the
            simulator describes.
        seed: In place of the scenario's, 0 to 2⁶³ - 1.
        nodes: In place of the scenario's, 1 to 20,000.
        events: Whether to keep the events that all nodes emit to their applications.
        fail_fast: Whether the first failure ends the run.
        progress: Called about twenty times a second with the share of the virtual time that is
            over, 0.0 to 1.0. It returns whether to continue; if it returns false, the result is
            what was seen until then. What it raises ends the run and is raised here.

    Raises:
        ConfigurationError: A value is outside its limits, or the text is no scenario: it names the
            key.
        TypeError: A value has the wrong type.
        OSError: The file can't be read.

    Example:
        ```python
        result = simulate('''
        nodes = 10
        [[fault]]
        at = "5s"
        crash = 1
        ''')
        assert result.ok, result.failures
        print(f"the crash was known to all after {result.figures[-1].took_s:.1f} s")
        ```
    """
    return _core.run_scenario(
        scenario_text(scenario),
        seed=seed,
        nodes=nodes,
        events=events,
        fail_fast=fail_fast,
        progress=progress,
    )


def scenario_text(scenario: str | PathLike[str]) -> str:
    """Return the TOML of a scenario that is text or in a file."""
    require("scenario", scenario, str, PathLike)
    if isinstance(scenario, str):
        if scenario.strip() and not set(scenario) & {"=", "\n"}:
            reason = f"is no TOML: {scenario[:60]!r}; the path of a file must be a Path"
            raise ConfigurationError("scenario", reason)
        return scenario
    with Path(scenario).open("rb") as file:
        data = file.read(MAX_FILE + 1)
    if len(data) > MAX_FILE:
        raise ConfigurationError("scenario", f"is a file of more than {MAX_FILE:,} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ConfigurationError("scenario", "is a file that is not UTF-8") from None
