"""The examples, run as a user runs them: each node a process of its own."""

import asyncio
import http.client
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest
from programs import (
    SECRET,
    Node,
    ask,
    call,
    ended_well,
    example,
    fail,
    from_node,
    member,
    mislead,
    pester,
    receiving,
    send_file,
    until,
)

from iroh_gossip_discovery import GossipDiscovery, StreamResetError


@contextmanager
def running(*command: str | Path) -> Iterator[Node]:
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as node:
        try:
            yield node
        finally:
            node.kill()


def test_the_address_book_demo_shows_the_book_as_it_changes() -> None:
    with ExitStack() as nodes:
        alice = nodes.enter_context(example("address_book_demo.py", "alice"))
        id_ = until(alice, "^alice is ").split()[-1]
        ticket = until(alice, "^to join").split()[-1]
        bob = nodes.enter_context(example("address_book_demo.py", "bob", ticket))
        until(bob, r"^    alice +" + id_[:10])
        charlie = nodes.enter_context(example("address_book_demo.py", "charlie", ticket))
        for node in (alice, bob, charlie):
            until(node, r"^\d\d:\d\d:\d\d .*; \w+ knows 2$")
        bob.send_signal(signal.SIGINT)
        for node in (alice, charlie):
            until(node, r"^\d\d:\d\d:\d\d - bob left; \w+ knows 1$")
        _, error = bob.communicate(timeout=30)
        assert (bob.returncode, error) == (0, "")


def test_the_address_book_demo_without_a_name_prints_its_usage() -> None:
    with example("address_book_demo.py") as node:
        _, error = node.communicate(timeout=30)
        assert node.returncode == 1
        assert "address_book_demo.py NAME" in error


def test_the_address_book_demo_refuses_an_invalid_ticket() -> None:
    with example("address_book_demo.py", "bob", "no-ticket") as node:
        _, error = node.communicate(timeout=30)
        assert node.returncode == 1
        assert error.startswith("error: bootstrap[0]")
        assert "Traceback" not in error


def test_the_demos_of_both_languages_meet(rust_example: Callable[[str], Path]) -> None:
    with running(rust_example("address_book_demo"), "alice") as alice:
        ticket = until(alice, "^ticket: ").split()[-1]
        with example("address_book_demo.py", "bob", ticket) as bob:
            until(bob, r"^\d\d:\d\d:\d\d \+ alice joined; bob knows 1$")
            until(alice, r"^\+ bob joined$")


def test_the_sharded_cache_spreads_keys_and_hands_them_on() -> None:
    keys = [f"key-{n}" for n in range(20)]
    with ExitStack() as stack:
        alice = stack.enter_context(example("sharded_cache.py", "alice"))
        ticket = until(alice, "^to join").split()[-1]
        for key in keys:
            ask(alice, f"set {key} of {key}", f"{key} is with alice")
        bob = stack.enter_context(example("sharded_cache.py", "bob", ticket))
        until(bob, "^to join")
        for node in (alice, bob):  # until both know both
            while len({ask(node, f"who {key}", ".* to (.+)")[1] for key in keys}) < 2:
                pass
        for node in (alice, bob):
            for key in keys:
                # What moves is on its way for a moment.
                while ask(node, f"get {key}", f"{key} = (.+)")[1] == "None":
                    pass
                assert ask(node, f"get {key}", f"{key} = (.+)")[1] == f"'of {key}'"
        assert alice.stdin is not None
        alice.stdin.close()  # it leaves, and hands on what it has
        assert alice.wait(timeout=30) == 0
        for key in keys:
            ask(bob, f"get {key}", f"{key} = 'of {key}'")
        _, error = bob.communicate(timeout=30)
        assert (bob.returncode, error) == (0, "")


def test_the_worker_pool_survives_the_kill_of_a_worker() -> None:
    with ExitStack() as stack:
        pool = stack.enter_context(example("worker_pool.py", "hand-out", "60"))
        ticket = until(pool, "^ticket: ").split()[-1]
        workers = [
            stack.enter_context(example("worker_pool.py", "work", name, ticket))
            for name in ("ann", "ben", "cem")
        ]
        for worker in workers * 3:  # it gets a third job only when one of the first two is known
            until(worker, " did ")
        workers[0].kill()
        until(pool, r"^job \d+ of \w{10} goes to others$")
        until(pool, r"^60 jobs done by 3 workers$")
        _, error = pool.communicate(timeout=30)
        assert (pool.returncode, error) == (0, "")
        for worker in workers[1:]:
            _, error = worker.communicate(timeout=30)
            assert (worker.returncode, error) == (0, "")


def test_a_dropped_file_is_there_whole_and_never_in_place_of_another(tmp_path: Path) -> None:
    folder = tmp_path / "of bob"
    folder.mkdir()
    file = tmp_path / "räuber.bin"
    with receiving(folder) as (bob, ticket):
        for size in (3_000_001, 0):
            file.write_bytes(os.urandom(size))
            code, said, error = send_file(file, "bob", ticket)
            assert (code, error) == (0, "")
            assert said.splitlines()[-1].startswith("bob ")
            assert "räuber.bin: 100%" in said or size == 0
            until(bob, rf"^räuber.bin from \w{{10}}, {size} bytes$")
            assert (folder / file.name).read_bytes() == file.read_bytes()
            (folder / file.name).unlink()
        (folder / file.name).write_text("mine")
        code, _, error = send_file(file, "bob", ticket)
        assert code == 1
        assert error.endswith("a file of this name is there already (code 2)\n")
        assert [path.read_text() for path in folder.iterdir()] == ["mine"]
        bob.send_signal(signal.SIGINT)
        _, error = bob.communicate(timeout=30)
        assert (bob.returncode, error) == (0, "")


def test_among_peers_of_one_name_the_id_selects_one(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("hello")
    folders = [tmp_path / "one", tmp_path / "other"]
    for folder in folders:
        folder.mkdir()
    with receiving(folders[0]) as (_, one), receiving(folders[1]) as (_, other):
        error = ""
        while not error:  # until it knows both when it looks
            file = file.rename(file.with_name(f"{file.name}-again"))
            _, _, error = send_file(file, "bob", one, other)
        several, _, ids = error.strip().partition(", say which: ")
        assert several == "error: several are called bob"
        file = file.rename(tmp_path / "chosen")
        reached = []
        for fingerprint in ids.split(", "):
            code, said, _ = send_file(file, fingerprint, one, other)
            assert (code, said.split()[-3]) == (0, fingerprint)
            reached.append(sum((folder / "chosen").exists() for folder in folders))
        assert reached == [1, 2]


@pytest.mark.asyncio
async def test_a_file_that_fails_verification_leaves_nothing_behind(tmp_path: Path) -> None:
    folder = tmp_path / "of bob"
    folder.mkdir()

    async def drop(name: object, size: object, rest: bytes) -> str:
        """Send what a sender should not; give what bob says to it."""
        peer = next(iter(discovery.book.named("bob").serving("file-drop/1")))
        reader, writer = await discovery.open_stream(peer, "file-drop/1", timeout=30)
        writer.write(json.dumps({"name": name, "size": size}).encode() + b"\n" + rest)
        writer.write_eof()
        with pytest.raises(StreamResetError) as refused:
            await reader.read()
        return refused.value.reason

    with receiving(folder) as (bob, ticket):
        async with member("mallory", "file-drop", ticket) as discovery:
            async with discovery.events() as events, asyncio.timeout(30):
                while not discovery.book.named("bob").serving("file-drop/1"):
                    await anext(events)
            away = ("../up", "/up", "a/b", "a\\b", "..\\up", "C:up", "..", ".", "", ".profile")
            for name in (*away, "bell\a", "nul\0", 7, None):
                assert await drop(name, 0, b"") == "not a plain file name and a size", name
            for size in (-1, "1", None):
                assert await drop("file", size, b"") == "not a plain file name and a size", size
            assert await drop("x" * 300, 0, b"") == "File name too long"
            other_digest = await drop("file", 5, b"hello" + bytes(32))
            assert other_digest == "its digest is not what the sender says"
            for rest in (b"hell", b"hello" + bytes(31)):
                assert await drop("file", 5, rest) == "it did not come whole"
                until(bob, "^nothing from .*: it did not come whole$")
            # One that is killed in the middle.
            file = tmp_path / "large"
            with file.open("wb") as large:
                large.truncate(2**32)
            with example("file_drop.py", "send", str(file), "bob", ticket) as sender:
                until(sender, r"large: +[1-9]")
                assert [path.suffix for path in folder.iterdir()] == [".part"]
                sender.kill()
            until(bob, "^nothing from .*: it did not come whole$")
    assert list(folder.iterdir()) == []
    assert sorted(path.name for path in folder.parent.iterdir()) == ["large", "of bob"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda s: s.name)
def test_another_node_takes_the_job_over_when_the_leader_goes(number: signal.Signals) -> None:
    with ExitStack() as stack:
        alice = stack.enter_context(example("leader.py", "alice"))
        ticket = until(alice, "^to join").split()[-1]
        until(alice, "^leader: alice, term 1$")
        until(alice, "^alice runs the job, 1$")
        bob = stack.enter_context(example("leader.py", "bob", ticket))
        until(bob, "^joined: synced with ")
        leader = until(bob, "^leader: ")
        if "alice" in leader:
            first, next_, name = alice, bob, "bob"
        else:
            first, next_, name = bob, alice, "alice"
            until(alice, "^leader: bob, ")
        first.send_signal(number)
        until(next_, f"^leader: {name}, ")
        until(next_, f"^{name} runs the job, 2$")
        if number == signal.SIGTERM:
            ended_well(first)
        next_.send_signal(signal.SIGINT)
        ended_well(next_)


@pytest.mark.asyncio
async def test_a_service_replies_and_its_errors_come_back() -> None:
    with example("request_reply.py", "serve", "alice") as alice:
        ticket = until(alice, "^to ask").split()[-1]
        assert call("request_reply.py", "ask", "Grüße", ticket) == (0, "'GRÜSSE'\n", "")
        until(alice, "^.{10} asks for 'Grüße'$")
        code, said, error = call("request_reply.py", "ask", "x" * 10_001, ticket)
        assert (code, said) == (1, "")
        assert error.endswith("'ValueError': 'the text is 10,001 bytes, the limit is 10,000'\n")
        async with member("mallory", "requests", ticket, shouts="yes") as mallory:
            await pester(mallory, requests=("shout",))
            for handler in (fail, mislead):
                answer = mallory.answer("shout", handler)
                code, said, error = await asyncio.to_thread(
                    call, "request_reply.py", "ask", "hello", ticket
                )
                good = (code, said, error) == (0, "'HELLO'\n", "")
                assert good or (code, len(error.splitlines())) == (1, 1), error
                answer.cancel()
        assert call("request_reply.py", "ask", "on", ticket) == (0, "'ON'\n", "")
        alice.send_signal(signal.SIGTERM)
        ended_well(alice)


@pytest.mark.asyncio
async def test_a_robot_that_fits_is_asked_whatever_others_say_of_themselves() -> None:
    with ExitStack() as stack:
        weak = stack.enter_context(example("robots.py", "work", "weak", "10"))
        ticket = until(weak, "^to ask").split()[-1]
        strong = stack.enter_context(example("robots.py", "work", "strong", "100", ticket))
        other_ticket = until(strong, "^to ask").split()[-1]
        tickets = (ticket, other_ticket)

        async def lift(weight: str) -> tuple[int, str, str]:
            return await asyncio.to_thread(call, "robots.py", "lift", weight, *tickets)

        async with member("mallory", "robots", ticket) as mallory:
            await mallory.wait_for_peers(2, timeout=60)
            await pester(mallory, requests=("lift",))
            for claim in ("1e999", "nan", "-5", "many", "0x10"):
                await mallory.update_metadata(lifts=claim)
                assert await lift("5") == (0, "weak has lifted it\n", ""), claim
                assert await lift("50") == (0, "strong has lifted it\n", ""), claim
            await mallory.update_metadata(lifts="1000")
            for handler in (fail, mislead):
                answer = mallory.answer("lift", handler)
                code, _, error = await lift("500")
                assert (code, error) == (1, "error: no robot lifts 500 kg\n")
                answer.cancel()
        until(weak, "^weak lifts 5 kg for ")
        until(strong, "^strong lifts 50 kg for ")
        for robot in (weak, strong):
            robot.send_signal(signal.SIGINT)
            ended_well(robot)


def get(connection: http.client.HTTPConnection, path: str) -> http.client.HTTPResponse:
    connection.request("GET", path)
    return connection.getresponse()


def read_until(stream: http.client.HTTPResponse, wanted: str) -> None:
    """Read events until a member of this name is there."""
    for line in stream:
        event = json.loads(line[6:]) if line.startswith(b"data: ") else {"peers": []}
        if wanted in [peer["name"] for peer in event["peers"]]:
            return
    raise AssertionError(f"{wanted} never came")


@pytest.mark.asyncio
async def test_the_page_shows_who_is_there_and_ends_with_readers_still_open() -> None:
    name = "<script>alert(1)</script>"
    async with GossipDiscovery("seed", "fleet", secret=SECRET) as seed:
        with example("members_page.py", "0", seed.ticket) as page, ExitStack() as stack:
            port = int((await from_node(page, "^http://")).strip(" /\n").rpartition(":")[2])
            once, open_ = (
                stack.enter_context(
                    closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60))
                )
                for _ in range(2)
            )
            shown = (await asyncio.to_thread(get, once, "/")).read()
            assert b"textContent" in shown
            assert b"innerHTML" not in shown
            assert b" members" in (await asyncio.to_thread(get, once, "/ready")).read()
            stream = await asyncio.to_thread(get, open_, "/members")
            await asyncio.to_thread(read_until, stream, "seed")
            async with member(name, "fleet", seed.ticket, note="</li>") as mallory:
                await asyncio.to_thread(read_until, stream, name)
                await pester(mallory)
            page.send_signal(signal.SIGTERM)
            _, error = await asyncio.to_thread(page.communicate, timeout=60)
            assert (page.returncode in (0, -signal.SIGTERM), error) == (True, "")
