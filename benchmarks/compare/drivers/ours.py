"""The driver of this project: as many `GossipDiscovery` as there are nodes, by the public package.

Every node has an endpoint of its own and verifies every record itself. With `--no-mdns` it knows
others by its bootstrap peer alone, as the nodes of the other packages do.
"""

import asyncio
import sys
from importlib.metadata import version

from compare.drivers.commands import Started, run, start_after_first
from iroh_gossip_discovery import Config, GossipDiscovery


class Ours:
    """Nodes with the settings of `Config.lan`, at one address."""

    def __init__(self, *, mdns: bool) -> None:
        """Begin with no node."""
        self.mdns = mdns
        self.nodes: list[GossipDiscovery] = []

    async def start(self, count: int, prefix: str, address: str, bootstrap: str | None) -> Started:
        """Start nodes by the ticket of the first."""
        config = Config.lan(bind=[f"{address}:0"], mdns=self.mdns)
        made: dict[int, GossipDiscovery] = {}

        async def one(number: int, way_in: str | None) -> None:
            known = () if way_in is None else (way_in,)
            name = f"{prefix}-{number}"
            made[number] = GossipDiscovery(name, "compare", bootstrap=known, config=config)
            await made[number].start()

        async def first() -> str:
            await one(0, None)
            return made[0].ticket

        way_in = await start_after_first(first, one, count, bootstrap)
        self.nodes = [made[number] for number in range(count)]
        return Started(way_in, [node.id for node in self.nodes])

    async def listed(self, node: int) -> int:
        """Count its book and itself."""
        return len(self.nodes[node].book) + 1

    async def lists(self, node: int, member: str) -> bool:
        """Look an id up in its book."""
        return member in self.nodes[node].book

    async def leave(self, node: int) -> None:
        """Say goodbye and close."""
        await self.nodes[node].close()

    async def end(self) -> None:
        """Let the process end them."""
        await asyncio.sleep(0)


if __name__ == "__main__":
    run(Ours(mdns="--no-mdns" not in sys.argv), version("iroh-gossip-discovery"))
