"""`GossipDiscovery` for code without asyncio."""

import functools
import inspect
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from os import PathLike
from types import TracebackType, UnionType
from typing import Final, Self, TypeAlias, TypeVar, overload

from iroh_gossip_discovery import _discovery, _requests, _services
from iroh_gossip_discovery._admission import CONCURRENT, Admit, Newcomer
from iroh_gossip_discovery._bootstrap import BootstrapPeer, BootstrapSource, Lookup
from iroh_gossip_discovery._callbacks import event_kinds
from iroh_gossip_discovery._config import Config
from iroh_gossip_discovery._core import Node, Peer, PeerJoined, check_channel
from iroh_gossip_discovery._events import Event, Heard
from iroh_gossip_discovery._iterators import EventStream as AsyncEventStream
from iroh_gossip_discovery._iterators import MessageEventStream as AsyncMessageEventStream
from iroh_gossip_discovery._metrics import Metrics
from iroh_gossip_discovery._problems import Problem
from iroh_gossip_discovery._requests import CONCURRENCY
from iroh_gossip_discovery._require import require_callable
from iroh_gossip_discovery._signals import BlockingStopOnSignals, check_signals
from iroh_gossip_discovery._snapshot import peers_of
from iroh_gossip_discovery._status import PeerStatus
from iroh_gossip_discovery._streams import LIMIT
from iroh_gossip_discovery.blocking import _views
from iroh_gossip_discovery.blocking._callbacks import Registration
from iroh_gossip_discovery.blocking._iterators import (
    EventStream,
    LeaderStream,
    MessageEventStream,
    MessageStream,
    PeerStream,
)
from iroh_gossip_discovery.blocking._loop import in_thread, loop_thread, wait
from iroh_gossip_discovery.blocking._requests import Answer, AnswerHandler
from iroh_gossip_discovery.blocking._requests import in_threads as answer_in_threads
from iroh_gossip_discovery.blocking._streams import (
    Handler,
    Service,
    StreamReader,
    StreamWriter,
    halves,
    in_threads,
)
from iroh_gossip_discovery.blocking._views import View
from iroh_gossip_discovery.blocking._waits import Waits, waits

E = TypeVar("E", bound=Heard)

_Found: TypeAlias = Iterable[BootstrapPeer]

BlockingLookup: TypeAlias = Callable[[], Iterable[BootstrapPeer]]
"""A function that finds bootstrap peers; called on a thread of its own."""

BlockingAdmit: TypeAlias = Callable[[Newcomer], bool]
"""Takes a `Newcomer` and returns whether it may be a member here; called on a thread."""

# How long, in seconds, `close` lets callbacks finish what they are at.
_CALLBACK_GRACE = 1.0


class GossipDiscovery(Waits[_discovery.GossipDiscovery]):
    """A node that announces itself in a topic and finds the topic's other nodes; its calls block.

    Use it with `with`: it is bound and announced on entry, which waits for no peer, and says
    goodbye on exit. Without, `start()` and `close()` in a `finally`; a node that is still running
    when the interpreter exits says goodbye then. All threads may share one.

    The waiting is done by one event loop on a daemon thread, for all nodes of the process. A call
    that blocks can be interrupted by Ctrl-C; made on a running event loop, it is a `RuntimeError`.

    Args:
        name: As for `iroh_gossip_discovery.GossipDiscovery`, as all other arguments.
        topic: Nodes of one topic find each other.
        bootstrap: The peers to dial first; here a plain function may find them, too.
        secret_key: The 32 bytes of the identity's Ed25519 secret key.
        secret: Makes the swarm private: a key, a passphrase, or 1 to 4 of them.
        issuer: Makes the swarm private by invitations: the id of an issuer, or 1 to 8 of them.
        invitation: The invitation of this node.
        allow: The only peers that this node deals with; by default all that are not denied.
        deny: Peers that this node keeps out.
        admit: A function that is asked about each node; here it is called on threads, at most 16.
        state_dir: A directory that keeps key and sequence numbers over a restart.
        metadata: Text by key that others see.
        protocols: The protocols (ALPNs) that this endpoint serves.
        config: Timers, limits and networks; `Config.lan()` by default.
        observer: Only observe: see the book, and be in nobody's.

    Raises:
        ConfigurationError: A value is outside its limits, malformed, or a ticket is for another
            topic; the message names the argument.
        TypeError: An argument has the wrong type; the message names it.

    Example:
        ```python
        with GossipDiscovery("alice", topic="fleet") as discovery:
            for peer in discovery.book.values():
                discovery.send(peer, b"hello", timeout=5)
        ```
    """

    def __init__(  # noqa: PLR0913  # as the awaited one
        self,
        name: str,
        topic: str,
        *,
        bootstrap: Iterable[BootstrapSource | BlockingLookup] = (),
        secret_key: bytes | None = None,
        secret: str | Iterable[str] | None = None,
        issuer: str | Iterable[str] | None = None,
        invitation: str | None = None,
        allow: Iterable[Peer | str] | None = None,
        deny: Iterable[Peer | str] = (),
        admit: BlockingAdmit | None = None,
        state_dir: str | PathLike[str] | None = None,
        metadata: Mapping[str, str] | None = None,
        protocols: Iterable[str | bytes] = (),
        config: Config | None = None,
        observer: bool = False,
    ) -> None:
        awaited = _discovery.GossipDiscovery(
            name,
            topic,
            bootstrap=_sources(bootstrap),
            secret_key=secret_key,
            secret=secret,
            issuer=issuer,
            invitation=invitation,
            allow=allow,
            deny=deny,
            admit=_admit(admit),
            state_dir=state_dir,
            metadata=metadata,
            protocols=protocols,
            config=config,
            observer=observer,
        )
        self._adopt(awaited)

    def _adopt(self, awaited: _discovery.GossipDiscovery) -> None:
        """Become the blocking side of an awaited one."""
        super().__init__(awaited)
        shared = awaited._shared  # noqa: SLF001  # the two are one
        self._book = _views.book(shared)
        self._members = _views.members(shared)
        self._lock = threading.Lock()
        self._unstarted: list[Callable[[Node], threading.Thread | None]] = []
        self._threads: list[threading.Thread] = []

    # --- life ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Bind an endpoint, join the topic and announce this node; wait for no peer.

        Raises:
            BindError: An address of `Config.bind` is taken, or not this machine's.
            StateDirError: `state_dir` can't be used, or another node holds it.
            NotRunningError: It was started before.
            RuntimeError: This process was forked from one that had started a discovery, or the
                caller runs on an event loop.
        """
        wait(self._awaited.start)
        loop_thread().close_at_exit(self._awaited)
        node = self._awaited._running()  # noqa: SLF001  # the two are one
        with self._lock:
            for begin in self._unstarted:
                self._keep(begin(node))
            self._unstarted.clear()

    def close(self) -> None:
        """Say goodbye, end all iterators, and close the endpoint; more calls do no harm.

        Callbacks that are under way get a second to finish.

        Raises:
            RuntimeError: The caller runs on an event loop.
        """
        wait(self._awaited.close)
        end = time.monotonic() + _CALLBACK_GRACE
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, end - time.monotonic()))

    def join(
        self,
        topic: str,
        *,
        name: str | None = None,
        bootstrap: Iterable[BootstrapSource | BlockingLookup] = (),
        metadata: Mapping[str, str] | None = None,
        protocols: Iterable[str | bytes] = (),
    ) -> "GossipDiscovery":
        """Join another topic with the same identity, on the same endpoint and its links.

        See `iroh_gossip_discovery.GossipDiscovery.join`.

        Args:
            topic: The other topic.
            name: This node's name in it; the same as here by default.
            bootstrap: The peers to dial first, as of the constructor; tickets for that topic.
            metadata: Text by key that others see there.
            protocols: The protocols that this endpoint serves there.

        Raises:
            ConfigurationError: A value is outside its limits, or a ticket is for another topic.
            DiscoveryError: This endpoint has joined the topic already.
            NotRunningError: It is not running.
            RuntimeError: The caller runs on an event loop.
        """
        awaited = wait(
            lambda: self._awaited.join(
                topic,
                name=name,
                bootstrap=_sources(bootstrap),
                metadata=metadata,
                protocols=protocols,
            )
        )
        other = GossipDiscovery.__new__(GossipDiscovery)
        other._adopt(awaited)  # noqa: SLF001  # it is of this class
        return other

    def __enter__(self) -> Self:
        if not self._awaited._is_joined:  # noqa: SLF001  # the two are one
            self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # --- what is awaited there, and blocks here -----------------------------------------------

    leave: Final = waits(_discovery.GossipDiscovery.leave)
    update: Final = waits(_discovery.GossipDiscovery.update)
    update_metadata: Final = waits(_discovery.GossipDiscovery.update_metadata)
    set_readiness: Final = waits(_discovery.GossipDiscovery.set_readiness)
    add_bootstrap: Final = waits(_discovery.GossipDiscovery.add_bootstrap)
    deny: Final = waits(_discovery.GossipDiscovery.deny)
    undeny: Final = waits(_discovery.GossipDiscovery.undeny)
    revoke: Final = waits(_discovery.GossipDiscovery.revoke)
    renew: Final = waits(_discovery.GossipDiscovery.renew)
    allow: Final = waits(_discovery.GossipDiscovery.allow)
    disallow: Final = waits(_discovery.GossipDiscovery.disallow)
    send: Final = waits(_discovery.GossipDiscovery.send)
    broadcast: Final = waits(_discovery.GossipDiscovery.broadcast)
    wait_for_peers: Final = waits(_discovery.GossipDiscovery.wait_for_peers)
    joined: Final = waits(_discovery.GossipDiscovery.joined)
    settled: Final = waits(_discovery.GossipDiscovery.settled)
    request: Final = waits(_discovery.GossipDiscovery.request)

    # --- what needs no waiting ----------------------------------------------------------------

    @property
    def id(self) -> str:
        """The endpoint id: this node's public key as 64 lower-case hex digits.

        Raises:
            NotRunningError: It is not running.
        """
        return self._awaited.id

    @property
    def ticket(self) -> str:
        """How to reach this node, as one string for another node's `bootstrap`.

        Raises:
            NotRunningError: It is not running.
        """
        return self._awaited.ticket

    @property
    def revoked(self) -> frozenset[str]:
        """The ids that issuers keep out, as far as this node knows.

        Raises:
            NotRunningError: It is not running.
        """
        return self._awaited.revoked

    @property
    def denied(self) -> frozenset[str]:
        """The ids that are denied now.

        Raises:
            NotRunningError: It is not running.
        """
        return self._awaited.denied

    @property
    def allowed(self) -> frozenset[str] | None:
        """The ids on the allow list now; `None` if there is no such list.

        Raises:
            NotRunningError: It is not running.
        """
        return self._awaited.allowed

    @property
    def me(self) -> Peer:
        """This node, as the others see it: what it announced last.

        Raises:
            NotRunningError: It is not running.
        """
        return self._awaited.me

    @property
    def is_observer(self) -> bool:
        """Whether this node only observes."""
        return self._awaited.is_observer

    @property
    def name(self) -> str:
        """The name that this node announces."""
        return self._awaited.name

    @property
    def readiness(self) -> _discovery.Readiness:
        """What this node announces of its readiness."""
        return self._awaited.readiness

    @property
    def topic(self) -> str:
        """The name of the topic."""
        return self._awaited.topic

    @property
    def config(self) -> Config:
        """The configuration that it was made with."""
        return self._awaited.config

    @property
    def metadata(self) -> dict[str, str]:
        """A copy of the metadata that this node announces."""
        return self._awaited.metadata

    @property
    def book(self) -> View:
        """The other nodes that are present now, by endpoint id; reading it never blocks."""
        return self._book

    @property
    def members(self) -> View:
        """Every node that is present now, this one too, by endpoint id; reading it never blocks."""
        return self._members

    def metrics(self) -> Metrics:
        """Return what this node counted so far, as a snapshot.

        Raises:
            NotRunningError: It is not running.
        """
        return self._awaited.metrics()

    def problems(self) -> list[Problem]:
        """Return what keeps this node from others now, the oldest first, at most 64.

        Raises:
            NotRunningError: It is not running.
        """
        return self._awaited.problems()

    def status(self, peer: Peer | str) -> PeerStatus | None:
        """Return the state of a peer as this node sees it; `None` if it is not in the book.

        Args:
            peer: A peer, or its id.

        Raises:
            ConfigurationError: `peer` is no id.
            NotRunningError: It is not running.
        """
        return self._awaited.status(peer)

    def stop_on_signals(self, *signals: int) -> BlockingStopOnSignals:
        """Leave a `with` block at SIGTERM or Ctrl-C, so that what is around it says goodbye.

        The others then see `PeerLeft` at once, not `PeerSuspected` and `PeerLost` after seconds.

        Args:
            *signals: The signals; SIGINT and SIGTERM by default.

        Returns:
            What `with` takes, in the main thread; its `signal` says which one came.

        Raises:
            ConfigurationError: A number is that of no signal.
            RuntimeError: This is not the main thread.

        Example:
            ```python
            with GossipDiscovery("worker", topic="fleet") as discovery:
                with discovery.stop_on_signals():
                    for message in discovery.messages(timeout=0.1):
                        print(message)
            ```
        """
        return BlockingStopOnSignals(check_signals(signals))

    # --- iterators ----------------------------------------------------------------------------

    def peers(self, *, timeout: float | None = None) -> PeerStream:
        """Iterate over the known peers, then over each new one, once for each of its lives.

        Args:
            timeout: Most seconds that a `for` waits for the next one; `None` waits forever.

        Raises:
            NotRunningError: It is not running.
        """
        return PeerStream(self._awaited.peers(), timeout)

    def events(self, *, timeout: float | None = None) -> EventStream:
        """Iterate over what happens from now on; each call is a subscription of its own.

        Args:
            timeout: Most seconds that a `for` waits for the next one; `None` waits forever.

        Raises:
            NotRunningError: It is not running.

        Example:
            ```python
            for event in discovery.events(timeout=0.1):
                print(event)
            print("nothing has happened for 0.1 s")
            ```
        """
        return EventStream(self._awaited.events(), timeout)

    def leader(
        self,
        name: str,
        *,
        among: View | None = None,
        expected: int | None = None,
        timeout: float | None = None,
    ) -> LeaderStream:
        """Iterate over who leads, as this node sees it: one of those present, by rendezvous hash.

        Args:
            name: What is led: each name has a leader of its own.
            among: The candidates; `members` by default.
            expected: How many candidates there should be. If no more than half of them are
                present, there is no leader.
            timeout: Most seconds that a `for` waits for the next change; `None` waits forever.

        Raises:
            ConfigurationError: The name is empty, or `expected` is below 1.
            TypeError: An argument has the wrong type.
            NotRunningError: It is not running.
            RuntimeError: The caller runs on an event loop.
        """

        async def start() -> LeaderStream:
            leaders = self._awaited.leader(name, among=among, expected=expected)
            return LeaderStream(leaders, timeout)

        return wait(start)

    def messages(
        self, channel: str | None = None, *, timeout: float | None = None
    ) -> MessageStream:
        """Iterate over the messages from now on; each call is a subscription of its own.

        Args:
            channel: The channel to listen to; by default the messages of none.
            timeout: Most seconds that a `for` waits for the next one; `None` waits forever.

        Raises:
            ConfigurationError: `channel` is outside its limits.
            NotRunningError: It is not running.
        """
        return MessageStream(self._awaited.messages(channel), timeout)

    # --- streams of bytes ---------------------------------------------------------------------

    def open_stream(
        self,
        peer: Peer | str,
        protocol: str | bytes,
        *,
        limit: int = LIMIT,
        timeout: float | None = None,
    ) -> tuple[StreamReader, StreamWriter]:
        r"""Open a stream of a protocol that a peer serves, over the link that there is or another.

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
                outside its limits.
            NotRunningError: It is not running.

        Example:
            ```python
            for peer in discovery.book.serving("chat/1").values():
                reader, writer = discovery.open_stream(peer, "chat/1", timeout=5)
                writer.write(b"hello\n")
                writer.drain()
                print(reader.readline())
                writer.close()
            ```
        """
        opening = partial(self._awaited.open_stream, peer, protocol, limit=limit, timeout=timeout)
        return halves(wait(opening))

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

        The protocol is announced for as long as it is served. It may be registered before the
        start. See `Service` for what is promised.

        Args:
            protocol: 1 to 32 bytes, or text of as many in UTF-8; at most 8 protocols, with those
                of the constructor.
            handler: A plain function that takes a reader and a writer; it may block.
            limit: Most bytes that `readuntil` and `readline` look through.

        Returns:
            The service, whose `cancel` ends it; without a handler, a decorator that returns it.

        Raises:
            ConfigurationError: A value is outside its limits, or the protocol is served already.
            TypeError: An argument has the wrong type, or the handler is a coroutine function.
            NotRunningError: It has ended.
            RuntimeError: The caller runs on an event loop.

        Example:
            ```python
            @discovery.serve("echo/1")
            def echo(reader: StreamReader, writer: StreamWriter) -> None:
                for line in reader:
                    writer.write(line)
                    writer.drain()
            ```
        """
        if handler is None:
            return lambda handler: self.serve(protocol, handler, limit=limit)
        _require_function("handler", handler)
        awaited = in_threads(handler)

        async def start() -> _services.Service:
            return self._awaited.serve(protocol, awaited, limit=limit)

        return Service(wait(start), handler)

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
            handler: A plain function that takes a `Request` and returns bytes; it may block.
            concurrency: Most requests that it works on at a time; others wait for their turn.

        Returns:
            The answer, whose `cancel` ends it; without a handler, a decorator that returns it.

        Raises:
            ConfigurationError: A value is outside its limits, or the name is answered already.
            TypeError: An argument has the wrong type, or the handler is a coroutine function.
            NotRunningError: It has ended.
            RuntimeError: The caller runs on an event loop.

        Example:
            ```python
            @discovery.answer("resize")
            def resize(request: Request) -> bytes:
                return request.data[:100]
            ```
        """
        if handler is None:
            return lambda handler: self.answer(name, handler, concurrency=concurrency)
        _require_function("handler", handler)
        awaited = answer_in_threads(handler)

        async def start() -> _requests.Answer:
            return self._awaited.answer(name, awaited, concurrency=concurrency)

        return Answer(wait(start), handler)

    # --- callbacks ----------------------------------------------------------------------------

    @overload
    def on(
        self, event: type[E], callback: Callable[[E], object], *, channel: str | None = None
    ) -> Registration[E]: ...
    @overload
    def on(
        self, event: type[E], *, channel: str | None = None
    ) -> Callable[[Callable[[E], object]], Registration[E]]: ...
    @overload
    def on(
        self,
        event: tuple[type[Event], ...] | UnionType,
        callback: Callable[[Event], object],
        *,
        channel: str | None = None,
    ) -> Registration[Event]: ...
    @overload
    def on(
        self, event: tuple[type[Event], ...] | UnionType, *, channel: str | None = None
    ) -> Callable[[Callable[[Event], object]], Registration[Event]]: ...
    def on(
        self,
        event: object,
        callback: Callable[[E], object] | None = None,
        *,
        channel: str | None = None,
    ) -> Registration[E] | Callable[[Callable[[E], object]], Registration[E]]:
        """Have a callback called for events of some kinds; also a decorator.

        It may be registered before the start. See `Registration` for what is promised.

        Args:
            event: An event's type, or a tuple or union of them; or `Message`, `MessagesLost` or
                both.
            callback: A plain function that takes the event; it may block.
            channel: For messages: the channel that they come in; by default those of none.

        Returns:
            The registration, whose `cancel` unregisters the callback; without a callback, a
            decorator that returns it.

        Raises:
            TypeError: `event` names something that is no event, or mixes messages with events, or
                the callback can't be called, or is a coroutine function.
            ConfigurationError: `channel` is outside its limits, or `event` is not of messages.
            NotRunningError: It has ended.

        Example:
            ```python
            @discovery.on(PeerLost)
            def lost(event: PeerLost) -> None:
                print("lost", event.peer.name, event.reason)
            ```
        """
        kinds = event_kinds(event, channel)
        check_channel(channel)
        if callback is not None:
            return self._register(kinds, callback, channel)
        return lambda callback: self._register(kinds, callback, channel)

    # --- inside -------------------------------------------------------------------------------

    def _register(
        self,
        kinds: tuple[type[Heard], ...],
        callback: Callable[[E], object],
        channel: str | None,
    ) -> Registration[E]:
        _require_function("callback", callback)
        registration = Registration[E](kinds, callback)
        with self._lock:
            if self._awaited._shared.node is None and not self._awaited._closed:  # noqa: SLF001
                self._unstarted.append(lambda node: _begin(registration, channel, node, known=True))
            else:
                node = self._awaited._running()  # noqa: SLF001  # the two are one
                self._keep(_begin(registration, channel, node))
        return registration

    def _keep(self, thread: threading.Thread | None) -> None:
        self._threads = [old for old in self._threads if old.is_alive()]
        if thread is not None:
            self._threads.append(thread)

    def __reduce__(self) -> str | tuple[object, ...]:
        return self._awaited.__reduce__()  # refused

    def __repr__(self) -> str:
        return f"<blocking.{repr(self._awaited).removeprefix('<')}"


def _require_function(field: str, function: Callable[..., object]) -> None:
    """Refuse what can't be called, or would have to be awaited.

    Raises:
        TypeError: It names the field.
    """
    require_callable(field, function)
    if inspect.iscoroutinefunction(function):
        raise TypeError(f"{field} must be a plain function: here nothing awaits a coroutine")


def _begin(
    registration: Registration[E], channel: str | None, node: Node, *, known: bool = False
) -> threading.Thread | None:
    # The parts of a registration that its holder has no use for.
    if registration._of_messages:  # noqa: SLF001
        messages = AsyncMessageEventStream(node.messages(channel))
        return registration._begin([], MessageEventStream(messages, None))  # noqa: SLF001
    peers, subscription = node.subscribe()
    stream = EventStream(AsyncEventStream(subscription), None)
    joined: list[Event] = [PeerJoined(peer) for peer in peers_of(peers)] if known else []
    return registration._begin(joined, stream)  # noqa: SLF001


def _sources(
    sources: Iterable[BootstrapSource | BlockingLookup],
) -> Iterable[BootstrapSource]:
    """Give plain functions among the sources a thread of their own, whenever they are called."""
    if isinstance(sources, str | bytes | Peer) or not isinstance(sources, Iterable):
        return sources  # it is refused where others are
    return [
        _lookup(source) if not isinstance(source, str | Peer) and callable(source) else source
        for source in sources
    ]


def _lookup(function: Callable[[], _Found | Awaitable[_Found]]) -> Lookup:
    @functools.wraps(function)
    async def look() -> _Found:
        found = await in_thread(function)
        return await found if isinstance(found, Awaitable) else found

    return look


def _admit(function: BlockingAdmit | None) -> Admit | None:
    """Call the function on threads; one that does not return keeps its thread and its place."""
    if function is None:
        return None
    require_callable("admit", function)
    places = threading.BoundedSemaphore(CONCURRENT)

    def ask(newcomer: Newcomer) -> bool:
        try:
            return function(newcomer)
        finally:
            places.release()

    @functools.wraps(function)
    async def admit(newcomer: Newcomer) -> bool:
        if not places.acquire(blocking=False):
            raise RuntimeError(f"{CONCURRENT} calls of admit have not returned")
        return await in_thread(partial(ask, newcomer))

    return admit
