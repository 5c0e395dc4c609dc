"""The examples in the docstrings run as they stand, with a running discovery at hand."""

import ast
import asyncio
import contextlib
import inspect
import re
import textwrap
from collections.abc import Iterator

import pytest

import iroh_gossip_discovery as package
from iroh_gossip_discovery import Config, GossipDiscovery


def documented() -> Iterator[tuple[str, object]]:
    yield "package", package
    for name in package.__all__:
        value = getattr(package, name)
        if inspect.isfunction(value):
            yield name, value
        if inspect.isclass(value) and inspect.getdoc(value):
            yield name, value
            for attribute, member in vars(value).items():
                if not attribute.startswith("_") and inspect.isfunction(member):
                    yield f"{name}.{attribute}", member


def examples() -> list[tuple[str, str]]:
    found = []
    for name, value in documented():
        text = inspect.getdoc(value) or ""
        blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        found += [(f"{name}-{n}", textwrap.dedent(block)) for n, block in enumerate(blocks)]
    return found


EXAMPLES = dict(examples())


def test_the_main_parts_have_an_example() -> None:
    shown = {name.rpartition("-")[0] for name in EXAMPLES}
    assert shown >= {
        "package",
        "Book",
        "Config",
        "GossipDiscovery",
        "GossipDiscovery.events",
        "GossipDiscovery.on",
        "GossipDiscovery.update_metadata",
        "simulate",
    }


@pytest.mark.asyncio
@pytest.mark.parametrize("name", EXAMPLES)
async def test_the_example_runs(name: str) -> None:
    async with GossipDiscovery("host", "examples", config=Config.local()) as discovery:
        names: dict[str, object] = {
            **{public: getattr(package, public) for public in package.__all__},
            "discovery": discovery,
            "some_id": discovery.id,
        }
        code = compile(EXAMPLES[name], name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        # An example that waits for peers would wait for ever: a moment is enough to fail in.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.3):
                result = eval(code, names)  # noqa: S307  # the code is our own
                if inspect.isawaitable(result):
                    await result
