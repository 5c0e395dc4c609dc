"""A swarm in one process, for tests of applications: nodes that crash, freeze and are cut off.

Example:
    ```python
    async with LocalSwarm() as swarm:
        alice, bob, carol = await swarm.start_many(3)
        await swarm.wait_converged()
        await swarm.kill(carol)
        await wait_for(lambda: not alice.book.named(carol.name))
    ```
"""

import asyncio
import inspect
import secrets
from collections.abc import Callable, Iterable, Mapping
from os import PathLike
from types import TracebackType
from typing import Self, TypedDict, TypeVar, Unpack

from iroh_gossip_discovery._admission import Admit
from iroh_gossip_discovery._bootstrap import BootstrapPeer, BootstrapSource
from iroh_gossip_discovery._config import Config
from iroh_gossip_discovery._core import Peer, TestRuntime, bar, endpoint_id, sever
from iroh_gossip_discovery._discovery import GossipDiscovery
from iroh_gossip_discovery._require import require, require_timeout

__all__ = ["LocalSwarm", "NodeOptions", "wait_for"]

T = TypeVar("T")

# Seconds between two checks of a condition.
_LOOK = 0.01
# How many bootstrap peers a node gets: more would only cost dials.
_SEEDS = 2


class NodeOptions(TypedDict, total=False):
    """What a node of a `LocalSwarm` may be given: as for `GossipDiscovery`."""

    bootstrap: Iterable[BootstrapSource]
    secret_key: bytes
    secret: str | Iterable[str]
    issuer: str | Iterable[str]
    invitation: str
    allow: Iterable[Peer | str]
    deny: Iterable[Peer | str]
    admit: Admit
    state_dir: str | PathLike[str]
    metadata: Mapping[str, str]
    protocols: Iterable[str | bytes]
    config: Config


async def wait_for(
    condition: Callable[[], T],
    *,
    timeout: float = 10.0,  # noqa: ASYNC109  # its error says what was waited for
    what: str | Callable[[], str] = "the condition",
) -> T:
    """Wait until a condition holds, and return its value.

    Args:
        condition: A function without arguments; called every 10 ms until its value is true.
        timeout: Most seconds to wait.
        what: What is waited for, for the error; or a function that says it then.

    Raises:
        TimeoutError: It did not hold in time; the message says what.
        TypeError: The condition is a coroutine function, or `timeout` is no number.
        ConfigurationError: `timeout` is NaN.

    Example:
        ```python
        await wait_for(lambda: len(discovery.book) >= 0, what="there is a book")
        ```
    """
    require("timeout", timeout, int, float)
    require_timeout(timeout)
    if inspect.iscoroutinefunction(condition):  # each of its results would count as true
        raise TypeError("condition must be a plain function: here nothing awaits a coroutine")
    loop = asyncio.get_running_loop()
    end = loop.time() + timeout
    while not (value := condition()):
        if loop.time() >= end:
            said = what if isinstance(what, str) else what()
            raise TimeoutError(f"not within {timeout} s: {said}")
        await asyncio.sleep(_LOOK)
    return value


class _Member:
    """A node, and what the swarm has to remember about it."""

    __slots__ = ("id", "name", "node", "options", "paused", "runtime", "side")

    def __init__(self, name: str, options: NodeOptions) -> None:
        self.name = name
        self.options = options
        self.runtime = TestRuntime()
        self.paused = False
        self.side = 0
        # If there is only a state directory, the key is known once the node runs.
        key = options.get("secret_key")
        self.id = None if key is None else endpoint_id(key)
        self.node: GossipDiscovery

    @property
    def runs(self) -> bool:
        return self.node._shared.node is not None and not self.node._closed  # noqa: SLF001


class LocalSwarm:
    """Nodes of one topic in this process, on loopback, that a test can crash, pause and cut off.

    They are real nodes on real QUIC links, each on a thread of its own; the application uses them
    as any other. They find each other without being given bootstrap peers. With `async with`, those
    that are left say goodbye at the end; without, `await close()` in a `finally`.

    Args:
        topic: The topic of all nodes.
        config: For nodes that are given no other; `Config.local()` by default, in which a crash is
            known in about a second.

    Example:
        ```python
        async with LocalSwarm() as swarm:
            alice = await swarm.start("alice", metadata={"role": "cache"})
            bob = await swarm.start("bob")
            await swarm.wait_converged()
            await swarm.partition([alice])
            await swarm.wait_converged()  # each side has lost the other
            await swarm.heal()
            await swarm.wait_converged()
        ```
    """

    def __init__(self, *, topic: str = "test", config: Config | None = None) -> None:
        self.topic = topic
        self._config = Config.local() if config is None else config
        require("config", self._config, Config)
        self._members: list[_Member] = []
        self._made = 0

    # --- nodes --------------------------------------------------------------------------------

    @property
    def nodes(self) -> tuple[GossipDiscovery, ...]:
        """The nodes that run, paused ones too, in the order in which they were made."""
        return tuple(member.node for member in self._members if member.runs)

    def make(self, name: str | None = None, **options: Unpack[NodeOptions]) -> GossipDiscovery:
        """Make a node that is not started: for an application that starts and closes it itself.

        Args:
            name: Its name; `node-1`, `node-2`, … by default.
            **options: As for `GossipDiscovery`. Without `bootstrap` it finds the other nodes of the
                swarm; without `secret_key` it has a new one, which a `restart` keeps.

        Raises:
            ConfigurationError: A value is outside its limits; the message names it.
            TypeError: A value has the wrong type, or there is no such option; the message names it.
        """
        unknown = sorted(options.keys() - NodeOptions.__annotations__.keys())
        if unknown:
            known = ", ".join(NodeOptions.__annotations__)
            raise TypeError(f"a node of a LocalSwarm has no {unknown[0]}; it has {known}")
        self._made += 1
        if "state_dir" not in options:
            options.setdefault("secret_key", secrets.token_bytes(32))
        member = self._make(f"node-{self._made}" if name is None else name, options)
        self._members.append(member)
        self._bar()
        return member.node

    async def start(
        self, name: str | None = None, **options: Unpack[NodeOptions]
    ) -> GossipDiscovery:
        """Make a node and start it; wait for no peer.

        Args:
            name: Its name; `node-1`, `node-2`, … by default.
            **options: As for `make`.

        Raises:
            DiscoveryError: As for `GossipDiscovery` and its `start`.
        """
        node = self.make(name, **options)
        await node.start()
        self._bar()
        return node

    async def start_many(self, count: int, **options: Unpack[NodeOptions]) -> list[GossipDiscovery]:
        """Make some nodes and start them at once; wait for no peer.

        Args:
            count: How many.
            **options: As for `make`.

        Raises:
            DiscoveryError: As for `GossipDiscovery` and its `start`.
        """
        nodes = [self.make(**options) for _ in range(count)]
        await asyncio.gather(*(node.start() for node in nodes))
        self._bar()
        return nodes

    # --- faults -------------------------------------------------------------------------------

    async def kill(self, node: GossipDiscovery) -> None:
        """End a node as `kill -9` ends a process: at once, and without a goodbye.

        For its holder it is closed from then on. Others find out as they do of any crash. It does
        no harm to a node that has ended.

        Args:
            node: A node of this swarm, paused or not.

        Raises:
            ValueError: It is of another swarm, or was restarted.
        """
        self._member(node).node._crash()  # noqa: SLF001  # what this kit is for

    async def restart(self, node: GossipDiscovery) -> GossipDiscovery:
        """Start a node again, with its name, key and options; kill it first if it runs.

        It is on the side of a partition on which it was.

        Args:
            node: A node of this swarm; the new one takes its place.

        Returns:
            The new node: a `GossipDiscovery` lives once.

        Raises:
            ValueError: It is of another swarm, or was restarted.
            DiscoveryError: As for `GossipDiscovery.start`.
        """
        old = self._member(node)
        node._crash()  # noqa: SLF001  # what this kit is for
        new = self._make(old.name, old.options)
        new.side = old.side
        self._members[self._members.index(old)] = new
        self._bar()
        await new.node.start()
        self._bar()
        return new.node

    async def pause(self, node: GossipDiscovery) -> None:
        """Freeze a node as `kill -STOP` freezes a process, until it is resumed.

        Nothing of it runs: it answers no peer, and calls that need its network wait. Its book can
        be read, and does not change.

        Args:
            node: A node of this swarm.

        Raises:
            ValueError: It is of another swarm, or was restarted.
        """
        member = self._member(node)
        member.paused = True
        member.runtime.pause()

    async def resume(self, node: GossipDiscovery) -> None:
        """Let a paused node go on; it notices that it was paused.

        Args:
            node: A node of this swarm.

        Raises:
            ValueError: It is of another swarm, or was restarted.
        """
        member = self._member(node)
        member.paused = False
        member.runtime.resume()

    async def partition(self, *groups: Iterable[GossipDiscovery]) -> None:
        """Cut the swarm into parts that do not reach each other, in place of those before.

        Links between the parts are cut with all that runs over them, as if they had timed out, and
        no new ones are opened. It takes a verdict of each node on those that it lost until its book
        shows it: `wait_converged` waits for that.

        Args:
            *groups: The nodes of each part. Nodes that are in none, and those that are made later,
                are together in one more.

        Raises:
            ValueError: A node is in two groups, or of another swarm.
        """
        sides: dict[_Member, int] = {}
        for side, group in enumerate(groups, 1):
            for node in group:
                member = self._member(node)
                if sides.setdefault(member, side) != side:
                    raise ValueError(f"{node!r} is in two groups")
        for member in self._members:
            member.side = sides.get(member, 0)
        self._bar()
        # The links are cut only now, so that both ends of each know that it is barred.
        cuts = [
            cut
            for member in self._members
            if (cut := self._sever(member)) is not None and not member.paused
        ]
        await asyncio.gather(*cuts)

    async def heal(self) -> None:
        """Let all nodes reach each other again; finding each other is up to them."""
        for member in self._members:
            member.side = 0
        self._bar()

    # --- waiting ------------------------------------------------------------------------------

    async def wait_converged(
        self,
        *,
        timeout: float = 10.0,  # noqa: ASYNC109  # its error says what was seen
    ) -> None:
        """Wait until every book is right: it has all nodes of its part that run, and no other.

        A paused node counts as one that is gone, and its own book does not count.

        Args:
            timeout: Most seconds to wait.

        Raises:
            TimeoutError: Some books are not right in time; the message says what is wrong in which.
        """
        await wait_for(
            lambda: not self._faults(),
            timeout=timeout,
            what=lambda: "; ".join(self._faults()) or "every book is right, but only now",
        )

    # --- the end ------------------------------------------------------------------------------

    async def close(self) -> None:
        """Close every node that runs, and kill those that are paused."""
        for member in self._members:
            if member.paused:
                member.node._crash()  # noqa: SLF001  # it can't close
        await asyncio.gather(*(member.node.close() for member in self._members))

    def abandon(self) -> None:
        """Kill every node: an end that needs no event loop, as for a fixture that has none."""
        for member in self._members:
            member.node._crash()  # noqa: SLF001  # what this kit is for

    async def __aenter__(self) -> Self:
        """Return the swarm; it has no nodes yet."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Do as `close`."""
        await self.close()

    def __repr__(self) -> str:
        """Name the topic and the nodes that run."""
        return f"<LocalSwarm {self.topic!r}: {[node.name for node in self.nodes]}>"

    # --- inside -------------------------------------------------------------------------------

    def _make(self, name: str, options: NodeOptions) -> _Member:
        member = _Member(name, options)

        async def seeds() -> list[BootstrapPeer]:
            return self._seeds(member)

        given: NodeOptions = {"bootstrap": (seeds,), "config": self._config, **options}
        member.node = GossipDiscovery(name, self.topic, **given)
        member.node._test_runtime = member.runtime  # noqa: SLF001  # what this kit is for
        return member

    def _member(self, node: GossipDiscovery) -> _Member:
        for member in self._members:
            if member.node is node:
                return member
        raise ValueError(f"{node!r} is no node of this swarm")

    def _reachable(self, member: _Member) -> list[_Member]:
        """Return the other nodes of the same part that run and are not paused."""
        return [
            other
            for other in self._members
            if other is not member and other.runs and not other.paused and other.side == member.side
        ]

    def _seeds(self, member: _Member) -> list[BootstrapPeer]:
        return [other.node.ticket for other in self._reachable(member)[:_SEEDS]]

    def _bar(self) -> None:
        """Tell every running node which nodes it must not reach."""
        for member in self._members:
            if member.runs:
                member.id = member.node.id
        for member in self._members:
            if (node := member.node._shared.node) is not None:  # noqa: SLF001
                others = [other for other in self._members if other.side != member.side]
                bar(node, [other.id for other in others if other.id is not None])

    @staticmethod
    def _sever(member: _Member) -> "asyncio.Future[None] | None":
        node = member.node._shared.node  # noqa: SLF001
        return None if node is None else sever(node)

    def _faults(self) -> list[str]:
        """Describe what is wrong in each book."""
        names = {member.id: member.name for member in self._members}
        faults = []
        for member in self._members:
            if not member.runs or member.paused:
                continue
            expected = {other.node.id for other in self._reachable(member)}
            seen = {peer.id: peer.name for peer in member.node.book.values()}
            lacking = sorted(names[missing] for missing in expected - seen.keys())
            extra = sorted(seen[peer_id] for peer_id in seen.keys() - expected)
            if lacking:
                faults.append(f"{member.name} lacks {', '.join(lacking)}")
            if extra:
                faults.append(f"{member.name} still has {', '.join(extra)}")
        return faults
