"""Measures whether the machine gives this process the time that it needs."""

import asyncio
import time

BUSY = 0.5
"""Seconds late from which on a verdict says so: a probe waits no longer for its answer."""
_NAP = 0.05


class Lateness:
    """How late this process was at worst when it wanted to run; its own work does not count."""

    def __init__(self) -> None:
        self.worst = 0.0

    async def watch(self) -> None:
        """Measure until cancelled."""
        while True:
            began, used = time.monotonic(), time.process_time()
            await asyncio.sleep(_NAP)
            slept = time.monotonic() - began - (time.process_time() - used)
            self.worst = max(self.worst, slept - _NAP)

    def says(self) -> str:
        """Complete the verdict of a test that failed, if the machine may have made it fail."""
        if self.worst < BUSY:
            return ""
        return (
            f"; but this machine was too busy to be sure: the test itself waited up to "
            f"{self.worst:.1f} s for a processor"
        )
