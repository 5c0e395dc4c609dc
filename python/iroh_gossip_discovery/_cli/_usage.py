"""The processor time and memory of a process, from /proc."""

import os
from pathlib import Path
from typing import NamedTuple

# The fields of /proc/PID/stat that count from the one after the command, which may hold anything.
_USER, _SYSTEM, _RESIDENT = 11, 12, 21


class Usage(NamedTuple):
    """What a process has used so far."""

    cpu_s: float
    memory_bytes: int


def usage_of(pid: int) -> Usage | None:
    """Return what a process has used; `None` if it is gone, or the system has no /proc."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text[text.rindex(")") + 2 :].split()
    ticks = int(fields[_USER]) + int(fields[_SYSTEM])
    return Usage(
        cpu_s=ticks / os.sysconf("SC_CLK_TCK"),
        memory_bytes=int(fields[_RESIDENT]) * os.sysconf("SC_PAGE_SIZE"),
    )
