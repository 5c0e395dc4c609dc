"""The test kit: faults are real, books follow them, and failures are reported."""

import asyncio
import math
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from iroh_gossip_discovery import (
    Config,
    ConfigurationError,
    Event,
    GossipDiscovery,
    Isolated,
    NotRunningError,
    PeerJoined,
    PeerLeft,
    PeerLost,
    PeerUnreachableError,
)
from iroh_gossip_discovery.testing import LocalSwarm, wait_for

PATIENCE = 30.0


class Record:
    """The kinds of events that came, and waiting for them: the book is ahead of its events."""

    def __init__(self, node: GossipDiscovery, *kinds: type[Event]) -> None:
        self.seen: list[type[Event]] = []
        node.on(kinds, lambda event: self.seen.append(type(event)))

    async def is_(self, *expected: type[Event]) -> None:
        await wait_for(lambda: len(self.seen) >= len(expected), timeout=PATIENCE)
        assert tuple(self.seen) == expected


@pytest.mark.asyncio
async def test_nodes_of_a_swarm_find_each_other_and_say_goodbye_at_its_end() -> None:
    async with LocalSwarm() as swarm:
        alice = await swarm.start("alice", metadata={"role": "cache"}, protocols=["chat/1"])
        first, second = await swarm.start_many(2)
        assert [node.name for node in swarm.nodes] == ["alice", "node-2", "node-3"]
        await swarm.wait_converged(timeout=PATIENCE)
        assert first.book[alice.id].metadata == {"role": "cache"}
        assert first.book.keys() == {alice.id, second.id}
        record = Record(alice, PeerLeft, PeerLost)
        await first.close()
        await swarm.wait_converged(timeout=PATIENCE)
        assert swarm.nodes == (alice, second)
        await record.is_(PeerLeft)
    with pytest.raises(NotRunningError, match="closed"):
        alice.events()
    assert not swarm.nodes


@pytest.mark.asyncio
async def test_a_killed_node_says_no_goodbye_and_is_closed_for_the_test() -> None:
    async with LocalSwarm() as swarm:
        alice, bob = await swarm.start_many(2)
        await swarm.wait_converged(timeout=PATIENCE)
        events, record = bob.events(), Record(alice, PeerLeft, PeerLost)
        id_ = bob.id
        await swarm.kill(bob)
        await swarm.kill(bob)
        async with asyncio.timeout(PATIENCE):
            assert [event async for event in events] == []
        with pytest.raises(NotRunningError):
            await bob.send(alice.id, b"x")
        await bob.close()
        await swarm.wait_converged(timeout=PATIENCE)
        await record.is_(PeerLost)
        again = await swarm.restart(bob)
        assert (again.id, again.name) == (id_, bob.name)
        await swarm.wait_converged(timeout=PATIENCE)
        with pytest.raises(ValueError, match="no node of this swarm"):
            await swarm.kill(bob)


@pytest.mark.asyncio
async def test_a_restart_of_a_running_node_is_a_crash_and_a_start() -> None:
    async with LocalSwarm() as swarm:
        alice, bob = await swarm.start_many(2)
        await swarm.wait_converged(timeout=PATIENCE)
        before = alice.book[bob.id].boot_id
        again = await swarm.restart(bob)
        await wait_for(
            lambda: again.id in alice.book and alice.book[again.id].boot_id != before,
            timeout=PATIENCE,
        )


@pytest.mark.asyncio
async def test_a_paused_node_does_not_answer_until_it_is_resumed() -> None:
    async with LocalSwarm() as swarm:
        alice, bob = await swarm.start_many(2)
        await swarm.wait_converged(timeout=PATIENCE)
        record = Record(alice, PeerLost, PeerJoined)
        await swarm.pause(bob)
        await swarm.pause(bob)
        assert bob.book.keys() == {alice.id}, "its book can be read"
        update = asyncio.create_task(bob.update_metadata(n="1"))
        await swarm.wait_converged(timeout=PATIENCE)
        assert not update.done()
        assert not alice.book
        await swarm.resume(bob)
        await update
        await wait_for(
            lambda: bob.id in alice.book and alice.book[bob.id].metadata == {"n": "1"},
            timeout=PATIENCE,
        )
        await swarm.wait_converged(timeout=PATIENCE)
        await record.is_(PeerLost, PeerJoined)


@pytest.mark.asyncio
async def test_a_paused_node_does_not_keep_a_swarm_from_its_end() -> None:
    async with asyncio.timeout(PATIENCE), LocalSwarm() as swarm:
        _, bob = await swarm.start_many(2)
        await swarm.pause(bob)


@pytest.mark.asyncio
async def test_a_partition_cuts_messages_and_books_and_heals() -> None:
    async with LocalSwarm() as swarm:
        alice, bob, carol, dave = await swarm.start_many(4)
        await swarm.wait_converged(timeout=PATIENCE)
        inbox = carol.messages()
        await alice.send(carol.id, b"before")
        record = Record(dave, Isolated)
        await swarm.partition([alice, bob], [carol])
        with pytest.raises(PeerUnreachableError):
            await alice.send(carol.id, b"during", timeout=PATIENCE)
        await swarm.wait_converged(timeout=PATIENCE)
        assert alice.book.keys() == {bob.id}
        assert not carol.book
        assert not dave.book
        late = await swarm.start("late")  # joins the nodes that are in no group
        await record.is_(Isolated)
        await swarm.wait_converged(timeout=PATIENCE)
        assert late.book.keys() == {dave.id}
        await swarm.heal()
        await swarm.wait_converged(timeout=PATIENCE)
        await alice.send(carol.id, b"after", timeout=PATIENCE)
        got = [await anext(inbox), await anext(inbox)]
        assert [message.data for message in got if hasattr(message, "data")] == [
            b"before",
            b"after",
        ]


@pytest.mark.asyncio
async def test_a_restarted_node_stays_on_its_side() -> None:
    async with LocalSwarm() as swarm:
        alice, bob, carol = await swarm.start_many(3)
        await swarm.wait_converged(timeout=PATIENCE)
        await swarm.partition([alice, bob], [carol])
        await swarm.wait_converged(timeout=PATIENCE)
        bob = await swarm.restart(bob)
        await swarm.wait_converged(timeout=PATIENCE)
        assert alice.book.keys() == {bob.id}
        assert not carol.book


@pytest.mark.asyncio
async def test_the_timeout_of_wait_converged_says_which_books_are_wrong() -> None:
    async with LocalSwarm() as swarm:
        await swarm.start("alice")
        await swarm.start("bob", bootstrap=[])
        with pytest.raises(TimeoutError) as raised:
            await swarm.wait_converged(timeout=0.0)
        assert "not within 0.0 s: alice lacks bob; bob lacks alice" in str(raised.value)


@pytest.mark.asyncio
async def test_the_timeout_of_wait_converged_names_nodes_that_should_be_gone() -> None:
    async with LocalSwarm() as swarm:
        alice, _ = await swarm.start("alice"), await swarm.start("bob")
        await swarm.wait_converged(timeout=PATIENCE)
        await swarm.kill(alice)
        with pytest.raises(TimeoutError, match="bob still has alice"):
            await swarm.wait_converged(timeout=0.0)


@pytest.mark.asyncio
async def test_mistakes_are_named() -> None:
    async with LocalSwarm() as swarm, LocalSwarm() as other:
        alice = await swarm.start()
        foreign = await other.start()
        for use in (swarm.kill, swarm.pause, swarm.resume, swarm.restart):
            with pytest.raises(ValueError, match="no node of this swarm"):
                await use(foreign)
        with pytest.raises(ValueError, match="two groups"):
            await swarm.partition([alice], [alice])
        with pytest.raises(ConfigurationError, match="name"):
            swarm.make("")
        with pytest.raises(TypeError, match="config"):
            LocalSwarm(config="local")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="a node of a LocalSwarm has no tags; it has boot"):
            swarm.make("bob", tags={})  # type: ignore[call-arg]
        with pytest.raises(ConfigurationError, match="timeout is nan"):
            await swarm.wait_converged(timeout=math.nan)
        assert swarm.nodes == (alice,)


@pytest.mark.asyncio
async def test_a_node_that_an_application_starts_and_closes_belongs_to_its_swarm() -> None:
    async with LocalSwarm() as swarm:
        alice = await swarm.start("alice")
        await swarm.partition([alice])
        made = swarm.make("application", bootstrap=[alice.ticket])
        assert swarm.nodes == (alice,)
        async with made:
            with pytest.raises(PeerUnreachableError):
                await made.send(alice.id, b"x", timeout=PATIENCE)
            await swarm.wait_converged(timeout=PATIENCE)
            assert not alice.book
            await swarm.heal()
            await swarm.wait_converged(timeout=PATIENCE)
            assert made.id in alice.book


@pytest.mark.asyncio
async def test_a_key_in_a_state_dir_is_kept_over_a_restart(tmp_path: Path) -> None:
    async with LocalSwarm() as swarm:
        alice = await swarm.start("alice")
        bob = await swarm.start("bob", state_dir=tmp_path)
        id_ = bob.id
        await swarm.kill(bob)
        bob = await swarm.restart(bob)
        assert bob.id == id_
        await swarm.partition([alice])
        await swarm.wait_converged(timeout=PATIENCE)


@pytest.mark.asyncio
async def test_a_swarm_may_have_another_configuration() -> None:
    async with LocalSwarm(topic="other", config=Config.local(capacity=7)) as swarm:
        alice = await swarm.start()
        bob = await swarm.start(config=Config.local(capacity=8))
        assert (alice.topic, alice.config.capacity, bob.config.capacity) == ("other", 7, 8)


@pytest.mark.asyncio
async def test_wait_for_gives_the_value_and_says_what_it_waited_for() -> None:
    values = iter([0, 0, 7])
    assert await wait_for(lambda: next(values)) == 7
    with pytest.raises(TimeoutError, match=r"not within 0\.05 s: rain"):
        await wait_for(lambda: False, timeout=0.05, what="rain")

    async def never() -> bool:
        return False

    with pytest.raises(TypeError, match="condition must be a plain function"):
        await wait_for(never)  # type: ignore[unused-coroutine]


@pytest.mark.needs("proc")
def test_the_thread_of_a_dropped_node_ends() -> None:
    script = """
        import asyncio, contextlib, gc, time
        from pathlib import Path
        from iroh_gossip_discovery._core import TestRuntime
        from iroh_gossip_discovery.testing import LocalSwarm

        def threads():
            count = 0
            for comm in Path("/proc/self/task").glob("*/comm"):
                with contextlib.suppress(OSError):  # it has just ended
                    count += comm.read_text() == "igd-test\\n"
            return count

        def until(count):
            end = time.monotonic() + 20
            while threads() != count:
                assert time.monotonic() < end, threads()
                time.sleep(0.01)

        several = [TestRuntime() for _ in range(3)]
        until(3)
        several[0].pause()
        for _ in range(2):
            several[1].kill()
        several[1].pause()
        until(2)
        several.clear()
        gc.collect()
        until(0)

        async def main():
            swarm = LocalSwarm()
            nodes = await swarm.start_many(3)
            until(3)
            await nodes[0].close()
            until(2)
            await swarm.kill(nodes[1])
            until(1)
            await swarm.close()
            until(0)

        asyncio.run(main())
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, timeout=60)


def test_the_plugin_gives_the_fixture_without_loading_the_package(tmp_path: Path) -> None:
    (tmp_path / "test_user.py").write_text(
        textwrap.dedent("""
        import asyncio
        import sys


        def test_nothing_is_loaded_before_it_is_used():
            assert "iroh_gossip_discovery_pytest" in sys.modules
            assert "iroh_gossip_discovery" not in sys.modules


        def test_in_a_loop_of_its_own(local_swarm):
            async def main():
                await local_swarm.start_many(2)
                await local_swarm.wait_converged(timeout=30)
                global left
                left = local_swarm.nodes

            asyncio.run(main())


        def test_nodes_that_the_last_test_left_are_gone():
            assert [node._closed for node in left] == [True, True]
        """)
    )
    command = [sys.executable, "-W", "error", "-m", "pytest", "-q", "-p", "no:asyncio"]
    done = subprocess.run(
        [*command, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout
