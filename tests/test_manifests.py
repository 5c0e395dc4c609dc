"""The manifests among the examples: their parts fit, and their commands do what they should."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
import yaml

from iroh_gossip_discovery._cli._app import app
from iroh_gossip_discovery._core import generate_swarm_key

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
PROGRAM = "iroh-gossip-discovery"


class Manifest:
    """What a manifest runs: the node's command, and those that ask how it is."""

    def __init__(self, service: str, run: list[str], probes: list[list[str]]) -> None:
        self.service = service
        self.run = run
        self.probes = probes


def kubernetes() -> Manifest:
    service, deployment = yaml.safe_load_all((EXAMPLES / "kubernetes.yaml").read_text())
    assert (service["kind"], deployment["kind"]) == ("Service", "Deployment")
    assert service["spec"]["clusterIP"] == "None"
    # Else no pod would be found before it is ready, and none ready before it was found.
    assert service["spec"]["publishNotReadyAddresses"] is True
    template = deployment["spec"]["template"]
    labels = template["metadata"]["labels"]
    assert service["spec"]["selector"] == labels
    assert deployment["spec"]["selector"]["matchLabels"] == labels
    (container,) = template["spec"]["containers"]
    (port,) = service["spec"]["ports"]
    assert (port["port"], port["protocol"]) == (4433, "UDP")
    assert container["ports"] == [{"containerPort": 4433, "protocol": "UDP"}]
    assert template["spec"]["terminationGracePeriodSeconds"] >= 5
    probes = [container[probe] for probe in ("readinessProbe", "livenessProbe")]
    for probe in probes:
        assert probe["timeoutSeconds"] < probe["periodSeconds"]
    names = {variable["name"] for variable in container["env"]}
    assert names == {"POD_NAME", "IROH_GOSSIP_DISCOVERY_SECRET"}
    asks = [probe["exec"]["command"] for probe in probes]
    return Manifest(service["metadata"]["name"], container["command"], asks)


def compose() -> Manifest:
    whole = yaml.safe_load((EXAMPLES / "compose.yaml").read_text())
    ((name, service),) = whole["services"].items()
    assert service["secrets"] == list(whole["secrets"])
    kind, *ask = service["healthcheck"]["test"]
    assert kind == "CMD"  # not through a shell
    return Manifest(name, service["entrypoint"] + service["command"], [ask])


MANIFESTS = [kubernetes, compose]


@pytest.mark.parametrize("load", MANIFESTS, ids=lambda load: load.__name__)
def test_every_command_of_a_manifest_is_one_that_there_is(load: Callable[[], Manifest]) -> None:
    manifest = load()
    assert f"dns:{manifest.service}:4433" in manifest.run
    assert "--bind=0.0.0.0:4433" in manifest.run
    root = typer.main.get_command(app)
    assert isinstance(root, typer.core.TyperGroup)
    for program, *arguments in (manifest.run, *manifest.probes):
        assert program == PROGRAM
        # What parses here parses there: a wrong name or a wrong value raises.
        with root.make_context(PROGRAM, list(arguments)) as context:
            name, command, rest = root.resolve_command(context, list(arguments))
            assert command is not None
            with command.make_context(name, rest, parent=context):
                pass


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.mark.parametrize("load", MANIFESTS, ids=lambda load: load.__name__)
def test_a_probe_succeeds_while_its_node_runs_and_fails_when_it_does_not(
    load: Callable[[], Manifest], tmp_path: Path
) -> None:
    manifest = load()
    port, secret, file = free_port(), generate_swarm_key(), tmp_path / "fleet"
    file.touch(mode=0o600)
    file.write_text(secret)
    places = {
        f"dns:{manifest.service}:4433": f"dns:localhost:{port}",
        "0.0.0.0:4433": f"127.0.0.1:{port}",
        "127.0.0.1:4433": f"127.0.0.1:{port}",
        "/run/secrets/fleet": str(file),
        "--timeout=5": "--timeout=20",  # the machine may be busy
    }

    def here(command: list[str]) -> list[str]:
        """Return a command for this machine, whose loopback is the cluster."""
        text = "\n".join(command[1:])
        for there, place in places.items():
            text = text.replace(there, place)
        return [sys.executable, "-m", "iroh_gossip_discovery", *text.split("\n")]

    environment = os.environ | {"IROH_GOSSIP_DISCOVERY_SECRET": secret}

    def ask(probe: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            here(probe), env=environment, capture_output=True, text=True, check=False, timeout=60
        )

    with subprocess.Popen(
        [*here(manifest.run), "--preset=local", "--json"],
        env=environment | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
    ) as node:
        try:
            assert node.stdout is not None
            assert '"Started"' in node.stdout.readline()
            for probe in manifest.probes:
                done = ask(probe)
                assert (done.returncode, "1 node" in done.stdout) == (0, True), done
            node.send_signal(signal.SIGTERM)
            said, _ = node.communicate(timeout=60)
            assert '"Stopped"' in said.splitlines()[-1]
            assert node.returncode == 0
        finally:
            node.kill()
    places["--timeout=5"] = "--timeout=2"
    assert ask(manifest.probes[0]).returncode == 1
