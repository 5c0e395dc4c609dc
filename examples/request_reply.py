"""A service and its client, each in a process of its own.

`request_reply.py serve NAME [TICKET …]` turns text into capitals and prints its ticket;
`request_reply.py ask TEXT TICKET …` finds a node that does so, and asks it.

Authorization: every member may ask, and claim to answer. To choose who may, check `request.peer` in
the service and `peer.id` in the client. Or make the swarm private: put one key of
`iroh-gossip-discovery keygen --swarm` into IROH_GOSSIP_DISCOVERY_SECRET.
"""

import asyncio
import contextlib
import os
import sys

from iroh_gossip_discovery import (
    DiscoveryError,
    GossipDiscovery,
    NotAnsweredError,
    PeerUnreachableError,
    Request,
    RequestFailedError,
    RequestTimeoutError,
)

MOST_BYTES = 10_000
SECRET = os.environ.get("IROH_GOSSIP_DISCOVERY_SECRET")


async def shout(request: Request) -> bytes:
    """Reply with capitals; what is raised here, the asking node gets as `RequestFailedError`."""
    if len(request.data) > MOST_BYTES:
        raise ValueError(f"the text is {len(request.data):,} bytes, the limit is {MOST_BYTES:,}")
    text = request.data.decode()
    print(f"{request.peer[:10]} asks for {text[:40]!r}", flush=True)  # quoted: it may hold anything
    return text.upper().encode()


async def serve(name: str, *bootstrap: str) -> None:
    discovery = GossipDiscovery(name, "requests", bootstrap=bootstrap, secret=SECRET)
    discovery.answer("shout", shout)
    async with discovery:
        await discovery.update_metadata(shouts="yes")  # how clients find it
        print(f"to ask: request_reply.py ask TEXT {discovery.ticket}", flush=True)
        with discovery.stop_on_signals():
            await asyncio.Event().wait()


async def ask(text: str, *bootstrap: str) -> str:
    """Ask the nodes that answer, one after the other, until there is a reply."""
    problems = ["nobody answers"]
    async with GossipDiscovery("client", "requests", bootstrap=bootstrap, secret=SECRET) as client:
        for peer in (await client.book.where(shouts="yes").wait(1, timeout=30)).values():
            try:
                return (await client.request(peer, "shout", text.encode(), timeout=5)).decode()
            except (NotAnsweredError, PeerUnreachableError, RequestTimeoutError) as error:
                problems.append(str(error))  # perhaps another one has an answer
            except (RequestFailedError, UnicodeDecodeError) as error:
                problems.append(f"{peer.name} failed: {error}")
    raise ValueError("; ".join(problems))


if __name__ == "__main__":
    try:
        with contextlib.suppress(KeyboardInterrupt):
            match sys.argv[1:]:
                case ["serve", name, *tickets]:
                    asyncio.run(serve(name, *tickets))
                case ["ask", text, *tickets]:
                    print(repr(asyncio.run(ask(text, *tickets))))
                case _:
                    sys.exit(__doc__)
    except (DiscoveryError, ValueError) as error:
        sys.exit(f"error: {error}")
