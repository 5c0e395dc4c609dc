"""What several commands share: presets, checks of options, and errors that name them."""

import math
import sys
from enum import StrEnum

import typer

from iroh_gossip_discovery import ConfigurationError, DiscoveryError
from iroh_gossip_discovery._cli._secrets import VARIABLE

INTERRUPTED = 130
DEFAULT_TOPIC = "fleet"
SECRET_FILE = typer.Option(
    metavar="FILE",
    help="The secrets of a private swarm, one a line, the preferred one first; "
    f"- reads stdin. Without, ${VARIABLE} if it is set.",
)
ISSUER_KEY = typer.Option(
    "--issuer-key",
    metavar="FILE",
    help="The key of the swarm's issuer, in place of an invitation; - reads stdin.",
)
# What a user calls what the package calls otherwise.
_CALLED = {
    "name": "NAME",
    "metadata": "--metadata",
    "protocols": "--serve",
    "addresses": "--address",
    "ticket": "--show",
    "peer": "PEER",
    "data": "DATA",
    "secret": "--secret-file",
    "member": "ID",
    "duration": "--until",
}


class Preset(StrEnum):
    """The configurations that a node may start from."""

    local = "local"
    lan = "lan"
    internet = "internet"


def number(value: float) -> float:
    """Refuse NaN."""
    if math.isnan(value):
        raise typer.BadParameter("it must be a number")
    return value


def refuse(error: ConfigurationError, *, topic: str = "--topic") -> typer.BadParameter:
    """Return the error for a wrong call that a value of the package's makes it.

    Args:
        error: What the package says of the value.
        topic: What the command calls the topic.
    """
    field, bracket, index = error.field.partition("[")
    if field == "bootstrap" and bracket:
        advice = f"; {topic} names its topic" if "another topic" in error.reason else ""
        return typer.BadParameter(f"ticket {int(index.rstrip(']')) + 1} {error.reason}{advice}")
    if field == "addresses" and bracket:
        return typer.BadParameter(error.reason, param_hint="'--address'")
    if field == "topic":
        return typer.BadParameter(str(error), param_hint=f"'{topic}'")
    hint = _CALLED.get(field.partition(" ")[0], f"--{field.replace('_', '-')}")
    return typer.BadParameter(str(error), param_hint=f"'{hint}'")


def fail(reason: str | Exception) -> typer.Exit:
    """Say why it could not be done, and return the end of the command."""
    sys.stderr.write(f"error: {_words(reason)}\n")
    return typer.Exit(1)


def _words(reason: str | Exception) -> str:
    """Return what is wrong, without the number that the system has for it."""
    if isinstance(reason, OSError) and not isinstance(reason, DiscoveryError) and reason.strerror:
        return f"{reason.filename}: {reason.strerror}" if reason.filename else reason.strerror
    return str(reason)
