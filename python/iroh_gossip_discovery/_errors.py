"""The errors that have a second, built-in base, so that a user may catch either."""

from iroh_gossip_discovery._core import DiscoveryError
from iroh_gossip_discovery._printable import printable, shortened


class ConfigurationError(DiscoveryError, ValueError):
    """A value is outside its limits; nothing was opened or changed.

    Args:
        field: The name of the field, as the caller knows it.
        reason: What is wrong with it, and the limit.
    """

    def __init__(self, field: str, reason: str) -> None:
        # Both may hold what was passed, which has no limit.
        field, reason = shortened(field), shortened(reason)
        super().__init__(field, reason)
        self.field = field
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.field} {self.reason}"


class BindError(DiscoveryError, OSError):
    """An address can't be bound: it is taken, or it is not this machine's."""

    def __str__(self) -> str:
        return str(self.strerror)


class StateDirError(DiscoveryError, OSError):
    """The state directory can't be used, or another node holds it."""


class NotRunningError(DiscoveryError, RuntimeError):
    """The discovery was not started yet, has left its topic or is closed."""


class _PeerError(DiscoveryError):
    """Something that a peer was asked for came to nothing."""

    def __init__(self, peer: str, *details: object) -> None:
        super().__init__(peer, *details)
        self.peer = peer


class PeerUnreachableError(_PeerError, ConnectionError):
    """A peer can't be reached, or the link to it broke.

    What the peer was asked for has happened only if the link broke while its answer was on its way.

    Args:
        peer: The peer's endpoint id.
        reason: What went wrong.
    """

    def __init__(self, peer: str, reason: str) -> None:
        super().__init__(peer, reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"peer {self.peer[:10]} can't be reached: {printable(self.reason)}"


class NoSubscriberError(_PeerError):
    """A peer was reached, but its application iterates over no `messages()`: nothing was delivered.

    Args:
        peer: The peer's endpoint id.
    """

    def __str__(self) -> str:
        return f"peer {self.peer[:10]} has no subscriber to messages"


class ProtocolNotServedError(_PeerError):
    r"""A peer was reached, but does not serve the protocol.

    Args:
        peer: The peer's endpoint id.
        protocol: The protocol; bytes that are not ASCII as `\xff`.
    """

    def __init__(self, peer: str, protocol: str) -> None:
        super().__init__(peer, protocol)
        self.protocol = protocol

    def __str__(self) -> str:
        return f"peer {self.peer[:10]} does not serve {printable(self.protocol)}"


class TooManyStreamsError(_PeerError):
    """As many streams are open with a peer as may be, or at the peer.

    Args:
        peer: The peer's endpoint id.
    """

    def __str__(self) -> str:
        return f"too many streams are open with peer {self.peer[:10]}, or there"


class StreamResetError(_PeerError, ConnectionResetError):
    """The peer gave a stream up: what was not read yet, or not sent yet, is lost.

    Args:
        peer: The peer's endpoint id.
        code: Its number for the reason; 0: it closed its end, and reads no more.
        reason: Its words for it, which may be none.
    """

    def __init__(self, peer: str, code: int, reason: str) -> None:
        super().__init__(peer, code, reason)
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        why = printable(self.reason) or ("it reads no more" if self.code == 0 else "no reason")
        return f"peer {self.peer[:10]} reset the stream: {why} (code {self.code})"


class MessageTooLargeError(DiscoveryError, ValueError):
    """A message is over its limit; nothing was sent.

    Args:
        size: Its bytes.
        limit: The limit, in bytes.
    """

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(size, limit)
        self.size = size
        self.limit = limit

    def __str__(self) -> str:
        return f"the message is {self.size:,} bytes, the limit is {self.limit:,}"


class NotAnsweredError(_PeerError):
    """A peer was reached, but answers no request of this name: nothing was done there.

    Args:
        peer: The peer's endpoint id.
        name: The name of the request.
    """

    def __init__(self, peer: str, name: str) -> None:
        super().__init__(peer, name)
        self.name = name

    def __str__(self) -> str:
        return f"peer {self.peer[:10]} answers no request {self.name!r}"


class RequestFailedError(_PeerError):
    """The handler of a request failed at the peer.

    Args:
        peer: The peer's endpoint id.
        name: The name of the request.
        kind: The name of the exception's class there, such as `"ValueError"`.
        reason: The exception's text there.
    """

    def __init__(self, peer: str, name: str, kind: str, reason: str) -> None:
        super().__init__(peer, name, kind, reason)
        self.name = name
        self.kind = kind
        self.reason = reason

    def __str__(self) -> str:
        # What a peer says is quoted: it may hold anything.
        return f"peer {self.peer[:10]} failed at {self.name!r}: {self.kind!r}: {self.reason!r}"


class RequestTimeoutError(DiscoveryError, TimeoutError):
    """A peer did not answer in time; what it was asked for may have happened all the same."""


class PeersTimeoutError(DiscoveryError, TimeoutError):
    """Not enough peers were seen in time."""


class NobodyError(DiscoveryError, LookupError):
    """No node is present that could own a key."""
