"""Robots that say what they can do, and one that asks a fitting one.

`robots.py work NAME KILOGRAMS [TICKET …]` is a robot that lifts up to KILOGRAMS;
`robots.py lift KILOGRAMS TICKET …` asks the weakest robot that can lift them.

Authorization: what a robot says about itself is signed, but need not be true; and every member may
ask. So make the fleet private: put one key of `iroh-gossip-discovery keygen --swarm` into
IROH_GOSSIP_DISCOVERY_SECRET. Or keep a list of ids, and check `peer.id` and `request.peer`.
"""

import asyncio
import contextlib
import math
import os
import sys

from iroh_gossip_discovery import DiscoveryError, GossipDiscovery, Peer, Request

SECRET = os.environ.get("IROH_GOSSIP_DISCOVERY_SECRET")


def kilograms(text: str | bytes | None) -> float:
    """Read a weight that may hold anything: 0 if it is none."""
    try:
        weight = float(text or 0)
    except ValueError:
        return 0.0
    return weight if math.isfinite(weight) and weight > 0 else 0.0


async def work(name: str, most: str, *bootstrap: str) -> None:
    discovery = GossipDiscovery(name, "robots", bootstrap=bootstrap, secret=SECRET)
    arm = asyncio.Lock()

    @discovery.answer("lift", concurrency=8)
    async def lift(request: Request) -> bytes:
        weight = kilograms(request.data)
        if not 0 < weight <= kilograms(most):  # the asking node may err, or lie
            raise ValueError(f"{name} lifts up to {most} kg")
        async with arm:  # one thing at a time
            await asyncio.sleep(0.1)
        print(f"{name} lifts {weight:g} kg for {request.peer[:10]}", flush=True)
        return b"lifted"

    async with discovery:
        await discovery.update_metadata(lifts=most)
        print(f"to ask: robots.py lift KILOGRAMS {discovery.ticket}", flush=True)
        with discovery.stop_on_signals():
            await asyncio.Event().wait()


async def find_and_ask(weight: str, *bootstrap: str) -> str:
    """Ask the robots that can, the weakest first, until one has done it."""

    def fits(peer: Peer) -> bool:
        return kilograms(peer.metadata.get("lifts")) >= kilograms(weight)

    async with GossipDiscovery("dispatcher", "robots", bootstrap=bootstrap, secret=SECRET) as node:
        await node.joined(timeout=30)
        fitting = await node.book.where(fits).wait(1, timeout=10)
        for robot in sorted(fitting.values(), key=lambda peer: kilograms(peer.metadata["lifts"])):
            try:
                if await node.request(robot, "lift", weight.encode(), timeout=10) == b"lifted":
                    return robot.name
            except DiscoveryError as error:
                print(f"not {robot.name}: {error}", flush=True)
    raise ValueError(f"no robot lifts {weight} kg")


if __name__ == "__main__":
    try:
        with contextlib.suppress(KeyboardInterrupt):
            match sys.argv[1:]:
                case ["work", name, most, *tickets] if kilograms(most):
                    asyncio.run(work(name, most, *tickets))
                case ["lift", weight, *tickets] if kilograms(weight):
                    print(f"{asyncio.run(find_and_ask(weight, *tickets))} has lifted it")
                case _:
                    sys.exit(__doc__)
    except (DiscoveryError, ValueError) as error:
        sys.exit(f"error: {error}")
