"""What a discovery shares with its views: the node while it runs, and who watches it."""

from typing import TYPE_CHECKING, Protocol
from weakref import WeakSet

if TYPE_CHECKING:
    from iroh_gossip_discovery._core import Node


class Watcher(Protocol):
    """Wants to know when this node's own record has changed, of which there is no event."""

    def self_changed(self) -> None:
        """Look again at what this node announces."""


class SharedNode:
    """The running node, if there is one: shared by a discovery and its views."""

    __slots__ = ("node", "watchers")

    def __init__(self) -> None:
        self.node: Node | None = None
        self.watchers: WeakSet[Watcher] = WeakSet()

    def self_changed(self) -> None:
        """Tell the watchers; on the loop that they run on."""
        for watcher in list(self.watchers):
            watcher.self_changed()
