"""A key-value cache that is spread over its nodes: `sharded_cache.py NAME [TICKET …]`.

Start some, and type `set KEY VALUE`, `get KEY` or `who KEY` into any; Ctrl-D ends it. When nodes
come or go, only their keys move. A node that leaves hands its keys over; a crash loses them.

Authorization: every member may read and write, and be a node of the cache. So make the swarm
private: put one key of `iroh-gossip-discovery keygen --swarm` into IROH_GOSSIP_DISCOVERY_SECRET.
"""

import asyncio
import contextlib
import os
import sys
from collections.abc import Awaitable

from iroh_gossip_discovery import DiscoveryError, GossipDiscovery, Request

MOST_KEYS = 10_000  # of one node: otherwise a writer could fill its memory
MOST_BYTES = 64 * 1024  # of a key and its value


class Cache:
    """This node's share of the keys, and the way to those of others."""

    def __init__(self, discovery: GossipDiscovery) -> None:
        self.discovery = discovery
        self.nodes = discovery.members.where(role="cache")
        self.values: dict[str, str] = {}
        self.changes = self.nodes.ownership_changes(self.values)
        discovery.answer("set", self.on_set)
        discovery.answer("get", self.on_get)

    async def set(self, key: str, value: str) -> None:
        """Store a value with the owner of its key."""
        data = f"{key}\0{value}".encode()
        owner = self.nodes.owner(key)
        if owner.id == self.discovery.id:
            self.store(data)
        else:
            await self.discovery.request(owner, "set", data, timeout=5)

    async def get(self, key: str) -> str | None:
        """Ask the owner of a key for its value."""
        owner = self.nodes.owner(key)
        if owner.id == self.discovery.id:
            return self.values.get(key)
        reply = await self.discovery.request(owner, "get", key.encode(), timeout=5)
        return reply.decode() or None

    def store(self, data: bytes) -> None:
        """Keep a value, or say why not; `hand_on` sees to it if the key is another node's."""
        if len(data) > MOST_BYTES:
            raise ValueError(f"key and value are {len(data):,} bytes, the limit is {MOST_BYTES:,}")
        key, _, value = data.decode().partition("\0")
        if key not in self.values and len(self.values) >= MOST_KEYS:
            raise ValueError(f"{self.discovery.name} is full")
        self.values[key] = value
        self.changes.add([key])

    def on_set(self, request: Request) -> None:
        """Store what another node asks for; an error goes back to it."""
        self.store(request.data)

    def on_get(self, request: Request) -> bytes:
        """Reply with a value, or nothing."""
        return self.values.get(request.data.decode(), "").encode()

    async def hand_on(self) -> None:
        """Give each key that now belongs to another node to that node."""
        async for change in self.changes:
            # The first change may already name another owner: this node was alone before.
            if not change.gained and change.key in self.values:
                self.changes.discard([change.key])
                await attempt(self.set(change.key, self.values.pop(change.key)))

    async def leave(self) -> None:
        """Hand on every key: without the role, this node owns none."""
        self.changes.close()
        await self.discovery.update_metadata(role=None)
        with contextlib.suppress(TimeoutError):  # what is left then is lost
            async with asyncio.timeout(30):
                while self.values and self.nodes:
                    await attempt(self.set(*self.values.popitem()))


async def attempt(work: Awaitable[None]) -> None:
    """Do something that may fail: a node has just gone, or refuses."""
    try:
        await work
    except (DiscoveryError, TimeoutError, ValueError) as error:
        print(f"error: {error}")


async def answer(cache: Cache, line: str) -> None:
    match line.split(maxsplit=2):
        case ["set", key, value]:
            await cache.set(key, value)
            print(f"{key} is with {cache.nodes.owner(key).name}")
        case ["get", key]:
            print(f"{key} = {await cache.get(key)!r}")  # quoted: anyone may have written it
        case ["who", key]:
            print(f"{key} belongs to {cache.nodes.owner(key).name}")
        case _:
            print("set KEY VALUE, get KEY or who KEY")


async def main(name: str, *bootstrap: str) -> None:
    discovery = GossipDiscovery(
        name,
        "cache",
        bootstrap=bootstrap,
        secret=os.environ.get("IROH_GOSSIP_DISCOVERY_SECRET"),
    )
    async with discovery:
        cache, lines = Cache(discovery), asyncio.StreamReader()
        await discovery.update_metadata(role="cache")  # only now, that it answers
        handing_on = asyncio.create_task(cache.hand_on())
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
        print(f"to join, in other terminals: sharded_cache.py NAME {discovery.ticket}")
        with discovery.stop_on_signals():
            async for line in lines:
                await attempt(answer(cache, line.decode(errors="replace").strip()))
        await cache.leave()
    await handing_on


if __name__ == "__main__":
    try:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(main(*sys.argv[1:]) if sys.argv[1:] else sys.exit(__doc__))
    except (DiscoveryError, OSError, ValueError) as error:
        sys.exit(f"error: {error}")
