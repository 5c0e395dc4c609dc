"""The driver of kinship: its preset for a local network, encrypted, as its own guide has it.

With `--caps` its limits on streams of one IP address are raised. All nodes here share one, which
no node of its users does.
"""

import asyncio
import sys
from base64 import b64encode

import kinship

from compare.drivers.commands import Started, run, start_after_first

KEY = b64encode(b"a key that all nodes share: 32 B").decode()
CAPS = {
    "max_inbound_streams": 1024,
    "max_inbound_streams_per_ip": 1024,
    "max_inbound_bytes_per_ip": 1 << 30,
}


class Kinship:
    """Nodes with the settings of `Config.lan`."""

    def __init__(self, caps: dict[str, int]) -> None:
        """Begin with no node."""
        self.caps = caps
        self.nodes: list[kinship.Cluster] = []

    async def start(self, count: int, prefix: str, address: str, bootstrap: str | None) -> Started:
        """Start nodes with the first as the seed of the others."""
        made: dict[int, kinship.Cluster] = {}

        async def one(number: int, way_in: str | None) -> None:
            config = kinship.Config.lan(
                name=f"{prefix}-{number}",
                bind=f"{address}:0",
                seeds=[] if way_in is None else [way_in],
                keys=[KEY],
                **self.caps,
            )
            made[number] = await kinship.Cluster(config).start()

        async def first() -> str:
            await one(0, None)
            return made[0].local.addr

        way_in = await start_after_first(first, one, count, bootstrap)
        self.nodes = [made[number] for number in range(count)]
        return Started(way_in, [node.local.name for node in self.nodes])

    async def listed(self, node: int) -> int:
        """Count its members, which are the living and the suspected."""
        return len(self.nodes[node].members())

    async def lists(self, node: int, member: str) -> bool:
        """Look for a name among its members."""
        found = self.nodes[node].member(member)
        return found is not None and found.state in (kinship.State.ALIVE, kinship.State.SUSPECT)

    async def leave(self, node: int) -> None:
        """Leave and close, as `async with` does at its end."""
        await self.nodes[node].leave()
        await self.nodes[node].close()

    async def end(self) -> None:
        """Let the process end them."""
        await asyncio.sleep(0)


if __name__ == "__main__":
    run(Kinship(CAPS if "--caps" in sys.argv else {}), kinship.__version__)
