"""A key-value cache that is spread over its nodes: `sharded_cache.py NAME [TICKET …]`.

Start some, and type `set KEY VALUE`, `get KEY` or `who KEY` into any; Ctrl-D ends it. When nodes
come or go, only their keys move. A node that leaves hands its keys over; a crash loses them.
"""

import asyncio
import itertools
import json
import sys
from collections.abc import Awaitable

from iroh_gossip_discovery import DiscoveryError, GossipDiscovery, Message, Peer


class Cache:
    """This node's share of the keys, and the way to those of others."""

    def __init__(self, discovery: GossipDiscovery) -> None:
        self.discovery = discovery
        self.nodes = discovery.members.where(role="cache")
        self.values: dict[str, str] = {}
        self.changes = self.nodes.ownership_changes(self.values)
        self.numbers = itertools.count()
        self.waiting: dict[int, asyncio.Future[str | None]] = {}

    async def set(self, key: str, value: str) -> None:
        """Store a value with the owner of its key."""
        owner = self.nodes.owner(key)
        if owner.id == self.discovery.id:
            self.values[key] = value
            self.changes.add([key])
        else:
            await self.send(owner, do="set", key=key, value=value)

    async def get(self, key: str) -> str | None:
        """Ask the owner of a key for its value."""
        owner = self.nodes.owner(key)
        if owner.id == self.discovery.id:
            return self.values.get(key)
        number, answer = next(self.numbers), asyncio.Future[str | None]()
        self.waiting[number] = answer
        try:
            async with asyncio.timeout(5):
                await self.send(owner, do="get", key=key, number=number)
                return await answer
        finally:
            del self.waiting[number]

    async def send(self, peer: Peer | str, **what: object) -> None:
        """Send a request or an answer."""
        await self.discovery.send(peer, json.dumps(what).encode(), timeout=5)

    async def serve(self) -> None:
        """Do what other nodes ask for."""
        async for message in self.discovery.messages():
            if not isinstance(message, Message):
                continue  # too many at once: whoever asked gets no answer, and a TimeoutError
            match json.loads(message.data):
                case {"do": "set", "key": str(key), "value": str(value)}:
                    await attempt(self.set(key, value))  # it may be another's by now
                case {"do": "get", "key": str(key), "number": int(number)}:
                    value = self.values.get(key)
                    await attempt(self.send(message.sender, do="is", value=value, number=number))
                case {"do": "is", "value": value, "number": int(number)}:
                    if (answer := self.waiting.get(number)) and not answer.done():
                        answer.set_result(value)

    async def hand_on(self) -> None:
        """Give each key that becomes another node's to that."""
        async for change in self.changes:
            # Also if the first owner that is told of is another node: this one was alone before.
            if not change.gained and change.key in self.values:
                self.changes.discard([change.key])
                await attempt(self.set(change.key, self.values.pop(change.key)))

    async def leave(self) -> None:
        """Hand on every key: without the role, this node owns none any more."""
        self.changes.close()
        await self.discovery.update_metadata(role=None)
        while self.values and self.nodes:
            await attempt(self.set(*self.values.popitem()))


async def attempt(work: Awaitable[None]) -> None:
    """Do something that may fail if a node has just gone."""
    try:
        await work
    except (DiscoveryError, TimeoutError) as error:
        print(f"error: {error}")


async def answer(cache: Cache, line: str) -> None:
    match line.split(maxsplit=2):
        case ["set", key, value]:
            await cache.set(key, value)
            print(f"{key} is with {cache.nodes.owner(key).name}")
        case ["get", key]:
            print(f"{key} = {await cache.get(key)}")
        case ["who", key]:
            print(f"{key} belongs to {cache.nodes.owner(key).name}")
        case _:
            print("set KEY VALUE, get KEY or who KEY")


async def main(name: str, *bootstrap: str) -> None:
    metadata = {"role": "cache"}
    async with GossipDiscovery(name, "cache", bootstrap=bootstrap, metadata=metadata) as discovery:
        print(f"to join, in other terminals: sharded_cache.py NAME {discovery.ticket}")
        cache, lines = Cache(discovery), asyncio.StreamReader()
        tasks = [asyncio.create_task(work) for work in (cache.serve(), cache.hand_on())]
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
        async for line in lines:
            await attempt(answer(cache, line.decode().strip()))
        await cache.leave()
    await asyncio.gather(*tasks)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]) if sys.argv[1:] else sys.exit(__doc__))
