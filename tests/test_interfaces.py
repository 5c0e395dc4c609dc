"""Which interfaces a node uses and announces: real processes in network namespaces."""

import asyncio
import time

import pytest
from netns import Network, hosts_of, ip, knows, nft, start

pytestmark = [pytest.mark.needs("netns"), pytest.mark.asyncio]


async def test_ten_nodes_without_any_route_to_multicast_find_each_other(lan: Network) -> None:
    names = [f"n{n}" for n in range(10)]
    hosts = [lan.host(name) for name in names]
    for n, host in enumerate(hosts):
        lan.cable(host, "eth0", "lan", f"192.168.7.{n + 1}/24")
    nodes = await asyncio.gather(*(start(*pair) for pair in zip(hosts, names, strict=True)))
    stranger = await start(hosts[0], "stranger", "another topic")
    try:
        await asyncio.gather(*(node.find(lambda line: "me" in line, 30.0) for node in nodes))
        begin = time.monotonic()
        for name, node in zip(names, nodes, strict=True):
            await knows(node, *(other for other in names if other != name), limit=20.0)
        print(f"ten nodes know each other {time.monotonic() - begin:.2f} s after the last is up")
        assert not any("event" in line for line in stranger.told)
        assert not any(line.get("name") == "stranger" for node in nodes for line in node.told)
    finally:
        await asyncio.gather(*(node.stop() for node in [*nodes, stranger]))


async def test_the_default_route_may_lead_elsewhere(lan: Network) -> None:
    lan.bridge("wan")
    hosts = [lan.host(name) for name in ("a", "b")]
    for n, host in enumerate(hosts, start=1):
        lan.cable(host, "eth0", "lan", f"192.168.7.{n}/24")
        lan.cable(host, f"wan{n}", "wan" if n == 1 else "lan", f"10.{n}.0.2/24")
        ip(f"route add default via 10.{n}.0.1", inside=host)
    alice, bob = await asyncio.gather(start(hosts[0], "alice"), start(hosts[1], "bob"))
    try:
        await asyncio.gather(knows(alice, "bob"), knows(bob, "alice"))
    finally:
        await asyncio.gather(alice.stop(), bob.stop())


async def test_an_interface_that_comes_later_is_used(lan: Network) -> None:
    hosts = [lan.host(name) for name in ("a", "b")]
    lan.cable(hosts[0], "eth0", "lan", "192.168.7.1/24")
    alice, bob = await asyncio.gather(start(hosts[0], "alice"), start(hosts[1], "bob"))
    try:
        await bob.find(lambda line: "me" in line)
        lan.cable(hosts[1], "tun7", "lan")
        ip("addr add 192.168.7.2/24 dev tun7", inside=hosts[1])
        await asyncio.gather(knows(alice, "bob"), knows(bob, "alice"))
        heard = [line["addresses"] for line in alice.told if line.get("name") == "bob"]
        assert [hosts_of(addresses) for addresses in heard] == [["192.168.7.2"]] * len(heard)
    finally:
        await asyncio.gather(alice.stop(), bob.stop())


async def test_ipv6_alone_is_enough(lan: Network) -> None:
    hosts = [lan.host(name) for name in ("a", "b")]
    for n, host in enumerate(hosts, start=1):
        lan.cable(host, "eth0", "lan", f"fd00::{n}/64")
    alice, bob = await asyncio.gather(start(hosts[0], "alice"), start(hosts[1], "bob"))
    try:
        await asyncio.gather(knows(alice, "bob"), knows(bob, "alice"))
    finally:
        await asyncio.gather(alice.stop(), bob.stop())


async def test_bridges_of_containers_take_no_room(lan: Network) -> None:
    host = lan.host("docker")
    for n in range(17, 25):
        # A bridge is up once something is plugged into it.
        lan.bridge(f"net{n}", inside=host, address=f"172.{n}.0.1/16")
        ip(f"link add c{n} type veth peer name d{n}", inside=host)
        ip(f"link set c{n} master net{n} up", inside=host)
        ip(f"link set d{n} up", inside=host)
    lan.cable(host, "eth0", "lan", "192.168.1.10/24", "fd00::10/64")
    ip("route add default via 192.168.1.1", inside=host)
    node = await start(host, "alice", bind=["0.0.0.0:4001", "[::]:4002"])
    other = await start(host, "bob", advertise=["203.0.113.7:4433", "!eth0"])
    try:
        mine = (await node.find(lambda line: "me" in line))["me"]
        assert hosts_of(mine) == ["192.168.1.10", "[fd00::10]", "172.17.0.1", "172.18.0.1"]
        mine = (await other.find(lambda line: "me" in line))["me"]
        assert hosts_of(mine) == ["203.0.113.7", "172.17.0.1", "172.18.0.1"]
    finally:
        await asyncio.gather(node.stop(), other.stop())


async def test_link_local_alone_and_a_small_mtu_are_problems_with_a_reason(lan: Network) -> None:
    host = lan.host("a")
    lan.cable(host, "eth0", "lan")
    ip("link set eth0 mtu 1200", inside=host)
    ip("addr add 192.168.7.1/24 dev eth0", inside=host)
    node = await start(host, "alice")
    try:
        line = await node.find(lambda line: "problems" in line and line["problems"])
        assert "mtu" in dict(line["problems"])
        ip("link set eth0 mtu 1500", inside=host)
        await node.until("problems", [])
    finally:
        await node.stop()


@pytest.mark.needs("nft")
async def test_an_interface_on_which_multicast_is_dropped_is_a_problem_until_it_passes(
    lan: Network,
) -> None:
    lan.bridge("other")
    host = lan.host("a")
    lan.cable(host, "eth0", "lan", "192.168.7.1/24")
    lan.cable(host, "eth1", "other", "192.168.8.1/24", "fd00::1/64")
    nft(
        "add table inet wall",
        "add chain inet wall in { type filter hook input priority 0; }",
        'add rule inet wall in iifname "eth1" udp dport 5353 drop',
        inside=host,
    )
    node = await start(host, "alice")
    try:
        line = await node.find(lambda line: "problems" in line and line["problems"])
        assert [source for source, _ in line["problems"]] == ["mdns eth1"]
        assert "firewall" in line["problems"][0][1]
        nft("flush table inet wall", inside=host)
        await node.find(lambda line: line is node.told[-1] and line.get("problems") == [])
    finally:
        await node.stop()


async def test_a_node_with_no_address_for_others_says_why(lan: Network) -> None:
    cut_off, hidden = lan.host("a"), lan.host("b")
    lan.cable(hidden, "eth0", "lan", "192.168.7.1/24")
    nodes = await asyncio.gather(
        start(cut_off, "alice"), start(hidden, "bob", advertise=["!192.168.0.0/16"])
    )
    try:
        for node, why in zip(nodes, ("no network interface is up", "`advertise`"), strict=True):
            line = await node.find(lambda line: "problems" in line and line["problems"])
            assert [source for source, _ in line["problems"]] == ["network"]
            assert why in line["problems"][0][1]
        # Nodes of one machine meet by their loopback addresses all the same.
        neighbor = await start(cut_off, "carol")
        await knows(nodes[0], "carol")
        await neighbor.stop()
        lan.cable(cut_off, "eth0", "lan", "192.168.7.2/24")
        await nodes[0].find(lambda line: line is nodes[0].told[-1] and line.get("problems") == [])
    finally:
        await asyncio.gather(*(node.stop() for node in nodes))
