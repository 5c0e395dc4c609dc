"""Bad input is one clear error that names the argument and its limit, before anything opens."""

import asyncio
import math
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from iroh_gossip_discovery import (
    BindError,
    Config,
    ConfigurationError,
    GossipDiscovery,
    NotRunningError,
    PeerJoined,
    PeersTimeoutError,
    StateDirError,
    blocking,
)

if TYPE_CHECKING:
    from collections.abc import Callable

ID = "07" * 32


def make(**changes: object) -> GossipDiscovery:
    arguments: dict[str, object] = {"name": "alice", "topic": "fleet", "config": Config.local()}
    return GossipDiscovery(**(arguments | changes))  # type: ignore[arg-type]


async def a_ticket(topic: str) -> str:
    async with make(topic=topic) as discovery:
        return discovery.ticket


def admits(_: object) -> Iterator[bool]:
    yield True


async def finds() -> AsyncIterator[str]:
    yield ID


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": ""}, "name must not be empty"),
        ({"name": "x" * 65}, "name is 65 bytes, the limit is 64"),
        ({"name": "é" * 33}, "name is 66 bytes, the limit is 64"),
        ({"name": "a\nb"}, "name has a control"),
        ({"name": "a\u202eb"}, "name has a control or direction-changing"),
        ({"name": "e\u0301"}, "name must be in Unicode normalization form C"),
        ({"name": "\ud800"}, "name has a lone surrogate"),
        ({"topic": ""}, "topic must not be empty"),
        ({"topic": "x" * 257}, "topic is 257 bytes, the limit is 256"),
        ({"topic": "a\x00b"}, "topic has a control character"),
        ({"metadata": {"k": "v" * 1024}}, "metadata is 1030 bytes encoded, the limit is 1024"),
        ({"protocols": ["p"] * 9}, "protocols has 9 entries, the limit is 8"),
        ({"protocols": ["p" * 33]}, "protocols has an entry of 33 bytes, each must be 1 to 32"),
        ({"protocols": [b""]}, "protocols has an entry of 0 bytes"),
        ({"secret_key": b""}, "secret_key must be 32 bytes, is 0"),
        ({"secret_key": bytes(31)}, "secret_key must be 32 bytes, is 31"),
        ({"secret_key": bytes(33)}, "secret_key must be 32 bytes, is 33"),
        ({"bootstrap": ["nonsense"]}, 'bootstrap[0] "nonsense" is none of: a ticket'),
        ({"bootstrap": [ID, "igd1oops"]}, "bootstrap[1] "),
        ({"bootstrap": [ID[:-1]]}, "bootstrap[0] "),
        ({"bootstrap": [ID.replace("0", "A")]}, "bootstrap[0] has the id"),
        ({"bootstrap": [f"{ID}@host"]}, "no port"),
        ({"bootstrap": [f"{ID}@host:0"]}, "1 to 65535"),
        ({"bootstrap": [""]}, "bootstrap[0] "),
        ({"bootstrap": ["\ud800"]}, "bootstrap[0] has a lone surrogate in it"),
        ({"state_dir": ""}, "state_dir must not be empty"),
    ],
)
def test_a_value_over_its_limit_is_refused_by_name(
    changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        make(**changes)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": None}, "name must be str, not NoneType"),
        ({"name": b"alice"}, "name must be str, not bytes"),
        ({"topic": 7}, "topic must be str, not int"),
        ({"metadata": [("a", "b")]}, "metadata must be a mapping of str to str, not list"),
        ({"metadata": {"a": 1}}, 'metadata["a"] must be str, not int'),
        ({"metadata": {1: "a"}}, "metadata key must be str, not int"),
        ({"metadata": {"a": None}}, 'metadata["a"] must be str, not NoneType'),
        ({"protocols": "chat/1"}, "protocols must be a sequence of str or bytes, not str"),
        ({"protocols": [1]}, "protocols[0] must be str or bytes, not int"),
        ({"protocols": 1}, "protocols must be a sequence of str or bytes, not int"),
        ({"secret_key": "07" * 32}, "secret_key must be bytes, not str"),
        ({"admit": admits}, "admit has a `yield` in it, so a call of it would run nothing"),
        ({"bootstrap": [finds]}, "bootstrap[0] has a `yield` in it, so a call"),
        ({"state_dir": 7}, "state_dir must be str or bytes or PathLike, not int"),
        ({"config": {"mdns": False}}, "config must be Config, not dict"),
        ({"bootstrap": ID}, "bootstrap must be a sequence of tickets"),
        ({"bootstrap": None}, "bootstrap must be a sequence of tickets"),
        ({"bootstrap": [7]}, "bootstrap[0] must be str, Peer or an async callable, not int"),
    ],
)
def test_a_wrong_type_is_refused_by_name(changes: dict[str, object], message: str) -> None:
    with pytest.raises(TypeError) as caught:
        make(**changes)
    assert message in str(caught.value)


def test_a_callback_with_a_yield_is_refused() -> None:
    for node in (make(), blocking.GossipDiscovery("alice", "fleet")):
        for register in (
            partial(node.on, PeerJoined, admits),
            partial(node.serve, "chat/1", finds),
            partial(node.answer, "resize", partial(admits)),
        ):
            with pytest.raises(TypeError, match="has a `yield` in it"):
                register()


@pytest.mark.asyncio
async def test_a_ticket_for_another_topic_is_refused() -> None:
    ticket = await a_ticket("fleet")
    make(bootstrap=[ticket])
    make(bootstrap=[f"  {ticket}\n"])
    with pytest.raises(ConfigurationError, match=r"bootstrap\[1\] is a ticket for another topic"):
        make(bootstrap=[ID, ticket], topic="other")


@pytest.mark.asyncio
async def test_a_damaged_ticket_is_refused() -> None:
    ticket = await a_ticket("fleet")
    for damaged in (ticket[:-1], ticket + "a", ticket[:-3] + "aaa", ticket.upper(), ticket[:20]):
        with pytest.raises(ConfigurationError, match=r"^bootstrap\[0\] "):
            make(bootstrap=[damaged])


def test_nothing_opens_before_the_input_is_right() -> None:
    script = """
import os
from iroh_gossip_discovery import Config, ConfigurationError, GossipDiscovery
before = len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))
for bad in ({"name": ""}, {"metadata": {"k": "v" * 2000}}, {"bootstrap": ["?"]}, {}):
    try:
        GossipDiscovery(**({"name": "alice", "topic": "fleet"} | bad))
    except ConfigurationError:
        pass
assert before == (len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd")))
"""
    if sys.platform == "linux":
        subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.asyncio
async def test_a_bind_address_that_is_taken_is_an_os_error_that_names_it() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        discovery = make(config=Config.local(bind=[address]))
        with pytest.raises(BindError, match=address) as caught:
            await discovery.start()
        assert isinstance(caught.value, OSError)
    # Nothing was lost: once the address is free, the same object starts.
    async with discovery:
        assert discovery.id


@pytest.mark.asyncio
async def test_a_state_directory_serves_one_node_at_a_time(tmp_path: Path) -> None:
    async with make(state_dir=tmp_path / "state") as first:
        with pytest.raises(StateDirError, match="in use"):
            await make(state_dir=tmp_path / "state").start()
        identity = first.id
    async with make(state_dir=str(tmp_path / "state")) as again:
        assert again.id == identity


@pytest.mark.asyncio
async def test_a_state_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.write_text("not a directory")
    with pytest.raises(StateDirError, match="state"):
        await make(state_dir=path).start()


@pytest.mark.asyncio
async def test_what_needs_a_running_discovery_says_so() -> None:
    discovery = make()
    uses: list[Callable[[], object]] = [
        lambda: discovery.id,
        lambda: discovery.ticket,
        discovery.events,
        discovery.peers,
    ]
    for use in uses:
        with pytest.raises(NotRunningError, match="not started"):
            use()
    for call in (discovery.leave(), discovery.update(name="bob"), discovery.wait_for_peers(1)):
        with pytest.raises(NotRunningError, match="not started"):
            await call
    await discovery.close()
    for use in uses:
        with pytest.raises(NotRunningError, match="closed"):
            use()
    with pytest.raises(NotRunningError):
        await discovery.start()
    with pytest.raises(NotRunningError):
        discovery.on(PeerJoined, print)


@pytest.mark.asyncio
async def test_a_second_start_is_refused_and_harmless() -> None:
    async with make() as discovery:
        with pytest.raises(NotRunningError, match="starts once"):
            await discovery.start()
        assert discovery.id


@pytest.mark.asyncio
async def test_a_refused_update_changes_nothing() -> None:
    async with make(metadata={"a": "1"}) as discovery:
        for change in (
            discovery.update(name=""),
            discovery.update(name="bob", metadata={"k": "v" * 2000}),
            discovery.update_metadata(b="v" * 2000),
        ):
            with pytest.raises(ConfigurationError):
                await change
        with pytest.raises(TypeError, match="metadata"):
            await discovery.update(metadata={"a": 1})  # type: ignore[dict-item]
        assert (discovery.name, discovery.metadata) == ("alice", {"a": "1"})


@pytest.mark.asyncio
async def test_the_number_of_peers_to_wait_for_is_an_int() -> None:
    async with make() as discovery:
        with pytest.raises(TypeError, match="n must be int, not str"):
            await discovery.wait_for_peers("3")  # type: ignore[arg-type]


@pytest.mark.asyncio
async def test_what_limits_no_wait_is_refused_and_not_waited_for() -> None:
    async with make() as discovery, asyncio.timeout(60):
        for wait in (
            partial(discovery.wait_for_peers, 1),
            partial(discovery.send, ID, b"x"),
            partial(discovery.open_stream, ID, "chat/1"),
        ):
            with pytest.raises(ConfigurationError, match="timeout is nan"):
                await wait(timeout=math.nan)
            with pytest.raises(TypeError, match="timeout must be int or float"):
                await wait(timeout="3")  # type: ignore[arg-type]
        with pytest.raises(PeersTimeoutError, match="within -1 s"):
            await discovery.wait_for_peers(1, timeout=-1)
