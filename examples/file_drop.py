"""Send a file to a peer that is found by its name.

`file_drop.py receive NAME FOLDER [TICKET …]` takes files into a folder and prints its ticket;
`file_drop.py send FILE NAME [TICKET …]` sends one to the peer of that name. A file is there whole
and verified (SHA-256), or not at all; one that is there already stays as it is.
"""

import asyncio
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


async def take(folder: Path, reader: StreamReader, writer: StreamWriter) -> None:
    """Take one file, or tell the sender why not."""
    try:
        path = await store(folder, reader)
    except (DiscoveryError, asyncio.IncompleteReadError):
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
    match json.loads(await reader.readline()):
        case {"name": str(name), "size": int(left)} if is_plain(name) and left >= 0:
            path = folder / name
        case _:
            raise ValueError("not a plain file name and a size")
    if path.exists():
        raise ValueError("a file of this name is there already")
    digest = hashlib.sha256()
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".", suffix=".part") as part:
        while left:
            data = await reader.readexactly(min(left, PIECE))
            digest.update(data)
            part.write(data)
            left -= len(data)
        if await reader.readexactly(digest.digest_size) != digest.digest():
            raise ValueError("its digest is not what the sender says")
        part.flush()
        os.link(part.name, path)  # fails if there is one by now
    return path


def is_plain(name: str) -> bool:
    """Return whether a name stays in its folder, on any system, and hides nothing."""
    parts = (Path(name).name, PureWindowsPath(name).name)
    return parts == (name, name) and name.isprintable() and name[:1] not in {"", "."}


async def receive(name: str, folder: Path, *tickets: str) -> None:
    async with GossipDiscovery(name, "file-drop", bootstrap=tickets) as discovery:
        discovery.serve(PROTOCOL, partial(take, folder))
        print(f"to send: file_drop.py send FILE {name} {discovery.ticket}", flush=True)
        await asyncio.Event().wait()


async def find(discovery: GossipDiscovery, whom: str) -> Peer:
    """Wait for the peer that has a name, or these first ten digits of an id."""
    async with discovery.events() as events, asyncio.timeout(30):
        while True:
            peers = discovery.book.serving(PROTOCOL).values()
            found = [peer for peer in peers if whom in (peer.name, peer.fingerprint)]
            if len(found) > 1:
                ids = ", ".join(peer.fingerprint for peer in found)
                raise ValueError(f"several are called {whom}, say which: {ids}")
            if found:
                return found[0]
            await anext(events)


async def send(path: Path, whom: str, *tickets: str) -> None:
    with path.open("rb") as file:
        size, digest = os.fstat(file.fileno()).st_size, hashlib.sha256()
        async with GossipDiscovery("sender", "file-drop", bootstrap=tickets) as discovery:
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
            if await reader.read() != b"taken":
                raise ConnectionError("there was no answer")
            print(f"\n{peer.name} {peer.fingerprint} has it")


if __name__ == "__main__":
    try:
        match sys.argv[1:]:
            case ["receive", name, folder, *tickets] if Path(folder).is_dir():
                asyncio.run(receive(name, Path(folder), *tickets))
            case ["send", file, whom, *tickets]:
                asyncio.run(send(Path(file), whom, *tickets))
            case _:
                sys.exit(__doc__)
    except KeyboardInterrupt:
        pass
    except (DiscoveryError, OSError, ValueError) as error:
        sys.exit(f"error: {str(error) or 'nobody of that name is there'}")
