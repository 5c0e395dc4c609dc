"""`python -m iroh_gossip_discovery`: a Ctrl-C while it imports the package prints no traceback.

That command imports the package before its `__main__`, so the entry of the command comes too late.
Before this module, only Python's own start can still print one.
"""

# Not `signal`: that one imports `enum`, which takes a while.
import _signal  # type: ignore[import-not-found]  # it has no stub
import sys

_COMMAND = ["-m", "iroh_gossip_discovery"]


def _is_the_command() -> bool:
    # Python calls it "-m" until it has found the module that it runs.
    given = sys.orig_argv
    pairs = [given[at : at + 2] for at in range(len(given))]
    return sys.argv[:1] == ["-m"] and _COMMAND in pairs


if _is_the_command():
    # The entry brings Python's own handler back.
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
