"""The examples, run as a user runs them: each node a process of its own."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeAlias

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


def test_the_address_book_demo_without_a_name_says_how_it_is_called() -> None:
    with address_book() as node:
        _, error = node.communicate(timeout=30)
        assert node.returncode == 1
        assert "address_book_demo.py NAME" in error


def test_the_address_book_demo_refuses_what_is_no_ticket() -> None:
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
