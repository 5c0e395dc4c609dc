"""The examples in the docstrings run as they stand, with a running discovery at hand."""

import ast
import asyncio
import contextlib
import inspect
import re
import textwrap
from collections.abc import Iterator
from types import ModuleType

import pytest

import iroh_gossip_discovery as package
from iroh_gossip_discovery import Config, GossipDiscovery, blocking, testing


def documented(module: ModuleType) -> Iterator[tuple[str, object]]:
    yield "package", module
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.isfunction(value):
            yield name, value
        if inspect.isclass(value) and inspect.getdoc(value):
            yield name, value
            for attribute, member in vars(value).items():
                if not attribute.startswith("_") and inspect.isfunction(member):
                    yield f"{name}.{attribute}", member


def examples(module: ModuleType) -> dict[str, str]:
    found = []
    for name, value in documented(module):
        text = inspect.getdoc(value) or ""
        blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        found += [(f"{name}-{n}", textwrap.dedent(block)) for n, block in enumerate(blocks)]
    return dict(found)


EXAMPLES = examples(package)
OF_TESTING = examples(testing)
OF_BLOCKING = examples(blocking)


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
    assert OF_TESTING.keys() >= {"package-0", "LocalSwarm-0", "wait_for-0"}
    assert OF_BLOCKING.keys() >= {"package-0", "GossipDiscovery-0", "GossipDiscovery.on-0"}


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


@pytest.mark.asyncio
@pytest.mark.parametrize("name", OF_TESTING)
async def test_the_example_of_the_test_kit_runs_to_its_end(name: str) -> None:
    async with GossipDiscovery("host", "examples", config=Config.local()) as discovery:
        names = vars(testing) | {"discovery": discovery}
        code = compile(OF_TESTING[name], name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        result = eval(code, names)  # noqa: S307  # the code is our own
        assert inspect.isawaitable(result)
        await result


@pytest.mark.parametrize("name", OF_BLOCKING)
def test_the_blocking_example_runs_to_its_end(name: str) -> None:
    with blocking.GossipDiscovery("host", "examples", config=Config.local()) as discovery:
        names = vars(package) | vars(blocking) | {"discovery": discovery}
        exec(OF_BLOCKING[name], names)  # noqa: S102  # the code is our own
