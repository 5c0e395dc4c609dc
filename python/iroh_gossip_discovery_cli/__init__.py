"""The entry of the command, as a package of its own: it handles a signal during the imports.

Importing `iroh_gossip_discovery` takes tens of milliseconds. Python's own handler would answer a
Ctrl-C meanwhile with a traceback; the system's default ends the process without one.
"""

# Not `signal`: that one imports `enum`, which takes a while.
import _signal  # type: ignore[import-not-found]  # it has no stub
import os
import sys

_INTERRUPTED = 130
_BROKEN_PIPE = 141  # as a process that SIGPIPE ends, in a shell
_LACKING = 1
_FAILED = 1

_signal.signal(_signal.SIGINT, _signal.SIG_DFL)


def main() -> None:
    """Run the command line."""
    _open_closed()
    for stream in (sys.stdout, sys.stderr):
        # What a terminal without UTF-8 can't show is an escape, and no error.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # a text file
    try:
        _run()
    except KeyboardInterrupt:  # before a command could see to it
        raise SystemExit(_INTERRUPTED) from None
    except BrokenPipeError:  # the reader of the output has seen enough
        _discard_stdout()
        raise SystemExit(_BROKEN_PIPE) from None
    except OSError as error:  # what a command does not see to: its output can't be written
        _discard_stdout()
        sys.stderr.write(f"error: {error.strerror or error}\n")
        raise SystemExit(_FAILED) from None


def _run() -> None:
    try:
        from iroh_gossip_discovery._cli._app import app  # noqa: PLC0415  # it takes a while
    except ModuleNotFoundError as error:
        if error.name not in {"typer", "rich"}:
            raise
        sys.stderr.write(
            f"error: the command needs {error.name}, which the library does without: "
            "pip install 'iroh-gossip-discovery[cli]'\n"
        )
        raise SystemExit(_LACKING) from None
    _signal.signal(_signal.SIGINT, _signal.default_int_handler)
    app()


def _open_closed() -> None:
    """Give a process that was started without stdin, stdout or stderr (`>&-`) an empty one."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


def _discard_stdout() -> None:
    """Discard what is written at exit, because the reader of the pipe is gone."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
