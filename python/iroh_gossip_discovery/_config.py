"""The configuration of a node: three presets, every field of which can be overridden."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from typing import Literal, Self, TypedDict, TypeVar, Unpack

from iroh_gossip_discovery import _core


class ConfigFields(TypedDict, total=False):
    """The fields of `Config`, for overriding some of a preset's."""

    bind: Sequence[str]
    advertise: Sequence[str]
    mdns: bool
    relay: bool
    relay_urls: Sequence[str]
    relay_ca: str | None
    dns: bool
    event_buffer: int
    message_buffer: int
    idle_timeout: float
    keep_alive: float
    connect_timeout: float
    capacity: int
    expiration: float | None
    neighbors: int
    sync_interval_min: float
    sync_interval_max: float
    random_sync_interval: float
    link_idle: float
    redial_min: float
    redial_max: float
    probe_interval: float
    probe_timeout: float
    suspicion: float
    suspicion_max: float
    heal_interval: float
    heal_interval_max: float
    leave_timeout: float
    concurrent_syncs: int
    observers: int


C = TypeVar("C")


def _name_presets(config: type[C]) -> type[C]:
    """Let the error for missing fields say that a preset has them."""
    generated: Callable[..., None] = config.__init__

    @wraps(generated)
    def __init__(self: C, *values: object, **given: object) -> None:  # noqa: N807
        lacking = [name for name in ConfigFields.__annotations__ if name not in given]
        if lacking and not values:
            some = ", ".join(lacking[:3]) + (", …" if len(lacking) > 3 else "")  # noqa: PLR2004
            raise TypeError(
                "a Config begins with a preset, which takes what differs from it: Config.lan(), "
                f"Config.local() or Config.internet(). Missing here: {some}"
            )
        generated(self, *values, **given)

    config.__init__ = __init__  # type: ignore[assignment]  # the same, but for its error
    return config


@_name_presets
@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Settings of a node; start from `local`, `lan` or `internet` and override what you need.

    Args:
        bind: Local UDP addresses, as `ip:port`: at most one for IPv4 and one for IPv6. Port 0 takes
            a free one.
        advertise: What to announce, at most 64 entries: an address (`"203.0.113.7:4433"`,
            `"lb.example:4433"`, `"203.0.113.7"` with the bound port) is announced unchanged, at
            most 8; an interface (`"eth0"`, `"wg*"`) or a network (`"10.0.0.0/8"`) is preferred; a
            `!` before one leaves it out. The first entry that matches an address decides. Empty:
            the default route's interface first, then what others are likely to reach.
        mdns: Whether to find members in the local network by multicast DNS.
        relay: Whether to use relays if no direct path is found: iroh's own, unless `relay_urls`
            names others.
        relay_urls: Own relays, at most 8; only with `relay`.
        relay_ca: Certificates in PEM, at most 64 KiB, that relays may show or that have signed
            theirs, beside those of the public authorities; only with `relay`.
        dns: Whether to publish and look up addresses in iroh's DNS.
        event_buffer: How many events a slow subscriber may lag behind, 1 to 1,000,000.
        message_buffer: How many messages a slow subscriber may lag behind, 1 to 1,000,000; at most
            16 MiB of them.
        idle_timeout: Seconds without a packet until a link is lost, 0.5 to 600.
        keep_alive: Seconds between the packets that keep an idle link alive, 0.1 to half of
            `idle_timeout`.
        connect_timeout: Seconds until a dial gives up, 0.1 to 60.
        capacity: Most peers that the address book holds, 1 to 100,000.
        expiration: Seconds that others keep this node without hearing of it, 1 to 30 days; `None`
            derives it from the size of the book, at least 15 minutes.
        neighbors: Neighbors in the overlay, 1 to 32.
        sync_interval_min: Seconds between two reconciliations after the book changed, 0.01 to
            3,600.
        sync_interval_max: Most seconds between two reconciliations while nothing changes, up to
            3,600.
        random_sync_interval: Seconds between reconciliations with a peer that is no neighbor, 1 to
            86,400.
        link_idle: Seconds until a link that served one reconciliation is closed, 0.1 to 3,600.
        redial_min: Seconds until the first redial while isolated, 0.01 to 3,600.
        redial_max: Most seconds between two redials while isolated, up to 3,600.
        probe_interval: Seconds after which a neighbor that was not heard is probed, 0.05 to
            3,600.
        probe_timeout: Seconds until a probe is tried by way of others, and until that fails too,
            0.01 to `probe_interval`.
        suspicion: Least seconds that a suspected peer has to refute, 0.15 to 3,600, and at least
            twice `probe_timeout`.
        suspicion_max: Seconds that it has if no member confirms the accusation, up to 3,600.
        heal_interval: Seconds between dials to lost peers at first, twice as many each time, 0.1 to
            3,600.
        heal_interval_max: Most seconds between dials to lost peers, `heal_interval` to 86,400.
        leave_timeout: Most seconds that a leave waits for its acknowledgement, 0 to 60.
        concurrent_syncs: Newcomers that are served at a time, 1 to 1,024; others are passed on.
        observers: Observers that this node keeps up to date, 0 to 1,024; others are passed on.

    Raises:
        ConfigurationError: A field is outside its limits; the message names it.
        TypeError: A field has the wrong type; the message names it.

    Example:
        ```python
        config = Config.local(expiration=10.0, bind=["127.0.0.1:4433"])
        ```
    """

    bind: Sequence[str]
    advertise: Sequence[str]
    mdns: bool
    relay: bool
    relay_urls: Sequence[str]
    relay_ca: str | None
    dns: bool
    event_buffer: int
    message_buffer: int
    idle_timeout: float
    keep_alive: float
    connect_timeout: float
    capacity: int
    expiration: float | None
    neighbors: int
    sync_interval_min: float
    sync_interval_max: float
    random_sync_interval: float
    link_idle: float
    redial_min: float
    redial_max: float
    probe_interval: float
    probe_timeout: float
    suspicion: float
    suspicion_max: float
    heal_interval: float
    heal_interval_max: float
    leave_timeout: float
    concurrent_syncs: int
    observers: int

    def __post_init__(self) -> None:
        """Check every field, then make the sequences tuples, so that a configuration hashes."""
        _core.check_config(self)
        object.__setattr__(self, "bind", tuple(self.bind))
        object.__setattr__(self, "advertise", tuple(self.advertise))
        object.__setattr__(self, "relay_urls", tuple(self.relay_urls))

    @classmethod
    def local(cls, **overrides: Unpack[ConfigFields]) -> Self:
        """Stay on this machine: loopback only, no mDNS, fast timers, for tests and demos.

        Args:
            **overrides: Fields that differ from the preset.
        """
        return cls._preset("local", overrides)

    @classmethod
    def lan(cls, **overrides: Unpack[ConfigFields]) -> Self:
        """Use all interfaces and mDNS, and no server of a third party; the default.

        Args:
            **overrides: Fields that differ from the preset.
        """
        return cls._preset("lan", overrides)

    @classmethod
    def internet(cls, **overrides: Unpack[ConfigFields]) -> Self:
        """As `lan`, with relays, DNS lookup and hole punching as iroh offers them.

        Args:
            **overrides: Fields that differ from the preset.
        """
        return cls._preset("internet", overrides)

    @classmethod
    def _preset(cls, name: Literal["local", "lan", "internet"], overrides: ConfigFields) -> Self:
        return replace(_core.preset(cls, name), **overrides)
