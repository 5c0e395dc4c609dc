"""The wheel: one for every Python from 3.11 on, which brings the command line along."""

import base64
import email
import faulthandler
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from contextlib import ExitStack
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
WHEEL_SCRIPT = ROOT / "scripts" / "wheel.py"
# Without an earlier build, everything that the tests' own build does not share is compiled first.
pytestmark = pytest.mark.timeout(900)
# No source tree may stand in for what is installed.
ENVIRONMENT = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(
        command,
        cwd=cwd,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel, in the profile of the tests: what they have compiled is used again."""
    faulthandler.cancel_dump_traceback_later()  # it takes longer than a test that has stopped
    directory = tmp_path_factory.mktemp("wheel")
    run(sys.executable, WHEEL_SCRIPT, "licences", cwd=ROOT)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    done = subprocess.run(
        [*pip, "--wheel-dir", str(directory), "."],
        cwd=ROOT,
        env=ENVIRONMENT | {"PATH": path, "MATURIN_PEP517_ARGS": "--profile dev"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    (built,) = directory.iterdir()
    return built


def test_there_is_one_wheel_for_all_versions_with_the_command_line(wheel: Path) -> None:
    assert re.fullmatch(r"iroh_gossip_discovery-[\d.]+-cp311-abi3-\w+\.whl", wheel.name)
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (info,) = {name.split("/")[0] for name in names if ".dist-info/" in name}
        entries = archive.read(f"{info}/entry_points.txt").decode()
        metadata = email.message_from_bytes(archive.read(f"{info}/METADATA"))
    assert "iroh-gossip-discovery=iroh_gossip_discovery_cli:main" in entries.replace(" ", "")
    assert "iroh-gossip-discovery=iroh_gossip_discovery_pytest" in entries.replace(" ", "").split()
    assert metadata["Requires-Python"] == ">=3.11"
    assert [name for name in names if name.endswith((".so", ".pyd", ".dylib"))] == [
        "iroh_gossip_discovery/_core.abi3.so"
    ]
    packages = {
        "iroh_gossip_discovery",
        "iroh_gossip_discovery_cli",
        "iroh_gossip_discovery_pytest",
    }
    assert {name.split("/")[0] for name in names} == packages | {info}
    assert {f"{package}/py.typed" for package in packages} <= set(names)


@pytest.mark.skipif(sys.platform != "linux", reason="other linkers keep the symbols elsewhere")
def test_the_extension_has_the_simulator_and_nothing_that_only_tests_use(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        library = archive.read("iroh_gossip_discovery/_core.abi3.so")
    symbol = rb"iroh_gossip_discovery_(proto|sim)(\d+)(\w+)"
    modules = {
        (crate.decode(), rest[: int(length)].decode())
        for crate, length, rest in re.findall(symbol, library)
    }
    assert {("proto", "topic"), ("proto", "book"), ("sim", "scenario")} <= modules
    assert not modules & {("proto", "forge"), ("proto", "samples"), ("sim", "puppet")}


def test_the_wheel_has_the_licence_texts_of_all_that_is_linked_in(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        licences = {
            Path(name).name: archive.read(name).decode()
            for name in archive.namelist()
            if ".dist-info/licenses/" in name
        }
        (info,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(archive.read(info))
    assert set(licences) == {
        "LICENSE-APACHE",
        "LICENSE-MIT",
        "LICENSE-RUST-STANDARD-LIBRARY.html",
        "LICENSE-THIRD-PARTY",
    }
    assert set(metadata.get_all("License-File", [])) == set(licences)
    texts = licences["LICENSE-THIRD-PARTY"]
    _, *parts = re.split(r"(?m)^={80}\n", texts)
    sections = list(zip(parts[::2], parts[1::2], strict=True))

    def of(crate: str) -> str:
        return "".join(text for owners, text in sections if f"\n{crate} " in f"\n{owners}")

    for crate in ("iroh", "iroh-gossip", "pyo3", "rustls", "tokio", "webpki-roots"):
        assert len(of(crate)) > 500, crate
    # Without a file of its own; with a folder of them; with code of others, in a folder.
    assert "Apache License" in of("iroh-base")
    assert "Apache License" in of("half")
    assert "fiat-crypto authors" in of("ring")
    assert not of("proptest")


def test_a_wheel_that_names_paths_of_its_builder_is_refused(wheel: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copy(wheel, tmp_path))
    done = subprocess.run(
        [sys.executable, WHEEL_SCRIPT, "finish", copy], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "_core.abi3.so holds /" in done.stderr
    assert copy.read_bytes() == wheel.read_bytes()


def test_a_finished_wheel_is_whole_and_names_no_path_of_its_builder(
    wheel: Path, tmp_path: Path
) -> None:
    # The extension of the tests' profile has such paths: an empty one stands in for it.
    copy = tmp_path / wheel.name
    with zipfile.ZipFile(wheel) as before, zipfile.ZipFile(copy, "w") as after:
        for info in before.infolist():
            module = info.filename.endswith("_core.abi3.so")
            after.writestr(info, b"" if module else before.read(info))
    run(sys.executable, WHEEL_SCRIPT, "finish", copy, cwd=tmp_path)
    with zipfile.ZipFile(copy) as archive:
        assert archive.testzip() is None
        members = {name: archive.read(name) for name in archive.namelist()}
    (record,) = (name for name in members if name.endswith(".dist-info/RECORD"))
    hashes = dict(line.split(",")[:2] for line in members[record].decode().splitlines())
    for name, content in members.items():
        assert str(ROOT).encode() not in content, name
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        assert hashes[name] == ("" if name == record else f"sha256={digest}"), name
    (bill,) = (json.loads(text) for name, text in members.items() if "/sboms/" in name)
    refs = {component["bom-ref"] for component in bill["components"]}
    assert "path+file:rust/proto#iroh-gossip-discovery-proto@" in " ".join(refs)


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pack the source distribution."""
    directory = tmp_path_factory.mktemp("source")
    maturin = Path(sys.executable).with_name("maturin")
    run(maturin, "sdist", "--out", directory, cwd=ROOT)
    (packed,) = directory.iterdir()
    return packed


def test_the_source_distribution_has_all_that_building_testing_and_reading_need(
    source: Path,
) -> None:
    tracked = run("git", "ls-files", cwd=ROOT).splitlines()
    with tarfile.open(source) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    left_out = {name for name in tracked if name.startswith(".") and name != ".ci/run"}
    assert set(tracked) - left_out - packed == set()
    assert not [name for name in packed if name.endswith((".so", ".pyc"))]


def test_the_relay_of_the_tests_can_be_built_from_the_source_distribution(
    source: Path, tmp_path: Path
) -> None:
    with tarfile.open(source) as archive:
        archive.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.iterdir()
    relay = ["--locked", "--package", "iroh-gossip-discovery-relay", "--depth", "1"]
    assert "iroh-relay v" in run("cargo", "tree", *relay, cwd=unpacked)


def test_an_index_takes_both_distributions_without_a_warning(source: Path, wheel: Path) -> None:
    run(sys.executable, "-m", "twine", "check", "--strict", source, wheel, cwd=ROOT)


@pytest.mark.parametrize(
    "which",
    ["this", pytest.param("another", marks=pytest.mark.needs("another_python"))],
)
def test_the_wheel_works_in_a_new_environment(
    which: str, wheel: Path, another_python: Path | None, tmp_path: Path
) -> None:
    interpreter = another_python if which == "another" else Path(sys.executable)
    assert interpreter is not None
    run(interpreter, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    binaries = tmp_path / "venv" / "bin"
    python, command = binaries / "python", binaries / "iroh-gossip-discovery"
    run(python, "-m", "pip", "install", "--quiet", "--no-index", str(wheel), cwd=tmp_path)
    bare = subprocess.run([command], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (bare.returncode, bare.stdout) == (1, "")
    assert "pip install 'iroh-gossip-discovery[cli]'" in bare.stderr
    run(python, "-m", "pip", "install", "--quiet", f"{wheel}[cli]", cwd=tmp_path)
    where = run(python, "-c", "import iroh_gossip_discovery as p; print(p.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(tmp_path / "venv")
    assert "OK: all 3 nodes" in run(command, "test-network", "3", "5", cwd=tmp_path)
    assert_two_find_each_other(python, tmp_path)


def assert_two_find_each_other(python: Path, cwd: Path) -> None:
    """Run the example of the async iterator, twice at a time."""
    with ExitStack() as nodes:

        def start(*arguments: str) -> subprocess.Popen[str]:
            node = nodes.enter_context(
                subprocess.Popen(
                    [python, "-u", str(ROOT / "examples" / "find_peers.py"), *arguments],
                    cwd=cwd,
                    env=ENVIRONMENT,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            nodes.callback(node.kill)
            return node

        alice = start("alice")
        assert alice.stdout is not None
        ticket = alice.stdout.readline().split()[-1]
        bob = start("bob", ticket)
        assert bob.stdout is not None
        assert bob.stdout.readline().startswith("bob is ")
        assert bob.stdout.readline().startswith("bob found alice, ")
        assert alice.stdout.readline().startswith("alice found bob, ")
