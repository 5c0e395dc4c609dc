"""How long `import iroh_gossip_discovery` takes, in a new interpreter each time.

    make bench, or: .venv/bin/python benchmarks/imports.py --runs 40

Bytecode and the extension are in the page cache: one import that is not counted comes first.
"""

import argparse
import os
import statistics
import subprocess
import sys

# What its arguments name is imported before the clock starts: most applications have asyncio.
CHILD = """
import os, sys, time
for name in sys.argv[1:]:
    __import__(name)
before = time.perf_counter()
from iroh_gossip_discovery import Config, GossipDiscovery
print(time.perf_counter() - before)
if not os.path.exists(sys.modules["iroh_gossip_discovery"].__cached__):
    sys.exit("no bytecode could be written, so this would measure the compiler")
"""


def seconds(after: list[str]) -> float:
    """Import the package once, after other modules; give the seconds that it took."""
    command = [sys.executable, "-c", CHILD, *after]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    pipe = subprocess.PIPE
    return float(subprocess.run(command, env=env, stdout=pipe, check=True, text=True).stdout)


def main() -> None:
    """Print a table: median, best and worst of the runs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=40)
    options = parser.parse_args()
    print("| import iroh_gossip_discovery | median ms | best ms | worst ms |\n|---|---|---|---|")
    for after in ([], ["asyncio"]):
        seconds(after)
        took = [seconds(after) * 1000 for _ in range(options.runs)]
        figures = " | ".join(f"{f(took):.1f}" for f in (statistics.median, min, max))
        print(f"| {'after asyncio' if after else 'first of all'} | {figures} |")


if __name__ == "__main__":
    main()
