"""One of several nodes runs a job: `leader.py NAME [TICKET …]`.

Start some in terminals of their own, and end the one that runs the job. While nodes come and go,
two may run it for moments, because each node uses its own book. So it must be safe to do the job
twice.

Authorization: every member can make itself the leader, by an id that it searches for. So make the
swarm private: put one key of `iroh-gossip-discovery keygen --swarm` into
IROH_GOSSIP_DISCOVERY_SECRET. Or give `leader` a view of those whose id you know, by `among=`.
"""

import asyncio
import contextlib
import itertools
import os
import sys

from iroh_gossip_discovery import DiscoveryError, GossipDiscovery


async def job(name: str) -> None:
    """Do what one node does: here, count the seconds."""
    for run in itertools.count(1):
        print(f"{name} runs the job, {run}", flush=True)
        await asyncio.sleep(1)


async def follow(discovery: GossipDiscovery) -> None:
    """Run the job for as long as this node is the leader."""
    running: asyncio.Task[None] | None = None
    async with asyncio.TaskGroup() as group:  # if the job fails, this ends too
        async for leadership in discovery.leader("scheduler"):
            if leadership.leader is not None:
                print(f"leader: {leadership.leader.name}, term {leadership.term}", flush=True)
            if running is not None:
                running.cancel()
            running = group.create_task(job(discovery.name)) if leadership.mine else None
        if running is not None:
            running.cancel()  # the node has left


async def main(name: str, *bootstrap: str) -> None:
    secret = os.environ.get("IROH_GOSSIP_DISCOVERY_SECRET")
    async with GossipDiscovery(name, "leader", bootstrap=bootstrap, secret=secret) as discovery:
        print(f"to join, in other terminals: leader.py NAME {discovery.ticket}", flush=True)
        with discovery.stop_on_signals():
            print(f"joined: {await discovery.joined(timeout=60)}", flush=True)
            await follow(discovery)


if __name__ == "__main__":
    try:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(main(*sys.argv[1:]) if sys.argv[1:] else sys.exit(__doc__))
    except DiscoveryError as error:
        sys.exit(f"error: {error}")
