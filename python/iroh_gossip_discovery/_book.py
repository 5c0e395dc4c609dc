"""The address book: a live, read-only mapping of the other nodes."""

from iroh_gossip_discovery._core import Selection
from iroh_gossip_discovery._shared_node import SharedNode
from iroh_gossip_discovery._views import View


class Book(View):
    """The other nodes of the topic that are present now, by endpoint id.

    A look-up and `len` show the present moment and never block. Iteration, `items`, `keys` and
    `values` go over a snapshot in the order of the ids, so that the book may change meanwhile. The
    node itself is not in it: `GossipDiscovery.members` is the view of all nodes. The book is empty
    before the start and after the end.

    Example:
        ```python
        if peer := discovery.book.get(some_id):
            print(peer.name, peer.addresses)
        ```
    """

    __slots__ = ()

    def __init__(self, shared: SharedNode) -> None:
        super().__init__(shared, Selection())
