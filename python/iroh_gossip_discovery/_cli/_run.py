"""A node that prints what happens in its topic: in lines for people, or as JSON for programs."""

import asyncio
import json
import os
import signal
import sys
import time
from contextlib import suppress

from rich.console import Console
from rich.text import Text

from iroh_gossip_discovery import (
    Event,
    EventsLost,
    GossipDiscovery,
    GossipDiscoveryReceiver,
    IdentityConflict,
    Isolated,
    Peer,
    PeerJoined,
    PeerLeft,
    PeerLost,
    PeerRecovered,
    PeerSuspected,
    PeerUpdated,
    Reconnected,
    StateDamaged,
)
from iroh_gossip_discovery._printable import printable

_PHRASES: dict[type[Event], tuple[str, str]] = {
    PeerJoined: ("green", "+ {peer} joined"),
    PeerUpdated: ("", "~ {peer} changed"),
    PeerSuspected: ("yellow", "? {peer} is suspected: it does not answer"),
    PeerRecovered: ("green", "? {peer} is there after all"),
    PeerLeft: ("yellow", "- {peer} left"),
    PeerLost: ("red", "- {peer} was lost: {reason}"),
    Isolated: ("red", "! no link to any member is left"),
    Reconnected: ("green", "! linked again"),
    IdentityConflict: ("red", "! another process announces with this node's key"),
    StateDamaged: ("red", "! {reason}"),
    EventsLost: ("red", "! {count} events were not shown"),
}
_SIGNALS = tuple(
    signal.Signals[name] for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
_ALONE = 6.0
"""Seconds after which a node without an answer says so: longer than a dial takes."""


class _Console(Console):
    """A console that lets its user decide what to do when its reader has gone."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


class Lines:
    """Prints lines for people."""

    def __init__(self) -> None:
        # One line for each event, however narrow the terminal is, and no markup in a peer's text.
        self._console = _Console(soft_wrap=True, markup=False, highlight=False, emoji=False)

    def started(self, discovery: GossipDiscovery) -> None:
        """Print this node's id, and how to join it."""
        me = discovery.me
        self._say("bold", f"{printable(me.name)} is {me.id}")
        self._say("", f"topic {printable(discovery.topic)}; at {', '.join(me.addresses)}")
        self._say("", f"ticket: {discovery.ticket}")

    def happened(self, discovery: GossipDiscovery, event: Event) -> None:
        """Print an event, with the number of peers after it."""
        style, text = self._describe(event)
        count = len(discovery.book)
        self._say(style, f"{text}; {count} {'peer' if count == 1 else 'peers'}")

    def alone(self, discovery: GossipDiscovery, *, asks: bool) -> None:
        """Print that no peer has answered yet, and what may be the reason."""
        failed = discovery.metrics().dials_failed
        if asks:
            self._say("yellow", f"! no answer yet, dials that failed: {failed}; it goes on trying")
        for problem in discovery.problems():
            self._say("yellow", printable(f"! {problem.source}: {problem.what}"))

    def stopped(self) -> None:
        """Tell that the node has left."""
        self._say("", "left")

    def _describe(self, event: Event) -> tuple[str, str]:
        style, text = _PHRASES[type(event)]
        fields: dict[str, object] = {
            field: getattr(event, field) for field in type(event).__match_args__
        }
        peer = fields.get("peer")
        if isinstance(peer, Peer):
            fields["peer"] = self._peer(peer)
        return style, text.format(**fields)

    def _peer(self, peer: Peer) -> str:
        parts = [printable(peer.name), peer.fingerprint, *peer.addresses[:1]]
        parts += [] if peer.readiness == "ready" else [peer.readiness]
        parts += [
            f"{printable(key)}={printable(value)}" for key, value in sorted(peer.metadata.items())
        ]
        parts += [f"serves {printable(protocol)}" for protocol in peer.protocols]
        return " ".join(parts)

    def _say(self, style: str, text: str) -> None:
        line = Text(f"{time.strftime('%H:%M:%S')}  ").append(text, style=style)
        self._console.print(line)
        self._console.file.flush()


class JsonLines:
    """Prints lines of JSON, one object each."""

    def started(self, discovery: GossipDiscovery) -> None:
        """Print this node's id, and how to join it."""
        fields: dict[str, object] = {"event": "Started", "topic": discovery.topic}
        self._say(fields | {"ticket": discovery.ticket, "peer": discovery.me.to_dict()})

    def happened(self, discovery: GossipDiscovery, event: Event) -> None:
        """Tell an event; after a loss, the book comes with it, which is what holds."""
        fields = event.to_dict()
        if isinstance(event, EventsLost):
            fields["book"] = [peer.to_dict() for peer in discovery.book.values()]
        self._say(fields)

    def alone(self, discovery: GossipDiscovery, *, asks: bool) -> None:
        """Tell nothing: that no peer has joined is in the lines."""

    def stopped(self) -> None:
        """Tell that the node has left."""
        self._say({"event": "Stopped"})

    def _say(self, fields: dict[str, object]) -> None:
        sys.stdout.write(json.dumps({"at": time.time()} | fields) + "\n")
        sys.stdout.flush()


async def run_node(
    discovery: GossipDiscovery, out: Lines | JsonLines, *, asks: bool = False
) -> None:
    """Run a node until a signal comes, or the reader of its output is gone; then say goodbye.

    Args:
        discovery: The node, not started.
        out: What prints its events.
        asks: Whether it was given peers to ask, whose silence is worth a line.

    Raises:
        DiscoveryError: It can't start.
    """
    loop = asyncio.get_running_loop()
    telling = asyncio.current_task()
    stopping = False

    def stop() -> None:
        nonlocal stopping
        stopping = True
        for number in heeded:  # a second one does not wait for the goodbye
            loop.remove_signal_handler(number)
        if telling is not None:
            telling.cancel()

    # `nohup` has a node go on without its terminal: it ignores SIGHUP.
    heeded = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    for number in heeded:
        loop.add_signal_handler(number, stop)
    try:
        async with discovery:
            await _tell(discovery, out, asks=asks)
    except asyncio.CancelledError:
        if not stopping:
            raise
        if telling is not None:
            telling.uncancel()
        await discovery.close()
    except BrokenPipeError:  # who reads has heard enough
        _discard_stdout()
        return
    with suppress(OSError):  # its reader, or its terminal, is gone
        out.stopped()


async def _tell(discovery: GossipDiscovery, out: Lines | JsonLines, *, asks: bool) -> None:
    def look() -> None:
        if not discovery.book:
            with suppress(BrokenPipeError):  # the next event meets it too
                out.alone(discovery, asks=asks)

    out.started(discovery)
    looking = asyncio.get_running_loop().call_later(_ALONE, look)
    try:
        async for event in GossipDiscoveryReceiver(discovery):
            out.happened(discovery, event)
    finally:
        looking.cancel()


def _discard_stdout() -> None:
    """Discard what is written at exit, because the reader of the pipe is gone."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
