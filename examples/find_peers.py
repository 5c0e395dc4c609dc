"""Find the other nodes of a topic: `find_peers.py [NAME [TICKET …]]`, until Ctrl-C."""

import asyncio
import contextlib
import sys

from iroh_gossip_discovery import GossipDiscovery


async def main(name: str = "alice", *bootstrap: str) -> None:
    async with GossipDiscovery(name, topic="fleet", bootstrap=bootstrap) as discovery:
        print(f"{name} is {discovery.id[:10]}, its ticket {discovery.ticket}")
        async for peer in discovery.peers():
            print(f"{name} found {peer.name}, {peer.fingerprint}, at {', '.join(peer.addresses)}")


with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C: the node has said goodbye by then
    asyncio.run(main(*sys.argv[1:]))
