"""What README.md and docs/ show is true: code runs, output has its shape, links lead somewhere."""

import ast
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
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


def is_script(block: Block) -> bool:
    return "asyncio.run(main())" in block.text


def test_the_first_example_has_ten_lines_and_is_the_file_that_it_names() -> None:
    code = [line for line in ten_lines().splitlines() if line]
    assert len(code) <= 10
    file = (ROOT / "examples" / "find_peers.py").read_text()
    body = ast.parse(file).body
    without_docstring = body[1:] if ast.get_docstring(ast.parse(file)) else body
    assert ast.dump(ast.parse(ten_lines())) == ast.dump(ast.Module(without_docstring, []))


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_python_blocks_compile(block: Block) -> None:
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    compile(block.text, str(block), "exec", flags=flags, dont_inherit=True)


@pytest.mark.parametrize("block", [b for b in blocks("python") if is_script(b)], ids=str)
def test_whole_programs_run(block: Block) -> None:
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", block.text]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


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


def shape(name: str, other: str) -> re.Pattern[str]:
    """What one of the two prints: itself, then the other, each with id and addresses."""
    addresses = f"{ADDRESS}(?:, {ADDRESS})*"
    own = rf"{name} is {ID}, its ticket igd1[0-9a-z]+…?\n"
    return re.compile(rf"{own}{name} found {other}, {ID}, at {addresses}\n")


def test_the_readmes_rust_is_what_the_crate_documentation_compiles() -> None:
    documented = (ROOT / "rust" / "discovery" / "src" / "lib.rs").read_text()
    for block in (block for block in blocks("rust") if block.page.name == "README.md"):
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
