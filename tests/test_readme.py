"""What README.md and docs/ show is true: code runs, output has its shape, links lead somewhere.

Every Python block is run, in one of three ways. One that has every name that it uses is a whole
program: it runs in a process of its own, where a warning is an error, and must come to an end with
exit code 0. One that uses names of `stage` is a fragment: it runs with them at hand, among two
nodes that know each other, and is stopped after a moment if it goes on. One that defines tests is
run by pytest.
"""

import ast
import asyncio
import builtins
import contextlib
import inspect
import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import iroh_gossip_discovery as package
from iroh_gossip_discovery import Config, GossipDiscovery

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


# How long, in seconds, a fragment that does not end by itself may go on: an iteration, a server.
MOMENT = 1.0


@contextlib.asynccontextmanager
async def stage() -> AsyncIterator[dict[str, object]]:
    """Give what a fragment may use: `discovery`, a running node that knows `peer`, and the like."""
    config = Config.local()
    other = GossipDiscovery(
        "bob", "fleet", metadata={"role": "cache"}, protocols=["chat/1"], config=config
    )
    async with other:
        bootstrap = [other.ticket]
        discovery = GossipDiscovery("alice", "fleet", bootstrap=bootstrap, config=config)
        async with discovery:
            peers = await discovery.wait_for_peers(1, timeout=30)
            await other.wait_for_peers(1, timeout=30)
            yield {
                **{name: getattr(package, name) for name in package.__all__},
                "asyncio": asyncio,
                "config": config,
                "discovery": discovery,
                "other": other,
                "other_ticket": discovery.ticket,
                "peer": peers[other.id],
                "some_id": other.id,
                "ticket": other.ticket,
            }


STAGE = {
    *package.__all__,
    *("asyncio", "config", "discovery", "other", "other_ticket", "peer", "some_id", "ticket"),
}


def missing_names(block: Block) -> set[str]:
    """Return the names that a block uses and neither defines nor imports."""
    tree = ast.parse(block.text)
    used: set[str] = set()
    bound = set(dir(builtins)) | {"__name__", "__file__"}
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Load()):
                used.add(name)
            case ast.Name(id=name):
                bound.add(name)
            case ast.arg(arg=name) | ast.ExceptHandler(name=str(name)):
                bound.add(name)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                bound.add(name)
            case ast.ClassDef(name=name) | ast.MatchAs(name=str(name)):
                bound.add(name)
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                bound |= {(alias.asname or alias.name).partition(".")[0] for alias in aliases}
            case _:
                pass
    return used - bound


def defines_tests(block: Block) -> bool:
    functions = ast.FunctionDef | ast.AsyncFunctionDef
    body = ast.parse(block.text).body
    return any(isinstance(n, functions) and n.name.startswith("test_") for n in body)


# The README's first block takes its arguments from the command line and runs for ever: it has a
# test of its own.
PYTHON = blocks("python")[1:]
PROGRAMS = [block for block in PYTHON if defines_tests(block) or not missing_names(block)]
FRAGMENTS = [block for block in PYTHON if block not in PROGRAMS]


def test_the_first_example_is_short_and_is_the_file_that_it_names() -> None:
    code = [line for line in ten_lines().splitlines() if line and "import" not in line]
    assert len(code) <= 10
    file = (ROOT / "examples" / "find_peers.py").read_text()
    body = ast.parse(file).body
    without_docstring = body[1:] if ast.get_docstring(ast.parse(file)) else body
    assert ast.dump(ast.parse(ten_lines())) == ast.dump(ast.Module(without_docstring, []))


@pytest.mark.parametrize("block", PROGRAMS, ids=str)
def test_whole_programs_run(block: Block, tmp_path: Path) -> None:
    script = tmp_path / "test_block.py"
    script.write_text(block.text)
    command = [sys.executable, "-X", "dev", "-W", "error"]
    if defines_tests(block):
        command += ["-m", "pytest", "-q", "-p", "no:cacheprovider"]
        command += ["-o", "asyncio_default_fixture_loop_scope=function"]
    command.append(str(script))
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=90, cwd=tmp_path
    )
    # What asyncio's debug mode says of a step that took long is about the machine.
    said = [line for line in done.stderr.splitlines() if not line.startswith("Executing <")]
    assert (done.returncode, said) == (0, []), done.stdout


@pytest.mark.asyncio
@pytest.mark.parametrize("block", FRAGMENTS, ids=str)
async def test_fragments_run(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert missing_names(block) <= STAGE, "a fragment uses what `stage` has"
    monkeypatch.chdir(tmp_path)
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    code = compile(block.text, str(block), "exec", flags=flags, dont_inherit=True)
    async with stage() as names:
        assert names.keys() == STAGE
        limit = asyncio.timeout(MOMENT)
        try:
            async with limit:
                result = eval(code, names)  # noqa: S307  # the code is our own
                if inspect.isawaitable(result):
                    await result
        except TimeoutError:
            assert limit.expired(), "the fragment's own time ran out"


def test_a_block_that_uses_an_unknown_name_is_no_whole_program() -> None:
    def block(text: str) -> Block:
        return Block(ROOT / "README.md", 1, "python", text)

    assert missing_names(block("import a.b as c\nfor x in c: print(x, discovery)")) == {"discovery"}
    assert missing_names(block("def f(y):\n try: y()\n except E as e: e")) == {"E"}
    assert missing_names(block("match x:\n case A(b): b")) == {"x", "A"}


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
    crate = ROOT / "rust" / "discovery" / "src"
    documented = (crate / "lib.rs").read_text() + (crate / "migration.rs").read_text()
    shown = blocks("rust")
    assert len(shown) > 1, "one of the README, one of the migration"
    for block in shown:
        lines = "".join(f"//! {line}".rstrip() + "\n" for line in block.text.splitlines())
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
