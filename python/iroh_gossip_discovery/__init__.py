"""Every node of an application finds, authenticates and reaches every other node.

Example:
    ```python
    async with GossipDiscovery("alice", topic="fleet") as discovery:
        async for peer in discovery.peers():
            print(peer.name, peer.id, peer.addresses)
    ```
"""

from iroh_gossip_discovery import _early_signal as _early_signal  # isort: split

from typing import TYPE_CHECKING

from iroh_gossip_discovery import _interpreter as _interpreter
from iroh_gossip_discovery._admission import Admit, Newcomer
from iroh_gossip_discovery._book import Book
from iroh_gossip_discovery._bootstrap import BootstrapPeer, BootstrapSource, Lookup
from iroh_gossip_discovery._builder import (
    GossipDiscoveryBuilder,
    GossipDiscoveryReceiver,
    GossipDiscoverySender,
)
from iroh_gossip_discovery._callbacks import Registration
from iroh_gossip_discovery._changes import ChangeStream, ViewChange
from iroh_gossip_discovery._config import Config, ConfigFields
from iroh_gossip_discovery._core import (
    DiscoveryError,
    EventsLost,
    IdentityConflict,
    Isolated,
    Issuer,
    Message,
    MessagesLost,
    Peer,
    PeerJoined,
    PeerLeft,
    PeerLost,
    PeerRecovered,
    PeerSuspected,
    PeerUpdated,
    Receipt,
    Reconnected,
    StateDamaged,
    __version__,
    endpoint_id,
    make_ticket,
)
from iroh_gossip_discovery._discovery import GossipDiscovery
from iroh_gossip_discovery._errors import (
    BindError,
    ConfigurationError,
    MessageTooLargeError,
    NobodyError,
    NoSubscriberError,
    NotAnsweredError,
    NotRunningError,
    PeersTimeoutError,
    PeerUnreachableError,
    ProtocolNotServedError,
    RequestFailedError,
    RequestTimeoutError,
    StateDirError,
    StreamResetError,
    TooManyStreamsError,
)
from iroh_gossip_discovery._events import Event, LostReason
from iroh_gossip_discovery._iterators import EventStream, MessageStream, PeerStream
from iroh_gossip_discovery._joined import Joined, JoinReason
from iroh_gossip_discovery._leader import Leadership, LeaderStream
from iroh_gossip_discovery._ownership import OwnershipChange, OwnershipStream
from iroh_gossip_discovery._problems import Problem
from iroh_gossip_discovery._requests import Answer, Request
from iroh_gossip_discovery._services import Service
from iroh_gossip_discovery._signals import StopOnSignals
from iroh_gossip_discovery._snapshot import Snapshot
from iroh_gossip_discovery._status import PeerStatus
from iroh_gossip_discovery._streams import StreamReader, StreamWriter
from iroh_gossip_discovery._ticket import Ticket, parse_ticket
from iroh_gossip_discovery._views import View

if TYPE_CHECKING:
    from iroh_gossip_discovery._metrics import Metrics
    from iroh_gossip_discovery._simulate import (
        SimulatedEvent,
        SimulatedFailure,
        SimulatedRates,
        SimulatedRecovery,
        SimulatedTraffic,
        Simulation,
        simulate,
    )
else:
    from iroh_gossip_discovery._lazy_imports import lazy_imports

    __getattr__, __dir__ = lazy_imports(
        __name__,
        {
            "Metrics": "_metrics",
            "SimulatedEvent": "_simulate",
            "SimulatedFailure": "_simulate",
            "SimulatedRates": "_simulate",
            "SimulatedRecovery": "_simulate",
            "SimulatedTraffic": "_simulate",
            "Simulation": "_simulate",
            "simulate": "_simulate",
        },
    )

__all__ = [
    "Admit",
    "Answer",
    "BindError",
    "Book",
    "BootstrapPeer",
    "BootstrapSource",
    "ChangeStream",
    "Config",
    "ConfigFields",
    "ConfigurationError",
    "DiscoveryError",
    "Event",
    "EventStream",
    "EventsLost",
    "GossipDiscovery",
    "GossipDiscoveryBuilder",
    "GossipDiscoveryReceiver",
    "GossipDiscoverySender",
    "IdentityConflict",
    "Isolated",
    "Issuer",
    "JoinReason",
    "Joined",
    "LeaderStream",
    "Leadership",
    "Lookup",
    "LostReason",
    "Message",
    "MessageStream",
    "MessageTooLargeError",
    "MessagesLost",
    "Metrics",
    "Newcomer",
    "NoSubscriberError",
    "NobodyError",
    "NotAnsweredError",
    "NotRunningError",
    "OwnershipChange",
    "OwnershipStream",
    "Peer",
    "PeerJoined",
    "PeerLeft",
    "PeerLost",
    "PeerRecovered",
    "PeerStatus",
    "PeerStream",
    "PeerSuspected",
    "PeerUnreachableError",
    "PeerUpdated",
    "PeersTimeoutError",
    "Problem",
    "ProtocolNotServedError",
    "Receipt",
    "Reconnected",
    "Registration",
    "Request",
    "RequestFailedError",
    "RequestTimeoutError",
    "Service",
    "SimulatedEvent",
    "SimulatedFailure",
    "SimulatedRates",
    "SimulatedRecovery",
    "SimulatedTraffic",
    "Simulation",
    "Snapshot",
    "StateDamaged",
    "StateDirError",
    "StopOnSignals",
    "StreamReader",
    "StreamResetError",
    "StreamWriter",
    "Ticket",
    "TooManyStreamsError",
    "View",
    "ViewChange",
    "__version__",
    "endpoint_id",
    "make_ticket",
    "parse_ticket",
    "simulate",
]
