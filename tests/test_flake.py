"""flake.nix evaluates: nixpkgs is a stub, the network off, folders temporary. Nothing is built."""

import json
import os
import platform
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
STUB = ROOT / "tests" / "nixpkgs-stub"
SYSTEM = f"{platform.machine()}-linux"
# What the flake reads: a copy of these alone spares copying the whole tree into the store.
SOURCES = ["flake.nix", "Cargo.toml", "Cargo.lock"]

pytestmark = pytest.mark.needs("nix")


class Nix:
    """The flake, and a store and settings of its own."""

    def __init__(self, folder: Path) -> None:
        self.flake = folder / "flake"
        self.flake.mkdir()
        for name in SOURCES:
            shutil.copy(ROOT / name, self.flake)
        shutil.copytree(STUB, folder / "stub")
        self.stub = folder / "stub"
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("NIX_")},
            "HOME": str(folder / "home"),
            "NIX_CONF_DIR": str(folder / "conf"),
            "NIX_LOG_DIR": str(folder / "log"),
            "NIX_STATE_DIR": str(folder / "state"),
            "NIX_STORE_DIR": str(folder / "store"),
            "NIX_USER_CONF_FILES": "",
            "XDG_CACHE_HOME": str(folder / "cache"),
            "NIX_CONFIG": "experimental-features = nix-command flakes\nbuild-users-group =\n"
            "sandbox = false\nsubstituters =\nflake-registry =\n",
        }

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["nix", *arguments, "--offline", "--no-write-lock-file"]
        command += ["--override-input", "nixpkgs", f"path:{self.stub}"]
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=100, check=False
        )

    def json(self, *arguments: str) -> object:
        done = self.run(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def attribute(self, name: str) -> object:
        return self.json("eval", f"path:{self.flake}#{name}")


@pytest.fixture
def nix(tmp_path: Path) -> Nix:
    return Nix(tmp_path)


def test_the_flake_shows_package_shell_apps_and_checks(nix: Nix) -> None:
    shown = nix.json("flake", "show", f"path:{nix.flake}")
    assert isinstance(shown, dict)
    outputs = {kind: set(shown[kind][SYSTEM]) for kind in shown}
    assert outputs == {
        "apps": {"default", "demo", "test-network"},
        "checks": {"package", "test-network"},
        "devShells": {"default"},
        "packages": {"default"},
    }
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"]
    assert shown["packages"][SYSTEM]["default"]["name"] == f"iroh-gossip-discovery-{version}"


def test_every_output_evaluates(nix: Nix) -> None:
    done = nix.run("flake", "check", "--no-build", f"path:{nix.flake}")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("system", ["x86_64-linux", "aarch64-linux", "aarch64-darwin"])
def test_the_package_evaluates_to_a_derivation(nix: Nix, system: str) -> None:
    assert str(nix.attribute(f"packages.{system}.default.drvPath")).endswith(".drv")
    assert str(nix.attribute(f"devShells.{system}.default.drvPath")).endswith(".drv")
    program = nix.attribute(f"apps.{system}.test-network.program")
    assert str(program).endswith("iroh-gossip-discovery-test-network")
    assert nix.attribute(f"packages.{system}.default.meta.mainProgram") == "iroh-gossip-discovery"


def test_a_broken_flake_is_noticed(nix: Nix) -> None:
    flake = nix.flake / "flake.nix"
    flake.write_text(
        flake.read_text().replace("pkgs.rustPlatform.maturinBuildHook", "pkgs.nothing")
    )
    assert nix.run("flake", "check", "--no-build", f"path:{nix.flake}").returncode != 0


def test_one_input_and_no_lock() -> None:
    assert (ROOT / "flake.nix").read_text().count(".url =") == 1
    tracked = subprocess.run(
        ["git", "ls-files", "flake.lock"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert tracked.stdout == ""
