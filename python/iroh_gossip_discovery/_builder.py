"""The names of crate 0.6.0, for code that was written for it; thin over `GossipDiscovery`."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from os import PathLike
from types import TracebackType
from typing import Self

from iroh_gossip_discovery._bootstrap import BootstrapPeer, BootstrapSource
from iroh_gossip_discovery._config import Config
from iroh_gossip_discovery._core import PeerJoined
from iroh_gossip_discovery._discovery import GossipDiscovery
from iroh_gossip_discovery._iterators import EventStream
from iroh_gossip_discovery._snapshot import Snapshot, peers_of


class GossipDiscoveryBuilder:
    """Builds and starts a discovery, in two halves: one that sends, and one that receives.

    Args:
        name: As for `GossipDiscovery`, as are all others.
        topic: Nodes of one topic find each other.
        secret_key: The identity's secret key, 32 bytes.
        secret: Makes the swarm private.
        state_dir: A directory that keeps key and sequence numbers.
        metadata: Text by key that others see.
        config: Timers, limits and networks; `Config.lan()` by default.

    Example:
        ```python
        builder = GossipDiscoveryBuilder("bob", topic=discovery.topic, config=discovery.config)
        builder.with_expiration_timeout(60.0)
        sender, receiver = await builder.build_with_peers([discovery.ticket])
        async with sender:
            async for event in receiver:
                print(event, [peer.name for peer in receiver.neighbors.values()])
                break
        ```
    """

    def __init__(  # noqa: PLR0913  # all but two have a default
        self,
        name: str,
        topic: str,
        *,
        secret_key: bytes | None = None,
        secret: str | Iterable[str] | None = None,
        state_dir: str | PathLike[str] | None = None,
        metadata: Mapping[str, str] | None = None,
        config: Config | None = None,
    ) -> None:
        self._name, self._topic, self._metadata = name, topic, metadata
        self._secret_key, self._secret, self._state_dir = secret_key, secret, state_dir
        self._config = Config.lan() if config is None else config

    def with_expiration_timeout(self, seconds: float) -> Self:
        """Set the seconds after which others drop this node if they have not heard of it.

        In 0.6.0 each node chose for itself how long it kept others; now each announces it.

        Raises:
            ConfigurationError: It is not within 1 s and 30 days.
        """
        self._config = replace(self._config, expiration=seconds)
        return self

    async def build(self) -> tuple["GossipDiscoverySender", "GossipDiscoveryReceiver"]:
        """Start without bootstrap peers: as a topic's first node, or where mDNS finds the others.

        Raises:
            DiscoveryError: As the constructor and `start` of `GossipDiscovery`.
        """
        return await self.build_with_peers([])

    async def build_with_peers(
        self, peers: Iterable[BootstrapSource]
    ) -> tuple["GossipDiscoverySender", "GossipDiscoveryReceiver"]:
        """Start with peers to ask first, as `bootstrap` of `GossipDiscovery`; wait for none.

        Raises:
            DiscoveryError: As the constructor and `start` of `GossipDiscovery`.
        """
        discovery = GossipDiscovery(
            self._name,
            self._topic,
            bootstrap=peers,
            secret_key=self._secret_key,
            secret=self._secret,
            state_dir=self._state_dir,
            metadata=self._metadata,
            config=self._config,
        )
        await discovery.start()
        return GossipDiscoverySender(discovery), GossipDiscoveryReceiver(discovery)


class GossipDiscoverySender:
    """The sending half; as an async context manager it closes the node on exit."""

    def __init__(self, discovery: GossipDiscovery) -> None:
        self.discovery = discovery

    async def add_peer(self, peer: BootstrapPeer) -> None:
        """Add a peer to those that are dialed while none of them is in the book."""
        await self.add_peers([peer])

    async def add_peers(self, peers: Iterable[BootstrapPeer]) -> None:
        """Add several peers; see `GossipDiscovery.add_bootstrap`."""
        await self.discovery.add_bootstrap(peers)

    async def announce(self, metadata: Mapping[str, str] | None = None) -> None:
        """Announce this node again, now, with other metadata if they are given.

        Heartbeats follow by themselves, as often as they are needed.

        Raises:
            ConfigurationError: The metadata are over their limit.
        """
        await self.discovery.update(metadata=metadata)

    async def close(self) -> None:
        """Say goodbye and close the endpoint; the receiver's iteration ends."""
        await self.discovery.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()


class GossipDiscoveryReceiver(EventStream):
    """The receiving half: each known peer as `PeerJoined`, then every change."""

    __slots__ = ("discovery",)

    def __init__(self, discovery: GossipDiscovery) -> None:
        peers, subscription = discovery._running().subscribe()  # noqa: SLF001  # one package
        super().__init__(subscription)
        self.discovery: GossipDiscovery = discovery
        self._take([PeerJoined(peer) for peer in peers_of(peers)])

    @property
    def neighbors(self) -> Snapshot:
        """The peers that are present now, by id, as a snapshot."""
        return self.discovery.book.snapshot()
