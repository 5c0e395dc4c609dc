"""The `admit` callback from outside: it is asked before a node is a member, and fails closed."""

import asyncio
from collections.abc import Callable

import pytest

from iroh_gossip_discovery import Config, GossipDiscovery, Newcomer, blocking
from iroh_gossip_discovery.testing import wait_for

PATIENCE = 40.0


def node(name: str, *others: GossipDiscovery, **options: object) -> GossipDiscovery:
    tickets = [other.ticket for other in others]
    return GossipDiscovery(
        name,
        "fleet",
        bootstrap=tickets,
        config=Config.local(),
        **options,  # type: ignore[arg-type]  # each test gives its own
    )


async def until(condition: Callable[[], object], what: str) -> None:
    await wait_for(condition, timeout=PATIENCE, what=what)


@pytest.mark.asyncio
async def test_a_node_is_a_member_once_the_callback_admits_it() -> None:
    asked: list[Newcomer] = []
    answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    async def admit(newcomer: Newcomer) -> bool:
        asked.append(newcomer)
        return await asyncio.shield(answer)

    async with node("alice", admit=admit) as alice, node("bob", alice) as bob:
        await until(lambda: asked, "the question")
        assert asked[0].id == bob.id
        assert asked[0].addresses
        assert not alice.book
        answer.set_result(True)
        await alice.wait_for_peers(1, timeout=PATIENCE)
        await bob.wait_for_peers(1, timeout=PATIENCE)
        await bob.update(metadata={"role": "worker"})
        await until(lambda: alice.book[bob.id].metadata, "the change is known")
        assert len(asked) == 1, "one that is admitted is not asked about again"


@pytest.mark.asyncio
async def test_the_callback_sees_what_the_node_says_of_itself_and_may_refuse_it() -> None:
    asked: dict[str, Newcomer] = {}

    def admit(newcomer: Newcomer) -> bool:
        asked[newcomer.id] = newcomer
        peer = newcomer.peer
        return newcomer.id == seed.id or (peer is not None and peer.metadata.get("role") == "a")

    async with (
        node("seed") as seed,
        node("one", seed, metadata={"role": "a"}) as one,
        node("two", seed, metadata={"role": "b"}) as two,
    ):
        await seed.wait_for_peers(2, timeout=PATIENCE)
        async with node("alice", seed, admit=admit) as alice:
            await until(lambda: set(alice.book) == {seed.id, one.id}, "the admitted are members")
            await until(
                lambda: two.id in asked and asked[two.id].peer is not None, "it was asked about"
            )
            peer = asked[two.id].peer
            assert peer is not None
            assert (peer.name, dict(peer.metadata)) == ("two", {"role": "b"})
            assert peer.addresses[0] in asked[two.id].addresses
            await until(
                lambda: alice.metrics().dropped.get("peers that were not admitted"), "the count"
            )
            assert two.id not in alice.book


@pytest.mark.asyncio
async def test_exceptions_and_answers_that_are_no_bool_admit_nobody_and_are_reported() -> None:
    reported: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    answers: list[Callable[[], object]] = [lambda: 1 // 0, lambda: "yes", lambda: 1 // 0]
    heard: list[str] = []

    async def admit(_: Newcomer) -> bool:
        assert not alice.book
        answer = answers.pop(0) if answers else lambda: True
        return answer()  # type: ignore[return-value]  # what a careless callback returns

    async with node("alice", admit=admit) as alice, node("bob", alice) as bob:

        def is_in() -> bool:
            heard.extend(str(p.what) for p in alice.problems() if p.source == "admit")
            return bob.id in alice.book

        await until(is_in, "the fourth answer admits it")
        assert any("ZeroDivisionError" in text for text in heard), heard
        assert any("admit must return bool, not str" in text for text in heard), heard
        assert alice.metrics().dropped["questions without an answer"] == 3
        assert not any(problem.source == "admit" for problem in alice.problems())
    kinds = [type(context["exception"]) for context in reported]
    assert kinds == [ZeroDivisionError, TypeError], "each kind is reported once"


@pytest.mark.asyncio
async def test_a_callback_that_is_no_function_is_refused_and_a_close_gives_up_calls() -> None:
    with pytest.raises(TypeError, match="admit must be callable, not bool"):
        node("alice", admit=True)
    begun, ended = asyncio.Event(), asyncio.Event()

    async def admit(_: Newcomer) -> bool:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return True

    alice = node("alice", admit=admit)
    await alice.start()
    async with node("bob", alice):
        await asyncio.wait_for(begun.wait(), PATIENCE)
        await alice.close()
        await asyncio.wait_for(ended.wait(), PATIENCE)


def test_the_blocking_class_calls_it_on_threads() -> None:
    import threading

    threads: set[str] = set()

    def admit(newcomer: Newcomer) -> bool:
        threads.add(threading.current_thread().name)
        return newcomer.peer is None or newcomer.peer.name == "bob"

    config = Config.local()
    with (
        blocking.GossipDiscovery("alice", "fleet", admit=admit, config=config) as alice,
        blocking.GossipDiscovery("bob", "fleet", bootstrap=[alice.ticket], config=config) as bob,
    ):
        assert set(alice.wait_for_peers(1, timeout=PATIENCE)) == {bob.id}
        assert threads == {"iroh-gossip-discovery-call"}
