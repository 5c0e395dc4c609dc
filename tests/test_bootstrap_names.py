"""Bootstrap by name alone, without ids or tickets: real processes, a real name server."""

import asyncio
import os
import time

import pytest
from netns import NameServer, Network, Node, hears, knows, start, start_name_server

pytestmark = [pytest.mark.needs("netns"), pytest.mark.asyncio]

COUNT = int(os.environ.get("IGD_TEST_NAMES", "5"))
SERVER = "192.168.7.254"
FORMS = ["dns:nodes.test:4433", "nodes.test:4433", "srv:_igd._udp.test"]


class Service:
    """Hosts behind one name, as those of a headless service in Kubernetes."""

    def __init__(self, lan: Network, server: NameServer) -> None:
        """Begin with none."""
        self.lan, self.server = lan, server
        self.hosts: dict[str, str] = {}

    def add(self, name: str, number: int) -> str:
        """Make a host with an address of its own."""
        host = self.lan.host(name)
        address = f"192.168.7.{number}"
        self.lan.cable(host, "eth0", "lan", f"{address}/24")
        self.lan.resolve_by(host, SERVER)
        self.hosts[name] = address
        return host

    async def publish(self) -> None:
        """Have the name server know all hosts."""
        addresses = list(self.hosts.values())
        await self.server.tell(
            {
                "nodes.test": {"A": addresses},
                "_igd._udp.test": {"SRV": [["nodes.test", 4433]]},
            }
        )


async def start_node(service: Service, name: str, number: int) -> Node:
    form = FORMS[number % len(FORMS)]
    host = service.add(name, number + 1)
    return await start(host, name, bind=["0.0.0.0:4433"], mdns=False, bootstrap=[form])


async def test_nodes_behind_a_name_find_each_other_and_those_that_take_their_place(
    lan: Network,
) -> None:
    lan.address("lan", f"{SERVER}/24")
    server = await start_name_server(lan.hub, SERVER)
    service = Service(lan, server)
    nodes: dict[str, Node] = {}
    try:
        names = [f"n{number}" for number in range(COUNT)]
        for number, name in enumerate(names):
            nodes[name] = await start_node(service, name, number)
        await service.publish()
        for node in nodes.values():
            await node.find(lambda line: "me" in line)
        begin = time.monotonic()
        for name, node in nodes.items():
            await knows(node, *(other for other in names if other != name))
        print(f"{COUNT} nodes know each other after {time.monotonic() - begin:.2f} s")
        # Two are replaced, by others with other keys and addresses.
        for name in names[:2]:
            await nodes.pop(name).stop()
            del service.hosts[name]
        new = [f"m{number}" for number in range(2)]
        for number, name in enumerate(new):
            nodes[name] = await start_node(service, name, 100 + number)
        await service.publish()
        begin = time.monotonic()
        for name, node in nodes.items():
            await knows(node, *(other for other in [*names[2:], *new] if other != name))
        print(f"the new ones are known to all after {time.monotonic() - begin:.2f} s")
        for name in names[2:]:
            await hears(nodes[name], "PeerLost", *names[:2])
    finally:
        await asyncio.gather(*(node.stop() for node in [*nodes.values(), server]))


async def test_why_a_name_leads_to_nobody_is_said_and_ends_with_it(lan: Network) -> None:
    lan.address("lan", f"{SERVER}/24")
    server = await start_name_server(lan.hub, SERVER)
    service = Service(lan, server)
    host = service.add("a", 1)
    node = await start(host, "a", mdns=False, bootstrap=["nodes.test:4433"], logs=True)
    other: Node | None = None

    async def says(source: str, what: str) -> None:
        await node.find(
            lambda line: any(
                source in one[0] and what in one[1] for one in line.get("problems", [])
            )
        )

    try:
        await says("bootstrap nodes.test:4433", "does not resolve")
        service.hosts["a"] = "192.168.7.9"
        await service.publish()
        await says("bootstrap nodes.test:4433", "192.168.7.9:4433: no answer")
        host = service.add("b", 9)
        other = await start(host, "b", bind=["0.0.0.0:4433"], mdns=False)
        await knows(node, "b")
        await node.until("problems", [])
        told = [line for line in node.told if line.get("level") == "WARNING"]
        assert 1 <= len(told) <= 8, told
    finally:
        await asyncio.gather(*(one.stop() for one in [node, other, server] if one is not None))
