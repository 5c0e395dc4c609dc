"""`GossipDiscovery`: the one object that an application holds."""

import asyncio
import warnings
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from os import PathLike
from types import TracebackType, UnionType
from typing import TYPE_CHECKING, Literal, NoReturn, Self, TypeAlias, TypeVar, overload

from iroh_gossip_discovery import _fork
from iroh_gossip_discovery._admission import Admit, answer_questions
from iroh_gossip_discovery._book import Book
from iroh_gossip_discovery._bootstrap import (
    BootstrapPeer,
    BootstrapSource,
    keep_looking,
    sort_sources,
)
from iroh_gossip_discovery._callbacks import Callback, Registration, event_kinds
from iroh_gossip_discovery._callbacks import start as start_callback
from iroh_gossip_discovery._config import Config
from iroh_gossip_discovery._core import (
    Message,
    MessagesLost,
    Node,
    Peer,
    Questions,
    Receipt,
    Selection,
    Settings,
    TestRuntime,
    check_channel,
    check_profile,
    start,
)
from iroh_gossip_discovery._errors import (
    ConfigurationError,
    NotAnsweredError,
    NotRunningError,
    PeersTimeoutError,
    ProtocolNotServedError,
    RequestTimeoutError,
)
from iroh_gossip_discovery._events import Event, Heard
from iroh_gossip_discovery._iterators import EventStream, MessageStream, PeerStream
from iroh_gossip_discovery._joined import Joined, joined
from iroh_gossip_discovery._leader import LeaderStream, check_leader
from iroh_gossip_discovery._printable import printable
from iroh_gossip_discovery._problems import Problem
from iroh_gossip_discovery._requests import (
    CONCURRENCY,
    Answer,
    AnswerHandler,
    Answers,
    ask,
    check_data,
    encode_name,
)
from iroh_gossip_discovery._requests import PROTOCOL as REQUESTS
from iroh_gossip_discovery._require import (
    require,
    require_callable,
    require_duration,
    require_timeout,
)
from iroh_gossip_discovery._services import Handler, Service
from iroh_gossip_discovery._services import start as start_service
from iroh_gossip_discovery._shared_node import SharedNode
from iroh_gossip_discovery._signals import StopOnSignals, check_signals
from iroh_gossip_discovery._snapshot import Snapshot, snapshot_of
from iroh_gossip_discovery._state_dir import state_path
from iroh_gossip_discovery._status import PeerStatus
from iroh_gossip_discovery._streams import (
    LIMIT,
    StreamReader,
    StreamWriter,
    check_limit,
    halves,
)
from iroh_gossip_discovery._views import View

if TYPE_CHECKING:
    from iroh_gossip_discovery._metrics import Metrics

# What a node can announce of its readiness.
Readiness: TypeAlias = Literal["ready", "draining", "critical"]

T = TypeVar("T")
H = TypeVar("H", bound=Heard)
E = TypeVar("E", bound=Event)
E2 = TypeVar("E2", bound=Event)
E3 = TypeVar("E3", bound=Event)

# How long, in seconds, `close` lets callbacks finish what they are at.
_CALLBACK_GRACE = 1.0


async def _within(timeout: float | None, peer: Peer | str, work: Awaitable[T]) -> T:  # noqa: ASYNC109
    limit = asyncio.timeout(timeout)
    try:
        async with limit:
            return await work
    except TimeoutError:
        if not limit.expired():
            raise
        name = peer if isinstance(peer, str) else peer.id
        raise RequestTimeoutError(f"peer {name[:10]} did not answer within {timeout} s") from None


class GossipDiscovery:
    """A node that announces itself in a topic and finds the topic's other nodes.

    Use it with `async with`: it is bound and announced on entry, which waits for no peer, and says
    goodbye on exit. Otherwise, call `await start()`, and `await close()` in a `finally`. It can be
    started once: make another one for a second life.

    Args:
        name: A label to show, not an identity: several nodes may share one. 1 to 64 bytes of UTF-8,
            normalized (NFC), without control characters.
        topic: Nodes of one topic find each other. 1 to 256 bytes of UTF-8, without control
            characters.
        bootstrap: The peers to dial first: tickets; `id@host:port`; `host:port` and
            `srv:_name._udp.domain` without any id (names are resolved again at every retry); ids
            that a lookup such as mDNS can resolve; peers of another book; and async callables that
            return more of these: called again at retries while isolated, about every 5 min else,
            and soon after a peer was lost; each has 30 s to answer.
        secret_key: The 32 bytes of the identity's Ed25519 secret key. By default the key in
            `state_dir`, or a new one.
        secret: Makes the swarm private: only nodes with the same secret become members. A key that
            `iroh-gossip-discovery keygen --swarm` made, or a passphrase; or 1 to 4 of these, the
            preferred one first and all of them accepted, so that it can be changed while the swarm
            runs. Without one, any node that knows the topic and reaches a member may join.
        issuer: Makes the swarm private without a shared secret: only nodes that this `Issuer`, or
            one of these 1 to 8, invited become members. Its `id`. It excludes `secret`, and `join`
            of further topics.
        invitation: The invitation of this node, which it needs if there is an `issuer`. It is for
            its id, so that must be known beforehand: see `secret_key` and `state_dir`.
        allow: The only peers that this node deals with, or their ids, at most 10,000; by default
            all that are not denied. `allow()` adds to them.
        deny: Peers, or their ids, that this node keeps out, at most 10,000, also if they are
            allowed. `deny()` adds to them.
        admit: A function or coroutine function, asked with a `Newcomer` about each node that the
            lists let in, and that has 10 s to return a bool. A node is kept out until it is
            admitted. At most 16 calls run at a time. An exception or a late answer admits nobody,
            and it is asked again later. Topics that `join` adds share it.
        state_dir: A directory that keeps key, sequence numbers, ports and the book over a restart.
            It is created; only one node at a time may use it. A full or read-only disk stops no
            start.
        metadata: Text by key that others see, at most 1 KiB encoded.
        protocols: The protocols (ALPNs) that this endpoint serves, at most 8 of at most 32 bytes.
        config: Timers, limits and networks; `Config.lan()` by default.
        observer: Only observe, as a dashboard or a client does: see the book, and be in nobody's.
            It gets events, and can send messages, requests and streams. It can't broadcast, hears
            no broadcasts, answers and serves nothing, and owns and leads nothing.

    Raises:
        ConfigurationError: A value is outside its limits, malformed, or a ticket is for another
            topic; the message names the argument.
        TypeError: An argument has the wrong type; the message names it.

    Example:
        ```python
        async with GossipDiscovery("alice", topic="fleet") as discovery:
            print(discovery.id, discovery.ticket)
            async for peer in discovery.peers():
                print(peer.name, peer.addresses)
        ```
    """

    # long: a parameter for each option.
    def __init__(  # noqa: PLR0913  # all but two have a default
        self,
        name: str,
        topic: str,
        *,
        bootstrap: Iterable[BootstrapSource] = (),
        secret_key: bytes | None = None,
        secret: str | Iterable[str] | None = None,
        issuer: str | Iterable[str] | None = None,
        invitation: str | None = None,
        allow: Iterable[Peer | str] | None = None,
        deny: Iterable[Peer | str] = (),
        admit: Admit | None = None,
        state_dir: str | PathLike[str] | None = None,
        metadata: Mapping[str, str] | None = None,
        protocols: Iterable[str | bytes] = (),
        config: Config | None = None,
        observer: bool = False,
    ) -> None:
        self._shared = SharedNode()
        self._closed = False
        self._config = Config.lan() if config is None else config
        require("config", self._config, Config)
        if state_dir is not None:
            state_dir = state_path(state_dir)
        self._state_dir = state_dir
        if admit is not None:
            require_callable("admit", admit)
        self._admit = admit
        self._admit_task: asyncio.Task[None] | None = None
        self._settings = Settings(
            name,
            topic,
            metadata,
            protocols,
            secret_key,
            secret,
            issuer,
            invitation,
            allow,
            deny,
            state_dir,
            self._config,
            observer,
        )
        self._observer = observer
        self._name, self._topic = name, topic
        self._metadata = self._settings.metadata
        self._readiness: Readiness = "ready"
        self._peers, self._lookups = sort_sources(bootstrap, self._settings)
        self._book = Book(self._shared)
        self._members = View(self._shared, Selection(with_self=True))
        self._unstarted: list[Callable[[Node], object]] = []
        self._callback_tasks: set[asyncio.Task[None]] = set()
        self._unstarted_services: list[Service] = []
        self._lookup_task: asyncio.Task[None] | None = None
        self._looked = asyncio.Event()
        self._answers = Answers()
        self._answering: Service | None = None
        self._starting = asyncio.Lock()
        self._updating = asyncio.Lock()
        self._closing: asyncio.Task[None] | None = None
        # Whose endpoint this one uses, if `join` made it; and those that use this one's.
        self._host: GossipDiscovery | None = None
        self._guests: set[GossipDiscovery] = set()
        # Only in tests, which can then pause and kill the node.
        self._test_runtime: TestRuntime | None = None

    # --- life ---------------------------------------------------------------------------------

    async def start(self) -> None:
        """Bind an endpoint, join the topic and announce this node; wait for no peer.

        Raises:
            BindError: An address of `Config.bind` is taken, or not this machine's.
            StateDirError: `state_dir` can't be used, or another node holds it.
            NotRunningError: It was started before.
            RuntimeError: This process was forked from one that had started a discovery.
        """
        async with self._starting:
            if self._shared.node is not None or self._closed:
                raise NotRunningError("a discovery starts once: make another GossipDiscovery")
            node = self._shared.node = await self._begin()
            if not self._lookups:
                self._looked.set()
            else:
                retry = max(self._config.redial_min, 0.1)
                self._lookup_task = asyncio.create_task(
                    keep_looking(node, self._settings, self._lookups, retry, self._looked)
                )
            for begin in self._unstarted:
                begin(node)
            self._unstarted.clear()
            self._unstarted_services.clear()

    async def join(
        self,
        topic: str,
        *,
        name: str | None = None,
        bootstrap: Iterable[BootstrapSource] = (),
        metadata: Mapping[str, str] | None = None,
        protocols: Iterable[str | bytes] = (),
    ) -> "GossipDiscovery":
        """Join another topic with the same identity, on the same endpoint and its links.

        What it returns has a book, events, messages and streams of its own. Its `close` leaves that
        topic alone. `close` of this one first closes all that were joined through it.

        Config and secret are those of this one. `metrics()` has the links and drops of the whole
        endpoint in each.

        Args:
            topic: The other topic.
            name: This node's name in it; the same as here by default.
            bootstrap: The peers to dial first, as of the constructor; tickets for that topic.
            metadata: Text by key that others see there, at most 1 KiB encoded.
            protocols: The protocols that this endpoint serves there, at most 8.

        Raises:
            ConfigurationError: A value is outside its limits, or a ticket is for another topic.
            DiscoveryError: This endpoint has joined the topic already.
            NotRunningError: It is not running.

        Example:
            ```python
            async with await discovery.join("alarms") as alarms:
                await alarms.broadcast(b"the door is open")
            ```
        """
        self._running()
        other = GossipDiscovery(
            self._name if name is None else name,
            topic,
            bootstrap=bootstrap,
            metadata=metadata,
            protocols=protocols,
            config=self._config,
            observer=self._observer,
        )
        other._host = self  # it is of this class
        # Before the start: a `close` that comes meanwhile closes it too.
        self._guests.add(other)
        try:
            await other.start()
        except BaseException:
            self._guests.discard(other)
            raise
        return other

    async def close(self) -> None:
        """Say goodbye, end all iterators, and close the endpoint; more calls do no harm.

        What `join` returned closes first. If `join` made this one, the endpoint stays open.

        Links go with it, and the streams on them. Callbacks and handlers of streams that are under
        way get a second to finish.
        """
        await self._end(asyncio.current_task())

    async def leave(self) -> None:
        """Say goodbye to the topic and end all iterators; `close` then closes the endpoint.

        Raises:
            NotRunningError: It is not running.
        """
        await self._running().leave()

    async def __aenter__(self) -> Self:
        if not self._is_joined:
            await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    # --- who I am -----------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """The endpoint id: this node's public key as 64 lower-case hex digits.

        Raises:
            NotRunningError: It is not running.
        """
        return self._running().id

    @property
    def ticket(self) -> str:
        """How to reach this node, as one string for another node's `bootstrap`.

        Raises:
            NotRunningError: It is not running.
        """
        return self._running().ticket

    @property
    def me(self) -> Peer:
        """This node, as the others see it: what it announced last.

        Raises:
            NotRunningError: It is not running.
        """
        return self._running().me()

    @property
    def is_observer(self) -> bool:
        """Whether this node only observes."""
        return self._observer

    @property
    def name(self) -> str:
        """The name that this node announces."""
        return self._name

    @property
    def topic(self) -> str:
        """The name of the topic."""
        return self._topic

    @property
    def config(self) -> Config:
        """The configuration that it was made with."""
        return self._config

    @property
    def metadata(self) -> dict[str, str]:
        """A copy of the metadata that this node announces."""
        return dict(self._metadata)

    @property
    def readiness(self) -> Readiness:
        """What this node announces of its readiness."""
        return self._readiness

    async def set_readiness(self, readiness: Readiness) -> None:
        """Announce whether this node takes work.

        Owners, leaders and `View.serving` pass over a node that is not ready. It stays in the book,
        and is still reached by who names it.

        Args:
            readiness: `"ready"`; `"draining"` for a node that finishes what it has; `"critical"`
                for one that can't do its work.

        Raises:
            ConfigurationError: It is none of these; nothing was changed.
            NotRunningError: It is not running.

        Example:
            ```python
            await discovery.set_readiness("draining")
            ```
        """
        require("readiness", readiness, str)
        async with self._updating:
            await self._announce(self._name, self._metadata, readiness)

    async def update(
        self, *, name: str | None = None, metadata: Mapping[str, str] | None = None
    ) -> None:
        """Replace the name, the metadata or both, and announce the change.

        Args:
            name: The new name; the old one stays if it is `None`.
            metadata: All of the new metadata; the old stays if it is `None`.

        Raises:
            ConfigurationError: A value is outside its limits; nothing was changed.
            NotRunningError: It is not running.
        """
        async with self._updating:
            await self._announce(
                self._name if name is None else name,
                self._metadata if metadata is None else metadata,
            )

    async def update_metadata(self, /, **changes: str | None) -> None:
        """Merge changes into the metadata, and announce the result.

        Args:
            **changes: Values by key; `None` removes a key.

        Raises:
            ConfigurationError: The metadata would be over its limit; nothing was changed.
            NotRunningError: It is not running.

        Example:
            ```python
            await discovery.update_metadata(role="draining", zone=None)
            ```
        """
        async with self._updating:
            merged: dict[str, str | None] = {**self._metadata, **changes}
            metadata = {key: value for key, value in merged.items() if value is not None}
            await self._announce(self._name, metadata)

    async def deny(self, peer: Peer | str) -> None:
        """Keep a peer out; once this returns, it has no link with this node and is not in the book.

        It is denied in later lives too, if there is a `state_dir`, until `undeny`. Others that do
        not deny it still deal with it, and this node passes its record on to them.

        Args:
            peer: A peer, or its id: it need not be in the book.

        Raises:
            ConfigurationError: `peer` is no id, or this node; or 10,000 are denied already.
            NotRunningError: It is not running.

        Example:
            ```python
            for peer in discovery.book.values():
                if peer.metadata.get("compromised"):
                    await discovery.deny(peer)
            ```
        """
        await self._running().deny(peer, True)  # noqa: FBT003  # of the extension

    async def undeny(self, peer: Peer | str) -> None:
        """Take a peer off the deny list; if its record is known, it is in the book at once.

        With an `admit` callback, that is asked first, whatever it said before. One that the
        constructor's `deny` names is denied again in the next life.

        Args:
            peer: A peer, or its id.

        Raises:
            ConfigurationError: `peer` is no id.
            NotRunningError: It is not running.
        """
        await self._running().deny(peer, False)  # noqa: FBT003  # of the extension

    async def allow(self, peer: Peer | str) -> None:
        """Add a peer to the allow list, in later lives too, if there is a `state_dir`.

        Args:
            peer: A peer, or its id: it need not be in the book.

        Raises:
            ConfigurationError: This node has no allow list, or one of 10,000; `peer` is no id.
            NotRunningError: It is not running.
        """
        await self._running().allow(peer, True)  # noqa: FBT003  # of the extension

    async def disallow(self, peer: Peer | str) -> None:
        """Take a peer off the allow list; it is out once this returns, as one that is denied.

        One that the constructor's `allow` names is allowed again in the next life.

        Args:
            peer: A peer, or its id.

        Raises:
            ConfigurationError: This node has no allow list; `peer` is no id.
            NotRunningError: It is not running.
        """
        await self._running().allow(peer, False)  # noqa: FBT003  # of the extension

    async def revoke(self, revocation: str) -> None:
        """Keep an id out of the swarm, by the word of an issuer.

        Once this returns, it has no link with this node and is not in the book. The other members
        learn it by gossip, and those that are away when they come back. With a `state_dir` it is
        kept over a restart, up to the end of the revocation.

        Args:
            revocation: What `Issuer.revoke` or `iroh-gossip-discovery revoke` made.

        Raises:
            ConfigurationError: It is none, or of an issuer that this node does not trust, or for
                another topic, or it has ended.
            NotRunningError: It is not running.
        """
        await self._running().revoke(revocation)

    async def renew(self, invitation: str) -> None:
        """Replace the invitation of this node, before the present one ends.

        Args:
            invitation: Another invitation for the same id and topic.

        Raises:
            ConfigurationError: It is none for this node, or it has ended.
            NotRunningError: It is not running.
        """
        await self._running().renew(invitation)

    @property
    def revoked(self) -> frozenset[str]:
        """The ids that issuers keep out, as far as this node knows.

        Raises:
            NotRunningError: It is not running.
        """
        return frozenset(self._running().revoked())

    @property
    def denied(self) -> frozenset[str]:
        """The ids that are denied now.

        Raises:
            NotRunningError: It is not running.
        """
        return frozenset(self._running().denied())

    @property
    def allowed(self) -> frozenset[str] | None:
        """The ids on the allow list now; `None` if there is no such list.

        Raises:
            NotRunningError: It is not running.
        """
        allowed = self._running().allowed()
        return None if allowed is None else frozenset(allowed)

    async def add_bootstrap(self, peers: Iterable[BootstrapPeer]) -> None:
        """Add peers to those that are dialed while none of them is in the book.

        Args:
            peers: As the `bootstrap` of the constructor, but for callables.

        Raises:
            ConfigurationError: One is malformed, or a ticket is for another topic; none was added.
            TypeError: One is of no kind that is known.
            NotRunningError: It is not running.
        """
        found, lookups = sort_sources(peers, self._settings, "peers")
        if lookups:
            raise TypeError("peers must not be callables once the discovery is running")
        await self._running().add_bootstrap(found)

    def metrics(self) -> "Metrics":
        """Return what this node counted so far, as a snapshot.

        Raises:
            NotRunningError: It is not running.
        """
        from iroh_gossip_discovery._metrics import Metrics  # noqa: PLC0415  # as pathlib

        return self._running().metrics(Metrics)

    def problems(self) -> list[Problem]:
        """Return what keeps this node from others now, the oldest first, at most 64.

        No usable address, a name that does not resolve, a ticket to which no peer answers: each is
        one problem, however often it is met. Each is also logged once when it begins and once when
        it is over. It works before any peer is found, and the list is empty while all is well.

        Raises:
            NotRunningError: It is not running.
        """
        problems = self._running().problems()
        return [
            Problem(source, printable(what), since, count)
            for source, what, since, count in problems
        ]

    async def joined(
        self,
        *,
        timeout: float | None = None,  # noqa: ASYNC109  # its error says what it waited for
    ) -> Joined:
        """Wait until this node has met its topic, or until it is known that no peer answers.

        Right after the start the book is empty, however many peers there are: conclude nothing from
        it before this returns. `ownership_changes` and `leader` wait for it by themselves.

        A node is alone once each bootstrap peer has failed to answer, each lookup was called, and,
        with mDNS, 2 s have passed. It keeps asking all the same. A peer that is linked and says
        nothing about the topic has failed after 10 s. A peer that answers and never completes the
        comparison has failed about a minute later.

        Args:
            timeout: Most seconds to wait; `None` waits for as long as a peer may still answer.

        Returns:
            Why the wait is over: `"synced"` with a member, or `"alone"`, with the peers that did
            not answer.

        Raises:
            PeersTimeoutError: Neither was known in time. It is a `TimeoutError`.
            ConfigurationError: `timeout` is NaN.
            NotRunningError: It is not running, or ended while it waited.

        Example:
            ```python
            joined = await discovery.joined(timeout=10)
            print("met the topic" if joined else f"starting alone: {joined}")
            ```
        """
        require_timeout(timeout)
        node = self._running()
        limit = asyncio.timeout(timeout)
        try:
            async with limit:
                while True:
                    answer = joined(await node.joined())
                    if answer or self._looked.is_set():
                        return answer
                    await self._looked_or_met(node)
        except TimeoutError:
            if not limit.expired():
                raise
            raise PeersTimeoutError(
                f"within {timeout} s no member compared books with this node, and peers that were "
                "asked may still answer"
            ) from None

    async def settled(
        self,
        *,
        quiet: float = 1.0,
        timeout: float | None = None,  # noqa: ASYNC109  # its error says what it waited for
    ) -> Snapshot:
        """Wait until this node's book and those of its neighbors agree and don't change.

        It waits for `joined` first. When it returns, no peer has come, changed or gone for `quiet`
        seconds, and the book of each neighbor was found equal since. A node that knows no peer
        settles alone. Neighbors compare with their keepalives, so it takes a `probe_interval` or
        two.

        Args:
            quiet: For how many seconds the book must not have changed.
            timeout: Most seconds to wait; `None` waits forever, as in a swarm that always changes.

        Returns:
            The book that they agree on, without this node. The `digest` of all members of it, this
            node too, is that of `members.snapshot()`.

        Raises:
            PeersTimeoutError: The books did not agree in time. It is a `TimeoutError`.
            ConfigurationError: `quiet` is negative or no number, or `timeout` is NaN.
            NotRunningError: It is not running, or ended while it waited.

        Example:
            ```python
            before = await discovery.settled(quiet=0.5, timeout=30)
            print(len(before), "others, and all agree on them")
            ```
        """
        require_duration("quiet", quiet)
        require_timeout(timeout)
        node = self._running()
        limit = asyncio.timeout(timeout)
        try:
            async with limit:
                await self.joined()
                return snapshot_of(await node.settled(quiet))
        except TimeoutError:
            if not limit.expired():
                raise
            raise PeersTimeoutError(
                f"within {timeout} s, the books of this node and its neighbors did not agree for "
                f"{quiet} s without a change"
            ) from None

    def stop_on_signals(self, *signals: int) -> StopOnSignals:
        """Leave a `with` block at SIGTERM or Ctrl-C, so that what is around it says goodbye.

        The others then see `PeerLeft` at once, not `PeerSuspected` and `PeerLost` after seconds.

        Args:
            *signals: The signals; SIGINT and SIGTERM by default.

        Returns:
            What `with` takes, within a task of the main thread; its `signal` says which one came.

        Raises:
            ConfigurationError: A number is that of no signal.
            RuntimeError: This is not the main thread.

        Example:
            ```python
            with discovery.stop_on_signals() as stop:
                async for message in discovery.messages():
                    print(message)
            print("stopped by", stop.signal)
            ```
        """
        return StopOnSignals(check_signals(signals))

    # --- the other nodes ----------------------------------------------------------------------

    @property
    def book(self) -> Book:
        """The other nodes that are present now, by endpoint id; reading it never blocks."""
        return self._book

    @property
    def members(self) -> View:
        """Every node that is present now, this one too, by endpoint id; reading it never blocks.

        `book` is the same without this node. Use `book` to find others to talk to, and `members` to
        share work among all nodes.
        """
        return self._members

    def status(self, peer: Peer | str) -> PeerStatus | None:
        """Return the state of a peer as this node sees it; `None` if it is not in the book.

        Args:
            peer: A peer, or its id.

        Raises:
            ConfigurationError: `peer` is no id.
            NotRunningError: It is not running.

        Example:
            ```python
            for peer in discovery.book.values():
                status = discovery.status(peer)
                print(peer.name, status and (status.state, status.path, status.round_trip))
            ```
        """
        return self._running().status(PeerStatus, peer)

    def leader(
        self, name: str, *, among: View | None = None, expected: int | None = None
    ) -> LeaderStream:
        """Iterate over who leads, as this node sees it: one of those present, by rendezvous hash.

        All nodes that see the same members name the same leader. Two halves of a partition may have
        one each: `expected` keeps the smaller half without. docs/leader.md says what is promised.

        Args:
            name: What is led: each name has a leader of its own.
            among: The candidates; `members` by default.
            expected: How many candidates there should be. If no more than half of them are
                present, there is no leader.

        Raises:
            ConfigurationError: The name is empty, or `expected` is below 1.
            TypeError: An argument has the wrong type.
            NotRunningError: It is not running.

        Example:
            ```python
            async for leadership in discovery.leader("scheduler", expected=3):
                print("mine" if leadership.mine else leadership.leader, leadership.term)
            ```
        """
        check_leader(name, expected)
        require("among", among, View, type(None))
        view = self._members if among is None else among
        return LeaderStream(name, view, self._shared, self._running(), expected)

    def peers(self) -> PeerStream:
        """Iterate over the known peers, then over each new one, once for each of its lives.

        Raises:
            NotRunningError: It is not running.
        """
        return PeerStream(self._running())

    def events(self) -> EventStream:
        """Iterate over what happens from now on; each call is a subscription of its own.

        Raises:
            NotRunningError: It is not running.

        Example:
            ```python
            async for event in discovery.events():
                match event:
                    case PeerJoined(peer):
                        print("hello", peer.name)
                    case PeerLeft(peer) | PeerLost(peer):
                        print("goodbye", peer.name)
            ```
        """
        _, subscription = self._running().subscribe()
        return EventStream(subscription)

    # --- talking to them ----------------------------------------------------------------------

    async def send(
        self,
        peer: Peer | str,
        data: bytes | bytearray | memoryview,
        *,
        channel: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  # its error says whom it was for
    ) -> Receipt:
        """Send a message to one peer, over the link that there is, or else a new one.

        It returns once the peer's library has put the message into the buffer of a subscriber. A
        message is delivered at most once, and those that are sent one after another arrive in that
        order. While 256 messages or 1 MiB are on their way to one peer, further ones wait for
        their turn.

        Args:
            peer: A peer, or its id: it need not be in the book.
            data: At most 64 KiB.
            channel: Only subscribers to this channel at the peer get it; 1 to 64 bytes.
            timeout: Most seconds to wait; `None` waits until the link breaks.

        Raises:
            PeerUnreachableError: There is no link and none could be opened, or it broke.
            NoSubscriberError: The application at the peer does not iterate over `messages()` of
                this channel. A peer that has just started has a second for that.
            MessageTooLargeError: `data` is over 64 KiB; nothing was sent.
            RequestTimeoutError: The peer did not answer in time; the message may arrive all the
                same. It is a `TimeoutError`.
            ConfigurationError: `peer` is no id, or this node itself; `channel` is outside its
                limits; `timeout` is NaN.
            NotRunningError: It is not running.

        Example:
            ```python
            for peer in discovery.book.values():
                receipt = await discovery.send(peer, b"hello", timeout=5)
            ```
        """
        require_timeout(timeout)
        return await _within(timeout, peer, self._running().send(peer, data, channel))

    async def broadcast(
        self, data: bytes | bytearray | memoryview, *, channel: str | None = None
    ) -> None:
        """Send a message to all members of the topic but this node itself.

        Best effort: it returns once the message is on its way through the overlay, and no receipt
        comes back. Each member delivers it at most once. One that joins at that moment, or whose
        link is too slow, may miss it. A node that has no neighbor yet sends it as soon as it has
        one: up to 320 messages or 1.25 MiB wait for that, for up to 10 s.

        Beyond 128 messages and 384 KiB a second, after 256 messages or 1 MiB at once, it waits for
        its turn.

        Args:
            data: At most 8 KiB.
            channel: Only subscribers to this channel get it; 1 to 64 bytes. Channels take turns.

        Raises:
            MessageTooLargeError: `data` is over 8 KiB; nothing was sent.
            ConfigurationError: `channel` is outside its limits.
            NotRunningError: It is not running.

        Example:
            ```python
            await discovery.broadcast(b"the cache is stale")
            ```
        """
        await self._running().broadcast(data, channel)

    def messages(self, channel: str | None = None) -> MessageStream:
        """Iterate over the messages from now on; each call is a subscription of its own.

        They are those that were sent to this node and the broadcasts of others; `Message.kind` says
        which. Without a channel, they are those that were sent without one.

        Messages have a buffer of their own: however many come, no event is lost for them. If the
        iteration is too slow for that buffer, the oldest are dropped; `MessageStream.lost` counts
        them, and `on(MessagesLost)` hears of each loss.

        Args:
            channel: The channel to listen to; 1 to 64 bytes.

        Raises:
            ConfigurationError: `channel` is outside its limits.
            NotRunningError: It is not running.

        Example:
            ```python
            async for message in discovery.messages("cache"):
                print(message.sender, message.data)
            ```
        """
        return MessageStream(self._running().messages(channel))

    async def open_stream(
        self,
        peer: Peer | str,
        protocol: str | bytes,
        *,
        limit: int = LIMIT,
        timeout: float | None = None,  # noqa: ASYNC109  # its error says whom it was for
    ) -> tuple[StreamReader, StreamWriter]:
        r"""Open a stream of a protocol that a peer serves, over the link that there is or another.

        Up to 1,024 streams may be open with one peer from either side. Control messages and probes
        go first, so no stream delays them; and while it is open, the link is not closed for being
        idle.

        Args:
            peer: A peer, or its id: it need not be in the book.
            protocol: 1 to 32 bytes, or text of as many in UTF-8.
            limit: Most bytes that `readuntil` and `readline` look through.
            timeout: Most seconds to wait until it is open; `None` waits until the link breaks.

        Raises:
            PeerUnreachableError: There is no link and none could be opened, or it broke.
            ProtocolNotServedError: The peer does not serve the protocol.
            TooManyStreamsError: As many are open with the peer as may be, or at the peer.
            RequestTimeoutError: The peer did not answer in time. It is a `TimeoutError`.
            ConfigurationError: `peer` is no id, or this node itself; `protocol` or `limit` is
                outside its limits; `timeout` is NaN.
            NotRunningError: It is not running.

        Example:
            ```python
            for peer in discovery.book.serving("chat/1").values():
                reader, writer = await discovery.open_stream(peer, "chat/1", timeout=5)
                writer.write(b"hello\n")
                await writer.drain()
                print(await reader.readline())
                writer.close()
                await writer.wait_closed()
            ```
        """
        check_limit(limit)
        require_timeout(timeout)
        core = await _within(timeout, peer, self._running().open_stream(peer, protocol))
        return halves(core, protocol, limit)

    @overload
    def serve(self, protocol: str | bytes, handler: Handler, *, limit: int = LIMIT) -> Service: ...
    @overload
    def serve(
        self, protocol: str | bytes, *, limit: int = LIMIT
    ) -> Callable[[Handler], Service]: ...
    def serve(
        self, protocol: str | bytes, handler: Handler | None = None, *, limit: int = LIMIT
    ) -> Service | Callable[[Handler], Service]:
        """Have a handler called for each stream of a protocol that a peer opens; also a decorator.

        The protocol is announced for as long as it is served, so that `book.serving` of the others
        finds this node. It may be registered before the start. See `Service` for what is promised.
        Up to 1,024 streams of one peer and 4,096 in all may be open; more are refused and counted.

        Args:
            protocol: 1 to 32 bytes, or text of as many in UTF-8; at most 8 protocols, with those
                of the constructor.
            handler: A function or coroutine function that takes a reader and a writer, as that of
                `asyncio.start_server`.
            limit: Most bytes that `readuntil` and `readline` look through.

        Returns:
            The service, whose `cancel` ends it; without a handler, a decorator that returns it.

        Raises:
            ConfigurationError: A value is outside its limits, or the protocol is served already.
            TypeError: An argument has the wrong type.
            NotRunningError: It has ended.

        Example:
            ```python
            @discovery.serve("echo/1")
            async def echo(reader: StreamReader, writer: StreamWriter) -> None:
                async for line in reader:
                    writer.write(line)
                    await writer.drain()
            ```
        """
        check_limit(limit)
        if handler is not None:
            return self._serve(protocol, handler, limit)
        return lambda handler: self._serve(protocol, handler, limit)

    async def request(
        self,
        peer: Peer | str,
        name: str,
        data: bytes | bytearray | memoryview = b"",
        *,
        timeout: float | None = None,  # noqa: ASYNC109  # it travels to the peer
    ) -> bytes:
        """Ask a peer for something, and return its reply.

        It is asked at most once. If the wait is cancelled or the time is over, the handler there is
        cancelled; what it has done by then stays done.

        Args:
            peer: A peer, or its id: it need not be in the book.
            name: What to ask for: a name that the peer has an `answer` to, 1 to 64 bytes.
            data: At most 4 MiB.
            timeout: Most seconds to wait, which the peer is told; `None` waits until the link
                breaks.

        Raises:
            NotAnsweredError: The peer answers no request of this name.
            RequestFailedError: The handler there failed; `kind` and `reason` say how.
            RequestTimeoutError: No reply came in time. It is a `TimeoutError`.
            PeerUnreachableError: There is no link and none could be opened, or it broke.
            TooManyStreamsError: As many streams are open with the peer as may be.
            MessageTooLargeError: `data` is over 4 MiB; nothing was sent.
            ConfigurationError: `peer` is no id, or this node itself; `name` is outside its limits;
                `timeout` is NaN.
            NotRunningError: It is not running.

        Example:
            ```python
            for peer in discovery.book.values():
                try:
                    small = await discovery.request(peer, "resize", b"a large one", timeout=2)
                except NotAnsweredError:
                    print(peer.name, "resizes nothing")
            ```
        """
        require_timeout(timeout)
        encode_name(name)
        payload = check_data(data)
        return await _within(timeout, peer, self._request(peer, name, payload, timeout))

    @overload
    def answer(
        self, name: str, handler: AnswerHandler, *, concurrency: int = CONCURRENCY
    ) -> Answer: ...
    @overload
    def answer(
        self, name: str, *, concurrency: int = CONCURRENCY
    ) -> Callable[[AnswerHandler], Answer]: ...
    def answer(
        self, name: str, handler: AnswerHandler | None = None, *, concurrency: int = CONCURRENCY
    ) -> Answer | Callable[[AnswerHandler], Answer]:
        """Have a handler called for each request of a name; also a decorator.

        It may be registered before the start. See `Answer` for what is promised.

        Args:
            name: The name of the requests, 1 to 64 bytes.
            handler: A function or coroutine function that takes a `Request` and returns bytes.
            concurrency: Most requests that it works on at a time; others wait for their turn.

        Returns:
            The answer, whose `cancel` ends it; without a handler, a decorator that returns it.

        Raises:
            ConfigurationError: A value is outside its limits, or the name is answered already.
            TypeError: An argument has the wrong type.
            NotRunningError: It has ended.

        Example:
            ```python
            @discovery.answer("resize")
            async def resize(request: Request) -> bytes:
                return request.data[:100]
            ```
        """
        if handler is None:
            return lambda handler: self._answer(name, handler, concurrency)
        return self._answer(name, handler, concurrency)

    async def wait_for_peers(
        self,
        n: int,
        *,
        timeout: float | None = None,  # noqa: ASYNC109  # its error says what was seen
    ) -> Snapshot:
        """Wait until the book holds at least `n` other nodes, and return a snapshot of it.

        Args:
            n: How many others, not counting this node; at least 0.
            timeout: Most seconds to wait; `None` waits forever.

        Raises:
            PeersTimeoutError: Fewer were there in time; the message says how many, and what
                `problems` lists. It is a `TimeoutError`.
            ConfigurationError: `n` is negative, or `timeout` is NaN.
            NotRunningError: It is not running, or ended while it waited.
        """
        self._running()
        return await self._book.wait(n, timeout=timeout)

    @overload
    def on(
        self,
        event: tuple[type[Message], type[MessagesLost]],
        callback: Callback[Message | MessagesLost],
        *,
        channel: str | None = None,
    ) -> Registration[Message | MessagesLost]: ...
    @overload
    def on(
        self, event: tuple[type[Message], type[MessagesLost]], *, channel: str | None = None
    ) -> Callable[[Callback[Message | MessagesLost]], Registration[Message | MessagesLost]]: ...
    @overload
    def on(
        self, event: type[H], callback: Callback[H], *, channel: str | None = None
    ) -> Registration[H]: ...
    @overload
    def on(
        self, event: type[H], *, channel: str | None = None
    ) -> Callable[[Callback[H]], Registration[H]]: ...
    @overload
    def on(
        self,
        event: tuple[type[E], type[E2]],
        callback: Callback[E | E2],
        *,
        channel: str | None = None,
    ) -> Registration[E | E2]: ...
    @overload
    def on(
        self, event: tuple[type[E], type[E2]], *, channel: str | None = None
    ) -> Callable[[Callback[E | E2]], Registration[E | E2]]: ...
    @overload
    def on(
        self,
        event: tuple[type[E], type[E2], type[E3]],
        callback: Callback[E | E2 | E3],
        *,
        channel: str | None = None,
    ) -> Registration[E | E2 | E3]: ...
    @overload
    def on(
        self, event: tuple[type[E], type[E2], type[E3]], *, channel: str | None = None
    ) -> Callable[[Callback[E | E2 | E3]], Registration[E | E2 | E3]]: ...
    @overload
    def on(
        self,
        event: tuple[type[Event], ...],
        callback: Callback[Event],
        *,
        channel: str | None = None,
    ) -> Registration[Event]: ...
    @overload
    def on(
        self, event: tuple[type[Event], ...], *, channel: str | None = None
    ) -> Callable[[Callback[Event]], Registration[Event]]: ...
    @overload
    def on(
        self, event: UnionType, callback: Callback[Event], *, channel: str | None = None
    ) -> Registration[Event]: ...
    @overload
    def on(
        self, event: UnionType, *, channel: str | None = None
    ) -> Callable[[Callback[Event]], Registration[Event]]: ...
    def on(
        self,
        event: object,
        callback: Callback[H] | None = None,
        *,
        channel: str | None = None,
    ) -> Registration[H] | Callable[[Callback[H]], Registration[H]]:
        """Have a callback called for events of some kinds, or for messages; also a decorator.

        It may be registered before the start. See `Registration` for what is promised.

        Args:
            event: An event's type, or a tuple or union of them; or `Message`, `MessagesLost` or
                both.
            callback: A function or coroutine function that takes the event.
            channel: For messages: the channel that they come in; by default those of none.

        Returns:
            The registration, whose `cancel` unregisters the callback; without a callback, a
            decorator that returns it.

        Raises:
            TypeError: `event` names something that is no event, or mixes messages with events, or
                the callback can't be called.
            ConfigurationError: `channel` is outside its limits, or `event` is not of messages.
            NotRunningError: It has ended.

        Example:
            ```python
            @discovery.on(PeerLost)
            async def lost(event: PeerLost) -> None:
                print("lost", event.peer.name, event.reason)
            ```
        """
        kinds = event_kinds(event, channel)
        check_channel(channel)
        if callback is not None:
            return self._register(kinds, callback, channel)
        return lambda callback: self._register(kinds, callback, channel)

    # --- inside -------------------------------------------------------------------------------

    def _running(self) -> Node:
        if self._closed:
            raise NotRunningError("the discovery is closed")
        if self._shared.node is None:
            raise NotRunningError(
                "the discovery is not started: use `async with`, or await start()"
            )
        return self._shared.node

    async def _looked_or_met(self, node: Node) -> None:
        """Wait until each lookup was called, or something happens in the topic."""
        _, subscription = node.subscribe()
        async with EventStream(subscription) as events:
            looked = asyncio.ensure_future(self._looked.wait())
            met = asyncio.ensure_future(anext(events, None))
            try:
                await asyncio.wait({looked, met}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                looked.cancel()
                met.cancel()

    async def _request(
        self,
        peer: Peer | str,
        name: str,
        data: bytes,
        timeout: float | None,  # noqa: ASYNC109  # it travels to the peer
    ) -> bytes:
        began = asyncio.get_running_loop().time()
        try:
            core = await self._running().open_stream(peer, REQUESTS)
        except ProtocolNotServedError as error:
            raise NotAnsweredError(error.peer, name) from None
        if timeout is not None:
            timeout -= asyncio.get_running_loop().time() - began
        return await ask(halves(core, REQUESTS, LIMIT), name, data, timeout)

    def _answer(self, name: str, handler: AnswerHandler, concurrency: int) -> Answer:
        answer = self._answers.add(name, handler, concurrency)
        if self._answering is None:
            try:
                self._answering = self._serve(REQUESTS, self._answers.handle, LIMIT)
            except BaseException:
                answer.cancel()
                raise
        return answer

    async def _announce(
        self, name: str, metadata: Mapping[str, str], readiness: Readiness | None = None
    ) -> None:
        readiness = self._readiness if readiness is None else readiness
        protocols = self._settings.protocols
        check_profile(name, metadata, protocols)
        metadata = dict(metadata)
        await self._running().set_profile(name, metadata, protocols, readiness)
        self._name, self._metadata, self._readiness = name, metadata, readiness
        self._shared.self_changed()

    def _register(
        self, kinds: tuple[type[Heard], ...], callback: Callback[H], channel: str | None
    ) -> Registration[H]:
        require_callable("callback", callback)
        registration = Registration[H](kinds, callback, channel)
        if self._shared.node is None and not self._closed:
            self._unstarted.append(partial(self._start_callback, registration, known=True))
        else:
            self._start_callback(registration, self._running())
        return registration

    def _serve(self, protocol: str | bytes, handler: Handler, limit: int) -> Service:
        require_callable("handler", handler)
        service = Service(protocol, handler, limit, self._callback_tasks)
        if self._shared.node is None and not self._closed:
            others = [other.protocol for other in self._unstarted_services if other.active]
            check_profile(
                self._name, self._metadata, [*self._settings.protocols, *others, protocol]
            )
            if protocol in others:
                raise ConfigurationError("protocol", f"{protocol!r} is served already")
            self._unstarted_services.append(service)
            self._unstarted.append(partial(start_service, service))
        else:
            start_service(service, self._running())
        return service

    def _start_callback(
        self, registration: Registration[H], node: Node, *, known: bool = False
    ) -> None:
        task = start_callback(registration, node, known=known)
        if task is not None:
            self._callback_tasks.add(task)
            task.add_done_callback(self._callback_tasks.discard)

    @property
    def _is_joined(self) -> bool:
        """Whether `join` has made and started it."""
        return self._host is not None and self._shared.node is not None

    async def _begin(self) -> Node:
        if self._host is not None:
            host = self._host._running()  # noqa: SLF001  # it is of this class
            return await host.join(self._settings, self._peers)
        questions = None if self._admit is None else Questions()
        node = await start(self._settings, self._peers, self._test_runtime, questions)
        if self._admit is not None and questions is not None:
            answering = answer_questions(questions, self._admit)
            self._admit_task = asyncio.create_task(answering)
        _fork.hold(self, node.bound(), self._state_dir)
        return node

    async def _end(self, caller: asyncio.Task[object] | None) -> None:
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(caller))
        await asyncio.shield(self._closing)

    async def _close(self, caller: asyncio.Task[object] | None) -> None:
        async with self._starting:  # a start that is under way ends first
            self._closed = True
            node = self._shared.node
            if node is None:
                return
            self._stop_asking()
            guests = [guest._end(caller) for guest in self._guests]  # noqa: SLF001  # as below
            await asyncio.gather(*guests)
            if self._host is not None:
                self._host._guests.discard(self)  # noqa: SLF001  # it is of this class
            try:
                await node.close()
            finally:
                self._shared.node = None
                _fork.release(self)
                if self._test_runtime is not None:
                    self._test_runtime.kill()
            others = {task for task in self._callback_tasks if task is not caller}
            if others:
                _, late = await asyncio.wait(others, timeout=_CALLBACK_GRACE)
                for task in late:
                    task.cancel()

    def _crash(self) -> None:
        """End as a process that is killed: see `iroh_gossip_discovery.testing`."""
        self._closed = True
        for guest in self._guests:
            guest._crash()  # noqa: SLF001  # it is of this class
        if self._test_runtime is not None:
            self._test_runtime.kill()
        self._stop_asking()
        self._shared.node = None
        _fork.release(self)

    def _stop_asking(self) -> None:
        for task in (self._lookup_task, self._admit_task):
            if task is not None:
                task.cancel()

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a GossipDiscovery can't be copied or pickled: it is a running node. Make one in each "
            "process"
        )

    def __repr__(self) -> str:
        state = "closed" if self._closed else "not started"
        if self._shared.node is not None and not self._closed:
            try:
                state = f"id='{self._shared.node.id[:10]}…', peers={len(self._book)}"
            except RuntimeError:
                state = "in the process that this one was forked from"
        return f"<GossipDiscovery {self._name!r} in {self._topic!r}: {state}>"

    def __del__(self) -> None:
        # An object whose construction failed early has no such attribute.
        shared = getattr(self, "_shared", None)
        if isinstance(shared, SharedNode) and shared.node is not None and not self._closed:
            warnings.warn(
                f"GossipDiscovery {self._name!r} was never closed",
                ResourceWarning,
                source=self,
                stacklevel=2,
            )
