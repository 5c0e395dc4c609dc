"""The secrets of a private swarm: from a file or from the environment, never from arguments."""

import os
from pathlib import Path

from iroh_gossip_discovery._cli._keys import KeyFileError, read_bytes

VARIABLE = "IROH_GOSSIP_DISCOVERY_SECRET"
# Bytes: more than four secrets of the greatest length.
_MOST = 8192


def find(path: Path | None) -> list[str] | None:
    """Read the secrets of a file, or else of the environment; `None` if neither is given.

    Raises:
        KeyFileError: The file can't be read, or holds no secret, or is not UTF-8; or the variable
            is set, and empty.
    """
    if path is not None:
        try:
            return _lines(read_bytes(path, _MOST).decode(), str(path))
        except UnicodeDecodeError:
            raise KeyFileError(f"{path} is not UTF-8") from None
    text = os.environ.get(VARIABLE)
    return None if text is None else _lines(text, f"${VARIABLE}")


def _lines(text: str, source: str) -> list[str]:
    lines = [line.strip() for line in text.splitlines()]
    secrets = [line for line in lines if line]
    if not secrets:
        raise KeyFileError(f"{source} holds no secret")
    return secrets
