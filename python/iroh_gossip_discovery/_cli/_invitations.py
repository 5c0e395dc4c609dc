"""Issuers' keys, invitations and revocations, as the commands are given them."""

import asyncio
import re
import secrets
from pathlib import Path
from typing import TypedDict

from iroh_gossip_discovery import (
    Config,
    ConfigurationError,
    DiscoveryError,
    GossipDiscovery,
    Issuer,
    endpoint_id,
)
from iroh_gossip_discovery._cli._keys import KeyFileError, read_bytes

_MOST = 1024  # bytes that are read of a file that ought to have 64
_VISIT = 3600.0  # seconds for which a visitor invites itself
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_LONGEST = 366 * 86_400


class Visitor(TypedDict, total=False):
    """The arguments of a node that visits a topic."""

    secret_key: bytes
    issuer: str
    invitation: str


def read_issuer(path: Path) -> Issuer:
    """Read the key of an issuer from its file, or from stdin if the path is `-`.

    Raises:
        KeyFileError: There is none, or it can't be read, or it holds no such key.
    """
    try:
        return Issuer(read_bytes(path, _MOST).decode("ascii").strip())
    except (ConfigurationError, UnicodeDecodeError):
        raise KeyFileError(f"{path} holds no key of an issuer: keygen --issuer makes one") from None


def seconds(until: str) -> float:
    """Return the seconds of a time such as `90m`, `12h`, `30d` or `4w`.

    Raises:
        ValueError: It is none, or it is not within 1 s and 366 days.
    """
    parts = re.fullmatch(r"([0-9]{1,9})([smhdw])", until)
    if parts is None:
        raise ValueError(f"{until!r} is no time such as 90m, 12h, 30d or 4w")
    value = int(parts[1]) * _UNITS[parts[2]]
    if not 1 <= value <= _LONGEST:
        raise ValueError(f"must be 1 s to 366 days, is {until}")
    return float(value)


def visitor(issuer_key: Path | None, topic: str) -> Visitor:
    """Return the arguments of a node that visits a topic: with an issuer's key it invites itself.

    Raises:
        KeyFileError: The file holds no key of an issuer.
        ConfigurationError: The topic is outside its limits.
    """
    return {} if issuer_key is None else _invited(read_issuer(issuer_key), topic)


def _invited(issuer: Issuer, topic: str) -> Visitor:
    key = secrets.token_bytes(32)
    invitation = issuer.invite(topic, endpoint_id(key), duration=_VISIT)
    return {"secret_key": key, "issuer": issuer.id, "invitation": invitation}


def give(ticket: str, topic: str, issuer: Issuer, revocation: str, preset: str) -> None:
    """Visit a topic as its issuer, and leave a revocation with a member.

    Raises:
        DiscoveryError: No member answered, or it is not taken.
    """
    config: Config = getattr(Config, preset)()
    arguments = _invited(issuer, topic)
    node = GossipDiscovery(
        "igd-visitor", topic, bootstrap=[ticket], config=config, observer=True, **arguments
    )
    asyncio.run(_hand_over(node, revocation, 3 * config.connect_timeout))


async def _hand_over(node: GossipDiscovery, revocation: str, timeout: float) -> None:  # noqa: ASYNC109
    async with node:
        joined = await node.joined(timeout=timeout)
        if not joined:
            raise DiscoveryError(f"no member has it: {joined}")
        # What was sent on the link before the goodbye is read before it.
        await node.revoke(revocation)
