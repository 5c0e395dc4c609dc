"""A network of node processes under test: who belongs to it, and whether every book says so."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from iroh_gossip_discovery._cli._node import Message, NodeSpec, PeerEntry
from iroh_gossip_discovery._cli._processes import (
    NodeFailedError,
    NodeGroup,
    NodeProcess,
    NodeState,
)
from iroh_gossip_discovery._cli._usage import Usage, usage_of

ANSWER = 30.0
"""Seconds after which a node that does not answer counts as frozen: on a busy machine a healthy one
takes more than five."""
SETTLE = 30.0
"""Most seconds that a book may be behind what a peer has announced, because records take time."""
_ASK_AGAIN = 0.1
_PROGRESS = 1.0
TOPIC = "test-network"

Condition: TypeAlias = Literal["running", "frozen", "ended"]


@dataclass(eq=False)
class Member:
    """A node that belongs to the network, and what was found out about it."""

    process: NodeProcess
    right_since: float | None = None
    condition: Condition = "running"
    state: NodeState | None = None
    usage: Usage | None = None
    missing: list[str] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The node's name."""
        return self.process.name

    @property
    def wrong(self) -> bool:
        """Whether its book was wrong, or could not be asked for, when it was last verified."""
        return bool(self.missing or self.extra or self.stale or self.condition != "running")

    def says(self) -> str:
        """Say what is wrong, in words."""
        if self.condition == "frozen":
            return f"{self.name} does not answer"
        if self.condition == "ended":
            return f"{self.name} has ended: {self.process.failure.removeprefix(self.name + ': ')}"
        parts = [
            f"{word} {listed(names)}"
            for word, names in (
                ("misses", self.missing),
                ("still holds", self.extra),
                ("has an old record of", self.stale),
            )
            if names
        ]
        return f"{self.name} {' and '.join(parts)}"


def listed(names: Sequence[str], most: int = 5) -> str:
    """Return names in a row, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


class Network:
    """The members, and their books as their events report them.

    Args:
        state: A directory in which the nodes keep their keys.
        tell: Called with each line about what happens.
    """

    def __init__(self, state: Path, tell: Callable[[str], None]) -> None:
        self.members: list[Member] = []
        self.tell = tell
        self.changes: list[str] | None = None
        """While no book should change, a list of the changes that were seen all the same."""
        self.group = NodeGroup(self._hear)
        self._state = state
        self._members: dict[NodeProcess, Member] = {}
        self._changed = asyncio.Event()

    # --- its members --------------------------------------------------------------------------

    def spec(self, name: str, bootstrap: Iterable[str], key: str = "") -> NodeSpec:
        """Return what to start a node with; nodes of one name and `key` have the same identity.

        Each keeps to the loopback interface, with the timers that applications have by default.
        """
        return {
            "name": name,
            "topic": TOPIC,
            "bootstrap": list(bootstrap),
            "state_dir": str(self._state / (name + key)),
            "preset": "lan",
            "config": {"bind": ["127.0.0.1:0"], "mdns": False},
        }

    async def enter(self, spec: NodeSpec) -> Member:
        """Start a node and count it in: every book has to hold it now.

        Raises:
            NodeFailedError: It ended before it was ready.
        """
        process = await self.group.start(spec)
        member = Member(process)
        self.members.append(member)
        self._members[process] = member
        self._judge_all(process.ready_at)
        return member

    def drop(self, member: Member) -> None:
        """Count a node out: from now on, no book may hold it."""
        self.members.remove(member)
        del self._members[member.process]
        self._judge_all(time.monotonic())

    # --- what their books hold, by the events of each change ----------------------------------

    def _hear(self, process: NodeProcess, message: Message) -> None:
        member = self._members.get(process)
        if member is None:
            return
        self._judge(member, message["at"])
        event = message.get("event")
        if self.changes is not None and event in {"PeerJoined", "PeerLeft", "PeerLost"}:
            self.changes.append(f"{member.name} told {event} of {message['peer']['name']}")
        self._changed.set()

    def _judge(self, member: Member, at: float) -> None:
        """Note whether a book holds each other member in its present life, and no other node."""
        told = {peer["id"]: peer["boot_id"] for peer in member.process.book.values()}
        expected = {other.process.id: other.process.boot_id for other in self.members}
        expected.pop(member.process.id, None)
        if told != expected:
            member.right_since = None
        elif member.right_since is None:
            member.right_since = at

    def _judge_all(self, at: float) -> None:
        for member in self.members:
            member.right_since = None
            self._judge(member, max(at, member.process.heard_at))
        self._changed.set()

    def right(self) -> int:
        """Return how many books are right, by their events."""
        return sum(member.right_since is not None for member in self.members)

    async def until_right(self, bound: float) -> bool:
        """Wait until all books are right by their events, at most `bound` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(bound):
                reporting = asyncio.create_task(self._report_progress())
                try:
                    while self.right() < len(self.members) and self._all_alive():
                        self._changed.clear()
                        await self._changed.wait()
                finally:
                    reporting.cancel()
        return self.right() == len(self.members)

    async def _report_progress(self) -> None:
        before = -1
        while True:
            await asyncio.sleep(_PROGRESS)
            self._changed.set()  # a process that ended tells nothing
            if (now := self.right()) != before:
                self.tell(f"{now} of {len(self.members)} books are right")
            before = now

    def _all_alive(self) -> bool:
        return all(member.process.alive for member in self.members)

    # --- what they hold, when asked -----------------------------------------------------------

    async def verify(self, bound: float = SETTLE) -> bool:
        """Ask every node for its book, again until all are right or `bound` seconds are over.

        A book is right if it holds (id, name, sequence) of every other member, and no other node.
        Each sequence has to be the one that the member itself had announced when it was first
        asked, or higher.
        """
        deadline = time.monotonic() + bound
        await self.ask()
        announced = {member.process.id: self._own(member) for member in self.members}
        while not self._compare(announced):
            silent = any(member.condition != "running" for member in self.members)
            if silent or time.monotonic() > deadline:
                return False
            await asyncio.sleep(_ASK_AGAIN)
            await self.ask()
        return True

    async def ask(self, bound: float = ANSWER) -> None:
        """Ask every node for its state; note those that do not answer in `bound` seconds."""
        await asyncio.gather(*(self._ask(member, bound) for member in self.members))

    async def _ask(self, member: Member, bound: float) -> None:
        try:
            async with asyncio.timeout(bound):
                member.state = await member.process.ask_state()
        except TimeoutError:
            member.condition = "frozen"
        except NodeFailedError:
            member.condition = "ended"
        else:
            member.condition = "running"
        with contextlib.suppress(NodeFailedError):
            member.usage = usage_of(member.process.pid) or member.usage

    @staticmethod
    def _own(member: Member) -> PeerEntry:
        if member.state is not None and member.state.me["boot_id"] == member.process.boot_id:
            return member.state.me
        return {
            "id": member.process.id,
            "name": member.name,
            "sequence": 0,
            "boot_id": member.process.boot_id,
            "metadata": {},
        }

    def _compare(self, announced: Mapping[str, PeerEntry]) -> bool:
        for member in self.members:
            if member.condition != "running":  # what it told before is no answer
                member.missing, member.extra, member.stale = [], [], []
                continue
            book = {} if member.state is None else {peer["id"]: peer for peer in member.state.book}
            others = {id_: own for id_, own in announced.items() if id_ != member.process.id}
            member.missing = [own["name"] for id_, own in others.items() if id_ not in book]
            member.extra = [peer["name"] for id_, peer in book.items() if id_ not in others]
            member.stale = [
                own["name"]
                for id_, own in others.items()
                if id_ in book
                and (book[id_]["sequence"] < own["sequence"] or book[id_]["name"] != own["name"])
            ]
        return not any(member.wrong for member in self.members)
