"""The examples as processes, members that say nonsense to them, and what both say."""

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeAlias

from iroh_gossip_discovery import DiscoveryError, GossipDiscovery, Request
from iroh_gossip_discovery._core import generate_swarm_key

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
Node: TypeAlias = subprocess.Popen[str]
# That of all examples that read one: so no other program of this network meets them.
SECRET = generate_swarm_key()

# What no example expects, by whatever way it comes.
NONSENSE = (
    b"not json",
    b"",
    b"\xff\xfe\x00",
    b"[" * 8000,
    b"9" * 5000,
    b"-1e999",
    b"NaN",
    b"null",
    b"[1e400, {}]",
    b"[0, 0]",
    b'"\\ud800"',
    b'{"do": "set", "key": 7, "value": []}',
    b'{"do": "get", "key": "k", "number": "one", "more": 1}',
    b'{"do": "is", "value": {}, "number": 1%s}' % (b"0" * 400),
    b'{"name": null, "size": 1e999}',
    b"\x1b[2J\x07\0\r\n",
)


def member(name: str, topic: str, ticket: str, **metadata: str) -> GossipDiscovery:
    """Make a member of an example's topic, which does as it likes."""
    bootstrap = [ticket]
    return GossipDiscovery(name, topic, bootstrap=bootstrap, metadata=metadata, secret=SECRET)


async def pester(
    node: GossipDiscovery, *, requests: tuple[str, ...] = (), protocols: tuple[str, ...] = ()
) -> None:
    """Say all nonsense to all, by every way that there is."""
    peers = list((await node.wait_for_peers(1, timeout=60)).values())
    for data in NONSENSE:
        await node.broadcast(data)
        for peer in peers:
            with suppress(DiscoveryError):
                await node.send(peer, data, timeout=10)
            for name in (*requests, "unknown"):
                with suppress(DiscoveryError):
                    await node.request(peer, name, data, timeout=10)
            for protocol in protocols:
                with suppress(DiscoveryError):
                    reader, writer = await node.open_stream(peer, protocol, timeout=10)
                    writer.write(data + b"\n" + data)
                    writer.write_eof()
                    await reader.read()


def fail(request: Request) -> bytes:
    raise RuntimeError("\x1b[2J not today" + request.name)


def mislead(_: Request) -> bytes:
    return b"\xff\xfe" * 1000


@contextmanager
def example(name: str, *arguments: str) -> Iterator[Node]:
    """Run an example, with pipes to and from it, in a swarm of this run's own."""
    with subprocess.Popen(
        [sys.executable, "-W", "error", str(EXAMPLES / name), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1", "IROH_GOSSIP_DISCOVERY_SECRET": SECRET},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def ended_well(node: Node) -> str:
    """Wait for the end of a process that has nothing to complain of; give the rest it said."""
    said, error = node.communicate(timeout=60)
    assert (node.returncode, error) == (0, "")
    return said


def until(node: Node, pattern: str) -> str:
    assert node.stdout is not None
    said = ""
    for line in node.stdout:
        said += line
        if re.search(pattern, line):
            return line
    raise AssertionError(f"{pattern} is not in: {said}")


def ask(node: Node, line: str, pattern: str) -> re.Match[str]:
    """Type a line into a node, and read what it prints."""
    assert node.stdin is not None
    assert node.stdout is not None
    node.stdin.write(line + "\n")
    node.stdin.flush()
    said = node.stdout.readline()
    found = re.fullmatch(pattern, said.rstrip())
    assert found is not None, said or node.communicate()[1]
    return found


def call(name: str, *arguments: str) -> tuple[int, str, str]:
    """Run an example to its end; give exit code, output and errors."""
    with example(name, *arguments) as node:
        said, error = node.communicate(timeout=60)
        return node.returncode, said, error


def from_node(node: Node, pattern: str) -> asyncio.Future[str]:
    """Wait for a line of a process while the nodes of this test go on."""
    return asyncio.ensure_future(asyncio.to_thread(until, node, pattern))


@contextmanager
def receiving(folder: Path, name: str = "bob") -> Iterator[tuple[Node, str]]:
    """Run a node that takes files; give it with its ticket."""
    with example("file_drop.py", "receive", name, str(folder)) as node:
        yield node, until(node, "^to send").split()[-1]


def send_file(file: Path, whom: str, *tickets: str) -> tuple[int, str, str]:
    with example("file_drop.py", "send", str(file), whom, *tickets) as sender:
        said, error = sender.communicate(timeout=60)
        return sender.returncode, said, error
