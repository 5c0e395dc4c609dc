"""The commands that visit a topic or look at this machine, and their options."""

import asyncio
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated

import typer

from iroh_gossip_discovery import ConfigurationError, DiscoveryError, GossipDiscovery
from iroh_gossip_discovery._cli._options import (
    DEFAULT_TOPIC,
    INTERRUPTED,
    Preset,
    fail,
    number,
    refuse,
)

talk = typer.Typer()

_TICKET = typer.Argument(metavar="TICKET", help="A ticket of any node of the topic.")
_PEER = typer.Argument(metavar="PEER", help="A node's name, its id, or how its id begins.")
_DATA = typer.Argument(metavar="DATA", help="The text to send; - reads bytes from stdin.")
_TOPIC = typer.Option(help="The topic that the ticket is for.")
_PRESET = typer.Option(help="This machine only; networks that reach each other; any.")
_TIMEOUT = typer.Option(min=0.1, max=3600, callback=number, help="Most seconds for each step.")

Ticket = Annotated[str, _TICKET]
PeerName = Annotated[str, _PEER]
Topic = Annotated[str, _TOPIC]
PresetName = Annotated[Preset, _PRESET]
Seconds = Annotated[float, _TIMEOUT]
_EXIT = """Exit code: 0 if it was done, 1 if it was not, with the reason; 2 for a wrong call; 130
after Ctrl-C."""


@talk.command(short_help="Show who is in a topic.", epilog=_EXIT)
def members(
    ticket: Ticket,
    *,
    topic: Topic = DEFAULT_TOPIC,
    preset: PresetName = Preset.lan,
    timeout: Seconds = 10.0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a snapshot, as docs/snapshot.schema.json says.")
    ] = False,
) -> None:
    """Show who is in a topic, and leave again.

    It joins as a node of its own for that moment: others see it come and go.
    """
    from iroh_gossip_discovery._cli import _talk  # noqa: PLC0415  # rich waits until here

    _visit(
        _talk.Visit(ticket, topic, preset.value, timeout).discovery,
        lambda node: _talk.members(node, timeout, as_json=as_json),
    )


@talk.command(short_help="Send a message to one node.", epilog=_EXIT)
def send(  # noqa: PLR0913  # all but three have a default
    ticket: Ticket,
    peer: PeerName,
    data: Annotated[str, _DATA],
    *,
    topic: Topic = DEFAULT_TOPIC,
    preset: PresetName = Preset.lan,
    timeout: Seconds = 10.0,
) -> None:
    """Send a message to one node, which has to listen, and say when it has it."""
    from iroh_gossip_discovery._cli import _talk  # noqa: PLC0415  # as above

    _visit(
        _talk.Visit(ticket, topic, preset.value, timeout).discovery,
        lambda node: _talk.send(node, peer, _bytes(data), timeout=timeout),
    )


@talk.command(short_help="Send a message to all nodes.", epilog=_EXIT)
def broadcast(  # all but two have a default
    ticket: Ticket,
    data: Annotated[str, _DATA],
    *,
    topic: Topic = DEFAULT_TOPIC,
    preset: PresetName = Preset.lan,
    timeout: Seconds = 10.0,
) -> None:
    """Send a message to all nodes of a topic: best effort, without an answer."""
    from iroh_gossip_discovery._cli import _talk  # noqa: PLC0415  # as above

    _visit(
        _talk.Visit(ticket, topic, preset.value, timeout).discovery,
        lambda node: _talk.broadcast(node, _bytes(data), timeout=timeout),
    )


@talk.command(short_help="Ask a node for something.", epilog=_EXIT)
def request(  # noqa: PLR0913  # all but three have a default
    ticket: Ticket,
    peer: PeerName,
    name: Annotated[str, typer.Argument(metavar="REQUEST", help="The name of the request.")],
    data: Annotated[str, _DATA] = "",
    *,
    topic: Topic = DEFAULT_TOPIC,
    preset: PresetName = Preset.lan,
    timeout: Seconds = 10.0,
) -> None:
    """Ask a node for something that it answers, and write the reply to stdout as it is."""
    from iroh_gossip_discovery._cli import _talk  # noqa: PLC0415  # as above

    _visit(
        _talk.Visit(ticket, topic, preset.value, timeout).discovery,
        lambda node: _talk.request(node, peer, name, _bytes(data), timeout=timeout),
    )


@talk.command(
    short_help="Find what keeps nodes apart.",
    epilog="Exit code: 0 if nothing is wrong, 1 if something is; 2 for a wrong call.",
)
def doctor(
    ticket: Annotated[
        str | None, typer.Argument(metavar="[TICKET]", help="A ticket to try.")
    ] = None,
    *,
    topic: Topic = DEFAULT_TOPIC,
    preset: PresetName = Preset.lan,
    state_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A state directory to try.")
    ] = None,
    host: Annotated[
        str | None, typer.Option(metavar="NAME", help="A host name to resolve.")
    ] = None,
) -> None:
    """Look at what keeps nodes of this machine from others, and say what to do about each.

    It looks at descriptors, interfaces, multicast, and what a node would announce; at names, a
    state directory and a ticket if they are given. It starts nodes in a topic of their own.
    """
    from iroh_gossip_discovery._cli import _doctor  # noqa: PLC0415  # starts faster without

    options = _doctor.Options(preset.value, topic, ticket, state_dir, host)
    try:
        healthy = asyncio.run(_doctor.examine(options))
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    except ConfigurationError as error:
        raise refuse(error) from None
    if not healthy:
        raise typer.Exit(1)


def _bytes(text: str) -> bytes:
    return sys.stdin.buffer.read() if text == "-" else text.encode()


def _visit(
    make: Callable[[], GossipDiscovery],
    work: Callable[[GossipDiscovery], Coroutine[object, object, None]],
) -> None:
    from iroh_gossip_discovery._cli._talk import VisitError  # noqa: PLC0415  # as above

    try:
        discovery = make()
    except ConfigurationError as error:
        raise refuse(error) from None
    try:
        asyncio.run(work(discovery))
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    except BrokenPipeError:
        raise  # the entry sees to it
    except ConfigurationError as error:
        raise refuse(error) from None
    except (VisitError, DiscoveryError, OSError) as error:
        raise fail(str(error)) from None
