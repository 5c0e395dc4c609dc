"""Callbacks: plain or async, in order, in their context; failures are reported and stop nothing."""

import asyncio
import contextlib
import contextvars
import time
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from iroh_gossip_discovery import (
    Config,
    Event,
    GossipDiscovery,
    PeerJoined,
    PeerLeft,
    PeerUpdated,
    Registration,
)

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def alice() -> AsyncIterator[GossipDiscovery]:
    async with GossipDiscovery("alice", "fleet", config=Config.local()) as discovery:
        yield discovery


def beside(other: GossipDiscovery, name: str) -> GossipDiscovery:
    return GossipDiscovery(name, "fleet", bootstrap=[other.ticket], config=Config.local())


async def visit(other: GossipDiscovery, name: str) -> None:
    """Join, be seen, and leave again."""
    async with beside(other, name) as guest, asyncio.timeout(30):
        events = other.events()
        while guest.id not in other.book:
            await anext(events)


async def eventually(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


async def test_a_callback_gets_the_events_of_its_kinds_in_order(alice: GossipDiscovery) -> None:
    everything: list[Event] = []
    arrivals: list[str] = []
    moves: list[tuple[type[Event], str]] = []

    async def move(event: PeerJoined | PeerLeft) -> None:
        await asyncio.sleep(0)
        moves.append((type(event), event.peer.name))

    alice.on(Event, everything.append)
    alice.on(PeerJoined, lambda event: arrivals.append(event.peer.name))
    alice.on((PeerJoined, PeerLeft), move)
    for name in ("bob", "carol"):
        await visit(alice, name)
    await eventually(lambda: len(moves) == 4)
    assert moves == [
        (PeerJoined, "bob"),
        (PeerLeft, "bob"),
        (PeerJoined, "carol"),
        (PeerLeft, "carol"),
    ]
    assert arrivals == ["bob", "carol"]
    assert [
        (type(event), event.peer.name)
        for event in everything
        if isinstance(event, PeerJoined | PeerLeft)
    ] == moves


async def test_on_is_a_decorator_whose_handle_unregisters(alice: GossipDiscovery) -> None:
    seen: list[str] = []

    @alice.on(PeerJoined)
    async def joined(event: PeerJoined) -> None:
        await asyncio.sleep(0)
        seen.append(event.peer.name)

    assert isinstance(joined, Registration)
    assert (joined.active, "PeerJoined" in repr(joined)) == (True, True)
    await visit(alice, "bob")
    await eventually(lambda: seen)
    joined.cancel()
    joined.cancel()
    assert not joined.active
    late = asyncio.Event()
    alice.on(PeerLeft, lambda _: late.set())
    await visit(alice, "carol")
    await late.wait()
    assert seen == ["bob"]


async def test_a_callback_may_be_registered_before_the_start() -> None:
    seen: list[str] = []
    async with GossipDiscovery("bob", "fleet", config=Config.local()) as bob:
        alice = beside(bob, "alice")
        alice.on(PeerJoined, lambda event: seen.append(event.peer.name))
        never = alice.on(PeerJoined)(lambda _: seen.append("never"))
        never.cancel()
        async with alice:
            await eventually(lambda: seen)
    assert seen == ["bob"]


async def test_a_callback_registered_before_the_start_misses_no_peer(
    alice: GossipDiscovery,
) -> None:
    seen: list[str] = []
    async with beside(alice, "bob") as bob:
        await bob.wait_for_peers(1, timeout=30)
        carol = beside(alice, "carol")
        carol.on(PeerJoined, lambda event: seen.append(event.peer.name))
        starting = asyncio.create_task(carol.start())
        await asyncio.sleep(0)
        # The node runs; the loop doesn't.
        time.sleep(0.5)  # noqa: ASYNC251  # the case is a busy loop
        await starting
        try:
            await eventually(lambda: sorted(seen) == ["alice", "bob"])
        finally:
            await carol.close()


async def test_calls_of_one_callback_never_overlap(alice: GossipDiscovery) -> None:
    running = 0
    most = 0
    calls = 0

    @alice.on(Event)
    async def slow(_: Event) -> None:
        nonlocal running, most, calls
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1
        calls += 1

    await asyncio.gather(*(visit(alice, f"guest-{n}") for n in range(5)))
    await eventually(lambda: calls >= 10)
    assert most == 1


async def test_a_slow_callback_holds_up_no_other(alice: GossipDiscovery) -> None:
    seen: list[str] = []
    gate = asyncio.Event()

    @alice.on(PeerJoined)
    async def stuck(_: PeerJoined) -> None:
        await gate.wait()

    alice.on(PeerJoined, lambda event: seen.append(event.peer.name))
    await visit(alice, "bob")
    await eventually(lambda: seen)
    gate.set()


async def test_a_failure_is_reported_and_stops_nothing(alice: GossipDiscovery) -> None:
    reported: list[dict[str, object]] = []
    seen: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: reported.append(context))
    failures: list[BaseException] = [ValueError("first"), asyncio.CancelledError("second")]

    @alice.on(PeerJoined)
    async def failing(event: PeerJoined) -> None:
        await asyncio.sleep(0)
        seen.append(event.peer.name)
        if failures:
            raise failures.pop(0)

    for name in ("bob", "carol", "dave"):
        await visit(alice, name)
    await eventually(lambda: len(seen) == 3)
    assert [type(context["exception"]) for context in reported] == [
        ValueError,
        asyncio.CancelledError,
    ]
    assert "PeerJoined" in str(reported[0]["message"])
    assert failing.active


async def test_a_callback_runs_in_the_context_of_its_registration(
    alice: GossipDiscovery,
) -> None:
    request: contextvars.ContextVar[str] = contextvars.ContextVar("request", default="none")
    seen: list[str] = []
    request.set("registration")
    alice.on(PeerJoined, lambda _: seen.append(request.get()))

    @alice.on(PeerJoined)
    async def joined(_: PeerJoined) -> None:
        await asyncio.sleep(0)
        seen.append(request.get())

    request.set("later")
    await visit(alice, "bob")
    await eventually(lambda: len(seen) == 2)
    assert seen == ["registration", "registration"]


async def test_a_callback_may_close_the_discovery() -> None:
    async with GossipDiscovery("bob", "fleet", config=Config.local()) as bob:
        alice = beside(bob, "alice")
        closed = asyncio.Event()

        @alice.on(PeerJoined)
        async def joined(_: PeerJoined) -> None:
            await alice.close()
            closed.set()

        await alice.start()
        async with asyncio.timeout(10):
            await closed.wait()
        assert "closed" in repr(alice)


async def test_a_callback_under_way_finishes_before_close_returns(
    alice: GossipDiscovery,
) -> None:
    begun, done = asyncio.Event(), asyncio.Event()

    @alice.on(PeerJoined)
    async def joined(_: PeerJoined) -> None:
        begun.set()
        await asyncio.sleep(0.05)
        done.set()

    async with beside(alice, "bob"):
        await begun.wait()
        await alice.close()
        assert done.is_set()


async def test_a_callback_that_hangs_is_cancelled_at_close(alice: GossipDiscovery) -> None:
    ended: list[str] = []
    begun = asyncio.Event()

    @alice.on(PeerJoined)
    async def joined(_: PeerJoined) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    async with beside(alice, "bob"):
        await begun.wait()
        async with asyncio.timeout(10):
            await alice.close()
    await eventually(lambda: ended)


@pytest.mark.parametrize("kind", [int, "PeerJoined", (), (PeerJoined, int), None, int | str])
async def test_a_class_that_is_not_an_event_is_refused(
    alice: GossipDiscovery, kind: object
) -> None:
    with pytest.raises(TypeError, match="event must be one of PeerJoined"):
        alice.on(kind, print)  # type: ignore[call-overload]


async def test_a_callback_that_is_not_callable_is_refused(alice: GossipDiscovery) -> None:
    with pytest.raises(TypeError, match="callback must be callable, not str"):
        alice.on(PeerUpdated, "print")  # type: ignore[call-overload]
    with contextlib.suppress(AttributeError):
        assert not alice._callback_tasks
