"""Each rule of scripts/house.py finds what it forbids, and lets the rest pass."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "house.py"


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("house", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["house"] = module  # dataclasses and named tuples look their module up
    spec.loader.exec_module(module)
    return module


house = load()
DOC = '"""A module."""\n'
LONG = "x" * 101


def findings(root: Path, tree: dict[str, str], rule: str) -> list[str]:
    for name, text in {"README.md": "", **tree}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return [f"{path}:{line}" for path, line, _ in house.RULES[rule](root)]


@pytest.mark.parametrize(
    ("rule", "name", "bad", "good"),
    [
        ("line-length", "rust/a.rs", f"//! {LONG}\n", f"//! {LONG[:96]}\n"),
        ("line-length", "python/a.py", f"# {LONG}\n", f"# {LONG[:98]}\n"),
        (
            "line-length",
            "docs/a.md",
            f"One. Two {LONG}.\n",
            f"One `a. B` {LONG}.\n| a. B {LONG} |\n",
        ),
        ("line-length", "docs/b.md", f"One. Two {LONG}.\n", f"```\nOne. Two {LONG}.\n```\n"),
        ("conflicts", "docs/a.md", f"{'<' * 7} HEAD\n", f"{'<' * 6} HEAD\n"),
        ("words", "rust/a.rs", "// Who lags loses.\n", "// A reader that lags loses.\n"),
        ("words", "docs/a.md", "Whoever reads this.\n", "Who reads this?\n"),
        ("words", "docs/b.md", "It waits so long.\n", "It was `so long`.\n"),
        ("words", "python/a.py", "def hail_all(): ...\n", "def inhale(): ...\n"),
        ("words", "tests/a.py", "# See design D9.\n", "# See design notes.\n"),
        ("words", "docs/c.md", "The neighbour.\n", "The neighbor.\n"),
        ("links", "docs/a.md", "[a](b.md)\n", "[a](a.md) [b](https://example.org/x#y)\n"),
        ("links", "docs/b.md", "# A\n[a](#b)\n", "# A `b`, c\n[a](#a-b-c)\n"),
        ("opening", "rust/a.rs", "use b::c;\n", "//! A module.\nuse b::c;\n"),
        ("opening", "python/a.py", "import b\n", f"#!/usr/bin/env python3\n{DOC}import b\n"),
        (
            "long-functions",
            "python/a.py",
            "def f():\n" + "    x = 1\n" * 70,
            "# long: a table.\ndef f():\n" + "    x = 1\n" * 70,
        ),
        (
            "long-functions",
            "rust/a.rs",
            "    pub async fn f() {\n" + "        x();\n" * 69 + "    }\n",
            "    pub async fn f() {\n" + "        x();\n" * 68 + "    }\n",
        ),
    ],
)
def test_each_rule_finds_what_it_forbids_and_nothing_else(
    tmp_path: Path, rule: str, name: str, bad: str, good: str
) -> None:
    assert [found.split(":")[0] for found in findings(tmp_path, {name: bad}, rule)] == [name]
    assert findings(tmp_path, {name: good}, rule) == []


def test_a_page_without_a_link_in_the_readme_is_found(tmp_path: Path) -> None:
    pages = {"README.md": "[a](docs/a.md)\n", "docs/a.md": "[b](b.md)\n", "docs/b.md": ""}
    assert findings(tmp_path, pages, "index") == ["docs/b.md:1"]


@pytest.mark.parametrize(
    "imports",
    [
        "use crate::b::Thing;\n",
        "use super::b;\n",
        "use crate::{\n    c::Other,\n    b::{self, Thing},\n};\n",
        "fn f() {\n    crate::b::g(1, 2);\n}\n",
    ],
)
def test_circles_between_rust_modules_are_found(tmp_path: Path, imports: str) -> None:
    tree = {
        "rust/x/src/lib.rs": "mod a;\nmod b;\nmod c;\nuse crate::a::f;\n",
        "rust/x/src/a.rs": imports,
        "rust/x/src/b.rs": "use crate::c::Other;\n",
        "rust/x/src/c.rs": "use crate::{a, Root};\n",
    }
    found = findings(tmp_path, tree, "circles")
    assert {"rust/x/src/a.rs:1", "rust/x/src/b.rs:1", "rust/x/src/c.rs:1"} == set(found)
    without = {"rust/x/src/c.rs": "// crate::a is another matter.\nuse crate::Root;\n"}
    assert findings(tmp_path, without, "circles") == []


def test_a_parent_that_only_reexports_its_child_is_in_no_circle(tmp_path: Path) -> None:
    child = "rust/x/src/a/b.rs"
    tree = {
        "rust/x/src/lib.rs": "mod a;\nmod c;\n",
        "rust/x/src/a.rs": "mod b;\npub use self::b::Thing;\nconst LIMIT: u8 = 1;\n",
        child: "use super::LIMIT;\nuse crate::c::D;\n",
        "rust/x/src/c.rs": "use crate::a::Thing;\n",
    }
    assert findings(tmp_path, tree, "circles") == []
    used = "mod b;\npub use self::b::Thing;\nconst LIMIT: u8 = 1;\nfn f(_: Thing) {}\n"
    found = findings(tmp_path, {"rust/x/src/a.rs": used}, "circles")
    assert {"rust/x/src/a.rs:1", f"{child}:1"} <= set(found)


def test_a_comma_before_a_brace_names_no_further_module(tmp_path: Path) -> None:
    tree = {
        "rust/x/src/lib.rs": "mod a;\n",
        "rust/x/src/a.rs": "mod b;\nmod d;\nuse self::b::Thing;\n",
        "rust/x/src/a/b.rs": "use super::{\n    d::E,\n};\n",
        "rust/x/src/a/d.rs": "pub struct E;\n",
    }
    assert findings(tmp_path, tree, "circles") == []


@pytest.mark.parametrize("back", ["from .a import f\n", "from p import a\n", "import p.a\n"])
def test_circles_between_python_modules_are_found(tmp_path: Path, back: str) -> None:
    tree = {"python/p/a.py": "from p.b import g\n", "python/p/b.py": back}
    assert findings(tmp_path, tree, "circles") == ["python/p/a.py:1", "python/p/b.py:1"]
    types = f"from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    {back}"
    assert findings(tmp_path, {"python/p/b.py": types}, "circles") == []


def test_the_allowance_only_shrinks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recorded = tmp_path / house.ALLOWANCE
    page = {"README.md": "[a](docs/a.md)\n", "docs/a.md": "It came anew, and anew.\n"}
    findings(tmp_path, page, "words")
    assert house.main([], tmp_path) == 1, "what is not allowed fails"
    recorded.parent.mkdir()
    recorded.write_text(json.dumps({"words": {"docs/a.md": 2}}))
    capsys.readouterr()
    assert house.main([], tmp_path) == 0
    assert capsys.readouterr().out == ""
    findings(tmp_path, {**page, "docs/a.md": "It came anew.\n"}, "words")
    assert house.main([], tmp_path) == 0
    assert "--update" in capsys.readouterr().out
    house.main(["--update"], tmp_path)
    assert json.loads(recorded.read_text()) == {"words": {"docs/a.md": 1}}
    findings(tmp_path, page, "words")
    assert house.main(["--update"], tmp_path) == 1, "an update raises nothing"
    assert json.loads(recorded.read_text()) == {"words": {"docs/a.md": 1}}


def test_the_pictures_are_what_their_script_draws() -> None:
    script = SCRIPT.with_name("pictures.py")
    done = subprocess.run(
        [sys.executable, str(script), "--check"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")
