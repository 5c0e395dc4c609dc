"""The commands, their options and their exit codes."""

import asyncio
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
        typer.Option(min=0.1, max=3600, help="Most seconds that each step may take."),
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
