"""Count the instructions that pieces of the protocol's work take, and compare with what is kept.

    make bench-check, or: .venv/bin/python benchmarks/instructions.py PROGRAM [--keep]

PROGRAM is the example `instructions` of rust/sim. Callgrind, of valgrind, counts what it runs, so
other work on the machine changes nothing. Each case runs once for 0 times and once for its number
of times: the difference is the work alone. A case that takes over 5 % more than instructions.json
says is a failure, and so is one that takes over 5 % less: `--keep` keeps what was counted.

Another compiler, or a processor with other abilities, takes other instructions. Then the counts are
printed and nothing is compared.
"""

import argparse
import json
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

KEPT = Path(__file__).with_name("instructions.json")
LIMIT = 0.05
ABILITIES = {"avx", "avx2", "avx512f", "bmi2", "erms", "fsrm", "sha_ni", "sse4_1"}
"""What the C library and the cryptography look for in a processor, to choose their code."""


def count(program: str, case: str, times: int) -> int:
    """Return the instructions of one process."""
    command = [
        "valgrind",
        "--tool=callgrind",
        "--callgrind-out-file=/dev/null",
        program,
        case,
        str(times),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode or found is None:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
    return int(found[1])


def counts(program: str) -> dict[str, int]:
    """Return the instructions of each case, for one time."""
    listed = subprocess.run([program], capture_output=True, text=True, check=True).stdout
    result = {}
    for line in listed.splitlines():
        case, times = line.split()
        work = count(program, case, int(times)) - count(program, case, 0)
        result[case] = work // int(times)
    return result


def made_by() -> str:
    """Return what the instructions depend on, beside the code."""
    lines = []
    for program in ("rustc", "valgrind"):
        command = [shutil.which(program) or program, "--version"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        lines.append(done.stdout.strip())
    flags = re.search(r"^flags\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    able = sorted(ABILITIES.intersection(flags[1].split())) if flags else []
    return ", ".join([*lines, platform.machine(), *able])


def compare(kept: dict[str, int], now: dict[str, int]) -> list[str]:
    """Print a table; return the cases that are beyond the limit, or that only one of both has."""
    beyond = []
    print(f"{'case':<24}{'kept':>16}{'now':>16}{'change':>10}")
    for case in sorted(kept.keys() | now.keys()):
        before, after = kept.get(case), now.get(case)
        if before is None or after is None:
            beyond.append(case)
            print(f"{case:<24}{before or '-':>16}{after or '-':>16}{'':>10}")
            continue
        change = after / before - 1
        if abs(after - before) > LIMIT * before:
            beyond.append(case)
        print(f"{case:<24}{before:>16,}{after:>16,}{change:>+10.1%}")
    return beyond


def main(arguments: list[str] | None = None) -> int:
    """Count, print, and keep or compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("program")
    parser.add_argument(
        "--keep", action="store_true", help="keep what was counted in instructions.json"
    )
    options = parser.parse_args(arguments)
    if shutil.which("valgrind") is None:
        print(
            "error: valgrind is missing: install your distribution's package valgrind",
            file=sys.stderr,
        )
        return 1
    kept = json.loads(KEPT.read_text())
    now = counts(options.program)
    beyond = compare(kept["instructions"], now)
    if options.keep:
        KEPT.write_text(json.dumps({"made by": made_by(), "instructions": now}, indent=4) + "\n")
        return 0
    if kept["made by"] != made_by():
        print(f"not compared: kept with {kept['made by']}, counted with {made_by()}")
        return 0
    if beyond:
        print(f"error: changed by over {LIMIT:.0%}: {', '.join(beyond)}", file=sys.stderr)
        print("       `make bench-check ARGS=--keep` keeps the new counts", file=sys.stderr)
    return int(bool(beyond))


if __name__ == "__main__":
    sys.exit(main())
