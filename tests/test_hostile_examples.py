"""The examples among members that say nonsense, with wrong arguments, and under signals."""

import asyncio
import re
import signal
from contextlib import ExitStack
from pathlib import Path

import pytest
from programs import (
    SECRET,
    ask,
    ended_well,
    example,
    fail,
    member,
    mislead,
    pester,
    receiving,
    send_file,
    until,
)

from iroh_gossip_discovery import GossipDiscovery, StreamReader, StreamWriter


def shown(value: object) -> str:
    """Name a parameter of a test."""
    return " ".join(value) if isinstance(value, list) else str(value)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("address_book_demo.py", []),
        ("sharded_cache.py", []),
        ("worker_pool.py", []),
        ("worker_pool.py", ["hand-out"]),
        ("worker_pool.py", ["hand-out", "many"]),
        ("worker_pool.py", ["work"]),
        ("file_drop.py", ["receive", "bob"]),
        ("file_drop.py", ["send", "file"]),
        ("file_drop.py", ["receive", "bob", "no-folder"]),
        ("leader.py", []),
        ("request_reply.py", ["serve"]),
        ("request_reply.py", ["ask"]),
        ("robots.py", ["work", "bob", "many"]),
        ("robots.py", ["lift", "1e999"]),
        ("members_page.py", []),
        ("members_page.py", ["http"]),
        ("members_page.py", ["65536"]),
    ],
    ids=shown,
)
def test_an_example_that_lacks_an_argument_says_how_it_is_called(
    name: str, arguments: list[str]
) -> None:
    with example(name, *arguments) as node:
        _, error = node.communicate(timeout=60)
        assert (node.returncode, f"`{name} " in error) == (1, True), error


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("address_book_demo.py", ["bob", "no-ticket"]),
        ("sharded_cache.py", ["bob", "no-ticket"]),
        ("worker_pool.py", ["work", "bob", "no-ticket"]),
        ("file_drop.py", ["receive", "bob", ".", "no-ticket"]),
        ("file_drop.py", ["send", __file__, "bob", "no-ticket"]),
        ("file_drop.py", ["send", "no-file", "bob"]),
        ("leader.py", ["bob", "no-ticket"]),
        ("request_reply.py", ["serve", "bob", "no-ticket"]),
        ("request_reply.py", ["ask", "hello", "no-ticket"]),
        ("robots.py", ["work", "bob", "10", "no-ticket"]),
        ("robots.py", ["lift", "10", "no-ticket"]),
        ("members_page.py", ["0", "no-ticket"]),
    ],
    ids=shown,
)
def test_an_example_that_is_given_nonsense_says_so_in_a_line(
    name: str, arguments: list[str]
) -> None:
    with example(name, *arguments) as node:
        _, error = node.communicate(timeout=60)
        assert node.returncode == 1
        assert re.fullmatch("error: .*\n", error), error


@pytest.mark.parametrize(
    "numbers",
    [[signal.SIGINT], [signal.SIGTERM], [signal.SIGINT] * 2],
    ids=["Ctrl-C", "SIGTERM", "Ctrl-C twice"],
)
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("address_book_demo.py", ["alice"]),
        ("sharded_cache.py", ["alice"]),
        ("worker_pool.py", ["hand-out", "1"]),
        ("worker_pool.py", ["work", "alice"]),
        ("file_drop.py", ["receive", "alice", "."]),
        ("leader.py", ["alice"]),
        ("request_reply.py", ["serve", "alice"]),
        ("robots.py", ["work", "alice", "10"]),
        ("members_page.py", ["0"]),
    ],
    ids=shown,
)
def test_a_signal_ends_an_example_without_a_traceback(
    name: str, arguments: list[str], numbers: list[signal.Signals]
) -> None:
    with example(name, *arguments) as node:
        until(node, ".")
        for number in numbers:
            node.send_signal(number)
        _, error = node.communicate(timeout=60)
        # A signal that comes when the handlers are down already just ends the process.
        assert (node.returncode in (0, -numbers[-1]), error) == (True, "")


@pytest.mark.asyncio
async def test_the_cache_goes_on_among_nonsense() -> None:
    with example("sharded_cache.py", "alice") as alice:
        ticket = until(alice, "^to join").split()[-1]
        ask(alice, "set mine 1", "mine is with alice")
        async with member("mallory", "cache", ticket, role="cache") as mallory:
            await pester(mallory, requests=("set", "get"))
            for get, set_ in ((mislead, fail), (fail, mislead)):
                answers = [mallory.answer("get", get), mallory.answer("set", set_)]
                assert alice.stdin is not None
                for n in range(20):
                    alice.stdin.write(f"set key-{n} v\nget key-{n}\n")
                alice.stdin.write("who last\n")
                alice.stdin.flush()
                await asyncio.to_thread(until, alice, "^last belongs to")
                for answer in answers:
                    answer.cancel()
            await asyncio.to_thread(ask, alice, "who mine", "mine belongs to .*")
        ended_well(alice)


@pytest.mark.asyncio
async def test_the_worker_pool_goes_on_among_nonsense() -> None:
    with ExitStack() as stack:
        pool = stack.enter_context(example("worker_pool.py", "hand-out", "50"))
        ticket = until(pool, "^ticket: ").split()[-1]
        async with member("mallory", "worker-pool", ticket, role="worker") as mallory:
            mallory.answer("work", fail)
            await asyncio.to_thread(
                until, pool, "^error: peer .* failed at 'work': 'RuntimeError': "
            )
            worker = stack.enter_context(example("worker_pool.py", "work", "ann", ticket))
            await asyncio.to_thread(until, worker, "^ann is")
            await mallory.wait_for_peers(2, timeout=60)
            await pester(mallory, requests=("work",))
            await asyncio.to_thread(until, pool, r"^50 jobs done by 1 workers$")
            ended_well(pool)
        ended_well(worker)


def test_a_worker_ends_well_if_its_pool_is_killed() -> None:
    with ExitStack() as stack:
        pool = stack.enter_context(example("worker_pool.py", "hand-out", "100000"))
        ticket = until(pool, "^ticket: ").split()[-1]
        worker = stack.enter_context(example("worker_pool.py", "work", "ann", ticket))
        until(worker, " did ")
        pool.kill()
        until(worker, "^the pool is gone$")
        ended_well(worker)


@pytest.mark.asyncio
async def test_a_file_drop_goes_on_among_nonsense(tmp_path: Path) -> None:
    folder, file = tmp_path / "of bob", tmp_path / "file"
    folder.mkdir()
    file.write_text("hello")
    with receiving(folder) as (bob, ticket):
        async with member("mallory", "file-drop", ticket) as mallory:
            await pester(mallory, protocols=("file-drop/1",))
        assert list(folder.iterdir()) == []
        code, _, error = send_file(file, "bob", ticket)
        assert (code, error) == (0, "")
        bob.send_signal(signal.SIGINT)
        ended_well(bob)


@pytest.mark.asyncio
async def test_a_receiver_that_answers_nonsense_is_no_end_of_the_sender(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("hello")
    async with GossipDiscovery("bob", "file-drop", secret=SECRET) as bob:

        @bob.serve("file-drop/1")
        async def answer(_: StreamReader, writer: StreamWriter) -> None:
            while True:  # without a line, and without an end
                writer.write(b"taken" * 10_000)
                await writer.drain()

        code, _, error = await asyncio.to_thread(send_file, file, "bob", bob.ticket)
        assert code == 1
        assert re.fullmatch("error: .*\n", error), error
