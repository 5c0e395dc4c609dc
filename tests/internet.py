"""An internet of namespaces: relays and hosts on one network, other hosts behind NATs."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import nat
from netns import Network, Node, ip, network, start

NONE = "none"
KINDS = (NONE, "endpoint-independent", "address-dependent", "address-and-port-dependent")
RELAY = "iroh-gossip-discovery-relay"


def relay_program() -> Path:
    """Find the relay's program, as `make test` builds it."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", Path(__file__).parent.parent / "target"))
    path = target / "debug" / RELAY
    assert path.exists(), f"{path} is not built: run the tests with `make test`"
    return path


class Relay:
    """A relay on a host of its own, which can be stopped and started again."""

    def __init__(self, host: str, address: str, directory: Path | None) -> None:
        """Name its host and address; it serves HTTPS with a directory, else HTTP."""
        self.host = host
        self.address = address
        self.directory = directory
        self.url = ""
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it, and wait until it serves."""
        command = ["ip", "netns", "exec", self.host, str(relay_program()), self.address]
        if self.directory is not None:
            command.append(str(self.directory))
        pipe = asyncio.subprocess.PIPE
        self.process = await asyncio.create_subprocess_exec(*command, stdout=pipe)
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        assert line, "the relay did not start"
        self.url = line.decode().strip()

    async def stop(self) -> None:
        """Kill it."""
        assert self.process is not None
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()

    @property
    def certificate(self) -> str | None:
        """Its certificate in PEM."""
        return None if self.directory is None else (self.directory / "certificate.pem").read_text()


class Internet:
    """The networks, and all processes in them."""

    def __init__(self, made: Network, directory: Path) -> None:
        """Lay the network that all have in common."""
        self.made = made
        self.directory = directory
        self.count = 0
        self.relays: list[Relay] = []
        self.nodes: list[Node] = []
        self.translators: list[asyncio.subprocess.Process] = []
        made.bridge("internet")

    def _public(self, name: str) -> tuple[str, int]:
        """Make a host on the network that all have in common: its number is in its address."""
        self.count += 1
        host = self.made.host(name)
        self.made.cable(host, "eth0", "internet", f"198.51.100.{self.count}/24")
        # The addresses of the NATs: each answers for its own.
        ip("route add 203.0.113.0/24 dev eth0", inside=host)
        return host, self.count

    async def relay(self, *, https: bool = False) -> Relay:
        """Start another relay."""
        host, number = self._public(f"r{len(self.relays)}")
        directory = None
        if https:
            directory = self.directory / host
            directory.mkdir()
        relay = Relay(host, f"198.51.100.{number}", directory)
        self.relays.append(relay)
        await relay.start()
        return relay

    async def host(self, name: str, kind: str) -> str:
        """Make a host, behind a NAT of this kind if it is not `NONE`."""
        if kind == NONE:
            return self._public(name)[0]
        router, number = self._public(f"{name}-nat")
        host = self.made.host(name)
        inside = f"{name}-lan"
        self.made.bridge(inside)
        self.made.cable(router, "eth1", inside, f"192.168.{number}.1/24")
        self.made.cable(host, "eth0", inside, f"192.168.{number}.2/24")
        ip(f"route add default via 192.168.{number}.1", inside=host)
        command = ["ip", "netns", "exec", router]
        translator = [sys.executable, nat.__file__, kind, f"203.0.113.{number}"]
        process = await asyncio.create_subprocess_exec(
            *command, *translator, stdout=asyncio.subprocess.PIPE
        )
        self.translators.append(process)
        assert process.stdout is not None
        assert await process.stdout.readline(), "the translator did not start"
        ip(f"link set {nat.DEVICE} up", inside=router)
        ip(f"route add 203.0.113.{number} dev {nat.DEVICE}", inside=router)
        ip("rule add iif eth1 lookup 100", inside=router)
        ip(f"route add default dev {nat.DEVICE} table 100", inside=router)
        settings = ["ipv4.ip_forward=1", "ipv4.conf.eth0.proxy_arp=1"]
        settings += [f"ipv4.conf.{name}.rp_filter=0" for name in ("all", nat.DEVICE)]
        for setting in settings:
            key, value = setting.split("=")
            file = f"/proc/sys/net/{key.replace('.', '/')}"
            shell = await asyncio.create_subprocess_exec(
                *command, "sh", "-c", f"echo {value} >{file}"
            )
            assert await shell.wait() == 0, setting
        return host

    async def node(self, name: str, kind: str, **overrides: object) -> Node:
        """Start a node that uses these relays alone, on a host of its own."""
        certificates = [relay.certificate for relay in self.relays]
        settings: dict[str, object] = {
            "preset": "internet",
            "mdns": False,
            "dns": False,
            "relay_urls": [relay.url for relay in self.relays],
            "relay_ca": "".join(pem for pem in certificates if pem) or None,
        }
        host = await self.host(name, kind)
        node = await start(host, name, "fleet", **{**settings, **overrides})
        self.nodes.append(node)
        return node

    async def close(self) -> None:
        """End all processes."""
        await asyncio.gather(*(node.stop() for node in self.nodes))
        await asyncio.gather(*(relay.stop() for relay in self.relays if relay.process))
        for process in self.translators:
            process.kill()
            await process.wait()


@asynccontextmanager
async def internet(directory: Path) -> AsyncIterator[Internet]:
    """Make an internet, and remove it at the end."""
    with network(f"igd{os.getpid()}") as made:
        net = Internet(made, directory)
        try:
            yield net
        finally:
            await net.close()
