"""Key files: 64 hex digits, readable by their owner only, like a state directory's `secret.key`."""

import os
import secrets
import stat
import sys
from pathlib import Path

_LENGTH = 32
_MOST = 1024  # bytes that are read of a file that ought to have 65


class KeyFileError(Exception):
    """A key file can't be used; the text names it and says why."""


def create(path: Path) -> bytes:
    """Make a key and a file that holds it, which only its owner may read; never overwrite one.

    Raises:
        KeyFileError: The file exists, or can't be written.
    """
    key = secrets.token_bytes(_LENGTH)
    write(path, key.hex())
    return key


def write(path: Path, text: str) -> None:
    """Make a file with one line, which only its owner may read; never overwrite one.

    Raises:
        KeyFileError: The file exists, or can't be written.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise KeyFileError(f"{path} exists, and a key is never overwritten") from None
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror}") from None
    with os.fdopen(descriptor, "w") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())


def read(path: Path) -> bytes:
    """Read a key from its file, or from stdin if the path is `-`.

    Raises:
        KeyFileError: There is none, or it can't be read, or it holds no key.
    """
    digits = read_bytes(path, _MOST).strip()
    try:
        key = bytes.fromhex(digits.decode("ascii"))
    except ValueError:
        key = b""
    if len(key) != _LENGTH or len(digits) != 2 * _LENGTH:
        raise KeyFileError(f"{path} holds no secret key, which is 64 hex digits")
    return key


def read_bytes(path: Path, most: int) -> bytes:
    """Read up to `most` bytes of a file, or of stdin if the path is `-`; warn if others may, too.

    Raises:
        KeyFileError: It can't be read.
    """
    try:
        if str(path) == "-":
            return sys.stdin.buffer.read(most)
        with path.open("rb") as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                sys.stderr.write(f"warning: others may read {path}: chmod 600 it\n")
            return file.read(most)
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror}") from None
