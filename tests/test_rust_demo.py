"""The Rust example `address_book_demo` finds a node by its bare id, through mDNS."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

# The loopback interface serves as the local network, once multicast is routed to it. Both nodes
# live in one network namespace; bob is told alice's id and nothing else.
SCRIPT = """
set -eu
ip link set lo up
ip route add 224.0.0.0/4 dev lo
"$1" alice > "$2/alice" & alice=$!
trap 'kill $alice $bob 2>/dev/null || true' EXIT
bob=
wait_for() { n=0; until grep -q "$1" "$2"; do n=$((n + 1)); [ $n -lt 600 ]; sleep 0.1; done; }
wait_for '^id:' "$2/alice"
"$1" bob "$(sed -n 's/^id: *//p' "$2/alice")" > "$2/bob" & bob=$!
wait_for '+ alice joined' "$2/bob"
wait_for '+ bob joined' "$2/alice"
kill -INT $bob
wait $bob
wait_for '^- bob left' "$2/alice"
kill -INT $alice
wait $alice
"""


@pytest.mark.needs("netns")
def test_a_bare_id_is_enough_in_a_local_network(
    rust_example: Callable[[str], Path], tmp_path: Path
) -> None:
    example = rust_example("address_book_demo")
    command = ["unshare", "--net", "bash", "-mc", SCRIPT, "bash", str(example), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    output = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert done.returncode == 0, (done.stderr, output)
    assert "alice has left." in output["alice"]
    assert "address book: 1 other node(s)" in output["bob"]
