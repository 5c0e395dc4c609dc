#!/usr/bin/env python3
"""Build the extension and install the package, editable, into the environment that runs this.

`maturin develop` would do it too, but it builds the bindings alone, with a selection of features
(and an environment for pyo3) of its own: half of the dependencies would be compiled a second time.
Here cargo sees the same selection as in `cargo test`, so both share every artifact.
"""

import argparse
import base64
import hashlib
import importlib.metadata
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "iroh-gossip-discovery"
CRATE = "iroh-gossip-discovery-python"
SOURCE = ROOT / "python"
MODULE = SOURCE / "iroh_gossip_discovery" / "_core.abi3.so"
# With the examples, cargo counts the dev-dependencies in, as `cargo test` does. The relay of the
# tests is not among the default members: it would change the features of what others share.
SELECTION = {
    "dev": ["--lib", "--examples"],
    "release": ["--release", "--package", CRATE, "--lib"],
}


def build(profile: str, cargo_arguments: list[str]) -> Path:
    """Build the extension and return the path of the shared library."""
    command = [
        "cargo",
        "build",
        *SELECTION[profile],
        *cargo_arguments,
        "--message-format=json-render-diagnostics",
    ]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        sys.exit(done.returncode)
    for line in done.stdout.splitlines():
        message = json.loads(line)
        if (
            message["reason"] != "compiler-artifact"
            or "cdylib" not in message["target"]["crate_types"]
        ):
            continue
        if Path(message["manifest_path"]).parent.name == "python":
            return next(
                Path(name) for name in message["filenames"] if name.endswith((".so", ".dylib"))
            )
    sys.exit("error: cargo built no shared library; see [lib] of rust/python/Cargo.toml")


def place(library: Path) -> None:
    """Put the library into the package at once: a process that has the old one loaded keeps it."""
    with tempfile.NamedTemporaryFile(dir=MODULE.parent, suffix=".so", delete=False) as new:
        shutil.copyfile(library, new.name)
    shutil.copymode(library, new.name)
    Path(new.name).replace(MODULE)


def installed() -> bool:
    """Whether this environment has the package from this tree, with its present metadata."""
    try:
        found = importlib.metadata.distribution(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        return False
    return found.read_text("develop") == metadata_key()


def metadata_key() -> str:
    """Stand for all that the installed metadata are made of."""
    parts = [
        str(ROOT).encode(),
        *((ROOT / name).read_bytes() for name in ("Cargo.toml", "pyproject.toml")),
    ]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def install() -> None:
    """Install a wheel that holds the metadata and a path to the sources."""
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        maturin = str(Path(sys.executable).with_name("maturin"))
        write = [maturin, "pep517", "write-dist-info", "--metadata-directory", directory]
        for_this = ["--interpreter", sys.executable]
        subprocess.run([*write, *for_this], cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
        info = next(work.glob("*.dist-info"))
        (info / "develop").write_text(metadata_key())
        (work / "iroh_gossip_discovery.pth").write_text(f"{SOURCE}\n")
        tag = next(
            line for line in (info / "WHEEL").read_text().splitlines() if line.startswith("Tag: ")
        )
        files = sorted(path for path in work.rglob("*") if path.is_file())
        record = [
            f"{path.relative_to(work)},sha256={digest(path)},{path.stat().st_size}"
            for path in files
        ]
        (info / "RECORD").write_text("\n".join([*record, f"{info.name}/RECORD,,"]) + "\n")
        wheel = work / f"{info.stem}-{tag.removeprefix('Tag: ')}.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            for path in [*files, info / "RECORD"]:
                archive.write(path, path.relative_to(work))
        pip = [sys.executable, "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, "--force-reinstall", "--no-deps", str(wheel)], check=True)
        # What it depends on, the command line too, if that is not there already.
        subprocess.run([*pip, f"{wheel}[cli]"], check=True)


def digest(path: Path) -> str:
    """Hash a file as the RECORD of a wheel wants it."""
    hashed = hashlib.sha256(path.read_bytes()).digest()
    return base64.urlsafe_b64encode(hashed).rstrip(b"=").decode()


def main() -> None:
    """Build, place, install."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--profile", choices=sorted(SELECTION), default="dev")
    options, cargo_arguments = parser.parse_known_args()
    place(build(options.profile, cargo_arguments))
    if not installed():
        install()


if __name__ == "__main__":
    main()
