"""Whatever is passed for an argument, the outcome is a result or an error of ours that names it."""

import asyncio
import inspect
import math
from collections.abc import Callable, Iterator

import pytest

from iroh_gossip_discovery import (
    Config,
    ConfigFields,
    ConfigurationError,
    DiscoveryError,
    GossipDiscovery,
    Issuer,
    PeerJoined,
    StreamReader,
    StreamWriter,
    endpoint_id,
    make_ticket,
    parse_ticket,
    simulate,
)

Values = dict[str, object]
# An argument, the value that is tried, and all that is passed by place and by name.
Tried = tuple[str, object, list[object], Values]

# Of each kind one that a program may pass by mistake.
HOSTILE = (
    None,
    True,
    -1,
    2**70,
    1.5,
    1e19,
    math.nan,
    math.inf,
    "",
    "\ud800",
    "a\0b",
    "x" * 100_000,
    b"x",
    bytearray(b"x"),
    [None],
    {1: 2},
    object(),
    int,
)
ID = "07" * 32
# What is passed for the arguments that are not tried.
USUAL: Values = {
    "addresses": ["127.0.0.1:4433"],
    "callback": print,
    "data": b"x",
    "event": PeerJoined,
    "id": ID,
    "handler": print,
    "key": "k",
    "keys": ["k"],
    "n": 1,
    "name": "resize",
    "peer": ID,
    "peers": [ID],
    "protocol": "chat/1",
    "quiet": 0.01,
    "readiness": "ready",
    "timeout": 0.05,
    "topic": "other",
}
# Without arguments, or tried elsewhere: an end, and tokens that only an issuer makes.
LEFT_OUT = {"close", "leave", "start", "items", "keys", "values", "stop_on_signals", "get"}


def arguments(function: Callable[..., object]) -> Iterator[Tried]:
    """Give each argument and hostile value, with all that is passed along."""
    parameters = [
        parameter
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    ]
    for tried in parameters:
        for value in HOSTILE:
            places: list[object] = []
            names: Values = {}
            for parameter in parameters:
                passed = value if parameter is tried else USUAL.get(parameter.name)
                needed = parameter.default is parameter.empty or parameter.name == "timeout"
                if parameter is not tried and not needed and parameter.name != "handler":
                    continue
                if parameter.kind is parameter.POSITIONAL_ONLY:
                    places.append(passed)
                else:
                    names[parameter.name] = passed
            yield tried.name, value, places, names


async def outcome(function: Callable[..., object], places: list[object], names: Values) -> str:
    """Call, and return the text of an error about an argument; what waits on is cancelled."""
    try:
        result = function(*places, **names)
        if inspect.isawaitable(result):
            task = asyncio.ensure_future(result)
            # One that is refused is refused at once.
            done, _ = await asyncio.wait({task}, timeout=0.2)
            if not done:
                task.cancel()
                await asyncio.wait({task})
                return ""
            result = task.result()
    except (ConfigurationError, TypeError) as error:
        return str(error)
    except ValueError as error:
        if type(error) is not ValueError:
            raise
        return str(error)  # as of asyncio's streams
    except DiscoveryError:
        return ""  # a value that might have served
    if isinstance(result, GossipDiscovery):
        await result.close()
    elif callable(cancel := getattr(result, "cancel", None)):
        cancel()
    return ""


async def unnamed(where: str, function: Callable[..., object]) -> list[str]:
    """Return what went wrong with any argument of a function."""
    wrong = []
    for argument, value, places, names in arguments(function):
        shown = f"{where}({argument}={repr(value)[:40]})"
        try:
            text = await outcome(function, places, names)
        except BaseException as error:  # noqa: BLE001  # a panic of the extension is one too
            wrong.append(f"{shown}: {type(error).__name__}: {str(error)[:100]}")
            continue
        if text and argument not in text:
            wrong.append(f"{shown} is not named: {text[:100]}")
        if len(text) > 1000:
            wrong.append(f"{shown}: the error has {len(text)} letters")
    return wrong


@pytest.mark.asyncio
@pytest.mark.parametrize("state", ["not started", "running", "closed"])
async def test_an_error_names_the_argument_of_any_method(state: str) -> None:
    discovery = GossipDiscovery("alice", "fleet", config=Config.local())
    if state == "running":
        await discovery.start()
    elif state == "closed":
        await discovery.close()
    wrong = []
    for of in (discovery, discovery.members, discovery.members.snapshot()):
        for name in sorted(set(dir(type(of))) - LEFT_OUT):
            if name.startswith("_") or isinstance(inspect.getattr_static(of, name), property):
                continue
            wrong += await unnamed(f"{type(of).__name__}.{name}", getattr(of, name))
    await discovery.close()
    assert wrong == []


@pytest.mark.asyncio
async def test_an_error_names_the_argument_of_a_stream() -> None:
    async def silent(reader: StreamReader, writer: StreamWriter) -> None:
        await reader.read()

    config = Config.local()
    async with GossipDiscovery("alice", "fleet", config=config) as alice:
        alice.serve("chat/1", silent)
        bootstrap = [alice.ticket]
        async with GossipDiscovery("bob", "fleet", config=config, bootstrap=bootstrap) as bob:
            await bob.wait_for_peers(1, timeout=50)
            reader, writer = await bob.open_stream(alice.id, "chat/1", timeout=50)
            wrong = []
            for end in (reader.read, reader.readexactly, reader.readuntil):
                wrong += await unnamed(f"StreamReader.{end.__name__}", end)
            for act in (writer.write, writer.writelines, writer.reset):
                wrong += await unnamed(f"StreamWriter.{act.__name__}", act)
    assert wrong == []


@pytest.mark.asyncio
async def test_an_error_names_the_argument_of_any_function() -> None:
    def configure(field: str) -> Callable[..., object]:
        text = f"lambda {field}: preset({field}={field})"
        made: Callable[..., object] = eval(text, {"preset": Config.local})  # noqa: S307  # our names
        return made

    def make(**given: object) -> GossipDiscovery:
        return GossipDiscovery(**({"name": "alice", "topic": "fleet"} | given))  # type: ignore[arg-type]

    def option(name: str) -> Callable[..., object]:
        text = f"lambda {name}: make({name}={name})"
        made: Callable[..., object] = eval(text, {"make": make})  # noqa: S307  # as above
        return made

    issuer = Issuer.generate()
    options = set(inspect.signature(GossipDiscovery).parameters)
    functions: dict[str, Callable[..., object]] = {
        "endpoint_id": endpoint_id,
        "make_ticket": make_ticket,
        "parse_ticket": parse_ticket,
        "simulate": lambda scenario: simulate(scenario, nodes=1),
        "simulate seed": lambda seed: simulate("nodes = 1\nlength = '1s'", seed=seed),
        "simulate nodes": lambda nodes: simulate("nodes = 1\nlength = '1s'", nodes=nodes),
        "invite": lambda duration: issuer.invite("fleet", ID, duration=duration),
        "begin": lambda begins: issuer.invite("fleet", ID, duration=60, begins=begins),
        "revoke": lambda duration: issuer.revoke("fleet", ID, duration=duration),
        **{f"Config.{field}": configure(field) for field in ConfigFields.__annotations__},
        **{name: option(name) for name in options},
    }
    assert [line for name, one in functions.items() for line in await unnamed(name, one)] == []


@pytest.mark.parametrize(
    ("field", "value", "limit"),
    [
        ("capacity", 2**70, "capacity must be 1 to 100,000"),
        ("neighbors", 10**30, "neighbors must be 1 to 32"),
        ("observers", 2**64, "observers must be 0 to 1,024"),
        ("capacity", -(2**70), "capacity must not be negative"),
        ("expiration", 2**70, "expiration must be 1 s to 30 days"),
        ("idle_timeout", 1e300, "idle_timeout must be 500 ms to 10 min"),
        ("probe_timeout", 1e19, "probe_timeout must be"),
        ("connect_timeout", 10**400, "connect_timeout must be"),
    ],
)
def test_a_number_beyond_64_bits_is_told_the_limit_of_its_field(
    field: str, value: float, limit: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Config.local(**{field: value})  # type: ignore[arg-type]
    assert str(caught.value).startswith(limit)
