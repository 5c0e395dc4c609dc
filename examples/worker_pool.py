"""A pool of workers that survives `kill -9`.

`worker_pool.py hand-out COUNT` prints its ticket and hands out COUNT jobs; start any number of
`worker_pool.py work NAME TICKET` beside it, and kill some. If the worker of a job goes, fails or is
silent, another one gets the job. So each job is done at least once.

Authorization: every member may call itself a worker or a pool. So make the swarm private: put one
key of `iroh-gossip-discovery keygen --swarm` into IROH_GOSSIP_DISCOVERY_SECRET. Or check ids:
`worker.id` before a job is given, `request.peer` before it is done.
"""

import asyncio
import contextlib
import os
import sys

from iroh_gossip_discovery import DiscoveryError, GossipDiscovery, Peer, Request

JOBS_PER_WORKER = 2
SECRET = os.environ.get("IROH_GOSSIP_DISCOVERY_SECRET")


class Pool:
    """The jobs that no worker has, and those that are done."""

    def __init__(self, discovery: GossipDiscovery, count: int) -> None:
        self.discovery = discovery
        self.workers = discovery.book.where(role="worker")
        self.done_by: dict[int, Peer] = {}
        self.jobs: asyncio.Queue[int] = asyncio.Queue()
        for job in range(count):
            self.jobs.put_nowait(job)

    async def run(self) -> None:
        """Return when all jobs are done."""
        async with asyncio.TaskGroup() as group:
            hiring = group.create_task(self.hire())
            await self.jobs.join()
            hiring.cancel()

    async def hire(self) -> None:
        """Employ each worker that is present or comes, until it goes."""
        employed: dict[str, list[asyncio.Task[None]]] = {}
        async with asyncio.TaskGroup() as group:
            async for change in self.workers.changes():
                for worker in change.left + change.lost:
                    for task in employed.pop(worker.id, []):
                        task.cancel()
                for worker in change.joined:
                    work = [self.employ(worker) for _ in range(JOBS_PER_WORKER)]
                    employed[worker.id] = [group.create_task(one) for one in work]

    async def employ(self, worker: Peer) -> None:
        """Give a worker one job after the other."""
        while True:
            job = await self.jobs.get()
            try:
                await self.discovery.request(worker, "work", b"%d" % job, timeout=30)
                self.done_by[job] = worker
            except DiscoveryError as error:
                print(f"error: {error}", flush=True)
            finally:  # also if the worker is gone, and this task cancelled
                if job not in self.done_by:
                    print(f"job {job} of {worker.fingerprint} goes to others", flush=True)
                    self.jobs.put_nowait(job)
                self.jobs.task_done()
            if job not in self.done_by:
                await asyncio.sleep(1)  # another worker takes it meanwhile


async def hand_out(count: int) -> None:
    metadata = {"role": "pool"}
    async with GossipDiscovery(
        "pool", "worker-pool", metadata=metadata, secret=SECRET
    ) as discovery:
        print(f"ticket: {discovery.ticket}", flush=True)
        with discovery.stop_on_signals():
            pool = Pool(discovery, count)
            await pool.run()
            workers = {worker.id for worker in pool.done_by.values()}
            print(f"{count} jobs done by {len(workers)} workers", flush=True)


async def work(name: str, *tickets: str) -> None:
    discovery = GossipDiscovery(name, "worker-pool", bootstrap=tickets, secret=SECRET)

    @discovery.answer("work", concurrency=JOBS_PER_WORKER)
    async def do(request: Request) -> None:
        job = int(request.data)  # if it is no number, the asking node is told so
        await asyncio.sleep(0.1)  # what takes its time
        print(f"{name} did {job}", flush=True)

    async with discovery:
        await discovery.update_metadata(role="worker")
        print(f"{name} is {discovery.id[:10]}, process {os.getpid()}", flush=True)
        with discovery.stop_on_signals():
            async for change in discovery.book.where(role="pool").changes():
                if not change.snapshot:
                    print("the pool is gone", flush=True)
                    break


if __name__ == "__main__":
    try:
        with contextlib.suppress(KeyboardInterrupt):
            match sys.argv[1:]:
                case ["hand-out", count] if count.isdecimal():
                    asyncio.run(hand_out(int(count)))
                case ["work", name, *tickets]:
                    asyncio.run(work(name, *tickets))
                case _:
                    sys.exit(__doc__)
    except (DiscoveryError, OSError, ValueError) as error:
        sys.exit(f"error: {error}")
