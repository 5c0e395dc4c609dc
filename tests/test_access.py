"""Allow and deny lists from outside: a node that is kept out is in no book, and gets nothing."""

import asyncio
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from iroh_gossip_discovery import (
    Config,
    ConfigurationError,
    EventStream,
    GossipDiscovery,
    NotRunningError,
    PeerJoined,
    PeerLost,
    PeersTimeoutError,
    PeerUnreachableError,
    StateDirError,
    blocking,
)
from iroh_gossip_discovery.testing import wait_for

COMMAND = str(Path(sys.executable).with_name("iroh-gossip-discovery"))
PATIENCE = 40.0
NOBODY = "0" * 64
T = TypeVar("T", PeerJoined, PeerLost)


def node(name: str, *others: GossipDiscovery, **options: object) -> GossipDiscovery:
    tickets = [other.ticket for other in others]
    return GossipDiscovery(name, "fleet", bootstrap=tickets, config=Config.local(), **options)  # type: ignore[arg-type]  # as they come


async def until(condition: Callable[[], object], what: str) -> None:
    await wait_for(condition, timeout=PATIENCE, what=what)


async def first(events: EventStream, kind: type[T]) -> T:
    """Return the first event of a kind: a busy machine may suspect somebody before that."""
    async for event in events:
        if isinstance(event, kind):
            return event
    raise AssertionError("the events ended")


@pytest.mark.asyncio
async def test_a_denied_member_is_out_when_the_call_returns_and_in_again_after_undeny() -> None:
    async with node("alice") as alice, node("bob", alice) as bob, node("carol", alice) as carol:
        for member in (alice, bob, carol):
            await member.wait_for_peers(2, timeout=PATIENCE)
        events = alice.events()
        peer = alice.book[bob.id]
        await alice.deny(peer)
        assert alice.denied == {bob.id}
        assert list(alice.book) == [carol.id]
        lost = await asyncio.wait_for(first(events, PeerLost), PATIENCE)
        assert (lost.peer.id, lost.reason, lost.to_dict()["reason"]) == (bob.id, *["denied"] * 2)
        with pytest.raises(PeerUnreachableError, match="deny list"):
            await alice.send(bob.id, b"hello", timeout=PATIENCE)
        with pytest.raises(PeerUnreachableError):
            await bob.send(alice.id, b"hello", timeout=PATIENCE)
        # Books differ for the application only, so they come to agree.
        assert len(await alice.settled(quiet=0.3, timeout=PATIENCE)) == 1
        assert len(await carol.settled(quiet=0.3, timeout=PATIENCE)) == 2
        await alice.undeny(bob.id)
        assert alice.denied == frozenset()
        assert set(alice.book) == {bob.id, carol.id}
        joined = await asyncio.wait_for(first(events, PeerJoined), PATIENCE)
        assert joined.peer.id == bob.id


@pytest.mark.asyncio
async def test_only_those_on_the_allow_list_are_found_and_the_others_are_told() -> None:
    async with node("alice", allow=[NOBODY]) as alice, node("bob", alice) as bob:
        with pytest.raises(PeersTimeoutError, match="keeps this node out"):
            await asyncio.wait_for(told(bob), PATIENCE)
        assert any("not on the allow list" in str(problem.what) for problem in alice.problems())
        assert alice.metrics().dropped["links of peers that are kept out"] >= 1
        assert not alice.book
        await alice.allow(bob.me)
        assert alice.allowed == frozenset({NOBODY, bob.id})
        await alice.wait_for_peers(1, timeout=PATIENCE)
        await alice.disallow(bob.id)
        assert not alice.book
        with pytest.raises(ConfigurationError, match="started without an allow list"):
            await bob.allow(alice.id)
        assert bob.allowed is None


async def told(outside: GossipDiscovery) -> None:
    await until(
        lambda: any("keeps this node out" in problem.what for problem in outside.problems()),
        "the newcomer is told why",
    )
    await outside.wait_for_peers(1, timeout=0.0)


@pytest.mark.asyncio
async def test_marks_hold_after_a_restart_and_a_damaged_file_stops_the_start(
    tmp_path: Path,
) -> None:
    async with node("alice") as alice:
        async with node("bob", alice, state_dir=tmp_path) as bob:
            await bob.wait_for_peers(1, timeout=PATIENCE)
            await bob.deny(alice.id)
        async with node("bob", alice, state_dir=tmp_path) as bob:
            assert bob.denied == {alice.id}
            joined = await bob.joined(timeout=PATIENCE)
            assert not joined
            assert "deny list" in str(joined)
            assert not bob.book
        marks = tmp_path / "access"
        marks.write_text(marks.read_text().replace("deny", "deny "))
        with pytest.raises(StateDirError, match="access: is damaged"):
            await node("bob", alice, state_dir=tmp_path).start()
        marks.unlink()
        async with node("bob", alice, state_dir=tmp_path) as bob:
            await bob.wait_for_peers(1, timeout=PATIENCE)


@pytest.mark.asyncio
async def test_bad_lists_are_refused_with_the_name_of_the_argument() -> None:
    with pytest.raises(ConfigurationError, match=r"deny\[1\].*64 lower-case hex digits"):
        node("alice", deny=[NOBODY, "bob"])
    with pytest.raises(TypeError, match=r"allow\[0\] must be Peer or str, not int"):
        node("alice", allow=[7])
    with pytest.raises(TypeError, match="deny must be a sequence of Peer or str, not str"):
        node("alice", deny=NOBODY)
    many = [f"{number:064x}" for number in range(10_001)]
    with pytest.raises(ConfigurationError, match="allow holds 10001 ids, the limit is 10000"):
        await node("alice", allow=many).start()
    alice = node("alice")
    with pytest.raises(NotRunningError):
        await alice.deny(NOBODY)
    async with alice:
        with pytest.raises(ConfigurationError, match="deny names this node itself"):
            await alice.deny(alice.id)
        with pytest.raises(ConfigurationError, match="64 lower-case hex digits"):
            await alice.deny("bob")


def test_the_lists_change_from_threads_too() -> None:
    with blocking.GossipDiscovery(
        "alice", "fleet", allow=[], deny=[NOBODY], config=Config.local()
    ) as alice:
        assert (alice.allowed, alice.denied) == (frozenset(), frozenset({NOBODY}))
        alice.undeny(NOBODY)
        alice.allow(NOBODY)
        assert (alice.allowed, alice.denied) == (frozenset({NOBODY}), frozenset())
        alice.disallow(NOBODY)
        alice.deny(NOBODY)
        assert (alice.allowed, alice.denied) == (frozenset(), frozenset({NOBODY}))


@pytest.mark.asyncio
async def test_the_command_line_denies_and_refuses_what_is_no_id() -> None:
    wrong = subprocess.run(  # noqa: ASYNC221  # it ends at once, and is our own
        [COMMAND, "run", "alice", "--deny", "bob"], capture_output=True, text=True, check=False
    )
    assert wrong.returncode == 2
    assert "--deny" in wrong.stderr
    async with node("alice") as alice:
        command = [COMMAND, "run", "bob", alice.ticket, "--preset", "local"]
        process = await asyncio.create_subprocess_exec(
            *command, "--deny", alice.id, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        try:
            assert process.stderr is not None
            line = b""
            while b"it is on the deny list" not in line:
                line = await asyncio.wait_for(process.stderr.readline(), PATIENCE)
                assert line, "it ended without a word on the list"
            assert not alice.book
        finally:
            process.terminate()
            await asyncio.wait_for(process.wait(), PATIENCE)
