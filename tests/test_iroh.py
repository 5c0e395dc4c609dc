"""The package `iroh` beside this one: it reads our tickets, and our records name its endpoints."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import iroh
import pytest

from iroh_gossip_discovery import (
    Config,
    ConfigurationError,
    GossipDiscovery,
    Peer,
    PeersTimeoutError,
)
from iroh_gossip_discovery.contrib.iroh import KEY, address_of, metadata_of

ALPN = b"echo/1"
# What a node itself speaks.
OURS = b"iroh-gossip-discovery/1"


@asynccontextmanager
async def endpoint(*alpns: bytes) -> AsyncIterator[iroh.Endpoint]:
    """Give an endpoint on loopback, without relays and lookups."""
    made = await iroh.Endpoint.bind(
        iroh.EndpointOptions(
            preset=iroh.preset_minimal(),
            bind_addr="127.0.0.1:0",
            alpns=list(alpns),
            relay_mode=iroh.RelayMode.disabled(),
        )
    )
    try:
        yield made
    finally:
        await made.close()


async def echo_once(served: iroh.Endpoint) -> None:
    incoming = await served.accept_next()
    assert incoming is not None
    accepting = await incoming.accept()
    connection = await accepting.connect()
    stream = await connection.accept_bi()
    data = await stream.recv().read_to_end(1024)
    await stream.send().write_all(data)
    await stream.send().finish()
    await connection.closed()


@asynccontextmanager
async def pair(**options: dict[str, str] | list[bytes]) -> AsyncIterator[list[GossipDiscovery]]:
    """Give two nodes that know each other; the options are the second's."""
    config = Config.local()
    async with GossipDiscovery("alice", "fleet", config=config) as alice:
        bob = GossipDiscovery("bob", "fleet", bootstrap=[alice.ticket], config=config, **options)  # type: ignore[arg-type]  # the callers'
        async with bob:
            await alice.wait_for_peers(1, timeout=30)
            yield [alice, bob]


@pytest.mark.asyncio
async def test_the_package_iroh_reaches_a_discovered_peer_by_its_ticket() -> None:
    async with asyncio.timeout(60), pair() as (alice, bob), endpoint() as own:
        peer = alice.book[bob.id]
        address = iroh.EndpointTicket.from_string(peer.endpoint_ticket).endpoint_addr()
        assert str(address.id()) == bob.id
        assert sorted(address.direct_addresses()) == sorted(peer.addresses)
        connection = await own.connect(address, OURS)
        assert str(connection.remote_id()) == bob.id
        connection.close(0, b"")


@pytest.mark.asyncio
async def test_what_a_peer_says_when_it_closes_is_shown_nowhere(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def close_each(served: iroh.Endpoint) -> None:
        while True:
            incoming = await served.accept_next()
            assert incoming is not None
            connection = await (await incoming.accept()).connect()
            connection.close(77, b"\x1b[2J\r\nWARNING: all is lost")

    caplog.set_level(logging.DEBUG, "iroh_gossip_discovery")
    async with asyncio.timeout(60), endpoint(OURS) as enemy:
        closing = asyncio.create_task(close_each(enemy))
        at = f"{enemy.id()}@{enemy.bound_sockets()[0]}"
        # Before it has shown the secret, a peer may say whatever it wants.
        config = Config.local()
        node = GossipDiscovery("a", "fleet", bootstrap=[at], secret="x" * 32, config=config)
        async with node:
            shown = [str(await node.joined())]
            with pytest.raises(PeersTimeoutError) as caught:
                await node.wait_for_peers(1, timeout=0)
            shown += [str(caught.value), *(problem.what for problem in node.problems())]
        closing.cancel()
    assert len(shown) >= 3
    for text in shown:
        assert "code 77" in text
    for text in [*shown, *caplog.messages]:
        assert "all is lost" not in text
        assert text.isprintable()


def test_relays_are_in_a_ticket_too() -> None:
    addresses = ["https://relay.example./", "192.0.2.1:4433", "[2001:db8::1]:4433"]
    ticket = Peer(iroh_id(), "x", addresses=addresses).endpoint_ticket
    address = iroh.EndpointTicket.from_string(ticket).endpoint_addr()
    assert address.relay_url() == addresses[0]
    assert sorted(address.direct_addresses()) == sorted(addresses[1:])
    assert str(iroh.EndpointTicket.from_addr(address)) == ticket


def iroh_id() -> str:
    return str(iroh.SecretKey.from_bytes(b"7" * 32).public())


def test_a_peer_whose_id_is_no_key_has_no_ticket() -> None:
    # 2 is no y-coordinate of a point on the curve.
    peer = Peer("02" + "00" * 31, "made by hand")
    with pytest.raises(ConfigurationError, match="id is no public key"):
        _ = peer.endpoint_ticket


@pytest.mark.asyncio
async def test_an_endpoint_of_ones_own_is_found_and_reached_through_discovery() -> None:
    async with asyncio.timeout(60), endpoint(ALPN) as served, endpoint() as own:
        answer = asyncio.create_task(echo_once(served))
        metadata = {**metadata_of(served), "role": "echo"}
        async with pair(metadata=metadata, protocols=[ALPN]) as (alice, bob):
            (peer,) = alice.book.serving(ALPN).values()
            assert peer.id == bob.id
            address = address_of(peer)
            assert address is not None
            connection = await own.connect(address, ALPN)
            assert str(connection.remote_id()) == str(served.id()) != bob.id
            stream = await connection.open_bi()
            await stream.send().write_all(b"hello")
            await stream.send().finish()
            assert await stream.recv().read_to_end(1024) == b"hello"
            connection.close(0, b"")
            await answer


@pytest.mark.asyncio
async def test_an_address_that_changes_is_announced_again() -> None:
    async with (
        asyncio.timeout(60),
        endpoint(ALPN) as served,
        pair(metadata={"role": "echo"}) as (alice, bob),
    ):
        assert address_of(alice.book[bob.id]) is None
        async with alice.events() as events:
            await bob.update_metadata(**metadata_of(served))
            while KEY not in alice.book[bob.id].metadata:
                await anext(events)
        found = address_of(alice.book[bob.id])
        assert found is not None
        assert str(found.id()) == str(served.id())
        assert alice.book[bob.id].metadata["role"] == "echo"


@pytest.mark.parametrize("said", ["", "nonsense", "endpoint", "endpointaaaa"])
def test_an_invalid_ticket_in_metadata_gives_no_address(said: str) -> None:
    assert address_of(Peer(iroh_id(), "x", metadata={KEY: said})) is None


def test_metadata_of_refuses_objects_that_are_not_endpoints() -> None:
    with pytest.raises(TypeError, match="endpoint must be Endpoint, not str"):
        metadata_of("endpoint")  # type: ignore[arg-type]  # the point
