"""Bootstrap peers: those that are given as values, and those that a lookup finds."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
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
from iroh_gossip_discovery._require import require_callable, require_text

BootstrapPeer: TypeAlias = str | Peer
"""A ticket, `id@host:port`, `host:port` or `srv:_name._udp.domain` without any id, an id that a
lookup can resolve, or a peer of another node's book."""

Lookup: TypeAlias = Callable[[], Awaitable[Iterable[BootstrapPeer]]]
"""An async callable that finds bootstrap peers. It is called at the start, at each retry while the
node is isolated, soon after a peer was lost, and otherwise about every 5 min. If it fails, or takes
30 s, that is among `GossipDiscovery.problems` until it works."""

BootstrapSource: TypeAlias = BootstrapPeer | Lookup
"""An item of `GossipDiscovery(bootstrap=…)`."""

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
# The longest name of a lookup among the problems, in characters.
_NAME = 80


@dataclass(frozen=True, slots=True)
class Source:
    """A lookup, and what problems with it are called."""

    name: str
    lookup: Lookup


def sort_sources(
    sources: Iterable[BootstrapSource], settings: Settings, field: str = "bootstrap"
) -> tuple[list[Bootstrap], list[Source]]:
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
    lookups: list[Source] = []
    for index, source in enumerate(sources):
        if not isinstance(source, str | Peer) and callable(source):
            require_callable(f"{field}[{index}]", source)
            name = str(getattr(source, "__name__", type(source).__name__))
            lookups.append(Source(f"{field}[{index}] ({name[:_NAME]})", source))
        else:
            peers.append(_peer(f"{field}[{index}]", source, settings))
    return peers, lookups


def _peer(field: str, source: BootstrapPeer, settings: Settings) -> Bootstrap:
    if isinstance(source, str):
        require_text(field, source)
    return Bootstrap(field, source, settings)


async def keep_looking(
    node: Node,
    settings: Settings,
    lookups: Sequence[Source],
    retry: float,
    looked: asyncio.Event,
) -> None:
    """Call each lookup repeatedly: often while the node is isolated, rarely otherwise.

    The lookups run side by side: one that hangs or fails delays no other. What fails is among the
    node's problems until it works.

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

    def __init__(self, lookups: Sequence[Source], looked: asyncio.Event, *, isolated: bool) -> None:
        self._unasked = {lookup.name for lookup in lookups}
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

    def asked(self, lookup: Source) -> None:
        self._unasked.discard(lookup.name)
        if not self._unasked:
            self._looked.set()

    async def change(self) -> None:
        await self._changed.wait()


async def _repeat(
    node: Node, settings: Settings, lookup: Source, retry: float, reach: _Reach
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


async def _look(node: Node, settings: Settings, source: Source) -> None:
    """Call one lookup and add what it found; a failure is a problem of the node."""
    try:
        peers, problem = await _call(settings, source.lookup)
        if peers:
            await node.add_bootstrap(peers)
        node.report(source.name, problem)
    except NotRunningError:
        pass


async def _found_by(lookup: Lookup) -> Iterable[BootstrapPeer]:
    """Return what a lookup finds; one that is not async is a TypeError."""
    answer: object = lookup()
    if not inspect.isawaitable(answer):
        kind = type(answer).__name__
        raise TypeError(f"a lookup must be async (`async def`), it returned {kind}")
    found: Iterable[BootstrapPeer] = await answer
    return found


async def _call(settings: Settings, lookup: Lookup) -> tuple[list[Bootstrap], str | None]:
    """Call a lookup once: the peers that it found, and what was wrong."""
    try:
        async with asyncio.timeout(_LOOKUP_TIMEOUT):
            found = await _found_by(lookup)
        sources, problem = _at_most(_LOOKUP_RESULTS, found)
        peers, refused = _usable(sources, settings)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        # The lookup let the cancellation of another task out.
        return [], "failed: CancelledError"
    except TimeoutError as error:
        reason = str(error) or f"no answer within {_LOOKUP_TIMEOUT:g} s"
        return [], f"failed: {reason}"
    except Exception as error:  # noqa: BLE001  # the lookup is the application's
        return [], f"failed: {type(error).__name__}: {error}"
    return peers, problem or refused


def _at_most(
    limit: int, sources: Iterable[BootstrapPeer]
) -> tuple[Sequence[BootstrapPeer], str | None]:
    """Take what a lookup returned, or a random choice if it is more than the limit."""
    if isinstance(sources, str | bytes | Peer) or not isinstance(sources, Iterable):
        kind = type(sources).__name__
        raise TypeError(f"a lookup must return a sequence of tickets, ids and peers, not {kind}")
    # Bounded, because a generator may never end.
    found = list(islice(sources, limit * 16))
    if len(found) <= limit:
        return found, None
    from random import sample  # noqa: PLC0415  # few need it, and it takes 1.5 ms

    problem = f"found {len(found)} peers or more, the limit is {limit}: a random choice is used"
    return sample(found, limit), problem


def _usable(
    sources: Iterable[BootstrapPeer], settings: Settings
) -> tuple[list[Bootstrap], str | None]:
    """Check each result by itself, so that a malformed one does not spoil the others."""
    peers: list[Bootstrap] = []
    refused, reason = 0, ""
    for index, source in enumerate(sources):
        try:
            peers.append(_peer(f"bootstrap[{index}]", source, settings))
        except (ConfigurationError, TypeError) as error:
            refused += 1
            reason = reason or f"{type(error).__name__}: {error}"
    if not refused:
        return peers, None
    return peers, f"{refused} of {refused + len(peers)} results not used: {reason}"


def _jitter(seconds: float) -> float:
    import random  # noqa: PLC0415  # few need it, and it takes 1.5 ms

    return seconds * random.uniform(0.8, 1.2)  # noqa: S311  # spreads load, hides nothing
