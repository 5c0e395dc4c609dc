"""Bootstrap by name alone, without ids or tickets: real processes, a real name server."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import pytest
from netns import NameServer, Network, Node, hears, knows, start, start_name_server

pytestmark = [pytest.mark.needs("netns"), pytest.mark.asyncio]

# More on a machine with more than two cores: what is shown is the same.
COUNT = int(os.environ.get("IGD_TEST_NAMES", "10"))
SERVER = "192.168.7.254"
FORMS = ["dns:nodes.test:4433", "nodes.test:4433", "srv:_igd._udp.test"]


class Service:
    """Hosts behind one name, as those of a headless service in Kubernetes."""

    def __init__(self, lan: Network, server: NameServer) -> None:
        """Begin with none."""
        self.lan, self.server = lan, server
        self.hosts: dict[str, str] = {}
        self.nodes: dict[str, Node] = {}
        self.made = 0

    def add(self, name: str, number: int) -> str:
        """Make a host with an address of its own."""
        host = self.lan.host(name)
        address = f"192.168.7.{number}"
        self.lan.cable(host, "eth0", "lan", f"{address}/24")
        self.lan.resolve_by(host, SERVER)
        self.hosts[name] = address
        return host

    async def publish(self, groups: Iterable[list[str]] = (), fails: str = "") -> None:
        """Have the name server know all hosts, or each group of hosts its own; or have it fail."""
        addresses = list(self.hosts.values())
        told: dict[str, list[str]] = {}
        for group in groups:
            of_group = [self.hosts[name] for name in group]
            told |= dict.fromkeys(of_group, of_group)
        await self.server.tell(
            {
                "nodes.test": {"A": addresses, "A of": told, "fails": fails},
                "_igd._udp.test": {"SRV": [["nodes.test", 4433]], "fails": fails},
            }
        )

    async def start(self, name: str, number: int | None = None) -> Node:
        """Start a node on a host of its own, with one of the forms of the name."""
        self.made += 1
        host = self.add(name, self.made if number is None else number)
        form = FORMS[self.made % len(FORMS)]
        node = await start(host, name, bind=["0.0.0.0:4433"], mdns=False, bootstrap=[form])
        self.nodes[name] = node
        return node

    async def stop(self, *names: str) -> None:
        """End nodes, as a machine ends that is switched off. Their addresses are free."""
        for name in names:
            await self.nodes.pop(name).stop()
            self.lan.unplug(f"{self.lan.prefix}-{name}", "eth0")
            del self.hosts[name]

    async def all_know_all(self) -> None:
        """Wait until each node has told of each other one."""
        for node in self.nodes.values():
            await node.find(lambda line: "me" in line)
        begin = time.monotonic()
        for name, node in self.nodes.items():
            await knows(node, *(other for other in self.nodes if other != name))
        print(f"{len(self.nodes)} nodes know each other after {time.monotonic() - begin:.2f} s")


@asynccontextmanager
async def service(lan: Network) -> AsyncIterator[Service]:
    lan.address("lan", f"{SERVER}/24")
    server = await start_name_server(lan.hub, SERVER)
    made = Service(lan, server)
    try:
        yield made
    finally:
        await asyncio.gather(*(node.stop() for node in [*made.nodes.values(), server]))


async def test_nodes_behind_a_name_find_each_other_and_those_that_take_their_place(
    lan: Network,
) -> None:
    async with service(lan) as group:
        names = [f"n{number}" for number in range(COUNT)]
        for name in names:
            await group.start(name)
        # Until now there is no such name.
        await group.publish()
        await group.all_know_all()
        # Two are replaced: one by a node with another address, one by a node with its address.
        taken = group.hosts[names[1]].rsplit(".", 1)[1]
        await group.stop(*names[:2])
        await group.start("m0")
        await group.start("m1", int(taken))
        await group.publish()
        await group.all_know_all()
        for name in names[2:]:
            await hears(group.nodes[name], "PeerLost", *names[:2])


async def test_nodes_find_each_other_whatever_the_name_server_does_meanwhile(lan: Network) -> None:
    async with service(lan) as group:
        names = [f"n{number}" for number in range(6)]
        for name in names:
            await group.start(name)
        # Hosts that are gone, in greater number than those that are there.
        dead = [f"d{number}" for number in range(20)]
        group.hosts |= {name: f"192.168.7.{100 + number}" for number, name in enumerate(dead)}
        for fails in ("silence", "SERVFAIL"):
            await group.publish(fails=fails)
            for node in group.nodes.values():
                await node.find(lambda line: "problems" in line and line["problems"])
        # Each pair is told of itself alone: three groups, which have to become one.
        pairs = [names[:2], names[2:4], names[4:]]
        await group.publish(pairs)
        for one, other in pairs:
            await knows(group.nodes[one], other)
        await group.publish()
        await group.all_know_all()


async def test_why_a_name_leads_to_nobody_is_said_and_ends_with_it(lan: Network) -> None:
    async with service(lan) as group:
        host = group.add("a", 1)
        node = await start(host, "a", mdns=False, bootstrap=["nodes.test:4433"], logs=True)
        group.nodes["a"] = node

        async def says(source: str, what: str) -> None:
            await node.find(
                lambda line: any(
                    source in one[0] and what in one[1] for one in line.get("problems", [])
                )
            )

        await says("bootstrap nodes.test:4433", "does not resolve")
        group.hosts["a"] = "192.168.7.9"
        await group.publish()
        await says("bootstrap nodes.test:4433", "192.168.7.9:4433: no answer")
        host = group.add("b", 9)
        group.nodes["b"] = await start(host, "b", bind=["0.0.0.0:4433"], mdns=False)
        await knows(node, "b")
        await node.until("problems", [])
        told = [line for line in node.told if line.get("level") == "WARNING"]
        assert 1 <= len(told) <= 8, told
