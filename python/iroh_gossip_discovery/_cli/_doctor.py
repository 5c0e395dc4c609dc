"""The command `doctor`: what keeps nodes from each other, and what to do about it."""

import asyncio
import os
import secrets
import socket
import stat
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from iroh_gossip_discovery import (
    Config,
    DiscoveryError,
    GossipDiscovery,
    PeersTimeoutError,
    StateDirError,
)
from iroh_gossip_discovery._printable import printable
from iroh_gossip_discovery.blocking._loop import in_thread

# Descriptors that a node of a large swarm may need, for sockets and files.
_DESCRIPTORS = 256
_MULTICAST_SECONDS = 5.0
_NAME_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report.

    Args:
        about: What was checked.
        text: What was seen.
        advice: What to do about it; `None` if nothing is wrong.
    """

    about: str
    text: str
    advice: str | None = None


@dataclass(frozen=True, slots=True)
class Options:
    """What to check.

    Args:
        preset: The name of the preset of `Config` that nodes would use.
        topic: The topic of the ticket.
        ticket: A ticket to try.
        state_dir: A state directory to try.
        host: A host name to resolve.
    """

    preset: str
    topic: str
    ticket: str | None
    state_dir: Path | None
    host: str | None


async def examine(options: Options) -> bool:
    """Print a line for each thing that was checked; return whether nothing is wrong."""
    healthy = True
    async for finding in _findings(options):
        mark = "ok" if finding.advice is None else "!!"
        sys.stdout.write(f"{mark}  {finding.about:<11} {printable(finding.text)}\n")
        if finding.advice is not None:
            healthy = False
            sys.stdout.write(f"{'':15} {printable(finding.advice)}\n")
        sys.stdout.flush()
    return healthy


async def _findings(options: Options) -> AsyncIterator[Finding]:
    yield _descriptors()
    if options.host is not None:
        yield await _name(options.host)
    if options.state_dir is not None:
        yield _directory(options.state_dir)
    async for finding in _node(options, _state_dir(options.state_dir)):
        yield finding
    if options.preset != "local":
        yield await _multicast()


def _descriptors() -> Finding:
    try:
        import resource  # noqa: PLC0415  # not on Windows
    except ImportError:
        return Finding("descriptors", "this system has no limit to look at")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = soft - len(os.listdir("/dev/fd")) if Path("/dev/fd").is_dir() else soft  # noqa: PTH208
    text = f"{free:,} of {soft:,} are free"
    if free >= _DESCRIPTORS or soft == resource.RLIM_INFINITY:
        return Finding("descriptors", text)
    advice = "raise the hard limit: LimitNOFILE= in systemd, or /etc/security/limits.conf"
    if hard == resource.RLIM_INFINITY or hard - soft + free >= _DESCRIPTORS:
        advice = f"ulimit -n {soft - free + _DESCRIPTORS}, or LimitNOFILE= in systemd"
    return Finding("descriptors", text, advice)


async def _name(host: str) -> Finding:
    look_up = partial(socket.getaddrinfo, host, None, type=socket.SOCK_DGRAM)
    advice = "see /etc/resolv.conf, or give an address"
    try:
        async with asyncio.timeout(_NAME_SECONDS):
            # On a thread that holds up no exit: without an answer, it waits for half a minute.
            found = await in_thread(look_up)
    except TimeoutError:
        return Finding("DNS", f"{host}: no answer within {_NAME_SECONDS:g} s", advice)
    except OSError as error:
        return Finding("DNS", f"{host}: {error.strerror}", advice)
    except UnicodeError:
        return Finding("DNS", f"{host}: it is no host name", advice)
    return Finding("DNS", f"{host} is {', '.join(sorted({str(at[4][0]) for at in found}))}")


def _state_dir(path: Path | None) -> Path | None:
    """Return a directory that a node has used: in another one, the check would make a key."""
    try:
        return path if path is not None and (path / "secret.key").exists() else None
    except OSError:
        return None


def _directory(path: Path) -> Finding:
    try:
        text, advice = _look_at(path)
    except OSError as error:
        text, advice = f"{path}: {error.strerror}", "give another directory"
    return Finding("state", text, advice)


def _look_at(path: Path) -> tuple[str, str | None]:
    """Return what is to say of a state directory, and what to do about it."""
    if not path.exists():
        return _look_above(path)
    text, advice = f"{path} can be used", None
    if not path.is_dir():
        text, advice = f"{path} is no directory", "give a directory"
    elif not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        text, advice = f"{path} can't be written", f"chown it to user {os.getuid()}"
    elif stat.S_IMODE(path.stat().st_mode) & 0o077:
        text, advice = f"others may look into {path}", f"chmod 700 {path}"
    return text, advice


def _look_above(path: Path) -> tuple[str, str | None]:
    nearest = next(parent for parent in path.absolute().parents if parent.exists())
    if not nearest.is_dir():
        return f"{path} can't be created: {nearest} is no directory", "give another directory"
    if not os.access(nearest, os.W_OK | os.X_OK):
        return f"{path} can't be created", f"make {nearest} writable"
    return f"{path} would be created", None


async def _node(options: Options, state_dir: Path | None) -> AsyncIterator[Finding]:
    """Check what a node would announce, and which peers it reaches."""
    config: Config = getattr(Config, options.preset)()
    bootstrap = [] if options.ticket is None else [options.ticket]
    topic = options.topic if options.ticket else f"doctor-{secrets.token_hex(8)}"
    node = GossipDiscovery(
        "igd-doctor",
        topic,
        bootstrap=bootstrap,
        state_dir=state_dir,
        config=config,
        observer=options.ticket is not None,
    )
    try:
        await node.start()
    except StateDirError as error:
        yield Finding("state", str(error), "stop the node that holds it, or give another directory")
        return
    except DiscoveryError as error:
        yield Finding("node", str(error), "see docs/troubleshooting.md")
        return
    try:
        reached = await _reached(node, config.connect_timeout * 3)
        for finding in _announced(node, options.preset):
            yield finding
        if options.ticket is not None:
            yield reached
    finally:
        await node.close()


async def _reached(node: GossipDiscovery, timeout: float) -> Finding:  # noqa: ASYNC109
    try:
        joined = await node.joined(timeout=timeout)
    except PeersTimeoutError as error:
        return Finding("ticket", str(error), "docs/troubleshooting.md goes on")
    advice = None if joined else "does it run, and is its UDP port open? see troubleshooting.md"
    return Finding("ticket", str(joined), advice)


def _announced(node: GossipDiscovery, preset: str) -> Iterator[Finding]:
    addresses = node.me.addresses
    for place, address in enumerate(addresses):
        yield Finding("announced", f"{address}{' (tried first)' if place == 0 else ''}")
    if not addresses:
        yield Finding("announced", "nothing", "see Config.advertise in docs/networks.md")
    for problem in node.problems():
        if problem.source != "bootstrap":
            yield Finding(problem.source, problem.what, "docs/networks.md says what to do")
    if preset == "internet" and not any("://" in address for address in addresses):
        yield Finding("relay", "none is connected", "open UDP and TCP 443, or set relay_urls")


async def _multicast() -> Finding:
    """Let two nodes find each other by multicast DNS alone."""
    topic = f"doctor-{secrets.token_hex(8)}"
    async with (
        GossipDiscovery("igd-doctor", topic, config=Config.lan()) as one,
        GossipDiscovery("igd-doctor", topic, config=Config.lan()),
    ):
        try:
            await one.wait_for_peers(1, timeout=_MULTICAST_SECONDS)
        except PeersTimeoutError:
            advice = "give nodes a ticket: a firewall or the network drops multicast (UDP 5353)"
            return Finding("multicast", "two nodes here did not find each other", advice)
    return Finding("multicast", "two nodes on this machine found each other")
