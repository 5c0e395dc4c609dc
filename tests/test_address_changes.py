"""What becomes of a node, and of others, when its addresses change: real processes, real links."""

import asyncio
import time
from collections.abc import Iterable

import pytest
from netns import Line, Network, Node, go_on, hosts_of, ip, knows, start

pytestmark = [pytest.mark.needs("netns"), pytest.mark.asyncio]

DOUBTS = {"PeerSuspected", "PeerLost", "PeerLeft"}


async def are_known(address: str, of: str, nodes: Iterable[Node]) -> float:
    """Wait until nodes know an address of a peer; say how long that took."""
    begin = time.monotonic()

    def has(line: Line) -> bool:
        return line.get("name") == of and address in hosts_of(line["addresses"])

    for node in nodes:
        await node.find(has)
    return time.monotonic() - begin


def doubts(nodes: Iterable[Node]) -> list[Line]:
    return [line for node in nodes for line in node.told if line.get("event") in DOUBTS]


def joins(node: Node) -> list[str]:
    return [line["name"] for line in node.told if line.get("event") == "PeerJoined"]


async def linked(lan: Network, names: str) -> tuple[list[str], list[Node]]:
    hosts = [lan.host(name) for name in names]
    for n, host in enumerate(hosts, start=1):
        lan.cable(host, "eth0", "lan", f"192.168.7.{n}/24")
    # The others dial the first one: only who dialed a link can move it to another address.
    nodes = [await start(hosts[0], names[0], mdns=False)]
    ticket = (await nodes[0].find(lambda line: "ticket" in line))["ticket"]
    for host, name in zip(hosts[1:], names[1:], strict=True):
        nodes.append(await start(host, name, mdns=False, bootstrap=[ticket]))
    for name, node in zip(names, nodes, strict=True):
        await knows(node, *names.replace(name, ""))
    return hosts, nodes


async def test_nobody_is_doubted_when_addresses_change(lan: Network) -> None:
    # With two nodes nobody else vouches for one of them.
    hosts, nodes = await linked(lan, "ab")
    host, others = hosts[0], nodes[1:]
    try:
        # A lease for another address.
        ip("addr del 192.168.7.1/24 dev eth0", inside=host)
        ip("addr add 192.168.7.11/24 dev eth0", inside=host)
        took = [await are_known("192.168.7.11", "a", others)]
        # From one network card to another.
        lan.cable(host, "eth1", "lan", "192.168.7.12/24")
        ip("link set eth0 down", inside=host)
        took.append(await are_known("192.168.7.12", "a", others))
        # A tunnel takes the default route, and leads nowhere.
        lan.bridge("vpn")
        lan.cable(host, "tun0", "vpn", "10.9.0.2/24")
        ip("route add default via 10.9.0.1", inside=host)
        took.append(await are_known("10.9.0.2", "a", others))
        # The cable is out for a moment, then there is no address, then another one.
        ip("link set eth1 down", inside=host)
        await asyncio.sleep(1.0)
        ip("link set eth1 up", inside=host)
        ip("addr flush dev eth1", inside=host)
        await asyncio.sleep(0.3)
        ip("addr add 192.168.7.13/24 dev eth1", inside=host)
        took.append(await are_known("192.168.7.13", "a", others))
        print("known to all after", *(f"{seconds:.2f} s" for seconds in took))
        await go_on(nodes, 5.0)
        assert doubts(nodes) == []
        assert [joins(node) for node in nodes] == [["b"], ["a"]]
    finally:
        await asyncio.gather(*(node.stop() for node in nodes))


async def test_two_nodes_that_change_at_once_find_each_other_by_multicast(lan: Network) -> None:
    hosts = [lan.host(name) for name in "ab"]
    for n, host in enumerate(hosts, start=1):
        lan.cable(host, "eth0", "lan", f"192.168.7.{n}/24")
    nodes = [await start(host, name) for host, name in zip(hosts, "ab", strict=True)]
    try:
        await asyncio.gather(knows(nodes[0], "b"), knows(nodes[1], "a"))
        for n, host in enumerate(hosts, start=11):
            ip("addr flush dev eth0", inside=host)
            ip(f"addr add 192.168.7.{n}/24 dev eth0", inside=host)
        took = await are_known("192.168.7.11", "a", nodes[1:])
        took += await are_known("192.168.7.12", "b", nodes[:1])
        print(f"known to each other after {took:.2f} s")
        await go_on(nodes, 3.0)
        assert [line for line in doubts(nodes) if line["event"] == "PeerLost"] == []
    finally:
        await asyncio.gather(*(node.stop() for node in nodes))


async def test_a_change_from_ipv4_to_ipv6_costs_nobody(lan: Network) -> None:
    # A link is on IPv4, and its ends have IPv6 alone from one moment to the next.
    hosts, nodes = await linked(lan, "abc")
    try:
        for n, host in enumerate(hosts[1:], start=2):
            ip(f"addr add fd00::{n}/64 dev eth0 nodad", inside=host)
        await are_known("[fd00::2]", "b", nodes[:1])
        await are_known("[fd00::3]", "c", nodes[:1])
        ip("addr add fd00::1/64 dev eth0 nodad", inside=hosts[0])
        ip("addr del 192.168.7.1/24 dev eth0", inside=hosts[0])
        took = await are_known("[fd00::1]", "a", nodes[1:])
        print(f"known to all after {took:.2f} s")
        await go_on(nodes, 6.0)
        lost = [line for line in doubts(nodes) if line["event"] == "PeerLost"]
        assert lost == []
        assert [len(joins(node)) for node in nodes] == [2, 2, 2]
    finally:
        await asyncio.gather(*(node.stop() for node in nodes))


async def test_a_node_without_its_network_doubts_nobody_and_never_says_loopback(
    lan: Network,
) -> None:
    hosts, nodes = await linked(lan, "abc")
    away, others = nodes[0], nodes[1:]
    try:
        ip("link set eth0 down", inside=hosts[0])
        # It is gone for longer than links and suspicions live.
        await go_on(nodes, 14.0)
        ip("link set eth0 up", inside=hosts[0])
        ip("addr replace 192.168.7.11/24 dev eth0", inside=hosts[0])
        took = await are_known("192.168.7.11", "a", others)
        print(f"back and known to all after {took:.2f} s")
        await go_on(nodes, 3.0)
        assert doubts([away]) == []
        assert len(joins(away)) == 2
        apart = [line for line in doubts(others) if line["name"] != "a"]
        assert apart == []
        heard = [line["addresses"] for node in others for line in node.told if "addresses" in line]
        assert not any("127.0.0.1" in hosts_of(addresses) for addresses in heard)
    finally:
        await asyncio.gather(*(node.stop() for node in nodes))
