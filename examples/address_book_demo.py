"""Watch an address book change: `address_book_demo.py NAME [TICKET or ID …]`.

Start `alice` in one terminal, `bob` and `charlie` in two others with the ticket that alice prints.
Ctrl-C says goodbye. The Rust example of this name speaks the same topic: mix them as you like.
What a node shows of others is what they say of themselves: an id is proven, a name is not.
"""

import asyncio
import contextlib
import sys
import time

from iroh_gossip_discovery import (
    DiscoveryError,
    Event,
    EventsLost,
    GossipDiscovery,
    IdentityConflict,
    Isolated,
    PeerJoined,
    PeerLeft,
    PeerLost,
    PeerRecovered,
    PeerSuspected,
    PeerUpdated,
    Reconnected,
    StateDamaged,
)


async def main(name: str, *bootstrap: str) -> None:
    async with GossipDiscovery(name, topic="address-book-demo", bootstrap=bootstrap) as discovery:
        print(f"{name} is {discovery.id}")
        print(f"to join, in other terminals: address_book_demo.py bob {discovery.ticket}")
        with discovery.stop_on_signals():
            events = discovery.events()
            show(discovery, "started")
            async for event in events:
                show(discovery, describe(event))


def describe(event: Event) -> str:  # noqa: C901, PLR0911  # one line for each kind
    """Say in a line what happened."""
    match event:
        case PeerJoined(peer):
            return f"+ {peer.name} joined"
        case PeerUpdated(peer):
            return f"~ {peer.name} changed"
        case PeerLeft(peer):
            return f"- {peer.name} left"
        case PeerSuspected(peer):
            return f"? {peer.name} does not answer"
        case PeerRecovered(peer):
            return f"! {peer.name} answers again"
        case PeerLost(peer, reason):
            return f"- {peer.name} was lost: {reason}"
        case Isolated():
            return "! nobody is linked any more"
        case Reconnected():
            return "! linked again"
        case IdentityConflict():
            return "! another process has this node's key"
        case StateDamaged(reason):
            return f"! the state directory: {reason}"
        case EventsLost(count):
            return f"{count} events were lost, the book has all that holds"


def show(discovery: GossipDiscovery, change: str) -> None:
    """Print what changed, and the book as it is now."""
    peers = sorted(discovery.book.values(), key=lambda peer: (peer.name, peer.id))
    print(f"{time.strftime('%H:%M:%S')} {change}; {discovery.name} knows {len(peers)}")
    for peer in peers:
        print(f"    {peer.name:<12} {peer.fingerprint}  {', '.join(peer.addresses)}")


if __name__ == "__main__":
    try:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(main(*sys.argv[1:]) if sys.argv[1:] else sys.exit(__doc__))
    except DiscoveryError as error:
        sys.exit(f"error: {error}")
