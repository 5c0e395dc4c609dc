"""The commands that visit a topic or check this machine, and their options."""

import asyncio
import functools
import inspect
import os
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Concatenate, ParamSpec, TypeAlias

import typer

from iroh_gossip_discovery import Config, ConfigurationError, DiscoveryError, GossipDiscovery
from iroh_gossip_discovery._cli import _invitations, _keys, _secrets
from iroh_gossip_discovery._cli._options import (
    DEFAULT_TOPIC,
    INTERRUPTED,
    ISSUER_KEY,
    SECRET_FILE,
    Preset,
    fail,
    number,
    refuse,
)
from iroh_gossip_discovery._requests import encode_name
from iroh_gossip_discovery._state_dir import state_path

talk = typer.Typer()


def request_name(name: str) -> str:
    """Refuse what names no request, before anything opens."""
    try:
        encode_name(name)
    except ConfigurationError as error:
        raise typer.BadParameter(f"it {error.reason}") from None
    return name


P = ParamSpec("P")
Work: TypeAlias = Callable[Concatenate[GossipDiscovery, float, P], Coroutine[object, object, None]]

_VISITOR = "igd-visitor"
_EXIT = """Exit code: 0 if it was done, 1 if it was not, with the reason; 2 for a wrong call; 130
after Ctrl-C."""

PeerName = Annotated[
    str, typer.Argument(metavar="PEER", help="A node's name, its id, or how its id begins.")
]
Data = Annotated[
    str, typer.Argument(metavar="DATA", help="The text to send; - reads bytes from stdin.")
]
Topic = Annotated[str, typer.Option(help="The topic that the ticket is for.")]
Channel = Annotated[
    str | None, typer.Option(metavar="NAME", help="The channel: only its subscribers get it.")
]
PresetName = Annotated[
    Preset, typer.Option(help="This machine only; networks that reach each other; any.")
]


def visit(short_help: str, *, observer: bool = True) -> Callable[[Work[P]], Work[P]]:
    """Make a command of what a node does that visits a topic.

    The function takes the node, the seconds for each step, and arguments of its own. The command
    takes a ticket and the options of every visit besides. No member sees an observer.
    """

    def register(work: Work[P]) -> Work[P]:
        def command(  # noqa: PLR0913, PLR0917  # they become options
            ticket: Annotated[
                str,
                typer.Argument(
                    metavar="TICKET", help="A ticket of any node of the topic, or its HOST:PORT."
                ),
            ],
            topic: Topic = DEFAULT_TOPIC,
            preset: PresetName = Preset.lan,
            timeout: Annotated[
                float,
                typer.Option(
                    min=0.1, max=3600, callback=number, help="Most seconds for each step."
                ),
            ] = 10.0,
            secret_file: Annotated[Path | None, SECRET_FILE] = None,
            issuer_key: Annotated[Path | None, ISSUER_KEY] = None,
            *args: P.args,
            **kwargs: P.kwargs,
        ) -> None:
            _run(
                lambda: GossipDiscovery(
                    _VISITOR,
                    topic,
                    bootstrap=[ticket],
                    secret=_secrets.find(secret_file),
                    config=getattr(Config, preset.value)(),
                    observer=observer,
                    **_invitations.visitor(issuer_key, topic),
                ),
                lambda node: work(node, timeout, *args, **kwargs),
            )

        # Arguments as they are typed: the ticket, those of the work, and then all options.
        ticket, *options = _parameters(command)[:-2]
        own = _parameters(work)[2:]
        options = [option.replace(kind=inspect.Parameter.KEYWORD_ONLY) for option in options]
        positional = [one for one in own if one.kind is not inspect.Parameter.KEYWORD_ONLY]
        options += [one for one in own if one.kind is inspect.Parameter.KEYWORD_ONLY]
        functools.update_wrapper(command, work)
        signature = inspect.Signature([ticket, *positional, *options])
        command.__signature__ = signature  # type: ignore[attr-defined]  # where inspect looks
        talk.command(short_help=short_help, epilog=_EXIT)(command)
        return work

    return register


def _parameters(function: Callable[..., object]) -> list[inspect.Parameter]:
    signature = inspect.signature(function, follow_wrapped=False, eval_str=True)
    return list(signature.parameters.values())


@visit("Show who is in a topic.")
async def members(
    node: GossipDiscovery,
    timeout: float,  # noqa: ASYNC109  # of each step
    *,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a snapshot, as docs/snapshot.schema.json says.")
    ] = False,
) -> None:
    """Show who is in a topic, without being in it."""
    from iroh_gossip_discovery._cli import _talk  # noqa: PLC0415  # rich waits until here

    await _talk.members(node, timeout, as_json=as_json)


@visit("Send a message to one node.")
async def send(
    node: GossipDiscovery,
    timeout: float,  # noqa: ASYNC109  # of each step
    peer: PeerName,
    data: Data,
    *,
    channel: Channel = None,
) -> None:
    """Send a message to one node, which has to listen, and say when it has it."""
    from iroh_gossip_discovery._cli import _talk  # noqa: PLC0415  # as above

    await _talk.send(node, peer, _bytes(data), channel=channel, timeout=timeout)


@visit("Send a message to all nodes.", observer=False)
async def broadcast(
    node: GossipDiscovery,
    timeout: float,  # noqa: ASYNC109  # of each step
    data: Data,
    *,
    channel: Channel = None,
) -> None:
    """Send a message to all nodes of a topic: best effort, without an answer.

    Only a member can. So it joins as a node of its own for that moment: others see it come and go.
    """
    from iroh_gossip_discovery._cli import _talk  # noqa: PLC0415  # as above

    await _talk.broadcast(node, _bytes(data), channel=channel, timeout=timeout)


@visit("Ask a node for something.")
async def request(
    node: GossipDiscovery,
    timeout: float,  # noqa: ASYNC109  # of each step
    peer: PeerName,
    name: Annotated[
        str,
        typer.Argument(metavar="REQUEST", help="The name of the request.", callback=request_name),
    ],
    data: Data = "",
) -> None:
    """Ask a node for something that it answers, and write the reply to stdout as it is."""
    from iroh_gossip_discovery._cli import _talk  # noqa: PLC0415  # as above

    await _talk.request(node, peer, name, _bytes(data), timeout=timeout)


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
        str | None, typer.Option(metavar="DIR", help="A state directory to try.")
    ] = None,
    host: Annotated[
        str | None, typer.Option(metavar="NAME", help="A host name to resolve.")
    ] = None,
) -> None:
    """Check what keeps nodes of this machine from others, and say what to do about each.

    It checks descriptors, interfaces, multicast, and what a node would announce; also names, a
    state directory and a ticket if they are given. It starts nodes in a topic of their own.
    """
    from iroh_gossip_discovery._cli import _doctor  # noqa: PLC0415  # starts faster without

    try:
        path = None if state_dir is None else state_path(state_dir)
        options = _doctor.Options(preset.value, topic, ticket, path, host)
        healthy = asyncio.run(_doctor.examine(options))
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    except ConfigurationError as error:
        raise refuse(error) from None
    if not healthy:
        raise typer.Exit(1)


def _bytes(text: str) -> bytes:
    # What a shell passed that is no UTF-8 is sent as it is.
    return sys.stdin.buffer.read() if text == "-" else os.fsencode(text)


def _run(
    make: Callable[[], GossipDiscovery],
    work: Callable[[GossipDiscovery], Coroutine[object, object, None]],
) -> None:
    from iroh_gossip_discovery._cli._talk import VisitError  # noqa: PLC0415  # as above

    try:
        discovery = make()
    except ConfigurationError as error:
        raise refuse(error) from None
    except _keys.KeyFileError as error:
        raise fail(error) from None
    try:
        asyncio.run(work(discovery))
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    except BrokenPipeError:
        raise  # the entry sees to it
    except ConfigurationError as error:
        raise refuse(error) from None
    except (VisitError, DiscoveryError, OSError) as error:
        raise fail(error) from None
