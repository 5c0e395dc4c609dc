"""Node processes from their parent's side: start them, ask them, and never leave one behind."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import NamedTuple, Self, TypeAlias, TypeVar

from iroh_gossip_discovery._cli._node import Message, NodeSpec, PeerEntry, Request

T = TypeVar("T")

Listener: TypeAlias = Callable[["NodeProcess", Message], None]
"""Gets each message of a node."""

_LINE = 16 * 1024 * 1024
_STDERR_LINES = 30
_STOP_TIMEOUT = 5.0


class NodeFailedError(Exception):
    """A node process ended, or never became ready; the text has its last message."""


class NodeState(NamedTuple):
    """The state of a node: its own record, its book, and its counters."""

    me: PeerEntry
    addresses: list[str]
    book: list[PeerEntry]
    metrics: dict[str, int]


class NodeProcess:
    """A node in a process of its own, with the book that its events add up to.

    Args:
        spec: What the node is started with.
        listener: Called with each message of the node, after `book` was brought up to date.
    """

    def __init__(self, spec: NodeSpec, listener: Listener | None = None) -> None:
        self.spec = spec
        self.id = ""
        self.boot_id = 0
        self.ready_at = 0.0
        self.heard_at = 0.0
        self.ticket = ""
        self.book: dict[str, PeerEntry] = {}
        self._listener = listener
        self._process: asyncio.subprocess.Process | None = None
        self._ready: asyncio.Future[None] | None = None
        self._replies: dict[int, asyncio.Future[Message]] = {}
        self._numbers = 0
        self._stderr: deque[str] = deque(maxlen=_STDERR_LINES)
        self._reading: asyncio.Task[None] | None = None
        self._failure = ""

    @property
    def name(self) -> str:
        """The node's name."""
        return self.spec["name"]

    @property
    def pid(self) -> int:
        """The process id."""
        return self._running().pid

    @property
    def alive(self) -> bool:
        """True while the process runs."""
        return self._process is not None and self._process.returncode is None

    @property
    def failure(self) -> str:
        """What the process told last, if it has ended."""
        return self._failure

    async def start(self) -> None:
        """Start the process, and wait until its node is bound and announced.

        Raises:
            NodeFailedError: It ended before that.
        """
        self._ready = asyncio.get_running_loop().create_future()
        # In a session of its own, so that Ctrl-C reaches only the parent, which then ends its nodes
        # in order.
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "iroh_gossip_discovery._cli._node",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=_LINE,
            start_new_session=True,
        )
        self._reading = asyncio.create_task(self._read(self._process))
        self._write(self.spec)
        await asyncio.shield(self._ready)

    async def ask_book(self) -> list[PeerEntry]:
        """Ask the node for its book, independently of the events that it sent."""
        return (await self._request({"number": 0, "op": "book"}))["book"]

    async def ask_state(self) -> NodeState:
        """Ask the node for its own record, its book and what it counts, all as of one moment."""
        reply = await self._request({"number": 0, "op": "state"})
        return NodeState(reply["me"], reply["addresses"], reply["book"], reply["metrics"])

    async def update_metadata(self, **changes: str | None) -> float:
        """Have the node change its metadata; return when it had announced that."""
        return (await self._request({"number": 0, "op": "update", "metadata": changes}))["at"]

    async def leave(self) -> float:
        """Have the node leave its topic; return when that was done."""
        return (await self._request({"number": 0, "op": "leave"}))["at"]

    async def stop(self) -> int:
        """End the node in order, by force if that takes too long; return its exit code."""
        process = self._running()
        if process.stdin is not None:
            process.stdin.close()
        try:
            async with asyncio.timeout(_STOP_TIMEOUT):
                code = await process.wait()
        except TimeoutError:
            self.kill()
            code = await process.wait()
        if self._reading is not None:
            await self._reading
        return code

    def kill(self) -> None:
        """End the process at once: no goodbye."""
        process = self._running()
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                # `process.kill()` would reap a child that has just ended. asyncio waits for it in a
                # thread, and would then warn of an unknown child.
                os.kill(process.pid, signal.SIGKILL)

    def _running(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise NodeFailedError(f"{self.name}: not started")
        return self._process

    def _write(self, message: NodeSpec | Request) -> None:
        stdin = self._running().stdin
        if stdin is not None and not stdin.is_closing():
            stdin.write(json.dumps(message).encode() + b"\n")

    async def _request(self, request: Request) -> Message:
        if not self.alive:
            raise NodeFailedError(self._failure or f"{self.name}: not running")
        self._numbers += 1
        request["number"] = self._numbers
        reply: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._replies[self._numbers] = reply
        try:
            self._write(request)
            return await reply
        finally:
            del self._replies[request["number"]]

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._read_stderr(process))
            if process.stdout is not None:
                while line := await process.stdout.readline():
                    self._handle(json.loads(line))
        code = await process.wait()
        last = self._failure or "\n".join(self._stderr) or f"exit code {code}"
        self._failure = f"{self.name}: {last}"
        for reply in self._replies.values():
            self._fail(reply)
        if self._ready is not None:
            self._fail(self._ready)

    def _fail(self, future: asyncio.Future[T]) -> None:
        if not future.done():
            future.set_exception(NodeFailedError(self._failure))
            future.exception()  # marks it as seen, because its waiter may be gone

    async def _read_stderr(self, process: asyncio.subprocess.Process) -> None:
        if process.stderr is not None:
            while line := await process.stderr.readline():
                self._stderr.append(line.decode(errors="replace").rstrip())

    def _handle(self, message: Message) -> None:
        self.heard_at = message["at"]
        self._note(message)
        match message["kind"]:
            case "ready":
                self.id, self.ticket = message["id"], message["ticket"]
                self.boot_id, self.ready_at = message["me"]["boot_id"], message["at"]
                if self._ready is not None and not self._ready.done():
                    self._ready.set_result(None)
            case "reply":
                reply = self._replies.get(message["number"])
                if reply is not None and not reply.done():
                    reply.set_result(message)
            case "error":
                self._failure = message["text"]
            case "event":
                pass
        if self._listener is not None:
            self._listener(self, message)

    def _note(self, message: Message) -> None:
        if "book" in message:
            self.book = {peer["id"]: peer for peer in message["book"]}
        elif "peer" in message:
            peer = message["peer"]
            if message.get("event") in {"PeerLeft", "PeerLost"}:
                self.book.pop(peer["id"], None)
            else:
                self.book[peer["id"]] = peer


class NodeGroup:
    """Node processes that all end when the block ends, in whatever way."""

    def __init__(self, listener: Listener | None = None) -> None:
        self.nodes: list[NodeProcess] = []
        self._listener = listener

    async def start(self, spec: NodeSpec) -> NodeProcess:
        """Start a node of the group.

        Raises:
            NodeFailedError: It ended before it was ready.
        """
        node = NodeProcess(spec, self._listener)
        self.nodes.append(node)
        await node.start()
        return node

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        alive = [node for node in self.nodes if node.alive]
        try:
            await asyncio.gather(*(node.stop() for node in alive))
        finally:
            for node in alive:
                if node.alive:
                    node.kill()
