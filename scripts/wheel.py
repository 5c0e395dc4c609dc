#!/usr/bin/env python3
"""What a published wheel needs beside maturin's work: licence texts before it, checks after it.

`wheel.py licences` writes the files that `license-files` in pyproject.toml takes into the wheel.
`wheel.py finish WHEEL...` takes the builder's paths out of the bill of materials, and refuses a
wheel that still holds such a path, or lacks a licence text.
"""

import argparse
import base64
import collections
import hashlib
import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
CRATE = "iroh-gossip-discovery-python"
THIRD_PARTY = "LICENSE-THIRD-PARTY"
STANDARD_LIBRARY = "LICENSE-RUST-STANDARD-LIBRARY.html"
# What a crate's licences are called in its source.
LICENCE = re.compile(r"(?i)(?:un)?licen[cs]e|copying|copyright|notice")
# For a crate that brings no text: the texts here, which differ by the line of the copyright only.
STANDARD = {"Apache-2.0": "LICENSE-APACHE", "MIT": "LICENSE-MIT"}
# What only a path of the builder's machine has in it, beside the place of this repository.
BUILDERS = rb"/registry/src/|/\.cargo/|/target/[a-z]+/(?:build|deps)/"
PATHS_SHOWN = 3


class Crate(NamedTuple):
    """A crate that is linked into the extension, from its manifest."""

    name: str
    version: str
    licence: str
    authors: str
    source: Path


def linked() -> list[Crate]:
    """Return the crates of others that are linked into the extension on this machine."""
    tree = ["cargo", "tree", "--locked", "--package", CRATE, "--edges", "normal,no-proc-macro"]
    listed = output(*tree, "--prefix", "none", "--no-dedupe", "--format", "{p}").splitlines()
    wanted = {tuple(line.split()[:2]) for line in listed}
    metadata = json.loads(output("cargo", "metadata", "--locked", "--format-version=1"))
    return sorted(
        Crate(
            package["name"],
            package["version"],
            package["license"] or "",
            ", ".join(package["authors"]),
            Path(package["manifest_path"]).parent,
        )
        for package in metadata["packages"]
        # Without a source it is a crate of this repository.
        if package["source"] and (package["name"], f"v{package['version']}") in wanted
    )


def output(*command: str) -> str:
    """Return what a command of cargo or rustc prints."""
    return subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout


def texts(crate: Crate) -> Iterator[str]:
    """Give the licence texts of a crate: its files, or the standard text with its authors."""
    # Some bring code of others, with its licence beside it.
    files = [
        path
        for path in sorted(crate.source.rglob("*"))
        if path.is_file() and is_licence(path.relative_to(crate.source))
    ]
    if files:
        yield from (path.read_text(encoding="utf-8", errors="replace") for path in files)
        return
    standard = next((name for name in STANDARD if name in crate.licence), None)
    if standard is None:
        sys.exit(
            f"error: {crate.name} {crate.version} has no licence file, and STANDARD in"
            f" {Path(__file__).name} has no text of {crate.licence or 'an unnamed licence'}"
        )
    text = (ROOT / STANDARD[standard]).read_text(encoding="utf-8")
    holder = crate.authors or f"the authors of {crate.name}"
    yield re.sub(r"(?m)^Copyright \(c\) .*$", f"Copyright (c) {holder}", text, count=1)


def is_licence(path: Path) -> bool:
    """Return true if a file in the source of a crate is a licence text, by its name or folder."""
    hidden = any(part.startswith(".") for part in path.parts)
    named = any(LICENCE.match(part) for part in path.parts)
    return named and not hidden and path.suffix != ".rs"


def third_party(crates: list[Crate]) -> str:
    """Return all licence texts, each once, with the crates that it is of."""
    owners: dict[str, list[str]] = collections.defaultdict(list)
    written: dict[str, str] = {}
    for crate in crates:
        for text in texts(crate):
            same = " ".join(text.split())
            written.setdefault(same, text.strip())
            owners[same].append(f"{crate.name} {crate.version} ({crate.licence})")
    parts = [f"The crates that are linked into iroh-gossip-discovery: {len(crates)}."]
    for same, names in owners.items():
        rule = "=" * 80
        parts.append("\n".join([rule, *dict.fromkeys(names), rule, "", written[same]]))
    return "\n\n".join(parts) + "\n"


def write_licences() -> None:
    """Write the texts for the wheel beside this project's own."""
    crates = linked()
    (ROOT / THIRD_PARTY).write_text(third_party(crates), encoding="utf-8")
    sysroot = Path(output("rustc", "--print", "sysroot").strip())
    notices = sysroot / "share" / "doc" / "rust" / "COPYRIGHT-library.html"
    if not notices.exists():
        sys.exit(f"error: {notices} is missing: this toolchain has no notices of Rust's library")
    (ROOT / STANDARD_LIBRARY).write_bytes(notices.read_bytes())
    print(f"{THIRD_PARTY}: {len(crates)} crates; {STANDARD_LIBRARY}: from {sysroot.name}")


def finish(wheel: Path) -> None:
    """Take the builder's paths out of a wheel; refuse it if one is left or a licence is missing."""
    with zipfile.ZipFile(wheel) as archive:
        members = {info: archive.read(info) for info in archive.infolist()}
    names = {Path(info.filename).name for info in members}
    problems = [
        f"{name} is missing: run `scripts/wheel.py licences` before the build"
        for name in (THIRD_PARTY, STANDARD_LIBRARY, *STANDARD.values())
        if name not in names
    ]
    for info, content in members.items():
        if "/sboms/" in info.filename:
            members[info] = without_paths(content)
        problems += (f"{info.filename} holds {path}" for path in builders_paths(members[info]))
    if problems:
        sys.exit("\n".join(f"error: {wheel.name}: {problem}" for problem in problems))
    record = next(info for info in members if info.filename.endswith(".dist-info/RECORD"))
    members[record] = recorded(members, record)
    part = wheel.with_suffix(".part")
    with zipfile.ZipFile(part, "w") as archive:
        for info, content in members.items():
            archive.writestr(info, content, zipfile.ZIP_DEFLATED)
    part.replace(wheel)
    print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB, without a path of this machine")


def without_paths(bill: bytes) -> bytes:
    """Name the crates of this repository by their path in it."""
    return re.sub(rb'file://[^"#?]*/(?=rust/)', b"file:", bill)


def builders_paths(content: bytes) -> list[str]:
    """Return paths of the machine that built it, a few."""
    found = set()
    for mark in re.finditer(rb"%s|%s" % (re.escape(f"{ROOT}/".encode()), BUILDERS), content):
        before = re.search(rb"[\w.+/-]*$", content[max(0, mark.start() - 200) : mark.end()])
        after = re.match(rb"[\w.+/-]*", content[mark.end() : mark.end() + 200])
        found.add(b"".join(part[0] for part in (before, after) if part).decode())
        if len(found) == PATHS_SHOWN:
            break
    return sorted(found)


def recorded(members: dict[zipfile.ZipInfo, bytes], record: zipfile.ZipInfo) -> bytes:
    """Return the RECORD of a wheel with these members."""
    lines = []
    for info, content in members.items():
        if info is not record:
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=")
            lines.append(f"{info.filename},sha256={digest.decode()},{len(content)}")
    return "\n".join([*lines, f"{record.filename},,", ""]).encode()


def main() -> None:
    """Write the licences, or finish wheels."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("licences", help="write the licence texts of what is linked in")
    finishing = commands.add_parser("finish", help="take out the builder's paths, and check")
    finishing.add_argument("wheels", nargs="+", type=Path, metavar="WHEEL")
    options = parser.parse_args()
    if options.command == "licences":
        write_licences()
    else:
        for wheel in options.wheels:
            finish(wheel)


if __name__ == "__main__":
    main()
