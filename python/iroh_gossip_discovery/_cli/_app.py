"""The commands, their options and their exit codes."""

import asyncio
import logging
import sys
from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperGroup

from iroh_gossip_discovery import (
    Config,
    ConfigurationError,
    DiscoveryError,
    GossipDiscovery,
    Issuer,
    __version__,
    parse_ticket,
)
from iroh_gossip_discovery._cli import _invitations, _keys, _secrets
from iroh_gossip_discovery._cli._options import (
    DEFAULT_TOPIC,
    INTERRUPTED,
    SECRET_FILE,
    Preset,
    fail,
    number,
    refuse,
)
from iroh_gossip_discovery._cli._processes import NodeFailedError
from iroh_gossip_discovery._cli._talk_commands import talk
from iroh_gossip_discovery._printable import printable


class _Group(TyperGroup):
    """Leaves a reader that is gone to the entry."""

    # typer's own Context is private, and this one is its subclass.
    def invoke(self, ctx: typer.Context) -> object:  # type: ignore[override]
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # Without an error number: with one, typer would end with exit code 1.
            raise BrokenPipeError from None


app = typer.Typer(
    name="iroh-gossip-discovery",
    cls=_Group,
    help="Every node of an application finds, authenticates and reaches every other node.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # what a user types is shown as it is, and lines of help keep their ends
)

_MOST_ADDRESSES = 8
_SIMULATED_NODES = 30


def _version(*, value: bool) -> None:
    if value:
        typer.echo(f"iroh-gossip-discovery {__version__}")
        raise typer.Exit


def _share(value: float | None) -> float | None:
    return None if value is None else number(value)


def _fault_names(value: str) -> str:
    """Check the names of faults, which are separated by commas."""
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


@app.command(short_help="Watch five nodes on this machine.")
def demo(
    *,
    timeout: Annotated[
        float,
        typer.Option(
            min=0.1, max=3600, callback=number, help="Most seconds that each step may take."
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
        raise typer.Exit(INTERRUPTED) from None
    except BrokenPipeError:
        raise  # the entry sees to it
    except (DiscoveryError, NodeFailedError, OSError) as error:
        raise fail(error) from None
    if not converged:
        raise typer.Exit(1)


@app.command("test-network", short_help="Verify the books of real processes.")
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
            callback=number,
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
    except BrokenPipeError:
        raise  # the entry sees to it
    except (DiscoveryError, OSError) as error:
        raise fail(error) from None
    if not ok:
        raise typer.Exit(1)


@app.command(
    "simulate",
    short_help="Simulate a network, with faults.",
    epilog="""Examples:

\b
  iroh-gossip-discovery simulate scenario.toml
  iroh-gossip-discovery simulate --nodes 1000 --loss 0.05 --crash 1 --seed 7
  iroh-gossip-discovery simulate --random --nodes 30 --seed 14 --shrink smaller.toml

Exit code: 0 if every check held, 1 if one did not, 2 for a wrong call, 130 after Ctrl-C, which
shows what was seen until then.""",
)
# long: a parameter for each option.
def run_simulation(  # noqa: PLR0913  # all have a default
    scenario: Annotated[
        Path | None,
        typer.Argument(
            metavar="SCENARIO",
            exists=True,
            dir_okay=False,
            readable=True,
            help="A TOML file, as docs/simulator.md describes; without one, the options make one.",
        ),
    ] = None,
    *,
    nodes: Annotated[
        int | None,
        typer.Option(
            min=1, max=20_000, help="How many nodes: 30, or in place of what the file says."
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=2**63 - 1,
            help="Everything random follows from it: 0, or in place of what the file says.",
        ),
    ] = None,
    loss: Annotated[
        float | None,
        typer.Option(
            min=0.0, max=0.99, callback=_share, help="The share of packets that are lost: 0."
        ),
    ] = None,
    crash: Annotated[
        int | None, typer.Option(min=0, help="How many nodes crash at once, once all is quiet: 0.")
    ] = None,
    random: Annotated[
        bool, typer.Option("--random", help="Faults that follow from the seed.")
    ] = False,
    shrink: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Make a failing scenario small (nodes, then faults, then time), and write it.",
        ),
    ] = None,
    events: Annotated[
        bool, typer.Option("--events", help="With --json: what all nodes told.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object on stdout, with the trace's hash.")
    ] = False,
) -> None:
    """Run a whole network of nodes on a virtual clock, make faults, and check every book.

    The nodes are complete, the network between them is not real: no sockets, no waiting, and the
    same seed gives the same run. docs/simulator.md explains scenarios, checks and the report.
    """
    if scenario is None:
        nodes, seed = nodes or _SIMULATED_NODES, seed or 0
    plain = (loss, crash) != (None, None)
    contradictions = (
        (scenario and (plain or random), "--loss, --crash and --random go without a file"),
        (plain and random, "--loss and --crash go without --random"),
        (events and not as_json, "--events goes with --json"),
        (shrink and as_json, "--shrink goes without --json"),
        (shrink and shrink.exists(), f"{shrink} exists, and is not overwritten"),
        (shrink and not shrink.parent.is_dir(), f"{shrink} is in no directory that exists"),
        (nodes and (crash or 0) >= nodes, f"--crash must be below the {nodes} nodes"),
    )
    for wrong, text in contradictions:
        if wrong:
            raise typer.BadParameter(text)
    from iroh_gossip_discovery._cli._simulate import (  # noqa: PLC0415  # rich waits until here
        Options,
        run_shrink,
        run_simulate,
    )

    options = Options(
        file=scenario,
        nodes=nodes,
        seed=seed,
        loss=loss or 0.0,
        crash=crash or 0,
        random=random,
        events=events,
        as_json=as_json,
    )
    try:
        code = run_simulate(options) if shrink is None else run_shrink(options, shrink)
    except ConfigurationError as error:
        raise typer.BadParameter(str(error)) from None
    except OSError as error:
        raise fail(error) from None
    if code:
        raise typer.Exit(code)


_KEY_HELP = "A key file that `keygen` made; - reads the key from stdin."


@app.command(
    "run",
    short_help="Run a node that tells what happens.",
    epilog="""Examples:

\b
  iroh-gossip-discovery run alice
  iroh-gossip-discovery run bob igd1… --metadata role=cache --metadata zone=eu
  iroh-gossip-discovery run seed --state-dir ~/.seed --bind 0.0.0.0:4433
  iroh-gossip-discovery run watcher igd1… --json | jq -r 'select(.event == "PeerLost").peer.name'

Exit code: 0 after SIGINT, SIGTERM, SIGHUP or if the reader of its output is gone; 1 if it can't
start; 2 for a wrong call; 130 if a second SIGINT cut the goodbye short.""",
)
# long: a parameter for each option.
def run(  # noqa: PLR0913  # all but one have a default
    name: Annotated[str, typer.Argument(metavar="NAME", help="A label to show, 1 to 64 bytes.")],
    bootstrap: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TICKET",
            help="The peers to dial first: tickets, ID@HOST:PORT, or ids for a lookup.",
        ),
    ] = None,
    *,
    topic: Annotated[
        str, typer.Option(help="Nodes of one topic find each other; a ticket is for one.")
    ] = DEFAULT_TOPIC,
    metadata: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Text that others see; may be repeated."),
    ] = None,
    serve: Annotated[
        list[str] | None,
        typer.Option(metavar="PROTOCOL", help="A protocol to announce; may be repeated."),
    ] = None,
    preset: Annotated[
        Preset, typer.Option(help="This machine only; networks that reach each other; any.")
    ] = Preset.lan,
    bind: Annotated[
        list[str] | None,
        typer.Option(metavar="IP:PORT", help="A UDP address to bind, once each for IPv4 and IPv6."),
    ] = None,
    state_dir: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Keeps key and sequence numbers over a restart."),
    ] = None,
    key: Annotated[Path | None, typer.Option(metavar="FILE", help=_KEY_HELP)] = None,
    secret_file: Annotated[Path | None, SECRET_FILE] = None,
    issuer: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ID", help="Whose invitations let nodes into the swarm; may be repeated."
        ),
    ] = None,
    invitation: Annotated[
        str | None, typer.Option(metavar="TEXT", help="What `invite` printed for this node's id.")
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="Deal with this peer and no others; may be repeated."),
    ] = None,
    deny: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="Keep this peer out; may be repeated."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print each event as one line with a JSON object.")
    ] = False,
    verbose: Annotated[
        int,
        typer.Option("--verbose", "-v", count=True, help="Log to stderr; twice for more of it."),
    ] = 0,
) -> None:
    """Run a node that prints what happens in its topic, until Ctrl-C or SIGTERM.

    It says who it is and gives a ticket, with which others join. On a signal it says goodbye.
    docs/command-line.md describes the lines of --json.
    """
    from iroh_gossip_discovery._cli._run import (  # noqa: PLC0415  # rich waits until here
        JsonLines,
        Lines,
        run_node,
    )

    level = {0: logging.WARNING, 1: logging.INFO}.get(verbose, logging.DEBUG)
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    secret_key = None if key is None else _read_key(key)
    try:
        secret = _secrets.find(secret_file)
    except _keys.KeyFileError as error:
        raise fail(error) from None
    try:
        config = getattr(Config, preset.value)(**({"bind": bind} if bind else {}))
        discovery = GossipDiscovery(
            name,
            topic,
            bootstrap=bootstrap or [],
            metadata=_metadata(metadata or []),
            protocols=serve or [],
            secret_key=secret_key,
            secret=secret,
            issuer=issuer or None,
            invitation=invitation,
            allow=allow or None,
            deny=deny or [],
            state_dir=state_dir,
            config=config,
        )
    except ConfigurationError as error:
        raise refuse(error) from None
    try:
        out = JsonLines() if as_json else Lines()
        asyncio.run(run_node(discovery, out, asks=bool(bootstrap)))
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    except (DiscoveryError, OSError) as error:
        raise fail(error) from None


@app.command(
    short_help="Make a ticket, or read one.",
    epilog="""Examples:

\b
  iroh-gossip-discovery ticket --key seed.key --address 203.0.113.7:4433
  iroh-gossip-discovery ticket --show igd1…
  iroh-gossip-discovery ticket --id 99bd65aaf4… --topic robots --address 192.0.2.1:4433

Exit code: 0 if the ticket was printed, 1 if the key file can't be used, 2 for a wrong call.""",
)
def ticket(
    *,
    address: Annotated[
        list[str] | None,
        typer.Option(
            metavar="IP:PORT", help="Where the node can be dialed, or a relay's URL; 1 to 8."
        ),
    ] = None,
    key: Annotated[Path | None, typer.Option(metavar="FILE", help=_KEY_HELP)] = None,
    node_id: Annotated[
        str | None, typer.Option("--id", metavar="ID", help="The node's id, in place of its key.")
    ] = None,
    topic: Annotated[str, typer.Option(help="The topic that it is for.")] = DEFAULT_TOPIC,
    show: Annotated[
        str | None,
        typer.Option("--show", metavar="TICKET", help="Make none: say what is in this one."),
    ] = None,
) -> None:
    """Make a ticket for a node that need not run yet, or read one, without any network.

    So the tickets of seeds can be handed out before the seeds start, with the keys that `keygen`
    made and the addresses that they will bind.
    """
    from iroh_gossip_discovery._core import endpoint_id, make_ticket  # noqa: PLC0415

    if show is not None:
        if address or key or node_id:
            raise typer.BadParameter("--show goes without --address, --key and --id")
        return _show_ticket(show, topic)
    if not address:
        raise typer.BadParameter("Missing option '--address'")
    if (key is None) == (node_id is None):
        raise typer.BadParameter("give either --key or --id")
    if len(address) > _MOST_ADDRESSES:
        raise typer.BadParameter(
            f"a ticket holds at most {_MOST_ADDRESSES} addresses, not {len(address)}",
            param_hint="'--address'",
        )
    if key is not None:
        node_id = endpoint_id(_read_key(key))
    try:
        typer.echo(make_ticket(node_id or "", topic, address))
    except ConfigurationError as error:
        raise refuse(error) from None


@app.command(
    short_help="Make a secret key in a file.",
    epilog="""Examples:

\b
  iroh-gossip-discovery keygen seed.key           # then: run seed --key seed.key
  iroh-gossip-discovery keygen --show seed.key    # the id again
  mkdir -m 700 ~/.seed && iroh-gossip-discovery keygen ~/.seed/secret.key    # for --state-dir
  iroh-gossip-discovery keygen --swarm fleet.secret    # then: run seed --secret-file fleet.secret
  iroh-gossip-discovery keygen --issuer fleet.issuer   # then: invite --issuer fleet.issuer …

Exit code: 0 if the id was printed, or the key of a swarm was made; 1 if the file can't be used; 2
for a wrong call.""",
)
def keygen(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE", help="The key file; it is never overwritten. With --swarm optional."
        ),
    ] = None,
    *,
    show: Annotated[
        bool, typer.Option("--show", help="Make none: print the id of a key that exists.")
    ] = False,
    swarm: Annotated[
        bool,
        typer.Option("--swarm", help="Make a key of a private swarm; print it without a FILE."),
    ] = False,
    issuer: Annotated[
        bool,
        typer.Option("--issuer", help="Make the key of an issuer, who invites nodes to a swarm."),
    ] = False,
) -> None:
    """Make a secret key in a file that only you may read, and print the id that belongs to it."""
    if swarm:
        if show or issuer:
            raise typer.BadParameter("--swarm goes without --show and --issuer")
        _make_swarm_key(file)
        return
    if file is None:
        raise typer.BadParameter("it is missing", param_hint="'FILE'")
    try:
        key_id = _issuer_id(file, show=show) if issuer else _node_id(file, show=show)
    except _keys.KeyFileError as error:
        raise fail(error) from None
    try:
        typer.echo(key_id)
        sys.stdout.flush()
    except OSError as error:
        if not show:
            file.unlink()  # its id was never shown, so another call makes a new key
        raise fail(f"the id can't be printed: {error.strerror}") from None


def _node_id(file: Path, *, show: bool) -> str:
    from iroh_gossip_discovery._core import endpoint_id  # noqa: PLC0415  # as above

    return endpoint_id(_keys.read(file) if show else _keys.create(file))


def _issuer_id(file: Path, *, show: bool) -> str:
    if show:
        return _invitations.read_issuer(file).id
    issuer = Issuer.generate()
    _keys.write(file, issuer.key())
    return issuer.id


_ISSUER = typer.Option(metavar="FILE", help="The key of keygen --issuer; - reads stdin.")
_FOR_TOPIC = typer.Argument(metavar="TOPIC", help="The topic that it is for.")
_FOR_ID = typer.Argument(metavar="ID", help="The id of the node.")


def _until(value: str) -> str:
    try:
        _invitations.seconds(value)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    return value


_UNTIL = typer.Option(
    metavar="TIME", callback=_until, help="How long it holds: 90m, 12h, 30d, 4w; at most 366d."
)


@app.command(
    short_help="Invite a node to a swarm.",
    epilog="""Examples:

\b
  iroh-gossip-discovery keygen --issuer fleet.issuer     # prints the issuer's id
  iroh-gossip-discovery invite --issuer fleet.issuer --until 30d fleet 99bd65aaf4…
  iroh-gossip-discovery run alice --key alice.key --issuer 5c1e… --invitation igdi1…

Exit code: 0 if it was printed, 1 if the key can't be used, 2 for a wrong call.""",
)
def invite(
    topic: Annotated[str, _FOR_TOPIC],
    member: Annotated[str, _FOR_ID],
    *,
    issuer: Annotated[Path, _ISSUER],
    until: Annotated[str, _UNTIL] = "30d",
) -> None:
    """Sign that the node of an id may be a member of a topic, and print the invitation.

    It is of no use to another node, so it need not be kept secret.
    """
    try:
        signer = _invitations.read_issuer(issuer)
        typer.echo(signer.invite(topic, member, duration=_invitations.seconds(until)))
    except _keys.KeyFileError as error:
        raise fail(error) from None
    except ConfigurationError as error:
        raise refuse(error, topic="TOPIC") from None


@app.command(
    short_help="Take the invitations of a node back.",
    epilog="""Examples:

\b
  iroh-gossip-discovery revoke --issuer fleet.issuer fleet 99bd65aaf4…
  iroh-gossip-discovery revoke --issuer fleet.issuer --to igd1… fleet 99bd65aaf4…

Exit code: 0 if it was printed, and with --to a member has it; 1 if not; 2 for a wrong call.""",
)
def revoke(  # noqa: PLR0913  # all but three have a default
    topic: Annotated[str, _FOR_TOPIC],
    member: Annotated[str, _FOR_ID],
    *,
    issuer: Annotated[Path, _ISSUER],
    until: Annotated[str, _UNTIL] = "366d",
    to: Annotated[
        str | None,
        typer.Option(metavar="TICKET", help="A member to give it to, who spreads it to all."),
    ] = None,
    preset: Annotated[
        Preset,
        typer.Option(help="For --to: this machine only; networks that reach each other; any."),
    ] = Preset.lan,
) -> None:
    """Sign that an id is kept out of a topic, print the revocation, and give it to a member.

    Without --to, a member is given it by `await discovery.revoke(…)`.
    """
    try:
        signer = _invitations.read_issuer(issuer)
        revocation = signer.revoke(topic, member, duration=_invitations.seconds(until))
        if to is not None:
            _invitations.give(to, topic, signer, revocation, preset.value)
        typer.echo(revocation)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    except _keys.KeyFileError as error:
        raise fail(error) from None
    except ConfigurationError as error:
        raise refuse(error, topic="TOPIC") from None
    except (DiscoveryError, OSError) as error:
        raise fail(error) from None


def _show_ticket(text: str, topic: str) -> None:
    try:
        parsed = parse_ticket(text)
        is_for = parsed.is_for(topic)
    except ConfigurationError as error:
        raise refuse(error) from None
    name = printable(topic) if is_for else f"not {printable(topic)!r}; --topic tries another name"
    typer.echo(f"id:      {parsed.id}\ntopic:   {parsed.topic_id} ({name})")
    for address in parsed.addresses:
        typer.echo(f"address: {address}")


def _make_swarm_key(file: Path | None) -> None:
    from iroh_gossip_discovery._core import generate_swarm_key  # noqa: PLC0415  # as above

    key = generate_swarm_key()
    if file is None:
        typer.echo(key)
        return
    try:
        _keys.write(file, key)
    except _keys.KeyFileError as error:
        raise fail(error) from None


def _metadata(pairs: list[str]) -> dict[str, str]:
    metadata: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise typer.BadParameter(f"{pair!r} is not KEY=VALUE", param_hint="'--metadata'")
        if key in metadata:
            raise typer.BadParameter(f"{key!r} is given twice", param_hint="'--metadata'")
        metadata[key] = value
    return metadata


def _read_key(path: Path) -> bytes:
    try:
        return _keys.read(path)
    except _keys.KeyFileError as error:
        raise fail(error) from None


app.add_typer(talk)
