"""The driver of casty, an actor framework whose nodes know each other; it has no preset."""

import asyncio
import logging
import os
from importlib.metadata import version

from casty import ActorSystem, Cluster, Runtime

from compare.drivers.commands import Started, run, start_after_first


class Casty:
    """Systems without an actor, with the settings that `Cluster` has by itself."""

    def __init__(self) -> None:
        """Begin with no node."""
        self.nodes: list[ActorSystem] = []
        # One set of threads for the process, as its documentation has it for several systems.
        self.runtime = Runtime(threads=os.cpu_count() or 1)

    async def start(
        self,
        count: int,
        prefix: str,  # noqa: ARG002  # a node has an address and no name
        address: str,
        bootstrap: str | None,
    ) -> Started:
        """Start nodes with the first as the seed of the others."""
        made: dict[int, ActorSystem] = {}

        async def one(number: int, way_in: str | None) -> None:
            seeds = () if way_in is None else (way_in,)
            cluster = Cluster(bind=f"{address}:0", seeds=seeds, name="compare")
            made[number] = ActorSystem(cluster=cluster, runtime=self.runtime)
            await made[number].__aenter__()

        async def first() -> str:
            await one(0, None)
            return str(made[0].node.address)

        way_in = await start_after_first(first, one, count, bootstrap)
        self.nodes = [made[number] for number in range(count)]
        return Started(way_in, [str(node.node.address) for node in self.nodes])

    async def listed(self, node: int) -> int:
        """Count its members that it holds to be alive or suspects."""
        return sum(one.status in ("alive", "suspect") for one in self.nodes[node].members)

    async def lists(self, node: int, member: str) -> bool:
        """Look for an address among them."""
        return any(
            one.node.address == member and one.status in ("alive", "suspect")
            for one in self.nodes[node].members
        )

    async def leave(self, node: int) -> None:
        """Shut down in good order."""
        await self.nodes[node].__aexit__(None, None, None)

    async def end(self) -> None:
        """Let the process end them."""
        await asyncio.sleep(0)


if __name__ == "__main__":
    logging.disable()
    run(Casty(), version("casty"))
