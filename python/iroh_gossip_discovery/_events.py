"""What happens in a topic, as one union: `match` on it, or give it to `isinstance`."""

from typing import Literal, TypeAlias

from iroh_gossip_discovery._core import (
    EventsLost,
    Isolated,
    PeerJoined,
    PeerLeft,
    PeerLost,
    PeerUpdated,
    Reconnected,
)

Event: TypeAlias = (
    PeerJoined | PeerUpdated | PeerLeft | PeerLost | Isolated | Reconnected | EventsLost
)
"""Anything that `GossipDiscovery.events` yields."""

LostReason: TypeAlias = Literal["expired"]
"""Why a peer was lost: `"expired"`, its record was not refreshed for as long as it announced."""
