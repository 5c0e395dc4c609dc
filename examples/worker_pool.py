"""A pool of workers that survives `kill -9`.

`worker_pool.py hand-out COUNT` prints its ticket and hands out COUNT jobs; start any number of
`worker_pool.py work NAME TICKET` beside it, and kill some. A job whose worker leaves, is lost or
can't be reached is given to another one: so each is done at least once.
"""

import asyncio
import json
import os
import sys

from iroh_gossip_discovery import (
    DiscoveryError,
    GossipDiscovery,
    Message,
    PeerJoined,
    PeerLeft,
    PeerLost,
    PeerUpdated,
)

JOBS_PER_WORKER = 2


class Pool:
    """The jobs that are left, those that are with a worker, and the results."""

    def __init__(self, discovery: GossipDiscovery, count: int) -> None:
        self.discovery = discovery
        self.workers = discovery.book.where(role="worker")
        self.jobs = list(range(count))
        self.given: dict[str, set[int]] = {}  # by the worker's id
        self.results: dict[int, str] = {}
        discovery.on((PeerJoined, PeerUpdated), self.on_worker)
        discovery.on((PeerLeft, PeerLost), self.on_loss)

    async def on_worker(self, _: PeerJoined | PeerUpdated) -> None:
        """Have a new worker begin."""
        await self.hand_out()

    async def on_loss(self, event: PeerLeft | PeerLost) -> None:
        """Have others do what a worker did not."""
        self.take_back(event.peer.id)
        await self.hand_out()

    def take_back(self, worker: str) -> None:
        """Take the jobs back that a worker has not done."""
        if back := self.given.pop(worker, set()):
            print(f"{len(back)} jobs of {worker[:10]} go to others", flush=True)
            self.jobs.extend(back)

    async def hand_out(self) -> None:
        """Give each worker that has room a job, for as long as there are any."""
        for worker in self.workers:
            while self.jobs and len(self.given.setdefault(worker, set())) < JOBS_PER_WORKER:
                job = self.jobs.pop()
                self.given[worker].add(job)
                try:
                    await self.discovery.send(worker, json.dumps(job).encode(), timeout=5)
                except DiscoveryError:
                    self.take_back(worker)
                    break

    async def run(self) -> None:
        """Take results until all jobs are done."""
        messages, count = self.discovery.messages(), len(self.jobs)
        while len(self.results) < count:
            await self.hand_out()  # again every second: a worker may not have been reached
            try:
                async with asyncio.timeout(1):
                    message = await anext(messages)
            except TimeoutError:
                continue
            if isinstance(message, Message):
                job, result = json.loads(message.data)
                self.given.get(message.sender, set()).discard(job)
                self.results[job] = result


async def hand_out(count: int) -> None:
    async with GossipDiscovery("pool", "worker-pool", metadata={"role": "pool"}) as discovery:
        print(f"ticket: {discovery.ticket}", flush=True)
        pool = Pool(discovery, count)
        await pool.run()
        print(f"{count} jobs done by {len(set(pool.results.values()))} workers", flush=True)


async def work(name: str, *tickets: str) -> None:
    async with GossipDiscovery(name, "worker-pool", bootstrap=tickets) as discovery:

        @discovery.on((PeerLeft, PeerLost))
        async def on_loss(event: PeerLeft | PeerLost) -> None:
            if event.peer.metadata.get("role") == "pool":
                await discovery.leave()  # which ends the loop below

        messages = discovery.messages()
        await discovery.update_metadata(role="worker")  # only now, that it takes messages
        print(f"{name} is {discovery.id[:10]}, process {os.getpid()}", flush=True)
        async for message in messages:
            if isinstance(message, Message):
                job = json.loads(message.data)
                await asyncio.sleep(0.1)  # what takes its time
                print(f"{name} did {job}", flush=True)
                await discovery.send(message.sender, json.dumps([job, name]).encode(), timeout=5)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["hand-out", count]:
            asyncio.run(hand_out(int(count)))
        case ["work", name, *tickets]:
            asyncio.run(work(name, *tickets))
        case _:
            sys.exit(__doc__)
