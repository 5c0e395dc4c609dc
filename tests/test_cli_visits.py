"""Commands that visit a topic: its members, messages and requests; and what `doctor` finds."""

import contextlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue

import pytest

from iroh_gossip_discovery import Config, Message, Request, endpoint_id, make_ticket
from iroh_gossip_discovery._cli import _doctor
from iroh_gossip_discovery._core import generate_swarm_key
from iroh_gossip_discovery.blocking import GossipDiscovery

COMMAND = [sys.executable, "-m", "iroh_gossip_discovery"]
PATIENCE = 60.0
NOBODY = make_ticket(endpoint_id(b"\x07" * 32), "fleet", ["127.0.0.1:9"])


def igd(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*COMMAND, *arguments],
        input=stdin,
        capture_output=True,
        timeout=90,
        check=False,
        env=os.environ | {"NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "100"},
    )


@dataclass
class Alice:
    """A node that keeps what it hears."""

    node: GossipDiscovery
    ticket: str
    heard: SimpleQueue[Message]


@pytest.fixture(scope="module")
def alice() -> Iterator[Alice]:
    metadata = {"role": "cache", "evil": "\x1b[2Jred\nname  id"}
    node = GossipDiscovery("alice", "fleet", metadata=metadata, config=Config.local())
    heard = SimpleQueue[Message]()

    @node.answer("upper")
    def upper(request: Request) -> bytes:
        if request.data == b"fail":
            raise ValueError("\x1b[2J not that")
        return request.data.upper()

    def listen() -> None:
        for message in node.messages():
            if isinstance(message, Message):
                heard.put(message)

    with node:
        threading.Thread(target=listen, daemon=True).start()
        yield Alice(node, node.ticket, heard)


def test_members_are_shown_as_a_table_in_which_nothing_steers_the_terminal(alice: Alice) -> None:
    done = igd("members", alice.ticket, "--preset", "local", "--timeout", str(PATIENCE))
    assert (done.returncode, done.stderr) == (0, b"")
    text = done.stdout.decode()
    assert "\x1b" not in text
    assert "\\x1b[2Jred\\nname" in text
    assert alice.node.me.fingerprint in text
    assert re.search(r"direct, \d+\.\d ms", text)
    assert text.rstrip().endswith("1 node")
    done = igd("members", alice.ticket, "--json", "--preset", "local", "--timeout", str(PATIENCE))
    (peer,) = json.loads(done.stdout)["peers"]
    assert (peer["id"], peer["metadata"]["role"]) == (alice.node.id, "cache")


def broadcast_until_heard(alice: Alice, data: bytes, *options: str) -> Message:
    """Broadcast again if it was lost: a broadcast is best effort, above all on a busy machine."""
    for _ in range(10):
        done = igd("broadcast", alice.ticket, "-", *options, stdin=data)
        assert done.stdout == b"on its way to 1 node\n", done.stderr
        with contextlib.suppress(Empty):
            return alice.heard.get(timeout=5)
    pytest.fail("none of ten broadcasts arrived")


def test_messages_and_requests_reach_the_node_that_is_named(alice: Alice) -> None:
    local = ("--preset", "local", "--timeout", str(PATIENCE))
    done = igd("send", alice.ticket, "alice", "hello", *local)
    assert done.stdout.startswith(f"{alice.node.id[:10]} has it".encode()), done.stderr
    message = alice.heard.get(timeout=PATIENCE)
    assert (message.data, message.kind) == (b"hello", "direct")
    message = broadcast_until_heard(alice, b"\0all", *local)
    assert (message.data, message.kind) == (b"\0all", "broadcast")
    done = igd("request", alice.ticket, alice.node.id[:6], "upper", "-", *local, stdin=b"a\xff")
    assert (done.returncode, done.stdout) == (0, b"A\xff"), done.stderr
    done = igd("request", alice.ticket, "alice", "upper", "fail", *local)
    assert done.returncode == 1
    assert b"ValueError" in done.stderr
    assert b"\x1b" not in done.stderr


def test_a_message_in_a_channel_reaches_its_subscribers_alone(alice: Alice) -> None:
    local = ("--preset", "local", "--timeout", str(PATIENCE))
    heard = SimpleQueue[Message]()
    registration = alice.node.on(Message, heard.put, channel="cache")
    try:
        done = igd("send", alice.ticket, "alice", "stale", *local, "--channel", "cache")
        assert done.returncode == 0, done.stderr
        message = heard.get(timeout=PATIENCE)
        assert (message.data, message.channel) == (b"stale", "cache")
        done = igd("send", alice.ticket, "alice", "stale", *local, "--channel", "nobody")
        assert (done.returncode, b"no subscriber" in done.stderr) == (1, True), done.stderr
        for command in (("send", alice.ticket, "alice"), ("broadcast", alice.ticket)):
            done = igd(*command, "x", *local, "--channel", "")
            assert (done.returncode, b"channel" in done.stderr) == (2, True), done.stderr
    finally:
        registration.cancel()
    assert alice.heard.empty()


def test_what_can_not_be_done_is_said_in_a_line(alice: Alice) -> None:
    local = ("--preset", "local")
    done = igd("send", alice.ticket, "bob", "hello", *local)
    assert done.returncode == 1
    assert done.stderr == b"error: no node has the name or id 'bob'; there are alice\n"
    done = igd("members", NOBODY, *local, "--timeout", str(PATIENCE))
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.startswith(b"error: alone: nobody answered (")
    done = igd("members", alice.ticket, "--topic", "other")
    assert done.returncode == 2
    assert b"--topic names its topic" in done.stderr


def test_a_private_swarm_is_visited_with_its_secret(tmp_path: Path) -> None:
    file, secret = tmp_path / "secret", generate_swarm_key()
    file.touch(mode=0o600)
    file.write_text(secret)
    with GossipDiscovery("bob", "fleet", secret=secret, config=Config.local()) as node:
        call = ("members", node.ticket, "--preset", "local", "--timeout", str(PATIENCE))
        done = igd(*call, "--secret-file", str(file))
        assert (done.returncode, done.stderr) == (0, b"")
        assert b"bob" in done.stdout
        done = igd(*call, "--secret-file", "-", stdin=secret.encode())
        assert (done.returncode, done.stderr) == (0, b"")
        done = igd(*call)
        assert (done.returncode, done.stdout) == (1, b"")
        error = done.stderr.splitlines()[-1]
        assert error.startswith(b"error: alone: nobody answered"), error
        advice = b"and this node has none: give it by --secret-file or --issuer-key"
        assert error.endswith(advice), error
        file.write_text("")
        done = igd(*call, "--secret-file", str(file))
        assert (done.returncode, done.stderr) == (1, f"error: {file} holds no secret\n".encode())


def test_every_visit_has_the_same_options() -> None:
    for command in ("members", "send", "broadcast", "request"):
        said = igd(command, "-h").stdout
        options = (
            b"TICKET",
            b"--topic",
            b"--preset",
            b"--timeout",
            b"--secret-file",
            b"--issuer-key",
        )
        for option in options:
            assert option in said, (command, option)


def test_a_ticket_is_shown(alice: Alice) -> None:
    done = igd("ticket", "--show", alice.ticket)
    assert done.returncode == 0
    assert f"id:      {alice.node.id}\n".encode() in done.stdout
    assert b"(fleet)\naddress: 127.0.0.1:" in done.stdout
    assert igd("ticket", "--show", "igd1x").returncode == 2


def test_the_doctor_says_what_is_well_and_what_to_do_about_the_rest(tmp_path: Path) -> None:
    fine = tmp_path / "fine"
    done = igd("doctor", "--preset", "local", "--state-dir", str(fine), "--host", "localhost")
    assert (done.returncode, done.stderr) == (0, b""), done.stdout
    for line in (b"ok  descriptors", b"ok  DNS", b"ok  state", b"ok  announced"):
        assert line in done.stdout
    assert not fine.exists()
    open_to_all = tmp_path / "open"
    open_to_all.mkdir(mode=0o755)
    open_to_all.chmod(0o755)
    done = igd("doctor", NOBODY, "--preset", "local", "--state-dir", str(open_to_all))
    assert done.returncode == 1
    assert f"chmod 700 {open_to_all}".encode() in done.stdout
    assert b"!!  ticket      alone: nobody answered" in done.stdout
    assert list(open_to_all.iterdir()) == []


@pytest.mark.parametrize(
    ("path", "text", "advice"),
    [
        ("new", "{} would be created", None),
        ("new/and/deep", "{} would be created", None),
        ("file", "{} is no directory", "give a directory"),
        ("file/below", "{} can't be created: {parent} is no directory", "give another directory"),
        ("x" * 300, "{}: File name too long", "give another directory"),
    ],
)
def test_the_doctor_looks_at_any_path(
    path: str, text: str, advice: str | None, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    whole = tmp_path / path
    expected = text.format(whole, parent=whole.parent)
    assert _doctor._directory(whole) == _doctor.Finding("state", expected, advice)


def test_no_summary_of_a_command_is_cut() -> None:
    done = subprocess.run(
        [*COMMAND, "-h"],
        capture_output=True,
        text=True,
        timeout=90,
        check=True,
        env=os.environ | {"NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "60"},
    )
    commands = done.stdout.partition("Commands:")[2]
    assert "doctor" in commands
    assert "..." not in commands
