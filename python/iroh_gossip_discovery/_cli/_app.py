"""The commands, their options and their exit codes."""

import asyncio
import math
import sys
from typing import Annotated

import typer

from iroh_gossip_discovery import DiscoveryError, __version__
from iroh_gossip_discovery._cli._processes import NodeFailedError

app = typer.Typer(
    name="iroh-gossip-discovery",
    help="Every node of an application finds, authenticates and reaches every other node.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

_INTERRUPTED = 130


def _version(*, value: bool) -> None:
    if value:
        typer.echo(f"iroh-gossip-discovery {__version__}")
        raise typer.Exit


def _number(value: float) -> float:
    if math.isnan(value):
        raise typer.BadParameter("it must be a number")
    return value


def _fault_names(value: str) -> str:
    """Check the names of faults, which are parted by commas."""
    from iroh_gossip_discovery._cli._faults import FAULTS  # noqa: PLC0415  # starts faster without

    names = value.split(",") if value else []
    for name in names:
        if name not in FAULTS:
            raise typer.BadParameter(f"{name!r} is none of {', '.join(FAULTS)}")
    if len(set(names)) < len(names):
        raise typer.BadParameter("a fault is named twice")
    return value


@app.callback()
def root(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Every node of an application finds, authenticates and reaches every other node."""


@app.command()
def demo(
    *,
    timeout: Annotated[
        float,
        typer.Option(
            min=0.1, max=3600, callback=_number, help="Most seconds that each step may take."
        ),
    ] = 30.0,
) -> None:
    """Watch five nodes on this machine find each other; one leaves and comes back.

    Each node is a process of its own, on the loopback interface. Exit code: 0 if every address book
    became right in time, 1 if one did not, 2 for a wrong call, 130 after Ctrl-C.
    """
    from iroh_gossip_discovery._cli._demo import run_demo  # noqa: PLC0415  # rich waits until here

    try:
        converged = asyncio.run(run_demo(timeout))
    except (KeyboardInterrupt, asyncio.CancelledError):  # Ctrl-C, SIGTERM
        sys.stderr.write("interrupted; every node was stopped\n")
        raise typer.Exit(_INTERRUPTED) from None
    except (DiscoveryError, NodeFailedError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        raise typer.Exit(1) from None
    if not converged:
        raise typer.Exit(1)


@app.command("test-network")
def check_network(
    nodes: Annotated[
        int, typer.Argument(metavar="NODES", min=2, max=500, help="How many processes, 2 to 500.")
    ] = 5,
    seconds: Annotated[
        float,
        typer.Argument(
            metavar="SECONDS",
            min=0.1,
            max=86_400,
            callback=_number,
            help="How long they may take to converge and then have to stay so; "
            "starting them and faults come on top.",
        ),
    ] = 30.0,
    *,
    at_once: Annotated[
        bool, typer.Option("--at-once", help="Start all but the first at the same time.")
    ] = False,
    faults: Annotated[
        str,
        typer.Option(
            callback=_fault_names,
            metavar="NAME,…",
            help="Faults to make after convergence, in this order, out of: "
            "kill, restart, rekey, leave, late-bootstrap.",
        ),
    ] = "",
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print one JSON object on stdout, and progress on stderr."),
    ] = False,
) -> None:
    """Start real node processes, ask them for their books, and verify that all hold the same.

    Each is a process of its own, on the loopback interface.

    Exit code: 0 only if all converged and stayed so to the end, 1 if not (also after Ctrl-C), 2 for
    a wrong call.
    """
    from iroh_gossip_discovery._cli._faults import REMOVES  # noqa: PLC0415  # as above
    from iroh_gossip_discovery._cli._test_network import (  # noqa: PLC0415  # as above
        Options,
        run_test_network,
    )

    names = faults.split(",") if faults else []
    fewest = 2 + sum(name in REMOVES for name in names)
    if nodes < fewest:
        raise typer.BadParameter(
            f"these faults need at least {fewest} nodes", param_hint="'--faults'"
        )
    options = Options(nodes=nodes, seconds=seconds, at_once=at_once, faults=names, as_json=as_json)
    try:
        ok = run_test_network(options)
    except KeyboardInterrupt:  # before there was anything to report
        sys.stderr.write("interrupted\n")
        raise typer.Exit(1) from None
    except (DiscoveryError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        raise typer.Exit(1) from None
    if not ok:
        raise typer.Exit(1)
