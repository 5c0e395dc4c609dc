"""The faults that `test-network` can make, each with the time until every book is right again."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

from iroh_gossip_discovery._cli._network import Member, Network
from iroh_gossip_discovery._cli._node import NodeSpec

_LATE = 2.0
"""How long the bootstrap peer of `late-bootstrap` is awaited in vain, in seconds."""


class Fault(NamedTuple):
    """A fault that was made: its node, and since when the books could be right again."""

    node: str
    what: str
    began: float


def _last(network: Network) -> Member:
    """Choose the youngest node: never the first, which is the others' bootstrap peer."""
    return network.members[-1]


def _again(member: Member) -> NodeSpec:
    spec: NodeSpec = member.process.spec.copy()
    return spec


async def kill(network: Network) -> Fault:
    """Kill a node: the others find that it does not answer, and it is lost."""
    member = _last(network)
    began = time.monotonic()
    member.process.kill()
    network.drop(member)
    await member.process.stop()
    return Fault(member.name, f"{member.name} was killed", began)


async def restart(network: Network) -> Fault:
    """Kill a node and start it again at once, with the key that it had."""
    member = _last(network)
    member.process.kill()
    network.drop(member)
    await member.process.stop()
    back = await network.enter(_again(member))
    what = f"{back.name} was killed and started again with its key"
    return Fault(back.name, what, back.process.ready_at)


async def rekey(network: Network) -> Fault:
    """Kill a node and start its namesake with a new key: the old id is lost."""
    member = _last(network)
    began = time.monotonic()
    member.process.kill()
    network.drop(member)
    await member.process.stop()
    bootstrap = member.process.spec.get("bootstrap", [])
    back = await network.enter(network.spec(member.name, bootstrap, key="-rekeyed"))
    return Fault(back.name, f"{back.name} was killed and started again with a new key", began)


async def leave(network: Network) -> Fault:
    """Have a node leave in order."""
    member = _last(network)
    began = time.monotonic()
    network.drop(member)
    await member.process.leave()
    await member.process.stop()
    return Fault(member.name, f"{member.name} left", began)


async def late_bootstrap(network: Network) -> Fault:
    """Start a node whose only bootstrap peer does not run yet, and then that peer."""
    first = network.members[0].process
    spec = network.spec("late-seed", [])
    trial = await network.group.start(spec)  # gives its key and a port that is free
    (address, *_) = (await trial.ask_state()).addresses
    await trial.stop()
    joiner = await network.enter(network.spec("early-joiner", [trial.ticket]))
    await asyncio.sleep(_LATE)  # it dials in vain, and has to go on
    spec["bootstrap"] = [first.ticket]
    spec["config"] = {**spec.get("config", {}), "bind": [address]}
    seed = await network.enter(spec)
    what = f"{seed.name}, {joiner.name}'s only bootstrap peer, came {_LATE:g} s after it"
    return Fault(joiner.name, what, seed.process.ready_at)


FAULTS: Mapping[str, Callable[[Network], Awaitable[Fault]]] = {
    "kill": kill,
    "restart": restart,
    "rekey": rekey,
    "leave": leave,
    "late-bootstrap": late_bootstrap,
}

REMOVES = frozenset({"kill", "leave"})
"""The faults after which there is one node less."""
