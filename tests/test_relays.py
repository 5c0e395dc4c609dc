"""Nodes behind NATs and a real relay: who finds whom, by which path, and if the relay is away."""

import asyncio
import os
import time
from pathlib import Path

import pytest
from internet import KINDS, NONE, Internet, internet
from netns import Line, Node, go_on, hears, knows

pytestmark = [pytest.mark.needs("tun"), pytest.mark.asyncio]

SYMMETRIC = "address-and-port-dependent"


async def ticket_with_relay(node: Node) -> str:
    """Wait until a node announces its relay; return its ticket."""
    line = await node.find(lambda line: any("://" in at for at in line.get("me", ())))
    return line["ticket"]


async def path(node: Node, name: str, kind: str) -> Line:
    """Wait until the link of a node to a peer takes a path of this kind."""
    return await node.find(lambda line: (line.get("name"), line.get("path")) == (name, kind))


def has_relay_problem(line: Line) -> bool:
    return "relay" in dict(line.get("problems", ()))


async def meet(net: Internet, kinds: tuple[str, str], **overrides: object) -> tuple[Node, Node]:
    """Start two nodes, of which the second has the ticket of the first."""
    a = await net.node("a", kinds[0], **overrides)
    ticket = await ticket_with_relay(a)
    b = await net.node("b", kinds[1], bootstrap=[ticket], **overrides)
    await asyncio.gather(knows(a, "b"), knows(b, "a"))
    return a, b


async def test_nodes_behind_two_nats_meet_by_a_relay_and_a_stream_goes_through(
    tmp_path: Path,
) -> None:
    async with internet(tmp_path) as net:
        relay = await net.relay()
        begin = time.monotonic()
        a, b = await meet(net, (SYMMETRIC, SYMMETRIC))
        print(f"two nodes know each other {time.monotonic() - begin:.2f} s after the start")
        for node, mine, other in ((a, "a", "b"), (b, "b", "a")):
            line = await path(node, other, "relayed")
            assert (line["at"], line["relayed"]) == (relay.url, 1)
            assert line["round_trip"] is not None
            await node.until("echo", mine)
        print(f"and a stream went both ways after {time.monotonic() - begin:.2f} s")


# Pairs of NATs. A direct path is possible if there is none on one side, or if the port outside does
# not depend on the target on both. `IGD_TEST_NATS=all` takes the whole table.
SOME = (
    (NONE, SYMMETRIC),
    ("endpoint-independent", "endpoint-independent"),
    ("address-dependent", "endpoint-independent"),
    (SYMMETRIC, SYMMETRIC),
)
ALL = tuple((a, b) for a in KINDS for b in KINDS)
PAIRS = ALL if os.environ.get("IGD_TEST_NATS") == "all" else SOME


def is_direct(a: str, b: str) -> bool:
    return NONE in (a, b) or a == b == "endpoint-independent"


@pytest.mark.parametrize(("a", "b"), PAIRS)
async def test_a_path_is_direct_where_the_nats_let_it_be(a: str, b: str, tmp_path: Path) -> None:
    async with internet(tmp_path) as net:
        await net.relay(https=True)
        nodes = await meet(net, (a, b))
        wanted = "direct" if is_direct(a, b) else "relayed"
        for node, mine, other in ((nodes[0], "a", "b"), (nodes[1], "b", "a")):
            line = await path(node, other, wanted)
            print(f"{mine} reaches {other} at {line['at']}, {line['round_trip']:.3f} s")
            await node.until("echo", mine)
        if wanted == "relayed":
            # iroh has tried to punch holes by then.
            await go_on(nodes, 8.0)
            paths = {line.get("path") for node in nodes for line in node.told}
            assert "direct" not in paths


async def test_nodes_are_together_again_after_their_relay_was_away(tmp_path: Path) -> None:
    async with internet(tmp_path) as net:
        relay = await net.relay()
        nodes = await meet(net, (SYMMETRIC, SYMMETRIC))
        a, b = nodes
        await asyncio.gather(path(a, "b", "relayed"), path(b, "a", "relayed"))
        await relay.stop()
        await asyncio.gather(hears(a, "PeerLost", "b"), hears(b, "PeerLost", "a"))
        for node in nodes:
            line = await node.find(has_relay_problem)
            assert relay.url in dict(line["problems"])["relay"]
            node.told.clear()
        await relay.start()
        begin = time.monotonic()
        for node, other in ((a, "b"), (b, "a")):
            await node.find(lambda line: "problems" in line and not has_relay_problem(line))
            connected = time.monotonic() - begin
            await knows(node, other)
            together = time.monotonic() - begin
            print(f"after its start: relay {connected:.2f} s, {other} {together:.2f} s")


async def test_nodes_with_different_relays_meet(tmp_path: Path) -> None:
    async with internet(tmp_path) as net:
        one, two = await net.relay(), await net.relay()
        a = await net.node("a", SYMMETRIC, relay_urls=[one.url])
        ticket = await ticket_with_relay(a)
        b = await net.node("b", SYMMETRIC, relay_urls=[two.url], bootstrap=[ticket])
        await asyncio.gather(knows(a, "b"), knows(b, "a"))
        for node, mine, other in ((a, "a", "b"), (b, "b", "a")):
            await path(node, other, "relayed")
            await node.until("echo", mine)


async def test_a_node_finds_its_relay_that_starts_after_it(tmp_path: Path) -> None:
    async with internet(tmp_path) as net:
        relay = await net.relay()
        await relay.stop()
        node = await net.node("a", SYMMETRIC)
        line = await node.find(has_relay_problem)
        assert relay.url in dict(line["problems"])["relay"]
        node.told.clear()
        await relay.start()
        begin = time.monotonic()
        await ticket_with_relay(node)
        print(f"announced {time.monotonic() - begin:.2f} s after the relay's start")
        await node.until("problems", [])


async def test_nodes_change_to_another_relay_if_theirs_is_gone(tmp_path: Path) -> None:
    async with internet(tmp_path) as net:
        relays = [await net.relay() for _ in range(2)]
        nodes = await meet(net, (SYMMETRIC, SYMMETRIC))
        for node in nodes:
            await ticket_with_relay(node)
        announced = {at for line in nodes[0].told for at in line.get("me", ())}
        first, second = sorted(relays, key=lambda relay: relay.url not in announced)
        await first.stop()
        begin = time.monotonic()
        for node, other in zip(nodes, ("b", "a"), strict=True):
            await node.find(lambda line: second.url in line.get("me", ()))
            await node.find(lambda line: line.get("at") == second.url)
            print(f"{other} is reached by the other relay after {time.monotonic() - begin:.2f} s")
