"""What README.md and docs/ show is true: code runs, output has its shape, links lead somewhere.

Every Python block is a whole program. It is run as a reader runs it who copies it into a file: in a
process and a directory of its own, where a warning is an error. It must end with exit code 0 and
say nothing on stderr. If it defines tests, pytest runs it.
"""

import ast
import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
ID = "[0-9a-f]{10}"
ADDRESS = r"(?:\d+\.\d+\.\d+\.\d+|\[[0-9a-f:]+\]):\d+"


class Block(NamedTuple):
    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(language: str) -> list[Block]:
    return list(find_blocks(language))


def find_blocks(language: str) -> Iterator[Block]:
    fence = re.compile(rf"^([ ]*)```{language}\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
    for page in PAGES:
        text = page.read_text()
        for found in fence.finditer(text):
            line = text.count("\n", 0, found.start()) + 1
            yield Block(page, line, language, textwrap.dedent(found[2]))


def ten_lines() -> str:
    return blocks("python")[0].text


def defines_tests(block: Block) -> bool:
    functions = ast.FunctionDef | ast.AsyncFunctionDef
    body = ast.parse(block.text).body
    return any(isinstance(n, functions) and n.name.startswith("test_") for n in body)


# The README's first block takes its arguments from the command line and runs for ever: it has a
# test of its own.
PROGRAMS = blocks("python")[1:]
# How many programs run at a time: they wait for each other's nodes more than they compute.
AT_ONCE = 4


def run(block: Block, directory: Path) -> tuple[int, list[str], str]:
    """Run a block as a file of its own, and give its exit code, errors and output."""
    script = directory / "test_block.py"
    script.write_text(block.text)
    command = [sys.executable, "-X", "dev", "-W", "error"]
    if defines_tests(block):
        command += ["-m", "pytest", "-q", "-p", "no:cacheprovider"]
        command += ["-o", "asyncio_default_fixture_loop_scope=function"]
    command.append(str(script))
    if "fleet.secret" in block.text:  # the page has the reader make it first
        keygen = [sys.executable, "-m", "iroh_gossip_discovery", "keygen", "--swarm"]
        subprocess.run([*keygen, "fleet.secret"], cwd=directory, check=True, capture_output=True)
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=100, cwd=directory
    )
    # What asyncio's debug mode says of a step that took long is about the machine.
    said = [line for line in done.stderr.splitlines() if not line.startswith("Executing <")]
    return done.returncode, said, done.stdout


@pytest.fixture(scope="module")
def outcomes(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[Block, Future[tuple[int, list[str], str]]]]:
    """Begin to run the blocks of all tests that were asked for, some at a time."""
    items = [item for item in request.session.items if isinstance(item, pytest.Function)]
    calls = [item.callspec for item in items if hasattr(item, "callspec")]
    chosen = {call.params["block"] for call in calls if isinstance(call.params.get("block"), Block)}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {
            block: pool.submit(run, block, tmp_path_factory.mktemp("block"))
            for block in PROGRAMS
            if block in chosen
        }
        pool.shutdown(cancel_futures=True)


def test_the_first_example_is_short_and_is_the_file_that_it_names() -> None:
    code = [line for line in ten_lines().splitlines() if line and "import" not in line]
    assert len(code) <= 10
    file = (ROOT / "examples" / "find_peers.py").read_text()
    body = ast.parse(file).body
    without_docstring = body[1:] if ast.get_docstring(ast.parse(file)) else body
    assert ast.dump(ast.parse(ten_lines())) == ast.dump(ast.Module(without_docstring, []))


@pytest.mark.parametrize("block", PROGRAMS, ids=str)
def test_a_block_runs_when_it_is_copied_into_a_file(
    block: Block, outcomes: dict[Block, Future[tuple[int, list[str], str]]]
) -> None:
    code, said, output = outcomes[block].result()
    assert (code, said) == (0, []), output


def test_the_first_example_prints_what_the_readme_shows(tmp_path: Path) -> None:
    script = tmp_path / "find_peers.py"
    script.write_text(ten_lines())
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}

    def start(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(script), *arguments]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)

    def read(process: subprocess.Popen[str], lines: int) -> str:
        assert process.stdout is not None
        return "".join(process.stdout.readline() for _ in range(lines))

    with start("alice") as alice:
        try:
            said = read(alice, 1)
            ticket = said.split()[-1]
            with start("bob", ticket) as bob:
                try:
                    bob_said = read(bob, 2)
                    said += read(alice, 1)
                finally:
                    bob.kill()
        finally:
            alice.kill()
    assert shape("alice", "bob").fullmatch(said), said
    assert shape("bob", "alice").fullmatch(bob_said), bob_said
    shown = next(block.text for block in blocks("console") if "find_peers.py alice" in block.text)
    terminals = re.split(r"^\$ .*\n", shown, flags=re.MULTILINE)[1:]
    assert len(terminals) == 2
    assert shape("alice", "bob").fullmatch(terminals[0])
    assert shape("bob", "alice").fullmatch(terminals[1])


def test_the_first_example_survives_a_missing_name_and_control_c(tmp_path: Path) -> None:
    script = tmp_path / "find_peers.py"
    script.write_text(ten_lines())
    with subprocess.Popen(
        [sys.executable, "-u", str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("alice is ")
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=30) == ("", "")
    assert process.returncode == 0


def shape(name: str, other: str) -> re.Pattern[str]:
    """What one of the two prints: itself, then the other, each with id and addresses."""
    addresses = f"{ADDRESS}(?:, {ADDRESS})*"
    own = rf"{name} is {ID}, its ticket igd1[0-9a-z]+…?\n"
    return re.compile(rf"{own}{name} found {other}, {ID}, at {addresses}\n")


def test_the_rust_that_is_shown_is_what_the_crate_documentation_compiles() -> None:
    sources = (ROOT / "rust" / "discovery" / "src").rglob("*.rs")
    documented = "".join(path.read_text() for path in sources).replace("\n//!", "\n///")
    shown = blocks("rust")
    assert len(shown) > 2, "those of the README, of the migration and of the page on Rust"
    for block in shown:
        lines = "".join(f"/// {line}".rstrip() + "\n" for line in block.text.splitlines())
        assert lines in documented, block


def test_relative_links_lead_somewhere() -> None:
    pages = [*PAGES, *(ROOT / name for name in ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"))]
    broken = [
        f"{page.name}: {target}"
        for page in pages
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
        if not (page.parent / target).exists()
    ]
    assert broken == []
