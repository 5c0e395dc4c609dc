"""The examples, run as a user runs them: each node a process of its own."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeAlias

import pytest

from iroh_gossip_discovery import GossipDiscovery, StreamResetError

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
Node: TypeAlias = subprocess.Popen[str]


@contextmanager
def address_book(*arguments: str) -> Iterator[Node]:
    with subprocess.Popen(
        [sys.executable, str(EXAMPLES / "address_book_demo.py"), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    ) as node:
        try:
            yield node
        finally:
            node.kill()


@contextmanager
def running(*command: str | Path) -> Iterator[Node]:
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as node:
        try:
            yield node
        finally:
            node.kill()


@contextmanager
def example(name: str, *arguments: str) -> Iterator[Node]:
    """Run an example, with pipes to and from it."""
    with subprocess.Popen(
        [sys.executable, str(EXAMPLES / name), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def until(node: Node, pattern: str) -> str:
    assert node.stdout is not None
    said = ""
    for line in node.stdout:
        said += line
        if re.search(pattern, line):
            return line
    raise AssertionError(f"{pattern} is not in: {said}")


def test_the_address_book_demo_shows_the_book_as_it_changes() -> None:
    with ExitStack() as nodes:
        alice = nodes.enter_context(address_book("alice"))
        id_ = until(alice, "^alice is ").split()[-1]
        ticket = until(alice, "^to join").split()[-1]
        bob = nodes.enter_context(address_book("bob", ticket))
        until(bob, r"^    alice +" + id_[:10])
        charlie = nodes.enter_context(address_book("charlie", ticket))
        for node in (alice, bob, charlie):
            until(node, r"^\d\d:\d\d:\d\d .*; \w+ knows 2$")
        bob.send_signal(signal.SIGINT)
        for node in (alice, charlie):
            until(node, r"^\d\d:\d\d:\d\d - bob left; \w+ knows 1$")
        _, error = bob.communicate(timeout=30)
        assert (bob.returncode, error) == (0, "")


def test_the_address_book_demo_without_a_name_prints_its_usage() -> None:
    with address_book() as node:
        _, error = node.communicate(timeout=30)
        assert node.returncode == 1
        assert "address_book_demo.py NAME" in error


def test_the_address_book_demo_refuses_an_invalid_ticket() -> None:
    with address_book("bob", "no-ticket") as node:
        _, error = node.communicate(timeout=30)
        assert node.returncode == 1
        assert error.startswith("error: bootstrap[0]")
        assert "Traceback" not in error


def test_the_demos_of_both_languages_meet(rust_example: Callable[[str], Path]) -> None:
    with running(rust_example("address_book_demo"), "alice") as alice:
        ticket = until(alice, "^ticket: ").split()[-1]
        with address_book("bob", ticket) as bob:
            until(bob, r"^\d\d:\d\d:\d\d \+ alice joined; bob knows 1$")
            until(alice, r"^\+ bob joined$")


def ask(node: Node, line: str, pattern: str) -> re.Match[str]:
    """Type a line into a node, and read what it prints."""
    assert node.stdin is not None
    assert node.stdout is not None
    node.stdin.write(line + "\n")
    node.stdin.flush()
    said = node.stdout.readline()
    found = re.fullmatch(pattern, said.rstrip())
    assert found is not None, said or node.communicate()[1]
    return found


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
                assert ask(node, f"get {key}", f"{key} = (.+)")[1] == f"of {key}"
        assert alice.stdin is not None
        alice.stdin.close()  # it leaves, and hands on what it has
        assert alice.wait(timeout=30) == 0
        for key in keys:
            ask(bob, f"get {key}", f"{key} = of {key}")
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
        for worker in [*workers, *workers]:  # at the second job the first one's result is sent
            until(worker, " did ")
        workers[0].kill()
        until(pool, r"^\d+ jobs of \w+ go to others$")
        until(pool, r"^60 jobs done by 3 workers$")
        _, error = pool.communicate(timeout=30)
        assert (pool.returncode, error) == (0, "")
        for worker in workers[1:]:
            _, error = worker.communicate(timeout=30)
            assert (worker.returncode, error) == (0, "")


@contextmanager
def receiving(folder: Path, name: str = "bob") -> Iterator[tuple[Node, str]]:
    """Run a node that takes files; give it with its ticket."""
    with example("file_drop.py", "receive", name, str(folder)) as node:
        yield node, until(node, "^to send").split()[-1]


def send_file(file: Path, whom: str, *tickets: str) -> tuple[int, str, str]:
    with example("file_drop.py", "send", str(file), whom, *tickets) as sender:
        said, error = sender.communicate(timeout=60)
        return sender.returncode, said, error


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
        async with GossipDiscovery("mallory", "file-drop", bootstrap=[ticket]) as discovery:
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
