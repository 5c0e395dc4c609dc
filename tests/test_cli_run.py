"""`run`, `keygen`, `ticket`: real processes; every mistake of a user gets its line and code."""

import json
import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypedDict, get_args

import jsonschema
import pytest

from iroh_gossip_discovery import Config, Event, EventsLost, GossipDiscovery, Peer
from iroh_gossip_discovery._cli._run import Lines
from iroh_gossip_discovery._printable import printable

COMMAND = str(Path(sys.executable).with_name("iroh-gossip-discovery"))
DOCS = Path(__file__).parent.parent / "docs"
ENVIRONMENT = os.environ | {"NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "120"}
ID = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"  # RFC 8032, 7.1
KEY = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"
Process = subprocess.Popen[str]


class PeerLine(TypedDict):
    id: str
    name: str
    addresses: list[str]
    metadata: dict[str, str]
    protocols: list[str]


class Line(TypedDict, total=False):
    event: str
    topic: str
    ticket: str
    peer: PeerLine


def call(*arguments: str | Path, text: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, *arguments],
        capture_output=True,
        text=True,
        input=text,
        timeout=60,
        check=False,
        env=ENVIRONMENT,
    )


@contextmanager
def running(*arguments: str | Path) -> Iterator[Process]:
    command = [COMMAND, "run", "--preset", "local", *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    ) as node:
        try:
            yield node
        finally:
            node.kill()


SCHEMA = json.loads((DOCS / "run.schema.json").read_text())


def read(node: Process, event: str) -> Line:
    """Read lines of JSON up to one with an event."""
    assert node.stdout is not None
    for text in node.stdout:
        line: Line = json.loads(text)
        jsonschema.validate(line, SCHEMA)
        if line["event"] == event:
            return line
    raise AssertionError(f"no {event}: {node.communicate()}")


def test_two_nodes_print_their_events_as_the_documented_json() -> None:
    with running("alice", "--json") as alice:
        started = read(alice, "Started")
        assert (started["peer"]["name"], started["topic"]) == ("alice", "fleet")
        options = ["--metadata", "role=cache", "--metadata", "note=a=b", "--serve", "chat/1"]
        with running("bob", started["ticket"], "--json", *options) as bob:
            bob_id = read(bob, "Started")["peer"]["id"]
            assert read(bob, "PeerJoined")["peer"]["id"] == started["peer"]["id"]
            joined = read(alice, "PeerJoined")["peer"]
            assert (joined["id"], joined["protocols"]) == (bob_id, ["chat/1"])
            assert joined["metadata"] == {"role": "cache", "note": "a=b"}
            bob.send_signal(signal.SIGTERM)
            assert read(bob, "Stopped")
            assert bob.wait(timeout=30) == 0
        assert read(alice, "PeerLeft")["peer"]["id"] == bob_id
        alice.send_signal(signal.SIGINT)
        assert read(alice, "Stopped")
        _, error = alice.communicate(timeout=30)
        assert (alice.returncode, error) == (0, "")


@pytest.fixture
def hangups() -> Iterator[None]:
    """Lets processes inherit Python's default for SIGHUP, though `nohup` runs the tests."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("hangups")
def test_a_node_whose_terminal_is_closed_says_goodbye() -> None:
    with running("alice", "--json") as alice:
        read(alice, "Started")
        alice.send_signal(signal.SIGHUP)
        assert read(alice, "Stopped")
        assert alice.wait(timeout=30) == 0


def test_a_node_prints_its_events_in_lines() -> None:
    with running("alice", "--topic", "robots") as alice:
        assert alice.stdout is not None
        lines = [alice.stdout.readline() for _ in range(3)]
        assert re.fullmatch(r"\d\d:\d\d:\d\d  alice is [0-9a-f]{64}\n", lines[0])
        assert re.fullmatch(r"\d\d:\d\d:\d\d  topic robots; at 127\.0\.0\.1:\d+\n", lines[1])
        ticket = lines[2].split()[-1]
        markup = ["--metadata", "style=[bold]x[/bold] :smile:", "--metadata", "bell=\x1b[31m\a"]
        with running("bob", ticket, "--topic", "robots", *markup) as bob:
            joined = alice.stdout.readline()
            assert re.search(r"  \+ bob [0-9a-f]{10} 127\.0\.0\.1:\d+ ", joined)
            assert joined.endswith(
                r"bell=\x1b[31m\x07 style=[bold]x[/bold] :smile: joined; 1 peer" + "\n"
            )
            bob.send_signal(signal.SIGINT)
            assert bob.wait(timeout=30) == 0
        assert re.search(r"  - bob .* left; 0 peers\n", alice.stdout.readline())
        alice.send_signal(signal.SIGINT)
        rest, error = alice.communicate(timeout=30)
        assert (alice.returncode, error) == (0, "")
        assert rest.endswith("  left\n")


def test_a_node_without_an_answer_says_so_and_finds_peers_that_start_later(tmp_path: Path) -> None:
    key = tmp_path / "seed.key"
    call("keygen", key)
    with running("probe", "--json") as probe:  # a port that is free a moment later
        address = read(probe, "Started")["peer"]["addresses"][0]
    ticket = call("ticket", "--key", key, "--address", address).stdout.strip()
    with running("bob", ticket) as bob:
        assert bob.stdout is not None
        lines = [bob.stdout.readline() for _ in range(4)]
        assert re.search(r"  ! no answer yet, dials that failed: \d+; it goes on trying$", lines[3])
        with running("seed", "--key", key, "--bind", address):
            while "  ! bootstrap " in (line := bob.stdout.readline()):
                pass
            assert re.search(r"  \+ seed .* joined; 1 peer$", line)


@pytest.mark.parametrize("form", [["--json"], []], ids=["json", "lines"])
def test_a_node_ends_quietly_when_its_output_is_closed(form: list[str]) -> None:
    with running("alice", "--json") as alice:
        ticket = read(alice, "Started")["ticket"]
        with running("bob", ticket, *form) as bob:
            assert bob.stdout is not None
            assert bob.stdout.readline()
            bob.stdout.close()
            with running("carol", ticket):
                assert bob.wait(timeout=30) == 0
                assert bob.stderr is not None
                assert bob.stderr.read() == ""


def test_identity_stays_with_a_state_directory_and_with_a_key_file(tmp_path: Path) -> None:
    def id_with(*arguments: str | Path) -> str:
        with running("alice", "--json", *arguments) as alice:
            return read(alice, "Started")["peer"]["id"]

    state = tmp_path / "state"
    first = id_with("--state-dir", state)
    assert id_with("--state-dir", state) == first
    assert call("keygen", "--show", state / "secret.key").stdout.strip() == first
    key = tmp_path / "key"
    made = call("keygen", key).stdout.strip()
    assert id_with("--key", key) == made != first
    prepared = tmp_path / "prepared"
    prepared.mkdir(mode=0o700)
    made = call("keygen", prepared / "secret.key").stdout.strip()
    assert id_with("--state-dir", prepared) == made


def test_a_ticket_is_made_without_a_network_and_leads_to_the_node(tmp_path: Path) -> None:
    key = tmp_path / "seed.key"
    call("keygen", key)
    with running("alice", "--json") as alice:
        address = read(alice, "Started")["peer"]
    assert address
    with running("probe", "--json") as probe:  # a port that is free a moment later
        port = json.dumps(read(probe, "Started")).partition("127.0.0.1:")[2].partition('"')[0]
    ticket = call("ticket", "--key", key, "--address", f"127.0.0.1:{port}").stdout.strip()
    with running("bob", ticket, "--json") as bob:  # before its seed
        read(bob, "Started")
        with running("seed", "--key", key, "--bind", f"127.0.0.1:{port}", "--json") as seed:
            assert read(bob, "PeerJoined")["peer"]["id"] == read(seed, "Started")["peer"]["id"]


def test_keygen_makes_a_file_for_its_owner_only_and_never_overwrites(tmp_path: Path) -> None:
    file = tmp_path / "key"
    umask = os.umask(0)
    try:
        done = call("keygen", file)
    finally:
        os.umask(umask)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch("[0-9a-f]{64}\n", done.stdout)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert re.fullmatch("[0-9a-f]{64}\n", held := file.read_text())
    again = call("keygen", file)
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr == f"error: {file} exists, and a key is never overwritten\n"
    assert file.read_text() == held
    assert call("keygen", "--show", file).stdout == done.stdout


def test_ids_and_tickets_are_those_of_the_key(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(KEY)
    file.chmod(0o600)
    assert call("keygen", "--show", file).stdout == f"{ID}\n"
    addresses = ["--address", "192.0.2.1:4433", "--address", "[2001:db8::1]:1"]
    by_key = call("ticket", "--key", file, *addresses)
    by_id = call("ticket", "--id", ID, *addresses)
    by_stdin = call("ticket", "--key", "-", *addresses, text=KEY)
    assert (by_key.returncode, by_key.stderr) == (0, "")
    assert by_key.stdout == by_id.stdout == by_stdin.stdout
    GossipDiscovery("bob", "fleet", bootstrap=[by_key.stdout], config=Config.local())
    other = call("ticket", "--id", ID, "--topic", "robots", *addresses).stdout
    assert other != by_key.stdout


def test_a_key_file_that_others_may_read_is_warned_of(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(KEY)
    file.chmod(0o644)
    done = call("keygen", "--show", file)
    assert (done.returncode, done.stdout) == (0, f"{ID}\n")
    assert done.stderr == f"warning: others may read {file}: chmod 600 it\n"


RUN = ("run", "--preset", "local")
WRONG_CALLS: list[tuple[tuple[str, ...], str]] = [
    (("run",), "Missing argument 'NAME'"),
    ((*RUN, ""), "'NAME': name must not be empty"),
    ((*RUN, "x" * 65), "'NAME': name "),
    ((*RUN, "a\tb"), "'NAME': name "),
    ((*RUN, "\udcff"), "'NAME': name has a lone surrogate"),
    ((*RUN, "alice", "no-ticket"), 'ticket 1 "no-ticket" is none of: a ticket'),
    ((*RUN, "alice", ID, "igd1aaaa"), "ticket 2 "),
    ((*RUN, "alice", f"{ID}@nowhere"), "ticket 1 "),
    ((*RUN, "alice", "--topic", ""), "'--topic': topic "),
    ((*RUN, "alice", "--metadata", "role"), "'--metadata': 'role' is not KEY=VALUE"),
    ((*RUN, "alice", "--metadata", "=x"), "'--metadata': '=x' is not KEY=VALUE"),
    ((*RUN, "alice", "--metadata", "a=1", "--metadata", "a=2"), "'a' is given twice"),
    ((*RUN, "alice", "--metadata", "a=" + "x" * 2000), "'--metadata': metadata "),
    ((*RUN, "alice", "--serve", "x" * 33), "'--serve': protocols"),
    ((*RUN, "alice", "--bind", "localhost"), "'--bind': bind"),
    (("run", "alice", "--preset", "wan"), "'--preset'"),
    ((*RUN, "alice", "--nope"), "No such option"),
    (("ticket",), "Missing option '--address'"),
    (("ticket", "--address", "192.0.2.1:1"), "give either --key or --id"),
    (("ticket", "--address", "192.0.2.1:1", "--id", "xyz"), "'--id': id "),
    (("ticket", "--address", "nonsense", "--id", ID), "neither ip:port nor a relay"),
    (("ticket", "--id", ID, *["--address", "192.0.2.1:1"] * 9), "at most 8 addresses, not 9"),
    (("ticket", "--id", ID, "--key", "k", "--address", "192.0.2.1:1"), "either --key or --id"),
    (("keygen",), "'FILE': it is missing"),
    (("keygen", "--swarm", "--show"), "--swarm goes without --show and --issuer"),
    (("no-such-command",), "No such command"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG_CALLS)
def test_a_wrong_call_is_explained(arguments: tuple[str, ...], message: str) -> None:
    done = call(*arguments)
    assert (done.returncode, done.stdout) == (2, ""), done
    assert message in " ".join(done.stderr.split())
    assert "Usage: " in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file or directory"),
        (b"", "holds no secret key, which is 64 hex digits"),
        (b"9d61", "holds no secret key"),
        (KEY.encode() + b"00", "holds no secret key"),
        (b"\xff" * 64, "holds no secret key"),
        (b"zz" * 32, "holds no secret key"),
        (b" ".join([b"9d"] * 32), "holds no secret key"),
    ],
    ids=["missing", "empty", "short", "long", "bytes", "letters", "spaced"],
)
def test_a_key_file_that_cannot_be_used_is_named(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    file = tmp_path / "the key"
    if content is not None:
        file.write_bytes(content)
        file.chmod(0o600)
    calls: list[list[str | Path]] = [
        ["keygen", "--show", file],
        ["ticket", "--key", file, "--address", "192.0.2.1:1"],
        ["run", "alice", "--key", file],
    ]
    for arguments in calls:
        done = call(*arguments)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(f"error: {file}")
        assert message in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_a_failed_start_is_explained_in_one_line(tmp_path: Path) -> None:
    state = tmp_path / "state"
    file = tmp_path / "file"
    file.touch()
    missing = call("keygen", tmp_path / "no" / "key")
    assert (missing.returncode, missing.stderr.count("\n")) == (1, 1)
    with running("alice", "--json", "--state-dir", state) as alice:
        address = json.dumps(read(alice, "Started")).partition('"127')[2].partition('"')[0]
        for arguments, message in (
            (["--state-dir", state], str(state)),
            (["--state-dir", file], str(file)),
            (["--bind", f"127{address}"], f"127{address}"),
            (["--bind", "192.0.2.1:9"], "192.0.2.1:9"),
        ):
            done = call("run", "--preset", "local", "bob", *arguments)
            assert (done.returncode, done.stdout) == (1, ""), done
            assert done.stderr.startswith("error: ")
            assert message in done.stderr
            assert done.stderr.count("\n") == 1


def test_completion_knows_the_commands() -> None:
    def complete(*arguments: str, **variables: str) -> str:
        done = subprocess.run(
            [COMMAND, *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
            env=os.environ | variables,
        )
        return done.stdout

    asked = {"COMP_WORDS": "iroh-gossip-discovery ke", "COMP_CWORD": "1"}
    told = complete(**asked, _IROH_GOSSIP_DISCOVERY_COMPLETE="complete_bash")
    assert told.split() == ["keygen"]
    assert "--show-completion" in complete("--help")
    # Which shell it runs under, it would have to guess: there may be none.
    unguessed = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    assert "complete_bash" in complete("--show-completion", "bash", **unguessed)


@pytest.mark.parametrize("command", ["run", "ticket", "keygen"])
def test_help_has_examples_and_exit_codes(command: str) -> None:
    done = call(command, "--help")
    assert done.returncode == 0
    assert "[[" not in done.stdout
    assert f"\n    iroh-gossip-discovery {command} " in done.stdout
    assert "Exit code: 0 " in done.stdout


PEER = Peer(ID, "bob", metadata={"role": "cache"}, boot_id=2**64 - 1)
GIVEN = {"peer": PEER, "reason": "expired", "count": 3, "boot_id": 7}
EVENTS = [kind(*(GIVEN[field] for field in kind.__match_args__)) for kind in get_args(Event)]


def test_every_event_has_its_line_of_json() -> None:
    for event in EVENTS:
        line = {"at": 0.0} | event.to_dict()
        if isinstance(event, EventsLost):
            line["book"] = []
        jsonschema.validate(json.loads(json.dumps(line)), SCHEMA)
    assert PEER.to_dict()["boot_id"] == "f" * 16


def test_the_line_of_every_event_names_its_peer() -> None:
    lines = [Lines()._describe(event)[1] for event in EVENTS]
    assert len(set(lines)) == len(EVENTS)
    for event, line in zip(EVENTS, lines, strict=True):
        assert type(event).__name__ not in line
        assert ("bob" in line) == hasattr(event, "peer")
        assert hasattr(event, "reason") <= ("expired" in line)


def test_terminal_control_characters_are_shown_as_escapes() -> None:
    assert printable("plain Straße 漢字 🙂") == "plain Straße 漢字 🙂"
    assert printable("\x1b[31m\n\u202e\x9b") == r"\x1b[31m\n\u202e\x9b"
