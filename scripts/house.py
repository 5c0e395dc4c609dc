#!/usr/bin/env python3
"""Check the house's own rules: what rustfmt, clippy, ruff and typos cannot see.

Each rule is one function that yields findings. `house.json` beside this file holds the allowance:
how many findings of a rule a file may still have. More than that fails; fewer asks to lower the
allowance, which `--update` does. An allowance only ever shrinks.
"""

import argparse
import ast
import collections
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
ALLOWANCE = Path("scripts/house.json")
COLUMNS = 100
FUNCTION_LINES = 70
SOURCES = ("rust", "python", "tests", "examples", "benchmarks", "scripts")
# These two name the words that are out.
EXEMPT = ("scripts/house.py", "tests/test_house.py")

# What is out, and what to write in its place.
WORDS = {
    r"\b(?:Who|Whoever|Whom)\b(?![^.?!|]*\?)": "name the subject: 'A node that …'",
    r"\b[Ss]o (?:many|long|much)\b": "name the number or the constant",
    r"\b[Oo]f late\b": "recently",
    r"\banew\b": "again",
    r"\b(?:st[ao]nds? still|stood still|standing still)\b": "stalled, or unchanged",
    r"(?<![a-z])t(?:ell|ells|old|elling)[ _]on(?![a-z])": "disseminate, or forward",
    r"\b(?:fn|def) (?:test_)?(?:who|whoever|whom)_": "name the subject: 'a_node_that_…'",
    r"(?<![a-z])[Hh]ail(?:s|ed|ing)?(?![a-z])": "keepalive",
    r"(?<![a-z])[Cc]rowds?(?![a-z])": "burst",
    r"\b[Ff]ar[ _]syncs?\b": "random sync",
    r"\b(?:comes?|came) to(?= (?:the same|something|else)\b|[.,;:]|$)": "digest",
    r"\bdesign D\d+": "point to docs/architecture.md, or give the reason",
    r"\bthreats? \d+": "point to docs/security.md, or give the reason",
    r"\b(?:neighbour|behaviour|honour|favour|dialled)": "US spelling",
}


class Finding(NamedTuple):
    """What is wrong, and where."""

    path: str
    line: int
    text: str


Rule = Callable[[Path], Iterator[Finding]]


def files(root: Path, *suffixes: str) -> Iterator[tuple[str, str]]:
    """Give path and text of every file of ours with one of these suffixes, in order."""
    folders = [root / name for name in (*SOURCES, "docs")]
    paths = [*root.glob("*.md"), *(path for folder in folders for path in folder.rglob("*.*"))]
    for path in sorted(paths):
        name = path.relative_to(root).as_posix()
        if path.suffix in suffixes and name not in EXEMPT and path.is_file():
            yield name, path.read_text(encoding="utf-8")


def prose(text: str) -> Iterator[tuple[int, str]]:
    """Give the lines of a Markdown page outside code blocks, numbered from 1."""
    fence = None
    for number, line in enumerate(text.splitlines(), 1):
        mark = re.match(r"\s*(`{3,})", line)
        if mark and fence in (None, mark[1]):
            fence = None if fence else mark[1]
        elif fence is None:
            yield number, line


def line_length(root: Path) -> Iterator[Finding]:
    """Lines of code and comments end at 100; in Markdown a longer line is one sentence."""
    for name, text in files(root, ".rs", ".py", ".pyi"):
        for number, line in enumerate(text.splitlines(), 1):
            # A comment for a linter must stand on the line that it is about, so it does not count.
            code = re.sub(r"  # (?:noqa|type: ignore)\b.*", "", line)
            if len(code) > COLUMNS and "noqa: E501" not in line:
                yield Finding(name, number, f"{len(line)} columns")
    for name, text in files(root, ".md"):
        for number, line in prose(text):
            if len(line) <= COLUMNS or line.lstrip().startswith(("|", "[")):
                continue
            plain = re.sub(r"`[^`]*`|\]\([^)]*\)", "", line)
            if re.search(r"(?<!e\.g)(?<!i\.e)[.!?]\S{0,2} +[A-Z*`]", plain):
                yield Finding(name, number, f"{len(line)} columns and more than one sentence")


def conflicts(root: Path) -> Iterator[Finding]:
    """No conflict of a merge is left."""
    for name, text in files(root, ".rs", ".py", ".pyi", ".md", ".toml", ".json", ".yaml", ".cddl"):
        for number, line in enumerate(text.splitlines(), 1):
            if re.match(r"(?:<{7}|>{7}) ", line):
                yield Finding(name, number, "a conflict of a merge")


def words(root: Path) -> Iterator[Finding]:
    """Plain English and the field's words: nothing that `WORDS` rules out."""
    for name, text in files(root, ".rs", ".py", ".pyi", ".md", ".cddl"):
        lines = prose(text) if name.endswith(".md") else enumerate(text.splitlines(), 1)
        for number, line in lines:
            plain = re.sub(r"`[^`]*`", "", line) if name.endswith(".md") else line
            for pattern, instead in WORDS.items():
                for found in re.finditer(pattern, plain):
                    yield Finding(name, number, f"'{found[0]}': {instead}")


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    names: collections.Counter[str] = collections.Counter()
    found = set()
    for _, line in prose(text):
        if heading := re.match(r"#+ +(.*)", line):
            plain = re.sub(r"\[([^\]]*)\]\([^)]*\)|`", r"\1", heading[1]).lower()
            anchor = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
            found.add(f"{anchor}-{names[anchor]}" if names[anchor] else anchor)
            names[anchor] += 1
    return found


def page_links(text: str) -> Iterator[tuple[int, str, str]]:
    """Give line, target and anchor of every relative link of a page."""
    for number, line in prose(text):
        for link in re.finditer(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)", line):
            if not re.match(r"[a-z]+:", link[1]):
                yield number, link[1], link[2] or ""


def links(root: Path) -> Iterator[Finding]:
    """A relative link leads to a file that is there, its anchor to a heading."""
    pages = dict(files(root, ".md"))
    for name, text in pages.items():
        folder = (root / name).parent
        for number, target, anchor in page_links(text):
            path = (folder / target).resolve() if target else root / name
            if not path.exists():
                yield Finding(name, number, f"nothing is at {target}")
            elif anchor and path.suffix == ".md" and anchor not in anchors(path.read_text("utf-8")):
                yield Finding(name, number, f"no heading of {target or name} is #{anchor}")


def index(root: Path) -> Iterator[Finding]:
    """README.md links every page: its index is whole. A crate's README.md is for the registry."""
    pages = dict(files(root, ".md"))
    linked = {target for _, target, _ in page_links(pages["README.md"])}
    for name in pages:
        if not name.endswith("README.md") and name not in linked:
            yield Finding(name, 1, "README.md has no link to this page")


def opening(root: Path) -> Iterator[Finding]:
    """A source file begins with a sentence that says what it owns."""
    for name, text in files(root, ".rs", ".py", ".pyi"):
        first = next((line for line in text.splitlines() if line and not line.startswith("#!")), "")
        if first and not first.startswith(("//!", '"""', 'r"""')):
            if name.startswith("tests/") and name.endswith(".py"):
                continue  # a test's name states the claim
            yield Finding(name, 1, "no opening sentence")


def long_functions(root: Path) -> Iterator[Finding]:
    """A function fits a screen, or a comment `long: …` at its head gives the reason."""
    for name, text in files(root, ".rs", ".py"):
        lines = text.splitlines()
        spans = rust_functions(lines) if name.endswith(".rs") else python_functions(text)
        for function, first, last in spans:
            head = "\n".join(lines[max(0, first - 4) : first + 1])
            if last - first >= FUNCTION_LINES and not re.search(r"(?://|#) long: \S", head):
                yield Finding(name, first, f"{function} has {last - first + 1} lines")


def rust_functions(lines: list[str]) -> Iterator[tuple[str, int, int]]:
    """Give name, first and last line of each function; rustfmt aligns its braces."""
    for number, line in enumerate(lines, 1):
        if start := re.match(r"( *)(?:pub(?:\(\w+\))? )?(?:const |async )*fn (\w+)", line):
            end = start[1] + "}"
            last = next(
                (n for n, other in enumerate(lines[number:], number + 1) if other == end), 0
            )
            if not line.endswith(("}", ";")) and last:
                yield start[2], number, last


def python_functions(text: str) -> Iterator[tuple[str, int, int]]:
    """Give name, first and last line of each function."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, node.lineno, node.end_lineno or node.lineno


def circles(root: Path) -> Iterator[Finding]:
    """No module imports, by whatever way round, a module that imports it.

    The root of a crate or package, which gives names on, does not count; nor do a module's tests,
    nor a Rust parent that only declares a child and re-exports items of it.
    """
    graph: dict[str, set[str]] = collections.defaultdict(set)
    sources = dict(files(root, ".rs"))
    crates = {re.sub(r"/src/.*", "/src", name) for name in sources if "/src/" in name}
    for crate in crates:
        modules = {rust_module(name, crate): name for name in sources if name.startswith(crate)}
        for module, name in modules.items():
            if "tests" not in module:
                graph[name] |= rust_imports(module, sources[name], modules) - {name}
    package = dict(files(root, ".py"))
    modules = {
        tuple(name.removeprefix("python/").removesuffix(".py").split("/")): name
        for name in package
        if name.startswith("python/")
    }
    for module, name in modules.items():
        graph[name] |= python_imports(module, package[name], modules) - {name}
    for name in sorted(graph):
        if around := way_back(graph, name):
            yield Finding(name, 1, f"a circle: {' → '.join([name, *around])}")


def rust_module(name: str, crate: str) -> tuple[str, ...]:
    """Return the path of a file's module within its crate; the root's is empty."""
    parts = name.removeprefix(f"{crate}/").removesuffix(".rs").split("/")
    return tuple(parts[:-1] if parts[-1] in ("mod", "lib", "main") else parts)


def rust_imports(
    module: tuple[str, ...], text: str, modules: dict[tuple[str, ...], str]
) -> set[str]:
    """Return the files of the modules that a file names by `crate::`, `super::` or `self::`."""
    code = re.sub(r"//.*", "", text)
    code = re.split(r"#\[cfg\(test\)\]\s*mod \w+ \{", code)[0]
    children = set(re.findall(r"\bmod (\w+);", code))
    code, found = without_reexports(code, children), set()
    for start in re.finditer(r"(?<![\w:])(?:crate|super|self)(?=::)", code):
        for path in use_tree(code, start.start()):
            whole = absolute(module, path)
            while whole and whole not in modules:
                whole = whole[:-1]
            if whole:
                found.add(modules[whole])
    return found


def without_reexports(code: str, children: set[str]) -> str:
    """Take out the `pub use child::Item;` of items that the module itself does not use.

    A parent that only declares and re-exports a child does not depend on it, so that a child may
    import from its parent. A parent that uses an item of the child does depend on it.
    """
    reexports = {
        use: set(re.findall(r"\w+", tree)) - {"self"}
        for use, child, tree in re.findall(
            r"(\bpub(?:\([^)]*\))? use (?:self::)?(\w+)(::[^;]*);)", code
        )
        if child in children
    }
    for use in reexports:
        code = code.replace(use, "")
    used = set(re.findall(r"\w+", re.sub(r"\bmod \w+;", "", code)))
    return code + "".join(use for use, items in reexports.items() if items & used)


def use_tree(code: str, start: int) -> Iterator[tuple[str, ...]]:
    """Give each path of a tree like `crate::a::{b, c::D}` that begins there."""
    stack: list[tuple[str, ...]] = []
    path: tuple[str, ...] = ()
    for token in re.finditer(r"\w+|::|[{},]|\s+|\*|[^\s]", code[start:]):
        match token[0]:
            case "::" | "*":
                pass
            case "{" if path or stack:
                stack.append(path)
            case "," if stack:
                yield path
                path = stack[-1]
            case "}" if stack:
                if path != stack[-1]:  # a comma may stand before the brace
                    yield path
                path = stack.pop()
            case word if re.fullmatch(r"\w+", word):
                path = (*path, word)
            case space if space.isspace() and stack:
                pass
            case _:
                break
        if not stack and token[0] == "}":
            return
    yield path


def absolute(module: tuple[str, ...], path: tuple[str, ...]) -> tuple[str, ...]:
    """Return a Rust path from the crate's root on."""
    base = () if path[0] == "crate" else module
    for part in path:
        base = base[:-1] if part == "super" else base
    return base + tuple(part for part in path if part not in ("crate", "super", "self"))


def python_imports(
    module: tuple[str, ...], text: str, modules: dict[tuple[str, ...], str]
) -> set[str]:
    """Return the files of the modules that a module imports to run, at whatever time."""
    tree = ast.parse(text)
    only_types = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    wanted: list[tuple[str, ...]] = []
    for node in ast.walk(tree):
        if node in only_types:
            continue
        if isinstance(node, ast.Import):
            wanted += [tuple(alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            near = module[: -node.level] if node.level else ()
            path = near + tuple((node.module or "").split(".") if node.module else ())
            wanted += [(*path, alias.name) for alias in node.names]
    found = (modules.get(path) or modules.get(path[:-1]) for path in wanted)
    return {name for name in found if name}


def way_back(graph: dict[str, set[str]], start: str) -> list[str]:
    """Return the shortest way from a module over its imports back to it, if there is one."""
    ways = collections.deque([[name] for name in sorted(graph[start])])
    seen: set[str] = set()
    while ways:
        way = ways.popleft()
        if way[-1] == start:
            return way
        if way[-1] not in seen:
            seen.add(way[-1])
            ways.extend([*way, name] for name in sorted(graph[way[-1]]))
    return []


RULES: dict[str, Rule] = {
    "circles": circles,
    "conflicts": conflicts,
    "index": index,
    "line-length": line_length,
    "links": links,
    "long-functions": long_functions,
    "opening": opening,
    "words": words,
}


def check(root: Path) -> dict[str, dict[str, list[Finding]]]:
    """Return all findings, by rule and file."""
    found: dict[str, dict[str, list[Finding]]] = {}
    for rule, function in RULES.items():
        by_file: dict[str, list[Finding]] = collections.defaultdict(list)
        for finding in function(root):
            by_file[finding.path].append(finding)
        found[rule] = by_file
    return found


def main(arguments: list[str], root: Path = ROOT) -> int:
    """Report what goes beyond the allowance; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--update", action="store_true", help="lower the allowance to what is left")
    parser.add_argument("--all", action="store_true", help="show what is allowed too")
    parser.add_argument("paths", nargs="*", help="show only findings in files that begin so")
    options = parser.parse_args(arguments)
    recorded = root / ALLOWANCE
    allowed: dict[str, dict[str, int]] = (
        json.loads(recorded.read_text()) if recorded.exists() else {}
    )
    found = check(root)
    left: dict[str, dict[str, int]] = {}
    failed = lower = False
    for rule, by_file in found.items():
        before = allowed.get(rule, {})
        for name in sorted({*before, *by_file}):
            count, limit = len(by_file.get(name, [])), before.get(name, 0)
            failed |= count > limit
            lower |= count < limit
            if min(count, limit):
                left.setdefault(rule, {})[name] = min(count, limit)
            if (count > limit or options.all) and name.startswith(tuple(options.paths) or ""):
                for finding in by_file.get(name, []):
                    print(f"{name}:{finding.line}: {rule}: {finding.text}")
                if limit:
                    print(f"{name}: {rule}: {count} findings, {limit} are allowed")
    if options.update:
        recorded.write_text(json.dumps(left, indent=2) + "\n")
    elif lower:
        print(f"there is less to find than {ALLOWANCE} allows: run scripts/house.py --update")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
