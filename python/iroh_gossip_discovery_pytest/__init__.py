"""The pytest plugin of iroh-gossip-discovery: the fixture `local_swarm`.

pytest loads it at every start, in every project that has the package installed. So it is outside
of the package, and imports the package only if the fixture is used.
"""

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from iroh_gossip_discovery.testing import LocalSwarm


@pytest.fixture
def local_swarm() -> "Iterator[LocalSwarm]":
    """Give a test a `LocalSwarm`, and kill the nodes that the test leaves behind.

    It asks for no plugin for asyncio and works with each: the test starts nodes in its own loop.
    """
    from iroh_gossip_discovery.testing import LocalSwarm  # noqa: PLC0415  # only where it is used

    swarm = LocalSwarm()
    yield swarm
    swarm.abandon()
