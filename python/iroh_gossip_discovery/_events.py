"""The events of a topic, as one union: `match` on it, or give it to `isinstance`."""

from typing import Literal, TypeAlias

from iroh_gossip_discovery._core import (
    EventsLost,
    IdentityConflict,
    Isolated,
    Message,
    MessagesLost,
    PeerJoined,
    PeerLeft,
    PeerLost,
    PeerRecovered,
    PeerSuspected,
    PeerUpdated,
    Reconnected,
    StateDamaged,
)

Event: TypeAlias = (
    PeerJoined
    | PeerUpdated
    | PeerSuspected
    | PeerRecovered
    | PeerLeft
    | PeerLost
    | Isolated
    | Reconnected
    | IdentityConflict
    | StateDamaged
    | EventsLost
)
"""Anything that `GossipDiscovery.events` yields."""

Heard: TypeAlias = Event | Message | MessagesLost
"""Anything that a callback may be registered for."""

LostReason: TypeAlias = Literal["unreachable", "expired", "denied", "displaced"]
"""Why a peer was lost: `"unreachable"`, it answered no probe and did not refute the suspicion in
time; `"expired"`, its record was not refreshed for as long as it announced; `"denied"`, the lists
of this node keep it out; `"displaced"`, the book was full, and this node had never reached it."""
