"""The problems that keep a node from others."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that keeps this node from others, now.

    Args:
        source: What it is about: `"network"`, `"mdns"`, `"bootstrap seed.example:4433"`.
        what: What is wrong.
        since: When it began, in seconds as `time.time()` counts them.
        count: How often it was met since then, at least once.
    """

    source: str
    what: str
    since: float
    count: int
