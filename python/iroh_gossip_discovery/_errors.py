"""The errors with a second, built-in base: a user may catch either."""

from iroh_gossip_discovery._core import DiscoveryError


class ConfigurationError(DiscoveryError, ValueError):
    """A value is outside its limits; nothing was opened or changed.

    Args:
        field: The name of the field, as the caller knows it.
        reason: What is wrong with it, and the limit.
    """

    def __init__(self, field: str, reason: str) -> None:
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


class PeersTimeoutError(DiscoveryError, TimeoutError):
    """Not enough peers were seen in time."""


class NobodyError(DiscoveryError, LookupError):
    """Nobody is there that could own a key."""
