"""Bootstrap peers: those that are given as values, and those that a lookup finds."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from itertools import islice
from typing import TypeAlias

from iroh_gossip_discovery._core import (
    Bootstrap,
    Isolated,
    Node,
    Peer,
    PeerJoined,
    PeerLeft,
    PeerLost,
    Reconnected,
    Settings,
)
from iroh_gossip_discovery._errors import ConfigurationError, NotRunningError
from iroh_gossip_discovery._events import Event
from iroh_gossip_discovery._iterators import EventStream

BootstrapPeer: TypeAlias = str | Peer
"""A ticket, `id@host:port`, `host:port` or `srv:_name._udp.domain` without any id, an id that a
lookup can resolve, or a peer of another node's book."""

Lookup: TypeAlias = Callable[[], Awaitable[Iterable[BootstrapPeer]]]
"""An async callable that finds bootstrap peers. It is called at the start, at each retry while the
node is isolated, soon after a peer was lost, and otherwise about every 5 min."""

BootstrapSource: TypeAlias = BootstrapPeer | Lookup
"""An item of `GossipDiscovery(bootstrap=…)`."""

_logger = logging.getLogger("iroh_gossip_discovery")

# Seconds after which a lookup that hangs is cancelled, and later called again.
_LOOKUP_TIMEOUT = 30.0
# The longest delay between two retries while isolated, in seconds.
_RETRY_MAX = 30.0
# Seconds between two calls of a lookup while the node is linked. So two groups that started apart
# find each other.
_PERIOD = 300.0
# Seconds until a lookup is called after a peer was lost or left; at most once in `_LOSS_INTERVAL`.
_AFTER_LOSS = 2.0
_LOSS_INTERVAL = 30.0
# Most results of one call that are used. If there are more, it is a random choice each time.
_LOOKUP_RESULTS = 1024


def sort_sources(
    sources: Iterable[BootstrapSource], settings: Settings, field: str = "bootstrap"
) -> tuple[list[Bootstrap], list[Lookup]]:
    """Check each source, and separate the peers from the lookups.

    Raises:
        ConfigurationError: A text is malformed, or a ticket is for another topic.
        TypeError: A source is of no kind that is known.
    """
    if isinstance(sources, str | bytes | Peer) or not isinstance(sources, Iterable):
        raise TypeError(
            f"{field} must be a sequence of tickets, ids, peers or async callables, "
            f"not {type(sources).__name__}: write {field}=[…]"
        )
    peers: list[Bootstrap] = []
    lookups: list[Lookup] = []
    for index, source in enumerate(sources):
        if not isinstance(source, str | Peer) and callable(source):
            lookups.append(source)
        else:
            peers.append(Bootstrap(f"{field}[{index}]", source, settings))
    return peers, lookups


async def keep_looking(
    node: Node,
    settings: Settings,
    lookups: Sequence[Lookup],
    retry: float,
    looked: asyncio.Event,
) -> None:
    """Call each lookup repeatedly: often while the node is isolated, rarely otherwise.

    The lookups run side by side: one that hangs or fails delays no other.

    Args:
        node: The node that gets the peers.
        settings: What the node was started with.
        lookups: The lookups.
        retry: Seconds until the first retry while isolated; each further delay is twice as long.
        looked: Set once each lookup was called for the first time.
    """
    peers, subscription = node.subscribe()
    reach = _Reach(lookups, looked, isolated=not peers)
    tasks = [
        asyncio.create_task(_repeat(node, settings, lookup, retry, reach)) for lookup in lookups
    ]
    try:
        async with EventStream(subscription) as events:
            async for event in events:
                reach.apply(event)
    finally:
        for task in tasks:
            task.cancel()


class _Reach:
    """Decides when lookups are called again: by isolation, and by lost peers."""

    def __init__(self, lookups: Sequence[Lookup], looked: asyncio.Event, *, isolated: bool) -> None:
        self._unasked = {id(lookup) for lookup in lookups}
        self._looked = looked
        self.isolated = isolated
        self.losses = 0
        self._changed = asyncio.Event()

    def apply(self, event: Event) -> None:
        match event:
            case Isolated():
                self.isolated = True
            case Reconnected() | PeerJoined():
                # In a swarm that grows, a new peer wakes no task, because isolation did not change.
                if not self.isolated:
                    return
                self.isolated = False
            case PeerLost() | PeerLeft():
                self.losses += 1
            case _:
                return
        # A waiting task holds the old event.
        self._changed.set()
        self._changed = asyncio.Event()

    def asked(self, lookup: Lookup) -> None:
        self._unasked.discard(id(lookup))
        if not self._unasked:
            self._looked.set()

    async def change(self) -> None:
        await self._changed.wait()


async def _repeat(
    node: Node, settings: Settings, lookup: Lookup, retry: float, reach: _Reach
) -> None:
    """Call one lookup repeatedly while the node runs."""
    clock = asyncio.get_running_loop().time
    delay, losses = retry, reach.losses
    while True:
        asked, isolated = clock(), reach.isolated
        await _look(node, settings, lookup)
        reach.asked(lookup)
        due = clock() + _jitter(delay if isolated else _PERIOD)
        while (now := clock()) < due:
            if isolated != reach.isolated:
                isolated, delay = reach.isolated, retry
                due = now if isolated else now + _jitter(_PERIOD)
            elif not isolated and losses != reach.losses:
                losses = reach.losses
                due = min(due, max(now + _jitter(_AFTER_LOSS), asked + _jitter(_LOSS_INTERVAL)))
            else:
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(due):
                        await reach.change()
        losses = reach.losses
        delay = min(delay * 2, _RETRY_MAX) if isolated else retry


async def _look(node: Node, settings: Settings, lookup: Lookup) -> None:
    """Call one lookup and add what it found; a failure is logged, and retried later."""
    try:
        async with asyncio.timeout(_LOOKUP_TIMEOUT):
            sources = _at_most(_LOOKUP_RESULTS, await lookup(), lookup)
        peers = _usable(sources, settings, lookup)
        if peers:
            await node.add_bootstrap(peers)
    except NotRunningError:
        pass
    except Exception as error:  # noqa: BLE001  # the lookup is the application's
        _logger.warning("bootstrap lookup %r failed: %s: %s", lookup, type(error).__name__, error)


def _at_most(
    limit: int, sources: Iterable[BootstrapPeer], lookup: Lookup
) -> Sequence[BootstrapPeer]:
    """Take what a lookup returned, or a random choice if it is more than the limit."""
    if isinstance(sources, str | bytes | Peer) or not isinstance(sources, Iterable):
        kind = type(sources).__name__
        raise TypeError(f"a lookup must return a sequence of tickets, ids and peers, not {kind}")
    # Bounded, because a generator may never end.
    found = list(islice(sources, limit * 16))
    if len(found) <= limit:
        return found
    from random import sample  # noqa: PLC0415  # few need it, and it takes 1.5 ms

    text = "bootstrap lookup %r returned %d peers or more, the limit is %d: a random choice is used"
    _logger.warning(text, lookup, len(found), limit)
    return sample(found, limit)


def _usable(
    sources: Iterable[BootstrapPeer], settings: Settings, lookup: Lookup
) -> list[Bootstrap]:
    """Check each result by itself, so that a malformed one does not spoil the others."""
    peers: list[Bootstrap] = []
    refused, reason = 0, ""
    for index, source in enumerate(sources):
        try:
            peers.append(Bootstrap(f"bootstrap[{index}]", source, settings))
        except (ConfigurationError, TypeError) as error:
            refused += 1
            reason = reason or f"{type(error).__name__}: {error}"
    if refused:
        text = "bootstrap lookup %r: %d of %d results not used: %s"
        _logger.warning(text, lookup, refused, refused + len(peers), reason)
    return peers


def _jitter(seconds: float) -> float:
    import random  # noqa: PLC0415  # few need it, and it takes 1.5 ms

    return seconds * random.uniform(0.8, 1.2)  # noqa: S311  # spreads load, hides nothing
