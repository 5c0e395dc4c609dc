"""The driver of serf: an agent is a process, asked over its RPC port on loopback."""

import asyncio
import contextlib
import re
import socket
import subprocess
import sys
from itertools import count as count_from

import msgpack

from compare.drivers.commands import Started, run, start_after_first

PATIENCE = 90.0


class Agent:
    """One agent, and the connection to its RPC port."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        """Follow a process; `connect` comes next."""
        self.process = process
        self.sequence = count_from()
        self.unpacker = msgpack.Unpacker()
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter

    async def connect(self, address: str, port: int, every: float) -> None:
        """Connect as soon as the agent listens; try each `every` seconds."""
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    self.reader, self.writer = await asyncio.open_connection(address, port)
                    break
                except OSError:
                    if self.process.returncode is not None:
                        raise RuntimeError(await self.last_words()) from None
                    await asyncio.sleep(every)
        await self.call("handshake", {"Version": 1}, answers=False)

    async def last_words(self) -> str:
        """Tell what an agent that ended wrote last."""
        assert self.process.stdout is not None
        said = (await self.process.stdout.read()).decode(errors="replace").strip().splitlines()
        return f"an agent ended: {said[-1] if said else 'it said nothing'}"

    async def call(
        self, command: str, body: dict[str, object] | None = None, *, answers: bool = True
    ) -> dict[str, object]:
        """Ask the agent something; give its answer, if the command has one."""
        header = {"Seq": next(self.sequence), "Command": command}
        self.writer.write(msgpack.packb(header))
        if body is not None:
            self.writer.write(msgpack.packb(body))
        replied = await self.read()
        if replied.get("Error"):
            raise RuntimeError(f"serf's {command}: {replied['Error']}")
        return await self.read() if answers else {}

    async def read(self) -> dict[str, object]:
        """Read one object."""
        while True:
            for one in self.unpacker:
                found: dict[str, object] = one
                return found
            data = await self.reader.read(65536)
            if not data:
                raise RuntimeError(await self.last_words())
            self.unpacker.feed(data)


class Serf:
    """Agents with the profile `lan`, which is serf's own default."""

    def __init__(self, program: str) -> None:
        """Begin with no agent."""
        self.program = program
        self.agents: list[Agent] = []

    async def start(self, count: int, prefix: str, address: str, bootstrap: str | None) -> Started:
        """Start agents that join the first."""
        made: dict[int, Agent] = {}
        ports = free_ports(2 * count, address)

        async def one(number: int, way_in: str | None) -> None:
            port, rpc = ports[2 * number], ports[2 * number + 1]
            # An agent ends with this process, however that ends.
            command = [
                "setpriv",
                "--pdeathsig",
                "KILL",
                self.program,
                "agent",
                f"-node={prefix}-{number}",
                "-log-level=err",
            ]
            command += [f"-bind={address}:{port}", f"-rpc-addr={address}:{rpc}"]
            command += [] if way_in is None else [f"-retry-join={way_in}"]
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            self.agents.append(Agent(process))
            made[number] = self.agents[-1]
            # Many agents start slowly, and to ask each of them often makes them slower.
            await made[number].connect(address, rpc, max(0.005, count * 0.0005))

        async def first() -> str:
            await one(0, None)
            return f"{address}:{ports[0]}"

        way_in = await start_after_first(first, one, count, bootstrap)
        self.agents = [made[number] for number in range(count)]
        names = [f"{prefix}-{number}" for number in range(count)]
        return Started(way_in, names, [agent.process.pid for agent in self.agents])

    async def listed(self, node: int) -> int:
        """Count its members without those that failed or left."""
        stats = await self.agents[node].call("stats")
        serf = stats["serf"]
        assert isinstance(serf, dict)
        return int(serf["members"]) - int(serf["failed"]) - int(serf["left"])

    async def lists(self, node: int, member: str) -> bool:
        """Look for a name among its members that are alive."""
        asked: dict[str, object] = {"Name": re.escape(member), "Status": "alive", "Tags": {}}
        answer = await self.agents[node].call("members-filtered", asked)
        return bool(answer["Members"])

    async def leave(self, node: int) -> None:
        """Leave in good order."""
        await self.agents[node].call("leave", answers=False)

    async def end(self) -> None:
        """End the agents, which would outlive this process."""
        for agent in self.agents:
            with contextlib.suppress(ProcessLookupError):
                agent.process.kill()
        await asyncio.gather(*(agent.process.wait() for agent in self.agents))


def free_ports(count: int, address: str) -> list[int]:
    """Find ports that are free: an agent wants to be told which to take."""
    with contextlib.ExitStack() as held:
        sockets = [
            held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            for _ in range(count)
        ]
        for one in sockets:
            one.bind((address, 0))
        return [one.getsockname()[1] for one in sockets]


def version_of(program: str) -> str:
    """Ask the program which version it is."""
    done = subprocess.run([program, "version"], capture_output=True, text=True, check=True)
    return done.stdout.partition("\n")[0].strip()


if __name__ == "__main__":
    run(Serf(sys.argv[1]), version_of(sys.argv[1]))
