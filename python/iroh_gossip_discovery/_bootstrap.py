"""Bootstrap peers: those given as they are, and those that a lookup finds."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import islice
from typing import TypeAlias

from iroh_gossip_discovery._core import (
    Bootstrap,
    Isolated,
    Node,
    Peer,
    PeerJoined,
    Reconnected,
    Settings,
)
from iroh_gossip_discovery._errors import NotRunningError
from iroh_gossip_discovery._events import Event
from iroh_gossip_discovery._iterators import EventStream

BootstrapPeer: TypeAlias = str | Peer
"""A ticket, `id@host:port`, an id that a lookup can resolve, or a peer of another node's book."""

Lookup: TypeAlias = Callable[[], Awaitable[Iterable[BootstrapPeer]]]
"""An async callable that finds bootstrap peers; called at the start, and again while isolated."""

BootstrapSource: TypeAlias = BootstrapPeer | Lookup
"""What `GossipDiscovery(bootstrap=…)` takes a sequence of."""

_logger = logging.getLogger("iroh_gossip_discovery")

_LOOKUP_TIMEOUT = 30.0
_LOOKUP_RESULTS = 256
_RETRY_MAX = 30.0


def sort_sources(
    sources: Iterable[BootstrapSource], settings: Settings
) -> tuple[list[Bootstrap], list[Lookup]]:
    """Check each source, and part the peers from the lookups.

    Raises:
        ConfigurationError: A text is malformed, or a ticket is for another topic.
        TypeError: A source is of no kind that is known.
    """
    if isinstance(sources, str | bytes | Peer) or not isinstance(sources, Iterable):
        raise TypeError(
            "bootstrap must be a sequence of tickets, ids, peers or async callables, "
            f"not {type(sources).__name__}: write bootstrap=[…]"
        )
    peers: list[Bootstrap] = []
    lookups: list[Lookup] = []
    for index, source in enumerate(sources):
        if not isinstance(source, str | Peer) and callable(source):
            lookups.append(source)
        else:
            peers.append(Bootstrap(f"bootstrap[{index}]", source, settings))
    return peers, lookups


async def keep_looking(
    node: Node,
    settings: Settings,
    lookups: Sequence[Lookup],
    retry: float,
    looked: asyncio.Event,
) -> None:
    """Call the lookups now, and again with growing delays for as long as the node is isolated.

    Args:
        node: The node that gets the peers.
        settings: What the node was started with.
        lookups: The lookups, called one after another.
        retry: Seconds until the first retry.
        looked: Set once each lookup was called.
    """
    peers, subscription = node.subscribe()
    isolated, delay = not peers, retry
    async with EventStream(subscription) as events:
        while True:
            if isolated:
                for lookup in lookups:
                    await _look(node, settings, lookup)
            looked.set()
            before = isolated
            try:
                async with asyncio.timeout(_jitter(delay) if isolated else None):
                    async for event in events:
                        isolated = _isolated_after(event, before=isolated)
                        if isolated != before:
                            break
                    else:
                        return  # the topic was left
            except TimeoutError:
                delay = min(delay * 2, _RETRY_MAX)
            else:
                delay = retry


def _isolated_after(event: Event, *, before: bool) -> bool:
    match event:
        case Isolated():
            return True
        case Reconnected() | PeerJoined():
            return False
        case _:
            return before


async def _look(node: Node, settings: Settings, lookup: Lookup) -> None:
    """Call one lookup and add what it found; what fails is logged, and tried again later."""
    try:
        async with asyncio.timeout(_LOOKUP_TIMEOUT):
            sources = list(islice(await lookup(), _LOOKUP_RESULTS))
        peers, _ = sort_sources(sources, settings)
        if peers:
            await node.add_bootstrap(peers)
    except NotRunningError:
        pass
    except Exception as error:  # noqa: BLE001  # the lookup is the application's
        _logger.warning("bootstrap lookup %r failed: %s: %s", lookup, type(error).__name__, error)


def _jitter(seconds: float) -> float:
    import random  # noqa: PLC0415  # few need it, and it takes 1.5 ms

    return seconds * random.uniform(0.8, 1.2)  # noqa: S311  # spreads load, hides nothing
