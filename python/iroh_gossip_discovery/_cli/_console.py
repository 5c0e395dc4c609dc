"""A console whose reader may go away, as `head` does when it has seen enough."""

import os
import sys
from typing import TYPE_CHECKING, NoReturn

from rich.console import Console

if TYPE_CHECKING:
    import asyncio


class PipeConsole(Console):
    """Cancels the command's task once its output is no longer read, whichever task printed.

    Rich itself would exit from within whatever task printed, and leave the others with errors.
    """

    reader_gone = False
    task: "asyncio.Task[object] | None" = None

    def on_broken_pipe(self) -> None:
        """Discard all further output, and end the command."""
        self.reader_gone = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
        if self.task is not None:
            self.task.cancel()

    def end(self) -> NoReturn:
        """Turn the cancellation into what the entry of the command expects.

        Raises:
            BrokenPipeError: Always.
        """
        if self.task is not None:
            self.task.uncancel()
        raise BrokenPipeError
