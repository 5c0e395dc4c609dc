"""Broadcasts reach every other node once, with their true author; a frozen neighbor delays none."""

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator

import pytest

from iroh_gossip_discovery import (
    Config,
    GossipDiscovery,
    Message,
    MessageStream,
    MessageTooLargeError,
    NotRunningError,
    PeerLost,
    PeerUpdated,
    blocking,
)

pytestmark = pytest.mark.asyncio

LIMIT = 8 * 1024
CONFIG = Config.local(message_buffer=4096)
# A node in a process of its own: it says that it is ready, and lives until it is killed.
NODE = """
import asyncio, sys
from iroh_gossip_discovery import Config, GossipDiscovery

async def main() -> None:
    config = Config.local()
    async with GossipDiscovery("frozen", "fleet", bootstrap=sys.argv[1:], config=config) as me:
        await me.wait_for_peers(5, timeout=30)
        # The overlay hurries only until a node has three neighbors.
        while me.metrics().neighbors < 3:
            await asyncio.sleep(0.01)
        print(me.id, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@contextlib.asynccontextmanager
async def swarm(count: int) -> AsyncIterator[list[GossipDiscovery]]:
    async with contextlib.AsyncExitStack() as stack:
        nodes: list[GossipDiscovery] = []
        for n in range(count):
            bootstrap = [node.ticket for node in nodes[:1]]
            node = GossipDiscovery(f"node-{n}", "fleet", bootstrap=bootstrap, config=CONFIG)
            nodes.append(await stack.enter_async_context(node))
        for node in nodes:
            await node.wait_for_peers(count - 1, timeout=30)
        async with asyncio.timeout(30):
            while not all(node.metrics().neighbors for node in nodes):
                await asyncio.sleep(0.01)
        yield nodes


async def take(inbox: MessageStream, count: int) -> list[Message]:
    """Take `count` messages, none of which may be lost."""
    got: list[Message] = []
    async with asyncio.timeout(60):
        while len(got) < count:
            message = await anext(inbox)
            assert isinstance(message, Message)
            got.append(message)
    return got


async def test_a_broadcast_reaches_everyone_else_once() -> None:
    async with swarm(4) as nodes:
        inboxes = [node.messages() for node in nodes]
        sent = {(node.id, f"{n} of {node.name}".encode()) for node in nodes for n in range(20)}
        for sender, data in sorted(sent, key=lambda pair: pair[1]):
            await next(node for node in nodes if node.id == sender).broadcast(data)
        for node, inbox in zip(nodes, inboxes, strict=True):
            got = await take(inbox, 60)
            assert {message.kind for message in got} == {"broadcast"}
            heard = {(message.sender, message.data) for message in got}
            assert heard == {pair for pair in sent if pair[0] != node.id}
        metrics = nodes[0].metrics()
        assert (metrics.broadcasts_sent, metrics.broadcasts_received) == (20, 60)


async def test_limits_are_errors_before_anything_is_sent() -> None:
    discovery = GossipDiscovery("alone", "fleet", config=CONFIG)
    with pytest.raises(NotRunningError):
        await discovery.broadcast(b"")
    async with discovery:
        with pytest.raises(MessageTooLargeError) as caught:
            await discovery.broadcast(bytes(LIMIT + 1))
        assert (caught.value.size, caught.value.limit) == (LIMIT + 1, LIMIT)
        for wrong in ("text", 7, None):
            with pytest.raises(TypeError, match="data must be bytes, bytearray or memoryview"):
                await discovery.broadcast(wrong)  # type: ignore[arg-type]  # that is the point
        assert discovery.metrics().broadcasts_sent == 0
        for data in (b"", bytearray(3), memoryview(bytes(LIMIT))):
            await discovery.broadcast(data)
        assert discovery.metrics().broadcasts_sent == 3
    with pytest.raises(NotRunningError):
        await discovery.broadcast(b"")


async def test_a_cancelled_broadcast_was_sent_or_was_not() -> None:
    async with swarm(2) as (alice, bob):
        inbox = bob.messages()
        tasks = [asyncio.create_task(alice.broadcast(b"%d" % n)) for n in range(400)]
        await asyncio.sleep(0.05)
        for task in tasks[1::2]:
            task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        returned = {b"%d" % n for n, result in enumerate(done) if result is None}
        cancelled = sum(isinstance(result, asyncio.CancelledError) for result in done)
        assert len(returned) + cancelled == 400
        await alice.broadcast(b"the last")
        got: list[bytes] = []
        while b"the last" not in got:
            got += [message.data for message in await take(inbox, 1)]
        assert len(got) == len(set(got))
        assert returned <= set(got)


async def test_blocking_code_broadcasts_too() -> None:
    def both() -> Message:
        with (
            blocking.GossipDiscovery("alice", "fleet", config=CONFIG) as alice,
            blocking.GossipDiscovery(
                "bob", "fleet", bootstrap=[alice.ticket], config=CONFIG
            ) as bob,
        ):
            bob.wait_for_peers(1, timeout=30)
            inbox = bob.messages(timeout=30)
            alice.broadcast(b"hello, all")
            message = next(iter(inbox))
            assert isinstance(message, Message)
            assert message.sender == alice.id
            return message

    message = await asyncio.to_thread(both)
    assert (message.data, message.kind) == (b"hello, all", "broadcast")


async def test_a_frozen_neighbor_costs_the_others_no_broadcast_and_no_event() -> None:
    """3 kB at 100 a second through six nodes, one of which freezes beside its neighbors."""
    count = 1000
    async with swarm(5) as nodes:
        author, others = nodes[0], nodes[1:]
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", NODE, author.ticket, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        try:
            async with asyncio.timeout(60):
                frozen = (await process.stdout.readline()).decode().strip()
                while any(frozen not in node.book for node in nodes):
                    await asyncio.sleep(0.01)
            inboxes = [node.messages() for node in others]
            events = [node.events() for node in others]
            process.send_signal(signal.SIGSTOP)
            loop = asyncio.get_running_loop()
            begin = loop.time()
            for n in range(count):
                await author.broadcast(n.to_bytes(4, "big") + bytes(2996))
                if n == count // 2:
                    await author.update_metadata(half="done")
                # An even pace, however late a wake-up comes.
                await asyncio.sleep(max(0.0, begin + (n + 1) / 100 - loop.time()))
            for inbox in inboxes:
                got = await take(inbox, count)
                numbers = [int.from_bytes(message.data[:4], "big") for message in got]
                assert sorted(numbers) == list(range(count))
            for stream in events:
                seen: list[object] = []
                async with asyncio.timeout(30):
                    while not (
                        any(isinstance(event, PeerUpdated) for event in seen)
                        and any(isinstance(event, PeerLost) for event in seen)
                    ):
                        seen.append(await anext(stream))
                lost = [event.peer.id for event in seen if isinstance(event, PeerLost)]
                assert lost == [frozen]
                assert all(
                    getattr(event, "peer", author.me).id in {frozen, author.id} for event in seen
                )
        finally:
            process.kill()
            await process.wait()
