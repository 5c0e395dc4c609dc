"""`Ticket`: what the text of a ticket says."""

from dataclasses import dataclass

from iroh_gossip_discovery._core import read_ticket, topic_id


@dataclass(frozen=True, slots=True)
class Ticket:
    """How to reach a node of a topic, as its ticket says; nothing in it is proven.

    Args:
        id: The endpoint id of the node, 64 hex digits.
        topic_id: The id of its topic, 64 hex digits: a ticket does not hold the topic's name.
        addresses: Where the node can be dialed, best first.
    """

    id: str
    topic_id: str
    addresses: tuple[str, ...]

    def is_for(self, topic: str) -> bool:
        """Return true if it is for the topic of this name.

        Raises:
            ConfigurationError: The name is outside its limits.
        """
        return topic_id(topic) == self.topic_id


def parse_ticket(ticket: str) -> Ticket:
    """Read a ticket, without any network.

    Raises:
        ConfigurationError: It is no ticket, or a part of one; the message says where.
        TypeError: It is no text.

    Example:
        ```python
        ticket = parse_ticket(discovery.ticket)
        print(ticket.id == discovery.id, ticket.addresses, ticket.is_for("fleet"))
        ```
    """
    node_id, topic, addresses = read_ticket(ticket)
    return Ticket(node_id, topic, tuple(addresses))
