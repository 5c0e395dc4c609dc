"""The path of a state directory, checked."""

from os import PathLike, fsdecode, fsencode
from typing import TYPE_CHECKING

from iroh_gossip_discovery._errors import ConfigurationError
from iroh_gossip_discovery._require import require

if TYPE_CHECKING:
    from pathlib import Path


def state_path(given: str | bytes | PathLike[str]) -> "Path":
    """Return the path of a state directory, with a `~` at its beginning replaced.

    Raises:
        TypeError: It is no path.
        ConfigurationError: It is empty, or no path of a file can be like this.
    """
    require("state_dir", given, str, bytes, PathLike)
    from pathlib import Path  # noqa: PLC0415  # few need it, and it takes 4 ms

    text = fsdecode(given)
    if not text:  # as from a variable that is not set; it would be the working directory
        raise ConfigurationError("state_dir", "must not be empty")
    try:
        path = Path(text).expanduser()
    except RuntimeError:
        reason = f"{text!r} begins with a home directory that is not known"
        raise ConfigurationError("state_dir", reason) from None
    if "\0" in str(path):
        raise ConfigurationError("state_dir", "has a zero byte in it")
    try:
        fsencode(path)
    except UnicodeEncodeError:
        reason = "has a lone surrogate in it, so it is no name of a file"
        raise ConfigurationError("state_dir", reason) from None
    return path
