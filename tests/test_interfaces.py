"""Which interfaces a node uses and announces: real processes in network namespaces."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

pytestmark = [pytest.mark.needs("netns"), pytest.mark.asyncio]

# A node in a process: says its addresses, its problems and each event, a JSON value in a line.
NODE = """
import asyncio, dataclasses, json, sys
from iroh_gossip_discovery import Config, GossipDiscovery

name, topic, overrides = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])

def tell(**what):
    print(json.dumps(what), flush=True)

async def tell_problems(node):
    known = None
    while True:
        now = [[problem.source, problem.what] for problem in node.problems()]
        if now != known:
            tell(problems=now)
            known = now
        await asyncio.sleep(0.05)

async def main():
    async with GossipDiscovery(name, topic, config=Config.lan(**overrides)) as node:
        tell(me=node.me.addresses)
        watching = asyncio.create_task(tell_problems(node))
        async for event in node.events():
            peer = getattr(event, "peer", None)
            if peer is not None:
                tell(event=type(event).__name__, name=peer.name, addresses=peer.addresses)
asyncio.run(main())
"""


def ip(arguments: str, *, inside: str | None = None) -> None:
    """Run `ip` with these arguments, in a namespace."""
    where = [] if inside is None else ["-n", inside]
    done = subprocess.run(
        ["ip", *where, *arguments.split()], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"ip {arguments}: {done.stderr}"


class Node:
    """A process that runs one node in a namespace."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        """Follow a process."""
        self.process = process
        self.told: list[dict[str, object]] = []

    async def until(self, key: str, wanted: object, limit: float = 10.0) -> dict[str, object]:
        """Wait until it tells this of a key; what it told before counts."""
        return await self.find(lambda line: line.get(key) == wanted, limit)

    async def find(
        self, wanted: Callable[[dict[str, object]], object], limit: float = 10.0
    ) -> dict[str, object]:
        """Wait for a line of which `wanted` says yes; those told before count."""
        for line in self.told:
            if wanted(line):
                return line
        async with asyncio.timeout(limit):
            while True:
                line = await self.read()
                if wanted(line):
                    return line

    async def read(self) -> dict[str, object]:
        """Read the next line."""
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        assert line, f"the node ended after {self.told}"
        self.told.append(json.loads(line))
        return self.told[-1]

    async def stop(self) -> None:
        """End it."""
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()


async def start(namespace: str, name: str, topic: str = "fleet", **overrides: object) -> Node:
    """Start a node in a namespace."""
    command = ["ip", "netns", "exec", namespace, sys.executable, "-c", NODE]
    process = await asyncio.create_subprocess_exec(
        *command, name, topic, json.dumps(overrides), stdout=asyncio.subprocess.PIPE
    )
    return Node(process)


class Network:
    """Hosts, each a namespace, joined to bridges in a namespace of their own."""

    def __init__(self, prefix: str) -> None:
        """Name the namespaces; `made` has those that there are."""
        self.prefix = prefix
        self.made: list[str] = []
        self.hub = self.host("hub")
        self.cables = 0

    def host(self, name: str) -> str:
        """Make a host, with nothing but its loopback interface."""
        namespace = f"{self.prefix}-{name}"
        ip(f"netns add {namespace}")
        self.made.append(namespace)
        ip("link set lo up", inside=namespace)
        return namespace

    def bridge(self, name: str, inside: str | None = None, address: str | None = None) -> None:
        """Make a bridge: a switch in the hub, or what a container engine makes on a host."""
        where = inside or self.hub
        ip(f"link add {name} type bridge", inside=where)
        if address:
            ip(f"addr add {address} dev {name}", inside=where)
        ip(f"link set {name} up", inside=where)

    def cable(self, host: str, interface: str, bridge: str, *addresses: str) -> None:
        """Join a host to a bridge, by an interface with these addresses."""
        self.cables += 1
        end = f"port{self.cables}"
        ip(f"link add {end} type veth peer name {interface} netns {host}", inside=self.hub)
        ip(f"link set {end} master {bridge} up", inside=self.hub)
        for address in addresses:
            nodad = " nodad" if ":" in address else ""
            ip(f"addr add {address} dev {interface}{nodad}", inside=host)
        ip(f"link set {interface} up", inside=host)

    def remove(self) -> None:
        """Remove all that was made."""
        for namespace in self.made:
            ip(f"netns del {namespace}")


@contextmanager
def network(prefix: str) -> Iterator[Network]:
    """Make a network, and remove it at the end."""
    made = Network(prefix)
    try:
        yield made
    finally:
        made.remove()


@pytest.fixture
def lan() -> Iterator[Network]:
    """Give a network with one switch, `lan`."""
    with network(f"igd{os.getpid()}") as made:
        made.bridge("lan")
        yield made


def hosts_of(addresses: object) -> list[str]:
    assert isinstance(addresses, list)
    return [address.rsplit(":", 1)[0] for address in addresses]


async def knows(node: Node, *names: str, limit: float = 10.0) -> None:
    def joined(name: str) -> Callable[[dict[str, object]], bool]:
        return lambda line: (line.get("event"), line.get("name")) == ("PeerJoined", name)

    for name in names:
        await node.find(joined(name), limit)


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
        assert "mtu" in dict(line["problems"])  # type: ignore[call-overload]
        ip("link set eth0 mtu 1500", inside=host)
        await node.until("problems", [])
    finally:
        await node.stop()
