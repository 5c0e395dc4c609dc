"""The command's entry: mistakes of a tired user end with a word, never in a traceback."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from netns import Network

from iroh_gossip_discovery import (
    Config,
    ConfigurationError,
    Issuer,
    endpoint_id,
    make_ticket,
    parse_ticket,
)
from iroh_gossip_discovery.blocking import GossipDiscovery

ID = endpoint_id(b"\x07" * 32)
COMMAND = [sys.executable, "-m", "iroh_gossip_discovery"]


def shell(line: str) -> subprocess.CompletedProcess[str]:
    command = " ".join(COMMAND)
    return subprocess.run(
        ["bash", "-c", line.replace("igd ", f"{command} ")],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
        env=os.environ | {"NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "200"},
    )


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("0.0.0.0:4433", "is every address of a machine"),
        ("[::]:4433", "is every address of a machine"),
        ("203.0.113.7:0", "has port 0"),
        ("224.0.0.1:44", "is no address of one machine"),
        ("[ff02::1]:44", "is no address of one machine"),
        ("[fe80::1]:1", "is an IPv6 link-local address"),
        ("255.255.255.255:1", "is no address of one machine"),
        ("seed:4433", "is neither ip:port nor a relay's URL"),
        ("localhost:4433", "is neither ip:port nor a relay's URL"),
        ("mailto:a@b", "is neither ip:port nor a relay's URL"),
        ("ftp://relay.example", "is neither ip:port nor a relay's URL"),
    ],
)
def test_an_address_that_a_ticket_would_drop_is_refused(address: str, reason: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        make_ticket(ID, "t", ["127.0.0.1:4433", address])
    assert caught.value.field == "addresses[1]"
    assert caught.value.reason == f'"{address}" {caught.value.reason.partition(" ")[2]}'
    assert reason in caught.value.reason


def test_addresses_that_can_be_dialed_are_taken() -> None:
    for address in ("127.0.0.1:1", "[2001:db8::1]:4433", "https://relay.example"):
        assert make_ticket(ID, "t", [address]).startswith("igd1")


def test_what_a_ticket_says_is_read_without_a_network() -> None:
    text = make_ticket(ID, "robots", ["127.0.0.1:1", "https://relay.example"])
    ticket = parse_ticket(f" {text}\n")
    assert (ticket.id, ticket.addresses) == (ID, ("127.0.0.1:1", "https://relay.example/"))
    assert ticket.is_for("robots")
    assert not ticket.is_for("fleet")
    for part in (text[:-1], text[3:], text[:-1] + "0", ""):
        with pytest.raises(ConfigurationError) as caught:
            parse_ticket(part)
        assert caught.value.field == "ticket"


def test_errors_name_the_option_that_was_typed() -> None:
    done = shell(f"igd ticket --id {ID} --address seed:4433")
    assert done.returncode == 2
    assert "'--address'" in done.stderr
    assert "addresses" not in done.stderr
    ticket = make_ticket(ID, "robots", ["127.0.0.1:1"])
    done = shell(f"igd run a {ticket} --preset local")
    assert done.returncode == 2
    assert "ticket 1 is a ticket for another topic; --topic names its topic" in done.stderr


def test_errors_name_what_each_command_calls_its_arguments() -> None:
    done = shell("igd ticket --show igd1")
    assert (done.returncode, "'--show'" in done.stderr) == (2, True)
    done = shell(f"echo {Issuer.generate().key()} | igd invite --issuer - '' {ID}")
    assert (done.returncode, "'TOPIC'" in done.stderr) == (2, True)
    done = shell(r"igd run a $'\xff' --preset local")
    assert done.returncode == 2
    assert "ticket 1 has a lone surrogate in it, so it is not valid Unicode" in done.stderr
    done = shell('igd run a --state-dir "$NOT_SET" --preset local')
    assert done.returncode == 2
    assert "'--state-dir': state_dir must not be empty" in done.stderr


def test_short_help_and_the_module_as_a_command() -> None:
    assert shell("igd -h").returncode == 0
    assert "--address" in shell("igd ticket -h").stdout


def test_a_request_without_a_name_is_refused_by_the_name_of_its_argument() -> None:
    done = shell("igd request igd1 alice ''")
    assert done.returncode == 2
    assert "Invalid value for 'REQUEST': it must be 1 to 64 bytes, is 0" in done.stderr


def test_a_key_whose_id_cannot_be_printed_is_not_left_behind(tmp_path: Path) -> None:
    file = tmp_path / "key"
    done = shell(f"igd keygen {file} > /dev/full")
    assert (done.returncode, file.exists()) == (1, False)
    assert done.stderr == "error: the id can't be printed: No space left on device\n"


def test_a_closed_stdout_is_no_error(tmp_path: Path) -> None:
    done = shell(f"igd keygen {tmp_path / 'key'} >&-")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_closed_stdin_is_an_empty_one() -> None:
    done = shell("igd keygen --show - <&-")
    said = "error: - holds no secret key, which is 64 hex digits\n"
    assert (done.returncode, done.stderr) == (1, said)


def test_what_a_terminal_cannot_show_is_an_escape() -> None:
    ticket = make_ticket(ID, "☃", ["127.0.0.1:1"])
    done = shell(f"PYTHONIOENCODING=latin-1 igd ticket --show {ticket} --topic ☃")
    assert (done.returncode, done.stderr) == (0, "")
    assert r"(\u2603)" in done.stdout


@pytest.mark.parametrize(
    ("command", "reader"),
    [
        ("demo", "true"),  # reads nothing: each line is one too many
        ("demo", "head -3"),
        ("test-network 3 1", "true"),
        ("test-network 9 1 --at-once", "head -2"),
        ("members TICKET --json", "true"),
    ],
)
def test_a_reader_that_has_seen_enough_ends_a_command_quietly(command: str, reader: str) -> None:
    with GossipDiscovery("alice", "fleet", config=Config.local()) as node:
        line = command.replace("TICKET", f"{node.ticket} --preset local --timeout 60")
        done = shell(f"igd {line} | {reader}; echo ${{PIPESTATUS[0]}} >&2")
    assert done.stderr == "141\n"


@pytest.mark.parametrize("call", ["--version", "-h", "doctor --preset local", "run -h"])
def test_output_that_can_not_be_written_is_said_in_a_line(call: str) -> None:
    done = shell(f"igd {call} > /dev/full")
    assert (done.returncode, done.stderr) == (1, "error: No space left on device\n")


@pytest.mark.needs("netns")
def test_a_clean_exit_without_a_network_logs_no_error(lan: Network) -> None:
    command = ["ip", "netns", "exec", lan.host("alone"), *COMMAND]
    with subprocess.Popen(
        [*command, "run", "a", "--preset", "internet"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as node:
        assert node.stdout is not None
        while "ticket: " not in node.stdout.readline():
            assert node.poll() is None
        node.send_signal(signal.SIGINT)
        _, error = node.communicate(timeout=60)
    assert node.returncode == 0
    assert "ERROR" not in error


_INTERRUPT = """
import os, signal, sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["AT"]:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
"""


@pytest.mark.parametrize("module", ["typing", "iroh_gossip_discovery._discovery"])
def test_an_interrupt_while_the_module_is_imported_as_a_command_prints_no_traceback(
    module: str, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(_INTERRUPT)
    paths = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "AT": module}
    done = subprocess.run(
        [*COMMAND, "--version"], capture_output=True, text=True, check=False, env=environment
    )
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")


def test_a_program_that_imports_the_package_keeps_its_handler_of_interrupts() -> None:
    program = "import signal, iroh_gossip_discovery; print(signal.getsignal(signal.SIGINT))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "default_int_handler" in done.stdout


@pytest.mark.parametrize("after", [0.0, 0.03, 0.06, 0.1, 0.2, 0.4])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda s: s.name)
def test_a_signal_at_any_moment_of_the_start_prints_no_traceback(
    number: signal.Signals, after: float
) -> None:
    program = "import iroh_gossip_discovery_cli as entry; print('up', flush=True); entry.main()"
    child = subprocess.Popen(
        [sys.executable, "-c", program, "run", "a", "--preset", "local"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "up\n"
    time.sleep(after)
    child.send_signal(number)
    _, errors = child.communicate(timeout=60)
    assert errors == ""
    assert child.returncode in {0, 130, -number}
