"""An endpoint of your own, made with the package `iroh`, in a node's record; needs `iroh` 1.2.

The node says in its metadata how to dial the endpoint, and in its protocols which ALPNs it accepts.
The endpoint has a key of its own, not the node's: two endpoints with one key are one identity at
two places, and packets for one of them go to the other.
"""

from typing import TYPE_CHECKING

from iroh import Endpoint, EndpointAddr, EndpointTicket, IrohError

from iroh_gossip_discovery._require import require

if TYPE_CHECKING:
    from iroh_gossip_discovery._core import Peer

KEY = "iroh"
"""The key of the endpoint's ticket in the metadata."""


def metadata_of(endpoint: Endpoint) -> dict[str, str]:
    """Describe an endpoint for a node's metadata: its ticket, with the addresses it has now.

    Announce it again where its addresses change: `Endpoint.watch_addr` tells when. The ALPNs that
    it accepts belong into `GossipDiscovery(protocols=…)`, for `book.serving` to find.

    Args:
        endpoint: A running endpoint of the package `iroh`. Its ticket takes 60 bytes of the
            metadata's 1 KiB, and for each address 13 (IPv4), 34 (IPv6) or a relay's URL.

    Example:
        ```python
        await discovery.update_metadata(**metadata_of(endpoint))
        ```
    """
    require("endpoint", endpoint, Endpoint)
    return {KEY: str(EndpointTicket.from_addr(endpoint.addr()))}


def address_of(peer: "Peer") -> EndpointAddr | None:
    """Return how to dial the endpoint that a peer announces, for `Endpoint.connect`.

    The peer signed what it announces, the endpoint did not. A connection proves which endpoint
    answers (`remote_id`); that it is the peer's own is what the peer says.

    Args:
        peer: A peer out of the book.

    Returns:
        The address; `None` if the peer announces no endpoint, or something that is no ticket.
    """
    ticket = peer.metadata.get(KEY)
    if ticket is None:
        return None
    try:
        return EndpointTicket.from_string(ticket).endpoint_addr()
    except IrohError:
        return None
