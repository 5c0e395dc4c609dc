"""Send a file to a peer that is found by its name.

`file_drop.py receive NAME FOLDER [TICKET …]` takes files into a folder and prints its ticket;
`file_drop.py send FILE NAME [TICKET …]` sends one to the peer of that name. A file arrives whole
and verified (SHA-256), or not at all; a file that exists already is not changed.

Authorization: every member may send, under any name; a whole id in place of NAME can't be faked. To
choose who may send, check `reader.peer`; or make the swarm private: put one key of
`iroh-gossip-discovery keygen --swarm` into IROH_GOSSIP_DISCOVERY_SECRET.
"""

import asyncio
import contextlib
import hashlib
import json
import os
import sys
import tempfile
from functools import partial
from pathlib import Path, PureWindowsPath

from iroh_gossip_discovery import DiscoveryError, GossipDiscovery, Peer, StreamReader, StreamWriter

PROTOCOL = "file-drop/1"  # a line of JSON, the bytes, their SHA-256; then the answer
PIECE = 256 * 1024
MOST_BYTES = 100 * 2**30  # of a file: a sender could fill the disk
PATIENCE = 60  # seconds for a piece: a sender that is silent could hold a file open forever
SECRET = os.environ.get("IROH_GOSSIP_DISCOVERY_SECRET")


async def take(folder: Path, reader: StreamReader, writer: StreamWriter) -> None:
    """Take one file, or tell the sender why not."""
    try:
        path = await store(folder, reader)
    except (DiscoveryError, asyncio.IncompleteReadError, TimeoutError):
        code, reason = 1, "it did not come whole"
    except (ValueError, OSError) as error:
        code, reason = 2, str(error.args[-1])
    else:
        writer.write(b"taken")
        print(f"{path.name} from {reader.peer[:10]}, {path.stat().st_size} bytes", flush=True)
        return
    writer.reset(code, reason)
    print(f"nothing from {reader.peer[:10]}: {reason}", flush=True)


async def store(folder: Path, reader: StreamReader) -> Path:
    """Read a file under another name, and give it its own once all of it is right."""
    match await header(reader):
        case {"name": str(name), "size": int(left)} if is_plain(name) and 0 <= left <= MOST_BYTES:
            path = folder / name
        case _:
            raise ValueError("not a plain file name and a size")
    if path.exists():
        raise ValueError("a file of this name is there already")
    digest = hashlib.sha256()
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".", suffix=".part") as part:
        while left:
            async with asyncio.timeout(PATIENCE):
                data = await reader.readexactly(min(left, PIECE))
            digest.update(data)
            part.write(data)
            left -= len(data)
        async with asyncio.timeout(PATIENCE):
            said = await reader.readexactly(digest.digest_size)
        if said != digest.digest():
            raise ValueError("its digest is not what the sender says")
        part.flush()
        os.link(part.name, path)  # fails if there is one by now
    return path


async def header(reader: StreamReader) -> object:
    """Read the line of JSON, which may be anything."""
    async with asyncio.timeout(PATIENCE):
        line = await reader.readline()
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def is_plain(name: str) -> bool:
    """Return whether a name stays in its folder, on any system, and hides nothing."""
    parts = (Path(name).name, PureWindowsPath(name).name)
    return parts == (name, name) and name.isprintable() and name[:1] not in {"", "."}


async def receive(name: str, folder: Path, *tickets: str) -> None:
    async with GossipDiscovery(name, "file-drop", bootstrap=tickets, secret=SECRET) as discovery:
        discovery.serve(PROTOCOL, partial(take, folder))
        print(f"to send: file_drop.py send FILE {name} {discovery.ticket}", flush=True)
        with discovery.stop_on_signals():
            await asyncio.Event().wait()


async def find(discovery: GossipDiscovery, whom: str) -> Peer:
    """Wait for the peer that has a name, an id, or its first ten digits."""

    def fits(peer: Peer) -> bool:
        return whom in (peer.name, peer.id, peer.fingerprint)

    found = await discovery.book.serving(PROTOCOL).where(fits).wait(1, timeout=30)
    if len(found) > 1:
        ids = ", ".join(peer.fingerprint for peer in found.values())
        raise ValueError(f"several are called {whom}, say which: {ids}")
    return next(iter(found.values()))


async def send(path: Path, whom: str, *tickets: str) -> None:
    with path.open("rb") as file:
        size, digest = os.fstat(file.fileno()).st_size, hashlib.sha256()
        discovery = GossipDiscovery("sender", "file-drop", bootstrap=tickets, secret=SECRET)
        async with discovery:
            peer = await find(discovery, whom)
            reader, writer = await discovery.open_stream(peer, PROTOCOL, timeout=10)
            writer.write(json.dumps({"name": path.name, "size": size}).encode() + b"\n")
            while data := file.read(min(PIECE, size - file.tell())):
                digest.update(data)
                writer.write(data)
                await writer.drain()
                print(f"\r{path.name}: {file.tell() / size:4.0%}", end="", flush=True)
            writer.write(digest.digest())
            writer.write_eof()
            async with asyncio.timeout(PATIENCE):
                answer = await reader.readline()  # has a limit, as a whole answer has none
            if answer != b"taken":
                raise ConnectionError("there was no answer")
            print(f"\n{peer.name} {peer.fingerprint} has it")


if __name__ == "__main__":
    try:
        with contextlib.suppress(KeyboardInterrupt):
            match sys.argv[1:]:
                case ["receive", name, folder, *tickets] if Path(folder).is_dir():
                    asyncio.run(receive(name, Path(folder), *tickets))
                case ["send", file, whom, *tickets]:
                    asyncio.run(send(Path(file), whom, *tickets))
                case _:
                    sys.exit(__doc__)
    except (DiscoveryError, OSError, ValueError) as error:
        sys.exit(f"error: {str(error) or 'no answer came in time'}")
