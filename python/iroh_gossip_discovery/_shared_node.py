"""What a discovery shares with its views: the node while it runs, and its watchers."""

from typing import TYPE_CHECKING, Protocol
from weakref import WeakSet

if TYPE_CHECKING:
    from iroh_gossip_discovery._core import Node


class Watcher(Protocol):
    """Is told when this node's own record has changed, because there is no event for that."""

    def self_changed(self) -> None:
        """Read again what this node announces."""


class SharedNode:
    """The running node, if there is one: shared by a discovery and its views."""

    __slots__ = ("node", "watchers")

    def __init__(self) -> None:
        self.node: Node | None = None
        self.watchers: WeakSet[Watcher] = WeakSet()

    def self_changed(self) -> None:
        """Tell the watchers, on the loop that they run on."""
        for watcher in list(self.watchers):
            watcher.self_changed()
