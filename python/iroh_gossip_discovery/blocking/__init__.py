"""The same discovery for code without asyncio: scripts, Flask, Celery, threads.

Example:
    ```python
    with GossipDiscovery("alice", topic="fleet") as discovery:
        print(discovery.id, discovery.ticket)
        for peer in discovery.peers(timeout=0.5):
            print(peer.name, peer.addresses)
    ```
"""

from iroh_gossip_discovery._signals import BlockingStopOnSignals as StopOnSignals
from iroh_gossip_discovery.blocking._callbacks import Registration
from iroh_gossip_discovery.blocking._discovery import GossipDiscovery
from iroh_gossip_discovery.blocking._iterators import (
    ChangeStream,
    EventStream,
    LeaderStream,
    MessageStream,
    OwnershipStream,
    PeerStream,
    Stream,
)
from iroh_gossip_discovery.blocking._requests import Answer
from iroh_gossip_discovery.blocking._streams import Service, StreamReader, StreamWriter
from iroh_gossip_discovery.blocking._views import View

__all__ = [
    "Answer",
    "ChangeStream",
    "EventStream",
    "GossipDiscovery",
    "LeaderStream",
    "MessageStream",
    "OwnershipStream",
    "PeerStream",
    "Registration",
    "Service",
    "StopOnSignals",
    "Stream",
    "StreamReader",
    "StreamWriter",
    "View",
]


def __dir__() -> list[str]:
    return list(__all__)
