"""The core, in Rust. Import `iroh_gossip_discovery` instead: this module is private."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar, Final, Literal, Protocol, TypeAlias, TypeVar, final

from iroh_gossip_discovery._simulate import Simulation

__version__: Final[str]

_T = TypeVar("_T")

class DiscoveryError(Exception):
    """The root of every error that this package raises of its own."""

@final
class Peer:
    """Another node of the topic, as it describes itself in the newest record that it signed."""

    __match_args__: ClassVar[tuple[Literal["id"], Literal["name"]]] = ("id", "name")
    def __new__(
        cls,
        id: str,
        name: str,
        *,
        addresses: Sequence[str] | None = None,
        metadata: Mapping[str, str] | None = None,
        protocols: Sequence[str | bytes] | None = None,
        sequence: int | None = None,
        boot_id: int | None = None,
        expiration: float | None = None,
        readiness: Literal["ready", "draining", "critical", "unknown"] | None = None,
    ) -> Peer: ...
    @property
    def id(self) -> str:
        """The endpoint id: the peer's public key, proven by its signature, as 64 hex digits."""
    @property
    def fingerprint(self) -> str:
        """The first ten digits of the id, to show beside a name."""
    @property
    def name(self) -> str:
        """A label that the peer chose; several peers may share one."""
    @property
    def addresses(self) -> tuple[str, ...]:
        """Where the peer says it can be dialed, best first: `ip:port`, or a relay's URL."""
    @property
    def endpoint_ticket(self) -> str:
        """How to dial the peer's endpoint, as a ticket of iroh's own: `endpoint…`.

        `iroh.EndpointTicket.from_string` parses it, and so does every program over iroh 1. It names
        the endpoint and its addresses, but no topic: `bootstrap` takes `discovery.ticket` instead.

        Raises:
            ConfigurationError: `id` is no public key, in a peer that was made by hand.
        """
    @property
    def metadata(self) -> MappingProxyType[str, str]:
        """The text that the peer announces, by key; read-only."""
    @property
    def protocols(self) -> tuple[str, ...]:
        r"""The protocols (ALPNs) that the peer serves; bytes that are not UTF-8 as `\xff`."""
    @property
    def readiness(self) -> Literal["ready", "draining", "critical", "unknown"]:
        """Whether the peer takes work, by its own account.

        `unknown` stands for what this release does not know; it counts as not ready.
        """
    @property
    def sequence(self) -> int:
        """The record's sequence number: of two records of one peer, the higher one holds."""
    @property
    def boot_id(self) -> int:
        """Random for each process of the peer: another boot id, another life."""
    @property
    def expiration(self) -> float:
        """How long, in seconds, the record is kept without a newer one."""
    def to_dict(self) -> dict[str, object]:
        """The peer as a dict of plain values, as docs/peer.schema.json describes."""
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __getnewargs_ex__(self) -> tuple[tuple[str, str], dict[str, object]]: ...

@final
class PeerJoined:
    """A peer entered the address book."""

    __match_args__: ClassVar[tuple[Literal["peer"]]] = ("peer",)
    def __new__(cls, peer: Peer) -> PeerJoined: ...
    @property
    def peer(self) -> Peer:
        """The peer, as its newest record describes it."""
    def to_dict(self) -> dict[str, object]:
        """The event as a dict of plain values, as docs/event.schema.json describes."""
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __getnewargs__(self) -> tuple[Peer]: ...

@final
class PeerUpdated:
    """A peer in the book changed its name, addresses, metadata or protocols, or was restarted."""

    __match_args__: ClassVar[tuple[Literal["peer"]]] = ("peer",)
    def __new__(cls, peer: Peer) -> PeerUpdated: ...
    @property
    def peer(self) -> Peer:
        """The peer, as its newest record describes it."""
    def to_dict(self) -> dict[str, object]:
        """The event as a dict of plain values, as docs/event.schema.json describes."""
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __getnewargs__(self) -> tuple[Peer]: ...

@final
class PeerSuspected:
    """A peer did not answer a probe, or is accused by a member; it has a few seconds to refute."""

    __match_args__: ClassVar[tuple[Literal["peer"]]] = ("peer",)
    def __new__(cls, peer: Peer) -> PeerSuspected: ...
    @property
    def peer(self) -> Peer:
        """The peer, as its newest record describes it."""
    def to_dict(self) -> dict[str, object]:
        """The event as a dict of plain values, as docs/event.schema.json describes."""
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __getnewargs__(self) -> tuple[Peer]: ...

@final
class PeerRecovered:
    """A suspected peer refuted the suspicion, or was heard."""

    __match_args__: ClassVar[tuple[Literal["peer"]]] = ("peer",)
    def __new__(cls, peer: Peer) -> PeerRecovered: ...
    @property
    def peer(self) -> Peer:
        """The peer, as its newest record describes it."""
    def to_dict(self) -> dict[str, object]:
        """The event as a dict of plain values, as docs/event.schema.json describes."""
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __getnewargs__(self) -> tuple[Peer]: ...

@final
class PeerLeft:
    """A peer said goodbye and is out of the book."""

    __match_args__: ClassVar[tuple[Literal["peer"]]] = ("peer",)
    def __new__(cls, peer: Peer) -> PeerLeft: ...
    @property
    def peer(self) -> Peer:
        """The peer, as its newest record describes it."""
    def to_dict(self) -> dict[str, object]:
        """The event as a dict of plain values, as docs/event.schema.json describes."""
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __getnewargs__(self) -> tuple[Peer]: ...

@final
class PeerLost:
    """A peer is out of the book without a goodbye."""

    __match_args__: ClassVar[tuple[Literal["peer"], Literal["reason"]]] = ("peer", "reason")
    def __new__(
        cls, peer: Peer, reason: Literal["unreachable", "expired", "denied", "displaced"]
    ) -> PeerLost: ...
    @property
    def peer(self) -> Peer:
        """The peer, as its last record described it."""
    @property
    def reason(self) -> Literal["unreachable", "expired", "denied", "displaced"]:
        """Why: `"unreachable"`, it answered no probe in time; `"expired"`, it was silent too long.

        `"unreachable"`: it answered neither this node nor others, and did not refute the suspicion.
        `"expired"`: its record was not refreshed for the expiration that it announced.
        `"denied"`: the allow list or the deny list of this node keeps it out from now on.
        `"displaced"`: the book was full, and this node had never reached it.
        """
    def to_dict(self) -> dict[str, object]:
        """The event as a dict of plain values, as docs/event.schema.json describes."""
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __getnewargs__(self) -> tuple[Peer, str]: ...

@final
class Isolated:
    """No authenticated link to any member of the topic is left."""

    __match_args__: ClassVar[tuple[()]] = ()
    def __new__(cls) -> Isolated: ...
    def to_dict(self) -> dict[str, object]:
        """The event as a dict of plain values, as docs/event.schema.json describes."""
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __getnewargs__(self) -> tuple[()]: ...

@final
class Reconnected:
    """A member of the topic is linked again after `Isolated`."""

    __match_args__: ClassVar[tuple[()]] = ()
    def __new__(cls) -> Reconnected: ...
    def to_dict(self) -> dict[str, object]:
        """The event as a dict of plain values, as docs/event.schema.json describes."""
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __getnewargs__(self) -> tuple[()]: ...

@final
class IdentityConflict:
    """Another process announces with this node's key, again and again: a copied key or image."""

    __match_args__: ClassVar[tuple[Literal["boot_id"]]] = ("boot_id",)
    def __new__(cls, boot_id: int) -> IdentityConflict: ...
    @property
    def boot_id(self) -> int:
        """The boot id of the other process: random for each process."""
    def to_dict(self) -> dict[str, object]:
        """The event as a dict of plain values, as docs/event.schema.json describes."""
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __getnewargs__(self) -> tuple[int]: ...

@final
class StateDamaged:
    """A file of the state directory was damaged; it was set aside, and the node started anyway."""

    __match_args__: ClassVar[tuple[Literal["reason"]]] = ("reason",)
    def __new__(cls, reason: str) -> StateDamaged: ...
    @property
    def reason(self) -> str:
        """Which file, why, and what became of it."""
    def to_dict(self) -> dict[str, object]:
        """The event as a dict of plain values, as docs/event.schema.json describes."""
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __getnewargs__(self) -> tuple[str]: ...

@final
class EventsLost:
    """This subscriber was too slow: its oldest events were dropped; the book tells what holds."""

    __match_args__: ClassVar[tuple[Literal["count"]]] = ("count",)
    def __new__(cls, count: int) -> EventsLost: ...
    @property
    def count(self) -> int:
        """How many events were dropped here."""
    def to_dict(self) -> dict[str, object]:
        """The event as a dict of plain values, as docs/event.schema.json describes."""
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __getnewargs__(self) -> tuple[int]: ...

_Event: TypeAlias = (
    PeerJoined
    | PeerUpdated
    | PeerSuspected
    | PeerRecovered
    | PeerLeft
    | PeerLost
    | Isolated
    | Reconnected
    | IdentityConflict
    | StateDamaged
    | EventsLost
)

@final
class Message:
    """A message from another node."""

    __match_args__: ClassVar[
        tuple[Literal["sender"], Literal["data"], Literal["kind"], Literal["channel"]]
    ] = ("sender", "data", "kind", "channel")
    def __new__(
        cls,
        sender: str,
        data: bytes,
        kind: Literal["direct", "broadcast"],
        channel: str | None = None,
    ) -> Message: ...
    @property
    def sender(self) -> str:
        """The endpoint id of the sender, authenticated, as 64 hex digits."""
    @property
    def data(self) -> bytes:
        """What was sent."""
    @property
    def kind(self) -> Literal["direct", "broadcast"]:
        """How it came: `"direct"`, to this node alone, or `"broadcast"`, to all."""
    @property
    def channel(self) -> str | None:
        """The channel that it is for; `None` if it is for none."""
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __getnewargs__(self) -> tuple[str, bytes, str, str | None]: ...

@final
class MessagesLost:
    """This subscriber was too slow, so messages were dropped here."""

    __match_args__: ClassVar[tuple[Literal["count"]]] = ("count",)
    def __new__(cls, count: int) -> MessagesLost: ...
    @property
    def count(self) -> int:
        """How many messages were dropped here."""
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __getnewargs__(self) -> tuple[int]: ...

@final
class Receipt:
    """The confirmation that a subscriber of the receiver has a message in its queue."""

    __match_args__: ClassVar[tuple[Literal["peer"], Literal["elapsed"]]] = ("peer", "elapsed")
    def __new__(cls, peer: str, elapsed: float) -> Receipt: ...
    @property
    def peer(self) -> str:
        """The endpoint id of the receiver, as 64 hex digits."""
    @property
    def elapsed(self) -> float:
        """Seconds from the call to the peer's answer, dialing included."""
    def __eq__(self, other: object, /) -> bool: ...
    def __getnewargs__(self) -> tuple[str, float]: ...

class _ConfigLike(Protocol):
    @property
    def bind(self) -> Sequence[str]: ...

@final
class Settings:
    """What a node is started with."""

    def __new__(
        cls,
        name: str,
        topic: str,
        metadata: Mapping[str, str] | None,
        protocols: Iterable[str | bytes],
        secret_key: bytes | None,
        secret: str | Iterable[str] | None,
        issuer: str | Iterable[str] | None,
        invitation: str | None,
        allow: Iterable[Peer | str] | None,
        deny: Iterable[Peer | str],
        state_dir: Path | None,
        config: _ConfigLike,
        observer: bool,
    ) -> Settings: ...
    @property
    def metadata(self) -> dict[str, str]:
        """A copy of the metadata."""
    @property
    def protocols(self) -> list[bytes]:
        """A copy of the protocols."""

@final
class TestRuntime:
    """A runtime and a thread for one node alone, for tests: they can be paused and killed."""

    def __new__(cls) -> TestRuntime: ...
    def pause(self) -> None:
        """Stop everything that runs there, until `resume`."""
    def resume(self) -> None:
        """Let it go on."""
    def kill(self) -> None:
        """End everything that runs there at once, without a goodbye."""

def bar(node: Node, peers: list[str]) -> None:
    """Bar a node from these peers, in place of those before; open links stay until `sever`."""

def sever(node: Node) -> asyncio.Future[None]:
    """Cut the links of a node to those that it is barred from."""

@final
class Bootstrap:
    """A bootstrap peer: a ticket, `id@host:port`, a name, an id, or a peer of a book."""

    def __new__(cls, field: str, source: str | Peer, settings: Settings) -> Bootstrap: ...

@final
class Selection:
    """Conditions on nodes that all have to hold; without any, every node of the book."""

    def __new__(cls, *, with_self: bool = False) -> Selection: ...
    def named(self, name: str) -> Selection:
        """Nodes of this name, too."""
    def where_(self, key: str, value: str | None) -> Selection:
        """Nodes whose metadata has this value under this key, too; `None`: that lack the key."""
    def serving(self, protocol: str | bytes) -> Selection:
        """Nodes that announce this protocol, too."""
    def ready(self, ready: bool | None) -> Selection:
        """Nodes that take work, or do not; `None` takes the condition back."""

@final
class Records:
    """The nodes of a selection as they were at one moment, ordered by id."""

    def __new__(cls, peers: Iterable[Peer]) -> Records: ...
    def __len__(self) -> int:
        """How many there are."""
    def get(self, id: str) -> Peer | None:
        """The node of this id, if it is among them."""
    def digest(self) -> str:
        """What they say of themselves, in 32 hex digits: equal for equal nodes."""
    def owners(self, key: bytes, n: int, ready: bool | None = True) -> list[Peer]:
        """The first `n` owners of a key among them."""
    def owner_of_each(self, keys: list[bytes]) -> list[Peer | None]:
        """The owner of each key among them."""
    def peers(self, after: str | None, limit: int) -> list[Peer]:
        """Up to `limit` of them, those after an id or the first."""
    def ids(self, after: str | None, limit: int) -> list[str]:
        """Up to `limit` of their ids, those after an id or the first."""

@final
class Node:
    """A running node: an endpoint, joined to one topic."""

    @property
    def id(self) -> str:
        """The endpoint id: 64 lower-case hex digits."""
    @property
    def ticket(self) -> str:
        """How to reach this node now, as one string."""
    def me(self) -> Peer:
        """This node as it announces itself."""
    def __len__(self) -> int:
        """How many other peers are in the book."""
    def count(self, selection: Selection) -> int:
        """How many nodes are in a selection."""
    def find(self, selection: Selection, id: str) -> Peer | None:
        """The node of this id, if it is in the selection."""
    def select(self, selection: Selection) -> Records:
        """The nodes that are in a selection now."""
    def status(self, class_: type[_T], peer: Peer | str) -> _T | None:
        """What is known of a peer of the book: `class(**fields)`; `None` if it is not there."""
    def join(self, settings: Settings, bootstrap: list[Bootstrap]) -> asyncio.Future[Node]:
        """Join another topic on the same endpoint, with the topic and profile of the settings."""
    def settled(self, quiet: float) -> asyncio.Future[Records]:
        """Wait until the books agree and the own one has not changed for `quiet` seconds."""

    def joined(self) -> asyncio.Future[tuple[str | None, list[tuple[str, str]]]]:
        """The member that the book was compared with, or those that did not answer and why."""
    def metrics(self, class_: type[_T]) -> _T:
        """What the node counts: `class(**fields)`."""
    def bound(self) -> list[tuple[str, int]]:
        """The UDP addresses that are bound: host and port of each."""
    def problems(self) -> list[tuple[str, str, float, int]]:
        """What keeps the node from others: source, what, since and count of each."""
    def report(self, source: str, what: str | None = None) -> None:
        """Note that a source of peers fails, and why, or that it works."""
    def denied(self) -> set[str]:
        """The ids on the deny list."""
    def allowed(self) -> set[str] | None:
        """The ids on the allow list; `None` without one."""
    def revoked(self) -> set[str]:
        """The ids that issuers keep out."""
    def revoke(self, revocation: str) -> asyncio.Future[None]:
        """Keep an id out of the swarm, by the word of an issuer."""
    def renew(self, invitation: str) -> asyncio.Future[None]:
        """Replace the invitation of this node."""
    def deny(self, peer: Peer | str, denied: bool) -> asyncio.Future[None]:
        """Put a peer on the deny list, or take it off."""
    def allow(self, peer: Peer | str, allowed: bool) -> asyncio.Future[None]:
        """Put a peer on the allow list, or take it off."""
    def subscribe(self) -> tuple[Records, Subscription]:
        """The peers in the book, and every event after them."""
    def messages(self, channel: str | None = None) -> MessageSubscription:
        """Every message of a channel, or of none, from now on."""
    def send(
        self,
        peer: Peer | str,
        data: bytes | bytearray | memoryview,
        channel: str | None = None,
    ) -> asyncio.Future[Receipt]:
        """Send a message to one peer; given up if the future is cancelled."""
    def broadcast(
        self, data: bytes | bytearray | memoryview, channel: str | None = None
    ) -> asyncio.Future[None]:
        """Send a message to all members; given up if cancelled before its turn."""
    def open_stream(
        self, peer: Peer | str, protocol: str | bytes
    ) -> asyncio.Future[tuple[Reader, Writer]]:
        """Open a stream of a protocol; given up if the future is cancelled."""
    def serve(self, protocol: str | bytes) -> Serving:
        """Serve a protocol until the result is dropped."""
    def set_profile(
        self,
        name: str,
        metadata: Mapping[str, str],
        protocols: Iterable[str | bytes],
        readiness: str,
    ) -> asyncio.Future[None]:
        """Announce a new name, metadata, protocols and readiness."""
    def add_bootstrap(self, peers: list[Bootstrap]) -> asyncio.Future[None]:
        """Add peers to those that are dialed while none of them is in the book."""
    def leave(self) -> asyncio.Future[None]:
        """Say goodbye to the topic; subscriptions end."""
    def close(self) -> asyncio.Future[None]:
        """Leave the topic and close the endpoint."""

@final
class Subscription:
    """The events of one subscriber, from the moment it subscribed."""

    def drain(self, limit: int) -> list[_Event]:
        """Take up to `limit` events, oldest first; never wait."""
    @property
    def ended(self) -> bool:
        """Whether the subscription has ended and everything in it was taken."""
    def arm(self, event_loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> None:
        """Have `callback()` called once, on the loop, when there is an event or the end."""

def check_channel(channel: str | None) -> None:
    """Refuse a channel that is outside its limits."""

def endpoint_id(secret_key: bytes) -> str:
    """The endpoint id of a secret key."""

@final
class Issuer:
    """The key of an issuer, which signs who may be a member of a swarm without a shared secret.

    Args:
        key: The text of a key, as `key()` returns it and `keygen --issuer` writes it.

    Raises:
        ConfigurationError: It is no such text, or mistyped.

    Example:
        ```python
        issuer = Issuer.generate()
        invitation = issuer.invite("fleet", discovery.id, duration=30 * 86_400)
        print(issuer.id, invitation)
        ```
    """

    def __new__(cls, key: str) -> Issuer: ...
    @staticmethod
    def generate() -> Issuer:
        """Make a new random key."""
    @property
    def id(self) -> str:
        """The public half, which members trust: 64 lower-case hex digits."""
    def key(self) -> str:
        """Return the key as text, which is as secret as the key."""
    def invite(
        self,
        topic: str,
        member: Peer | str,
        *,
        duration: float,
        begins: float | None = None,
    ) -> str:
        """Invite the node of an id to a topic, and return the invitation as text.

        Args:
            topic: The only topic that it is for.
            member: The id of the only node that it is for.
            duration: Seconds for which it holds, at most 366 days.
            begins: From when on it holds, in seconds since 1970 (UTC); now by default.

        Raises:
            ConfigurationError: A value is outside its limits; the message names it.
        """
    def revoke(self, topic: str, member: Peer | str, *, duration: float | None = None) -> str:
        """Keep an id out of a topic; return the revocation as text, for `GossipDiscovery.revoke`.

        Args:
            topic: The topic.
            member: The id that is kept out, whichever issuer invited it.
            duration: Seconds, up to the end of the last invitation of the id, at most 366 days;
                by default 366 days, which is the longest that an invitation of today holds.

        Raises:
            ConfigurationError: A value is outside its limits; the message names it.
        """

def generate_swarm_key() -> str:
    """A new key of a private swarm, as text."""

def make_ticket(id: str, topic: str, addresses: Sequence[str]) -> str:
    """A ticket for a node that need not run: its id, its topic, and where it can be dialed."""

def read_ticket(ticket: str) -> tuple[str, str, list[str]]:
    """What a ticket says: the id, the id of the topic, and where the node can be dialed."""

def topic_id(topic: str) -> str:
    """The id of a topic: 64 lower-case hex digits."""

@final
class MessageSubscription:
    """The messages of one subscriber, from the moment it subscribed."""

    def drain(self, limit: int) -> list[Message | MessagesLost]:
        """Take up to `limit` messages, oldest first; never wait."""
    @property
    def ended(self) -> bool:
        """Whether the subscription has ended and everything in it was taken."""
    def arm(self, event_loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> None:
        """Have `callback()` called once, on the loop, when there is a message or the end."""

@final
class Serving:
    """The streams of one protocol that peers open, until it is dropped."""

    def drain(self, limit: int) -> list[tuple[Reader, Writer]]:
        """Take up to `limit` streams, oldest first; never wait."""
    @property
    def ended(self) -> bool:
        """Whether the topic was left and everything in it was taken."""
    def arm(self, event_loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> None:
        """Have `callback()` called once, on the loop, when there is a stream or the end."""

@final
class Reader:
    """The reading half of a stream."""

    @property
    def peer(self) -> str:
        """The endpoint id of the peer."""
    def take(self, limit: int) -> bytes | None:
        """Take up to `limit` bytes that have arrived; `b""` at the end, `None` if none have."""
    def arm(self, event_loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> None:
        """Have `callback()` called once, on the loop, when there is something to take."""
    def stop(self, code: int, reason: str) -> None:
        """Stop reading, and tell the peer why."""
    def close(self) -> None:
        """Read no more; the peer hears only that."""

@final
class Writer:
    """The writing half of a stream."""

    @property
    def peer(self) -> str:
        """The endpoint id of the peer."""
    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Queue bytes; how many wait now."""
    def waiting(self) -> int:
        """How many bytes wait; raises what ended the stream."""
    def arm(
        self, event_loop: asyncio.AbstractEventLoop, callback: Callable[[], object], below: int
    ) -> None:
        """Have `callback()` called once, on the loop, when at most `below` wait, or at the end."""
    def finish(self) -> None:
        """End the stream in this direction, after what is queued."""
    def reset(self, code: int, reason: str) -> None:
        """Give the stream up in this direction, with what is queued."""
    def ended(self) -> asyncio.Future[None]:
        """Resolve once the stream has ended in this direction."""

@final
class Questions:
    """The questions of one node to its `admit` callback."""

    def __new__(cls) -> Questions: ...
    def next(self) -> asyncio.Future[Question]:
        """Wait for the next question. One that a cancelled wait took counts as not answered."""

@final
class Question:
    """A question: may this node be a member? Dropped without an answer, it counts as failed."""

    @property
    def id(self) -> str:
        """The endpoint id: 64 lower-case hex digits."""
    @property
    def addresses(self) -> tuple[str, ...]:
        """Where the node is, as far as known."""
    @property
    def peer(self) -> Peer | None:
        """What the node says of itself; `None` if that is not known."""
    def answer(self, admitted: bool) -> None:
        """Admit the node, or refuse it."""
    def fail(self, reason: str) -> None:
        """Say that there is no answer, and why."""

def start(
    settings: Settings,
    bootstrap: list[Bootstrap],
    runtime: TestRuntime | None = None,
    questions: Questions | None = None,
) -> asyncio.Future[Node]:
    """Bind an endpoint and join the topic; wait for no peer.

    With a test runtime, it runs there. With questions, the core asks there who may be a member.
    """

def preset(class_: type[_T], name: Literal["local", "lan", "internet"]) -> _T:
    """Build a preset: `class(**fields)` with the values of `local`, `lan` or `internet`."""

def check_interpreter() -> None:
    """Raise ImportError in an interpreter that is not the first one that called this."""

def check_config(config: _ConfigLike) -> None:
    """Check every field of a configuration."""

def check_profile(name: str, metadata: Mapping[str, str], protocols: Iterable[str | bytes]) -> None:
    """Check what a node would say of itself."""

def start_logs() -> bool:
    """Begin to log to Python, unless logs are received already; true if it does now."""

def logs_dropped() -> int:
    """Count the lines of the log that were dropped in this process, as the queue was full."""

def run_scenario(
    scenario: str,
    *,
    seed: int | None,
    nodes: int | None,
    events: bool,
    fail_fast: bool,
    progress: Callable[[float], bool] | None,
) -> Simulation:
    """Run a scenario, given as TOML, and return its report."""

def random_scenario(seed: int, nodes: int) -> str:
    """Return the scenario of random faults that belongs to a seed, as TOML."""

def shrink_scenario(
    scenario: str,
    *,
    seed: int | None,
    nodes: int | None,
    most: int,
    progress: Callable[[int], bool] | None,
) -> tuple[str, str, int] | None:
    """Make a failing scenario small: its TOML, the check that fails and how many were run."""
