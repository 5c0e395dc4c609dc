"""In a local network, simulated in a namespace of its own, nodes need no ticket."""

import subprocess
import sys

import pytest

# The loopback interface serves as the local network, once multicast is routed to it.
NETWORK = 'ip link set lo up && ip route add 224.0.0.0/4 dev lo && exec "$@"'

FIND = """
import asyncio, sys
from iroh_gossip_discovery import Config, GossipDiscovery

async def main():
    async with (
        GossipDiscovery("alice", "fleet") as alice,
        GossipDiscovery("bob", "fleet") as bob,
        GossipDiscovery("carol", "fleet", config=Config.lan(expiration=60.0)) as carol,
        GossipDiscovery("mallory", "another topic") as mallory,
    ):
        books = await asyncio.gather(
            *(node.wait_for_peers(2, timeout=60) for node in (alice, bob, carol))
        )
        names = [sorted(peer.name for peer in book.values()) for book in books]
        assert names == [["bob", "carol"], ["alice", "carol"], ["alice", "bob"]], names
        assert len(mallory.book) == 0
        print("found")
asyncio.run(main())
"""

RESOLVE = """
import asyncio
from iroh_gossip_discovery import Config, GossipDiscovery

async def main():
    async with GossipDiscovery("alice", "fleet") as alice:
        async with GossipDiscovery(
            "bob", "fleet", bootstrap=[alice.id]
        ) as bob:
            assert (await bob.wait_for_peers(1, timeout=60)).keys() == {alice.id}
            print("found")
asyncio.run(main())
"""

ALONE = """
import asyncio
from iroh_gossip_discovery import Config, GossipDiscovery, PeersTimeoutError

async def main():
    async with (
        GossipDiscovery("alice", "fleet", config=Config.lan(mdns=False)) as alice,
        GossipDiscovery("bob", "fleet", config=Config.lan(mdns=False)),
        GossipDiscovery("carol", "fleet", config=Config.lan()),
        GossipDiscovery("dave", "fleet", config=Config.lan()) as dave,
    ):
        await dave.wait_for_peers(1, timeout=60)
        assert len(alice.book) == 0
        print("found")
asyncio.run(main())
"""


def run(script: str) -> None:
    command = ["unshare", "--net", "sh", "-c", NETWORK, "sh", sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stdout) == (0, "found\n"), done.stderr


@pytest.mark.needs("netns")
def test_nodes_of_one_topic_find_each_other_with_no_ticket() -> None:
    run(FIND)


@pytest.mark.needs("netns")
def test_a_bare_id_resolves() -> None:
    run(RESOLVE)


@pytest.mark.needs("netns")
def test_without_mdns_a_node_is_not_found() -> None:
    run(ALONE)
