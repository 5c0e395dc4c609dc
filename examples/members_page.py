"""A web page that shows the members: `members_page.py PORT [TICKET …]`.

Open the address that it prints in a browser; PORT 0 takes a free one. `/members` is a stream of
server-sent events, one for each change, with the members as docs/snapshot.schema.json says;
`/ready` is for a probe.

Authorization: everyone who reaches the port reads the page, so it listens on loopback only; put a
server in front that knows your users. Every node may join and be shown. With one key of
`iroh-gossip-discovery keygen --swarm` in IROH_GOSSIP_DISCOVERY_SECRET, only holders of it may.
"""

import json
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import suppress

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from iroh_gossip_discovery import DiscoveryError, GossipDiscovery
from iroh_gossip_discovery.contrib.starlette import lifespan

MOST_READERS = 100
# What nodes say about themselves may be anything: it becomes text of the page, and never markup.
PAGE = """<!doctype html><meta charset="utf-8"><title>Members</title><h1>Members</h1><ul></ul>
<script>
new EventSource("members").onmessage = event => document.querySelector("ul").replaceChildren(
  ...JSON.parse(event.data).peers.map(peer => {
    const item = document.createElement("li");
    item.textContent = `${peer.name} ${peer.id.slice(0, 10)} ${JSON.stringify(peer.metadata)}`;
    return item;
  }));
</script>
"""
readers: set[object] = set()


async def page(_: Request) -> Response:
    return HTMLResponse(PAGE)


async def ready(request: Request) -> Response:
    discovery: GossipDiscovery = request.state.discovery
    return PlainTextResponse(f"{len(discovery.members)} members\n")


async def members(request: Request) -> Response:
    """Stream the members, again after each change: half a second of changes at a time."""
    discovery: GossipDiscovery = request.state.discovery

    async def events() -> AsyncIterator[str]:
        reader = object()
        readers.add(reader)
        try:
            async with discovery.members.changes(window=0.5) as changes:
                async for change in changes:  # ends with the node, and so does the response
                    yield f"data: {json.dumps(change.snapshot.to_dict())}\n\n"
        finally:
            readers.discard(reader)

    if len(readers) >= MOST_READERS:
        return PlainTextResponse(f"{MOST_READERS} read already\n", status_code=503)
    return StreamingResponse(events(), media_type="text/event-stream")


def main(port: int, *bootstrap: str) -> None:
    secret = os.environ.get("IROH_GOSSIP_DISCOVERY_SECRET")
    node = GossipDiscovery("page", "fleet", bootstrap=bootstrap, secret=secret)
    with socket.create_server(("127.0.0.1", port)) as listening, suppress(KeyboardInterrupt):

        def make() -> GossipDiscovery:
            print(f"http://127.0.0.1:{listening.getsockname()[1]}/", flush=True)
            return node

        routes = [Route("/", page), Route("/ready", ready), Route("/members", members)]
        app = Starlette(routes=routes, lifespan=lifespan(make))
        uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listening])


if __name__ == "__main__":
    match sys.argv[1:]:
        case [port, *tickets] if port.isdecimal() and int(port) in range(2**16):
            try:
                main(int(port), *tickets)
            except (DiscoveryError, OSError) as error:
                sys.exit(f"error: {error}")
        case _:
            sys.exit(__doc__)
