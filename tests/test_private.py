"""Private swarms from outside: only nodes that hold the secret are members."""

import asyncio
import logging
import os
import re
import stat
import subprocess
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from iroh_gossip_discovery import (
    Config,
    ConfigurationError,
    GossipDiscovery,
    PeersTimeoutError,
    blocking,
)
from iroh_gossip_discovery._core import generate_swarm_key

COMMAND = str(Path(sys.executable).with_name("iroh-gossip-discovery"))
PATIENCE = 60.0
WEAK = "hunter2hunter2"


def node(name: str, *others: GossipDiscovery, secret: str | list[str] | None) -> GossipDiscovery:
    tickets = [other.ticket for other in others]
    return GossipDiscovery(name, "fleet", bootstrap=tickets, secret=secret, config=Config.local())


@pytest.mark.asyncio
async def test_three_with_the_secret_are_in_and_one_without_stays_outside() -> None:
    old, key = generate_swarm_key(), generate_swarm_key()
    async with AsyncExitStack() as running:
        alice = await running.enter_async_context(node("alice", secret=key))
        bob = await running.enter_async_context(node("bob", alice, secret=[key, old]))
        carol = await running.enter_async_context(node("carol", alice, secret=[old, key]))
        for member in (alice, bob, carol):
            await member.wait_for_peers(2, timeout=PATIENCE)
        outside = await running.enter_async_context(node("dave", alice, secret=None))
        with pytest.raises(PeersTimeoutError, match=r"secret: no link to peer .* has none"):
            await asyncio.wait_for(told(outside), PATIENCE)
        joined = await outside.joined(timeout=PATIENCE)
        assert not joined
        assert not outside.book
        for member in (alice, bob, carol):
            assert {peer.name for peer in member.book.values()} <= {"alice", "bob", "carol"}
        assert alice.metrics().dropped["connections without the swarm's secret"] >= 1
        assert key not in f"{alice!r}{vars(alice)}{alice.problems()}{alice.metrics()}{alice.me}"
        assert key not in alice.ticket


async def told(outside: GossipDiscovery) -> None:
    """Wait for peers until the error says what is likely."""
    while not any(problem.source == "secret" for problem in outside.problems()):
        await asyncio.sleep(0.01)
    await outside.wait_for_peers(1, timeout=0.0)


def start_blocking(secret: str) -> None:
    with blocking.GossipDiscovery("eve", "fleet", secret=secret, config=Config.local()):
        pass


@pytest.mark.asyncio
async def test_a_passphrase_is_enough_and_a_weak_one_is_said_to_be_weak(
    caplog: pytest.LogCaptureFixture,
) -> None:
    strong = "seven quick foxes, one lazy dog"
    with caplog.at_level(logging.WARNING):
        async with (
            node("alice", secret=strong) as alice,
            node("bob", alice, secret=[strong]) as bob,
        ):
            await bob.wait_for_peers(1, timeout=PATIENCE)
        assert not [record for record in caplog.records if "passphrase" in record.getMessage()]
        await asyncio.to_thread(start_blocking, WEAK)
        for _ in range(1000):
            if "passphrase of this swarm is weak" in caplog.text:
                break
            await asyncio.sleep(0.01)
    assert "passphrase of this swarm is weak" in caplog.text
    assert WEAK not in caplog.text
    assert strong not in caplog.text


KEY = generate_swarm_key()


@pytest.mark.parametrize(
    ("secret", "message"),
    [
        ("", "secret must not be empty"),
        ([], "secret must hold 1 to 4 secrets, holds 0"),
        ([KEY] * 5, "secret must hold 1 to 4 secrets, holds 5"),
        ([KEY, ""], r"secret\[1\] must not be empty"),
        ("x" * 1025, "secret has a limit of 1,024 bytes"),
        (KEY + "\n", "secret must not contain control characters"),
        (" " + KEY, "secret must not begin or end with white space"),
        (KEY[:-1] + ("a" if KEY[-1] != "a" else "b"), "secret .* is mistyped"),
    ],
)
def test_what_can_be_no_secret_is_one_clear_error(secret: str | list[str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{message}") as refused:
        node("alice", secret=secret)
    assert refused.value.field.startswith("secret")
    assert not secret or not isinstance(secret, str) or secret not in str(refused.value)


@pytest.mark.parametrize("secret", [b"bytes", 7, {"a": 1}.items(), [b"x"]])
def test_a_secret_of_another_type_is_named(secret: object) -> None:
    with pytest.raises(TypeError, match=r"^secret"):
        node("alice", secret=secret)  # type: ignore[arg-type]  # that is the point


def call(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [COMMAND, *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def test_keygen_makes_keys_of_a_swarm_and_run_takes_them_from_a_file_or_the_environment(
    tmp_path: Path,
) -> None:
    printed = call("keygen", "--swarm")
    assert re.fullmatch("igds1[a-z2-7]{58}\n", printed.stdout)
    file = tmp_path / "fleet.secret"
    assert call("keygen", "--swarm", file).stdout == ""
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    secret = file.read_text().strip()
    assert call("keygen", "--swarm", file).returncode == 1

    def run(name: str, *arguments: str, **variables: str) -> "subprocess.Popen[str]":
        command = [COMMAND, "run", name, "--preset", "local", *arguments]
        environment = os.environ | {"NO_COLOR": "1", "COLUMNS": "120"} | variables
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)

    with run("alice", "--secret-file", str(file)) as alice:
        assert alice.stdout is not None
        ticket = [alice.stdout.readline() for _ in range(3)][2].split()[-1]
        with run("bob", ticket, IROH_GOSSIP_DISCOVERY_SECRET=secret) as bob:
            assert "+ bob" in alice.stdout.readline()
            bob.terminate()
        alice.terminate()
    empty = tmp_path / "empty"
    empty.write_text("\n")
    empty.chmod(0o600)
    refused = call("run", "alice", "--secret-file", empty)
    assert (refused.returncode, refused.stderr) == (1, f"error: {empty} holds no secret\n")
