"""Swarms that are private by invitations, from outside: only invited nodes are members."""

import asyncio
import re
import secrets
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from iroh_gossip_discovery import (
    Config,
    ConfigurationError,
    GossipDiscovery,
    Issuer,
    PeerLost,
    blocking,
    endpoint_id,
)
from iroh_gossip_discovery.testing import wait_for

COMMAND = str(Path(sys.executable).with_name("iroh-gossip-discovery"))
PATIENCE = 60.0
HOUR = 3600.0
KEY = secrets.token_bytes(32)
ID = endpoint_id(KEY)
ISSUER = Issuer.generate()
VALID = ISSUER.invite("fleet", ID, duration=HOUR)


def node(name: str, *others: GossipDiscovery, issuer: Issuer = ISSUER) -> GossipDiscovery:
    key = secrets.token_bytes(32)
    return GossipDiscovery(
        name,
        "fleet",
        bootstrap=[other.ticket for other in others],
        secret_key=key,
        issuer=[issuer.id],
        invitation=issuer.invite("fleet", endpoint_id(key), duration=HOUR),
        config=Config.local(),
    )


@pytest.mark.asyncio
async def test_invited_nodes_are_in_until_they_are_revoked_and_others_stay_outside() -> None:
    async with AsyncExitStack() as running:
        alice = await running.enter_async_context(node("alice"))
        bob = await running.enter_async_context(node("bob", alice))
        carol = await running.enter_async_context(node("carol", alice))
        for member in (alice, bob, carol):
            await member.wait_for_peers(2, timeout=PATIENCE)
        events = bob.events()
        outside = node("dave", alice, issuer=Issuer.generate())
        await running.enter_async_context(outside)
        await wait_for(lambda: told(outside, "of another issuer"), timeout=PATIENCE)
        assert not outside.book

        with pytest.raises(ConfigurationError, match=r"^revocation is signed by an issuer"):
            await alice.revoke(Issuer.generate().revoke("fleet", carol.id))
        with pytest.raises(ConfigurationError, match=r"^invitation is for the id"):
            await alice.renew(VALID)
        await alice.revoke(ISSUER.revoke("fleet", carol.me))
        assert alice.revoked == {carol.id}
        assert set(alice.book) == {bob.id}
        async with asyncio.timeout(PATIENCE):
            async for event in events:
                if isinstance(event, PeerLost):
                    assert (event.peer.name, event.reason) == ("carol", "denied")
                    break
        assert bob.revoked == {carol.id}
        await alice.renew(ISSUER.invite("fleet", alice.id, duration=2 * HOUR))
        with pytest.raises(ConfigurationError, match=r"^topic is not the one"):
            await alice.join("alarms")


def told(outside: GossipDiscovery, why: str) -> bool:
    return any(why in one.what for one in outside.problems() if one.source == "invitations")


def invited(**arguments: object) -> GossipDiscovery:
    given: dict[str, object] = {"secret_key": KEY, "issuer": ISSUER.id, "invitation": VALID}
    given |= arguments
    return GossipDiscovery("alice", "fleet", config=Config.local(), **given)  # type: ignore[arg-type]


OTHER = Issuer.generate()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"secret": "a long passphrase, of words"}, "secret excludes an issuer"),
        ({"invitation": None}, "invitation is missing"),
        ({"issuer": None}, "issuer is missing"),
        ({"issuer": []}, "issuer is missing"),
        ({"issuer": [ISSUER.id] * 9}, "issuer has 9 ids, the limit is 8"),
        ({"issuer": "fleet"}, 'issuer "fleet" is not 64'),
        ({"issuer": OTHER.id}, "invitation is signed by"),
        ({"invitation": "igd1abc"}, 'invitation does not start with "igdi1"'),
        ({"invitation": VALID[:-4]}, "invitation "),
        ({"invitation": ISSUER.invite("other", ID, duration=9)}, "invitation is for another topic"),
    ],
)
def test_what_can_be_no_invitation_is_one_clear_error(
    arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        invited(**arguments)
    assert str(refused.value).startswith(message)


@pytest.mark.asyncio
async def test_an_invitation_of_another_id_or_that_has_ended_is_refused_at_the_start() -> None:
    with pytest.raises(ConfigurationError, match=f"^invitation is for the id {ID}"):
        await invited(secret_key=secrets.token_bytes(32)).start()
    ended = ISSUER.invite("fleet", ID, duration=HOUR, begins=time.time() - 3 * HOUR)
    with pytest.raises(ConfigurationError, match=r"^invitation has ended 2 h ago"):
        await invited(invitation=ended).start()


@pytest.mark.parametrize(
    ("sign", "message"),
    [
        (lambda: ISSUER.invite("fleet", "bob", duration=9), 'member "bob" is not 64'),
        (lambda: ISSUER.invite("", ID, duration=9), "topic"),
        (lambda: ISSUER.invite("fleet", ID, duration=0), "duration must be after the beginning"),
        (lambda: ISSUER.invite("fleet", ID, duration=1e12), "duration must be within 366 days"),
        (lambda: ISSUER.revoke("fleet", ID, duration=-1), "duration must not be negative"),
        (lambda: Issuer("igdk1abc"), "key is none"),
    ],
)
def test_what_can_not_be_signed_is_one_clear_error(
    sign: Callable[[], object], message: str
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        sign()
    assert str(refused.value).startswith(message)


def test_the_key_of_an_issuer_is_read_again_and_is_shown_by_no_repr() -> None:
    again = Issuer(ISSUER.key())
    assert again.id == ISSUER.id
    assert repr(again) == f"Issuer(id='{ISSUER.id}')"
    assert re.fullmatch("igdk1[a-z2-7]{58}", ISSUER.key())


def call(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [COMMAND, *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def test_the_commands_make_issuers_invite_nodes_and_revoke_them(tmp_path: Path) -> None:
    file = tmp_path / "fleet.issuer"
    issuer = call("keygen", "--issuer", file).stdout.strip()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert Issuer(file.read_text().strip()).id == issuer
    (tmp_path / "alice.key").write_text(KEY.hex() + "\n")
    (tmp_path / "alice.key").chmod(0o600)
    invite = ["invite", "--issuer", str(file), "--until"]
    invitation = call(*invite, "12h", "fleet", ID).stdout.strip()
    assert invitation.startswith("igdi1")
    wrong = call(*invite, "soon", "fleet", ID)
    assert (wrong.returncode, "'soon' is no time" in wrong.stderr) == (2, True)

    run = [COMMAND, "run", "alice", "--preset", "local", "--key", str(tmp_path / "alice.key")]
    run += ["--issuer", issuer, "--invitation", invitation]
    with subprocess.Popen(run, stdout=subprocess.PIPE, text=True) as alice:
        assert alice.stdout is not None
        ticket = [alice.stdout.readline() for _ in range(3)][2].split()[-1]
        key = secrets.token_bytes(32)
        of_bob = Issuer(file.read_text().strip()).invite("fleet", endpoint_id(key), duration=HOUR)
        with blocking.GossipDiscovery(
            "bob",
            "fleet",
            bootstrap=[ticket],
            secret_key=key,
            issuer=issuer,
            invitation=of_bob,
            config=Config.local(),
        ) as bob:
            assert "+ bob" in alice.stdout.readline()
            to = ["--preset", "local", "--to", ticket]
            revoked = call("revoke", "--issuer", file, *to, "fleet", bob.id)
            assert (revoked.returncode, revoked.stdout[:5]) == (0, "igdr1"), revoked.stderr
            assert "- bob" in alice.stdout.readline()
        visit = ["members", ticket, "--preset", "local"]
        assert "invitation" in call(*visit).stderr
        assert "alice" in call(*visit, "--issuer-key", file).stdout
        alice.terminate()
