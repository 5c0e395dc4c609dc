"""Commands that visit a topic for a moment: they list its members, or send something to them."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from iroh_gossip_discovery import GossipDiscovery, Peer, PeersTimeoutError, Snapshot
from iroh_gossip_discovery._cli._console import PipeConsole
from iroh_gossip_discovery._printable import printable

if TYPE_CHECKING:
    from collections.abc import Callable

# Seconds without a change after which the book is taken to be complete.
_QUIET = 0.3
# Seconds from a broadcast to the goodbye. Members drop the broadcasts of a node that has left, and
# a goodbye may overtake one.
_SPREAD = 0.5


class VisitError(Exception):
    """The visit did not reach what it was for; the text says why."""


@asynccontextmanager
async def _visited(
    discovery: GossipDiscovery,
    timeout: float,  # noqa: ASYNC109  # of each step
) -> AsyncIterator[Snapshot]:
    """Join, wait for the book, and leave at the end."""
    async with discovery:
        try:
            joined = await discovery.joined(timeout=timeout)
            if not joined:
                raise VisitError(printable(str(joined)) + _about_secrets(discovery))
            yield await discovery.settled(quiet=_QUIET, timeout=timeout)
        except PeersTimeoutError as error:
            raise VisitError(str(error)) from None


def _about_secrets(discovery: GossipDiscovery) -> str:
    """Return what to do if the swarm is private, and this node is no member."""
    what = [
        problem.what
        for problem in discovery.problems()
        if problem.source in {"secret", "invitations"}
    ]
    return f"; {printable(what[0])}: give it by --secret-file or --issuer-key" if what else ""


async def members(
    discovery: GossipDiscovery,
    timeout: float,  # noqa: ASYNC109  # of each step
    *,
    as_json: bool,
) -> None:
    """Show who is in the topic, without the node that visits it."""
    async with _visited(discovery, timeout) as book:
        paths = {peer: _path(discovery, peer) for peer in book}
    if as_json:
        sys.stdout.write(json.dumps(book.to_dict()) + "\n")
        return
    console = PipeConsole(markup=False, highlight=False, emoji=False)
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for title in ("name", "id", "address", "path", "says"):
        table.add_column(title, overflow="fold", no_wrap=title == "id")
    for peer in sorted(book.values(), key=lambda peer: (peer.name, peer.id)):
        metadata = [f"{key}={value}" for key, value in sorted(peer.metadata.items())]
        readiness = [] if peer.readiness == "ready" else [peer.readiness]
        serves = [f"serves {protocol}" for protocol in peer.protocols]
        says = ", ".join([*readiness, *metadata, *serves])
        cells = (peer.name, peer.fingerprint, next(iter(peer.addresses), ""), paths[peer.id], says)
        table.add_row(*(Text(printable(cell)) for cell in cells))
    console.print(table)
    console.print(f"{len(book)} {'node' if len(book) == 1 else 'nodes'}")


def _path(discovery: GossipDiscovery, peer: str) -> str:
    """Return how a peer is reached from here: nothing without a link of this moment."""
    status = discovery.status(peer)
    if status is None or status.path is None or status.round_trip is None:
        return ""
    return f"{status.path}, {status.round_trip * 1000:.1f} ms"


async def send(
    discovery: GossipDiscovery,
    peer: str,
    data: bytes,
    *,
    channel: str | None,
    timeout: float,  # noqa: ASYNC109  # of each step
) -> None:
    """Send a message to one node, and say that it has it."""
    async with _visited(discovery, timeout) as book:
        chosen = _chosen(book, peer)
        receipt = await discovery.send(chosen, data, channel=channel, timeout=timeout)
    sys.stdout.write(f"{receipt.peer[:10]} has it, after {receipt.elapsed * 1000:.1f} ms\n")


async def broadcast(
    discovery: GossipDiscovery,
    data: bytes,
    *,
    channel: str | None,
    timeout: float,  # noqa: ASYNC109  # of each step
) -> None:
    """Send a message to all nodes."""
    async with _visited(discovery, timeout) as book:
        await discovery.broadcast(data, channel=channel)
        await asyncio.sleep(_SPREAD)
    count = len(book)
    sys.stdout.write(f"on its way to {count} {'node' if count == 1 else 'nodes'}\n")


async def request(
    discovery: GossipDiscovery,
    peer: str,
    name: str,
    data: bytes,
    *,
    timeout: float,  # noqa: ASYNC109  # of each step
) -> None:
    """Ask one node for something, and write its reply to stdout as it is."""
    async with _visited(discovery, timeout) as book:
        reply = await discovery.request(_chosen(book, peer), name, data, timeout=timeout)
    sys.stdout.buffer.write(reply)
    sys.stdout.flush()


def _chosen(book: Snapshot, which: str) -> Peer:
    """Return the node of an id, of the beginning of one, or of a name.

    Raises:
        VisitError: There is none, or more than one.
    """
    ways: tuple[Callable[[Peer], bool], ...] = (
        lambda peer: peer.id == which,
        lambda peer: peer.name == which,
        lambda peer: peer.id.startswith(which),
    )
    for way in ways:
        found = [peer for peer in book.values() if way(peer)]
        if len(found) > 1:
            ids = ", ".join(peer.fingerprint for peer in found)
            raise VisitError(f"{which!r} may be any of {ids}: give the id")
        if found:
            return found[0]
    names = ", ".join(sorted({printable(peer.name) for peer in book.values()})[:10])
    raise VisitError(f"no node has the name or id {which!r}; there are {names or 'none'}")
