"""A node that lives as long as a Starlette or FastAPI application does."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING

from iroh_gossip_discovery._discovery import GossipDiscovery
from iroh_gossip_discovery._require import require, require_callable
from iroh_gossip_discovery._signals import BeforeSignals

if TYPE_CHECKING:
    from starlette.applications import Starlette


def lifespan(
    make: Callable[[], GossipDiscovery],
) -> "Callable[[Starlette], AbstractAsyncContextManager[Mapping[str, GossipDiscovery]]]":
    """Start a node before the application takes its first request, and close it after its last.

    In a request it is `request.state.discovery`. Starting waits for no peer: a server that must
    not serve alone answers so until `len(request.state.discovery.book)` is enough. Each worker
    process of a server is a node of its own, so workers share neither a `state_dir` nor a key.

    Args:
        make: Makes the node; called once for each life of the application, as a node lives once.

    Returns:
        What `Starlette(lifespan=…)` and `FastAPI(lifespan=…)` take. A lifespan of your own enters
        it with `async with`, and adds what it yields to its own state.

    Raises:
        TypeError: `make` can't be called; at the start, what it made is no `GossipDiscovery`.
        DiscoveryError: At the start, as `GossipDiscovery.start`: the server then does not serve.

    Example:
        ```python
        app = Starlette(lifespan=lifespan(lambda: GossipDiscovery("web", topic="fleet")))
        ```
    """
    require_callable("make", make)

    @asynccontextmanager
    async def live(_: "Starlette") -> AsyncIterator[Mapping[str, GossipDiscovery]]:
        node = make()
        require("make()", node, GossipDiscovery)
        # Close at the signal itself. The server stops only after each response has ended, and a
        # response that iterates over `events()` would never end.
        closing: set[asyncio.Task[None]] = set()
        with BeforeSignals(lambda: closing.add(asyncio.create_task(node.close()))):
            async with node:
                yield {"discovery": node}

    return live
