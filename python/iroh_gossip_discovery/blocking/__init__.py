"""The same discovery for code without asyncio: scripts, Flask, Celery, threads.

Example:
    ```python
    with GossipDiscovery("alice", topic="fleet") as discovery:
        print(discovery.id, discovery.ticket)
        for peer in discovery.peers(timeout=0.5):
            print(peer.name, peer.addresses)
    ```
"""

from iroh_gossip_discovery.blocking._callbacks import Registration
from iroh_gossip_discovery.blocking._discovery import GossipDiscovery
from iroh_gossip_discovery.blocking._iterators import (
    EventStream,
    MessageStream,
    OwnershipStream,
    PeerStream,
    Stream,
)
from iroh_gossip_discovery.blocking._streams import Service, StreamReader, StreamWriter
from iroh_gossip_discovery.blocking._views import View

__all__ = [
    "EventStream",
    "GossipDiscovery",
    "MessageStream",
    "OwnershipStream",
    "PeerStream",
    "Registration",
    "Service",
    "Stream",
    "StreamReader",
    "StreamWriter",
    "View",
]


def __dir__() -> list[str]:
    return list(__all__)
