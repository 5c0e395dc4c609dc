"""Hosts in network namespaces, and nodes in processes of their own there."""

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypedDict

# A node in a process: says its addresses, its problems and each event, a JSON value in a line.
NODE = """
import asyncio, json, logging, sys
from iroh_gossip_discovery import Config, GossipDiscovery

name, topic, overrides = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])

def tell(**what):
    # One write for a line: log lines come from another thread.
    sys.stdout.write(json.dumps(what) + "\\n")
    sys.stdout.flush()

async def tell_problems(node):
    known = None
    while True:
        now = [[problem.source, problem.what] for problem in node.problems()]
        if now != known:
            tell(problems=now)
            known = now
        await asyncio.sleep(0.05)

async def tell_paths(node):
    known, announced, greeted = {}, node.me.addresses, set()
    while True:
        if node.me.addresses != announced:
            announced = node.me.addresses
            tell(me=announced, id=node.id, ticket=node.ticket)
        for peer in node.book.values():
            status = node.status(peer)
            now = status and [status.path, status.address]
            if now != known.get(peer.name):
                known[peer.name] = now
                told = dict(path=status and status.path, at=status and status.address)
                told["round_trip"] = status and status.round_trip
                tell(name=peer.name, relayed=node.metrics().links_relayed, **told)
            if peer.id not in greeted:
                greeted.add(peer.id)
                greeting = asyncio.create_task(greet(node, peer))
        await asyncio.sleep(0.02)

async def greet(node, peer):
    reader, writer = await node.open_stream(peer, "echo")
    writer.write(node.name.encode())
    writer.write_eof()
    tell(echo=(await reader.read()).decode(), name=peer.name)

async def echo(reader, writer):
    writer.write(await reader.read())
    writer.write_eof()

class Tell(logging.Handler):
    def emit(self, record):
        tell(log=record.getMessage(), level=record.levelname)

async def main():
    if overrides.pop("logs", False):
        logging.getLogger("iroh_gossip_discovery").setLevel(logging.INFO)
        logging.getLogger("iroh_gossip_discovery").addHandler(Tell())
    bootstrap = overrides.pop("bootstrap", ())
    config = getattr(Config, overrides.pop("preset", "lan"))(**overrides)
    async with GossipDiscovery(name, topic, bootstrap=bootstrap, config=config) as node:
        tell(me=node.me.addresses, id=node.id, ticket=node.ticket)
        watching = asyncio.create_task(tell_problems(node))
        if config.relay:
            paths = asyncio.create_task(tell_paths(node))
            node.serve("echo", echo)
        events = node.events()
        # What was there before the subscription counts too.
        for peer in node.book.values():
            tell(event="PeerJoined", name=peer.name, addresses=peer.addresses)
        async for event in events:
            peer = getattr(event, "peer", None)
            if peer is not None:
                tell(event=type(event).__name__, name=peer.name, addresses=peer.addresses)
asyncio.run(main())
"""


# A name server: takes the records as a JSON object in a line, and answers with those it read last.
# A name that "fails" gets silence or SERVFAIL; "A of" has what certain hosts are told.
NAME_SERVER = """
import json, socket, struct, sys, threading

records = {}

def encode(name):
    labels = name.rstrip(".").encode().split(b".")
    return b"".join(bytes([len(label)]) + label for label in labels) + bytes(1)

def answer(query, sender):
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1:at + 1 + query[at]].decode().lower())
        at += 1 + query[at]
    kind = struct.unpack(">H", query[at + 1:at + 3])[0]
    question = query[12:at + 5]
    known = records.get(".".join(labels))
    data = []
    if known and kind == 1:
        of = known.get("A of", {})
        data = [socket.inet_aton(address) for address in of.get(sender, known.get("A", []))]
    elif known and kind == 33:
        data = [struct.pack(">HHH", 0, 0, port) + encode(host) for host, port in known["SRV"]]
    fails = (known or {}).get("fails")
    if fails == "silence":
        return None
    code = 2 if fails else 0 if known else 3
    if code:
        data = []
    head = struct.pack(">HHHHH", 0x8580 | code, 1, len(data), 0, 0)
    fixed = struct.pack(">HHHI", 0xC00C, kind, 1, 1)
    lines = [fixed + struct.pack(">H", len(one)) + one for one in data]
    return query[:2] + head + question + b"".join(lines)

def serve():
    port = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    port.bind((sys.argv[1], 53))
    print("{}", flush=True)
    while True:
        query, sender = port.recvfrom(4096)
        answered = answer(query, sender[0])
        if answered is not None:
            port.sendto(answered, sender)

threading.Thread(target=serve, daemon=True).start()
for line in sys.stdin:
    records = json.loads(line)
    print("{}", flush=True)
"""


class Line(TypedDict, total=False):
    """What a node says in a line: one of the groups of keys."""

    me: list[str]  # its own addresses
    id: str
    ticket: str

    problems: list[tuple[str, str]]  # all of them, as they are now: source, and what is wrong

    log: str
    level: str

    path: str | None  # of the link to a peer, where it leads, and its round trip
    at: str | None
    round_trip: float | None
    relayed: int  # links by way of relays, on the whole endpoint
    echo: str  # what came back by a stream

    event: str
    name: str  # of the peer, and its addresses
    addresses: list[str]


def ip(arguments: str, *, inside: str | None = None) -> None:
    """Run `ip` with these arguments, in a namespace."""
    where = [] if inside is None else ["-n", inside]
    done = subprocess.run(
        ["ip", *where, *arguments.split()], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"ip {arguments}: {done.stderr}"


def nft(*rules: str, inside: str) -> None:
    """Run `nft` with each of these rules, in a namespace."""
    for rule in rules:
        command = ["ip", "netns", "exec", inside, "nft", rule]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"nft {rule}: {done.stderr}"


class Node:
    """A process that runs one node in a namespace."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        """Follow a process."""
        self.process = process
        self.told: list[Line] = []

    async def until(self, key: str, wanted: object, limit: float = 60.0) -> Line:
        """Wait until it tells this of a key; what it told before counts."""
        return await self.find(lambda line: line.get(key) == wanted, limit)

    async def find(self, wanted: Callable[[Line], object], limit: float = 60.0) -> Line:
        """Wait for a line of which `wanted` says yes; those told before count."""
        for line in self.told:
            if wanted(line):
                return line
        async with asyncio.timeout(limit):
            while True:
                line = await self.read()
                if wanted(line):
                    return line

    async def read(self) -> Line:
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


class NameServer(Node):
    """A process that is a name server."""

    async def tell(self, records: dict[str, dict[str, object]]) -> None:
        """Have it know these records from now on."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(records).encode() + b"\n")
        await self.process.stdin.drain()
        await self.read()


async def start_name_server(namespace: str, address: str) -> NameServer:
    """Start a name server in a namespace."""
    command = ["ip", "netns", "exec", namespace, sys.executable, "-c", NAME_SERVER, address]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
    server = NameServer(process)
    await server.read()
    return server


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

    def address(self, bridge: str, address: str) -> None:
        """Give the hub an address of its own on a bridge."""
        ip(f"addr add {address} dev {bridge}", inside=self.hub)

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

    def unplug(self, host: str, interface: str) -> None:
        """Take away an interface of a host, and its addresses with it."""
        ip(f"link del {interface}", inside=host)

    def resolve_by(self, host: str, server: str) -> None:
        """Name the name server of a host."""
        directory = Path("/etc/netns") / host
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "resolv.conf").write_text(f"nameserver {server}\noptions timeout:1\n")

    def remove(self) -> None:
        """Remove all that was made."""
        for namespace in self.made:
            ip(f"netns del {namespace}")
            shutil.rmtree(Path("/etc/netns") / namespace, ignore_errors=True)


@contextmanager
def network(prefix: str) -> Iterator[Network]:
    """Make a network, and remove it at the end."""
    made = Network(prefix)
    try:
        yield made
    finally:
        made.remove()


def hosts_of(addresses: Iterable[str]) -> list[str]:
    """Part the hosts from the ports."""
    return [address.rsplit(":", 1)[0] for address in addresses]


async def hears(node: Node, event: str, *names: str, limit: float = 60.0) -> None:
    """Wait until a node has told an event of each of these peers."""

    def told(name: str) -> Callable[[Line], bool]:
        return lambda line: (line.get("event"), line.get("name")) == (event, name)

    for name in names:
        await node.find(told(name), limit)


async def knows(node: Node, *names: str, limit: float = 60.0) -> None:
    """Wait until a node has told that these peers joined."""
    await hears(node, "PeerJoined", *names, limit=limit)


async def go_on(nodes: Iterable[Node], seconds: float) -> None:
    """Read what nodes tell for a while: what must not come has this long to come."""

    async def listen(node: Node) -> None:
        while True:
            await node.read()

    tasks = [asyncio.create_task(listen(node)) for node in nodes]
    done, _ = await asyncio.wait(tasks, timeout=seconds)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert not done, "a node ended"
