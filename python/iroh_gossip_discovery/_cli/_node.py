"""A node as a process of its own, driven over a private pipe: a line of JSON for each message.

The first line on stdin is a `NodeSpec`; each one after it is a `Request`. Every line on stdout is a
`Message`. The end of stdin, which also comes when the parent dies, makes the node leave and exit.
"""

import asyncio
import json
import signal
import sys
import time
from dataclasses import fields
from typing import Literal, NotRequired, TypedDict

from iroh_gossip_discovery import (
    Config,
    DiscoveryError,
    Event,
    EventsLost,
    GossipDiscovery,
    IdentityConflict,
    Isolated,
    Peer,
    PeerLost,
    Reconnected,
    StateDamaged,
)
from iroh_gossip_discovery._config import ConfigFields

_LINE = 16 * 1024 * 1024  # a reply with a full book of 10,000 peers fits


class NodeSpec(TypedDict):
    """The arguments of a node process; `config` overrides fields of the preset."""

    name: str
    topic: str
    bootstrap: NotRequired[list[str]]
    metadata: NotRequired[dict[str, str]]
    state_dir: NotRequired[str]
    preset: NotRequired[Literal["local", "lan"]]  # default local
    config: NotRequired[ConfigFields]


class Request(TypedDict):
    """A request of the parent; the node answers it by one message with the same number."""

    number: int
    op: Literal["book", "state", "update", "leave"]
    metadata: NotRequired[dict[str, str | None]]


class PeerEntry(TypedDict):
    """A peer in a message."""

    id: str
    name: str
    sequence: int
    boot_id: NotRequired[int]
    metadata: dict[str, str]


class Message(TypedDict):
    """A message of a node; `at` is the monotonic clock in seconds, which processes share."""

    kind: Literal["ready", "event", "reply", "error"]
    at: float
    number: NotRequired[int]
    id: NotRequired[str]
    ticket: NotRequired[str]
    event: NotRequired[str]
    reason: NotRequired[str]
    boot_id: NotRequired[int]
    peer: NotRequired[PeerEntry]
    me: NotRequired[PeerEntry]
    addresses: NotRequired[list[str]]
    metrics: NotRequired[dict[str, int]]
    book: NotRequired[list[PeerEntry]]
    text: NotRequired[str]


def entry(peer: Peer) -> PeerEntry:
    """Return a peer in the form of a message."""
    return {
        "id": peer.id,
        "name": peer.name,
        "sequence": peer.sequence,
        "boot_id": peer.boot_id,
        "metadata": dict(peer.metadata),
    }


def _tell(message: Message) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def _event_message(event: Event, discovery: GossipDiscovery) -> Message:
    message: Message = {"kind": "event", "at": time.monotonic(), "event": type(event).__name__}
    match event:
        case EventsLost():
            message["book"] = [entry(peer) for peer in discovery.book.values()]
        case Isolated() | Reconnected():
            pass
        case IdentityConflict(boot_id):
            message["boot_id"] = boot_id
        case StateDamaged(reason):
            message["reason"] = reason
        case PeerLost(peer, reason):
            message["peer"], message["reason"] = entry(peer), reason
        case _:
            message["peer"] = entry(event.peer)
    return message


async def _tell_events(discovery: GossipDiscovery) -> None:
    async with discovery.events() as events:
        _tell(
            {
                "kind": "ready",
                "at": time.monotonic(),
                "id": discovery.id,
                "ticket": discovery.ticket,
                "me": entry(discovery.me),
                "book": [entry(peer) for peer in discovery.book.values()],
            }
        )
        async for event in events:
            _tell(_event_message(event, discovery))


async def _answer(discovery: GossipDiscovery, request: Request) -> None:
    reply: Message = {"kind": "reply", "number": request["number"], "at": 0.0}
    match request["op"]:
        case "book":
            reply["book"] = [entry(peer) for peer in discovery.book.values()]
        case "state":
            me = discovery.me
            reply["me"], reply["addresses"] = entry(me), list(me.addresses)
            metrics = discovery.metrics()
            numbers = ((field.name, getattr(metrics, field.name)) for field in fields(metrics))
            reply["metrics"] = {name: n for name, n in numbers if isinstance(n, int)}
            reply["book"] = [entry(peer) for peer in discovery.book.values()]
        case "update":
            await discovery.update_metadata(**request.get("metadata", {}))
        case "leave":
            await discovery.leave()
    reply["at"] = time.monotonic()
    _tell(reply)


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=_LINE)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    # The parent decides when to end. It may have got the same signal, and closes the pipe then.
    loop.add_signal_handler(signal.SIGINT, lambda: None)
    loop.add_signal_handler(signal.SIGTERM, reader.feed_eof)
    spec: NodeSpec = json.loads(await reader.readline())
    preset = Config.lan if spec.get("preset") == "lan" else Config.local
    discovery = GossipDiscovery(
        spec["name"],
        spec["topic"],
        bootstrap=spec.get("bootstrap", []),
        metadata=spec.get("metadata"),
        state_dir=spec.get("state_dir"),
        config=preset(**spec.get("config", {})),
    )
    async with discovery:
        telling = asyncio.create_task(_tell_events(discovery))
        while line := await reader.readline():
            await _answer(discovery, json.loads(line))
    await telling


def main() -> None:
    """Run until stdin ends; tell an error of this package in one line, and exit with 1."""
    try:
        asyncio.run(_serve())
    except BrokenPipeError:
        sys.exit(1)
    except (DiscoveryError, TypeError) as error:
        _tell({"kind": "error", "at": time.monotonic(), "text": str(error)})
        sys.exit(1)


if __name__ == "__main__":
    main()
