"""A configuration is checked when it is made, and its errors name the field."""

import dataclasses
import inspect
import pickle
import re
from pathlib import Path
from typing import Literal, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iroh_gossip_discovery import Config, ConfigFields, ConfigurationError

DURATIONS = [
    "idle_timeout",
    "keep_alive",
    "connect_timeout",
    "expiration",
    "sync_interval_min",
    "sync_interval_max",
    "random_sync_interval",
    "link_idle",
    "redial_min",
    "redial_max",
    "probe_interval",
    "probe_timeout",
    "suspicion",
    "suspicion_max",
    "heal_interval",
    "heal_interval_max",
    "leave_timeout",
]
COUNTS = ["event_buffer", "capacity", "neighbors", "concurrent_syncs", "observers"]


def overridden(**fields: object) -> Config:
    return Config.local(**fields)  # type: ignore[arg-type]


def test_every_field_can_be_overridden_in_a_preset() -> None:
    assert set(ConfigFields.__annotations__) == {f.name for f in dataclasses.fields(Config)}


def test_the_presets_differ_in_their_reach() -> None:
    local, lan, internet = Config.local(), Config.lan(), Config.internet()
    assert local.bind == ("127.0.0.1:0",)
    assert (local.mdns, local.relay, local.dns) == (False, False, False)
    assert (lan.mdns, lan.relay, lan.dns) == (True, False, False)
    assert (internet.mdns, internet.relay, internet.dns) == (True, True, True)


def test_every_timer_is_documented_with_the_default_of_each_preset() -> None:
    units = {"s": 1.0, "min": 60.0, "h": 3600.0}
    lines = (Path(__file__).parent.parent / "docs" / "configuration.md").read_text().splitlines()
    documented: dict[str, tuple[float, ...]] = {}
    for line in lines[lines.index("| setting | `local` | `lan` | `internet` | reason |") + 2 :]:
        if not line.startswith("|"):
            break
        named, *cells, reason = (cell.strip() for cell in line.strip("|").split("|"))
        assert reason, line
        names = re.findall(r"`(\w+)`", named)
        # `sync_interval_min`, `_max`: of the second only what differs is written out.
        names = [n if n[0] != "_" else names[0].rsplit("_", 1)[0] + n for n in names]
        if names == ["expiration"]:
            assert cells == ["3 heartbeats, 15 min at least", "the same", "the same"]
            continue
        values = [
            [float(v) * units[u] for v, u in re.findall(r"([\d.]+) (\w+)", cell)] for cell in cells
        ]
        assert all(len(value) == len(names) for value in values), line
        for index, name in enumerate(names):
            documented[name] = tuple(value[index] for value in values)
    presets = Config.local(), Config.lan(), Config.internet()
    assert documented == {
        name: tuple(getattr(preset, name) for preset in presets)
        for name in DURATIONS
        if name != "expiration"
    }


def test_every_field_is_documented_once() -> None:
    page = (Path(__file__).parent.parent / "docs" / "configuration.md").read_text()
    first_cells = re.findall(r"^\| (`.*?) \|", page, re.MULTILINE)
    named = [name for cell in first_cells for name in re.findall(r"`(\w+)`", cell)]
    named = ["sync_interval_max" if name == "_max" else name for name in named]
    assert sorted(named) == sorted(field.name for field in dataclasses.fields(Config))


def test_documented_limits_and_defaults_of_sizes_are_those_of_the_code() -> None:
    page = (Path(__file__).parent.parent / "docs" / "configuration.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| ([\d,]+) \| ([\d,]+) to ([\d,]+) \|", page, re.MULTILINE)
    assert len(rows) == 6
    for name, *cells in rows:
        default, least, most = (int(cell.replace(",", "")) for cell in cells)
        assert getattr(Config.lan(), name) == default
        for accepted in (least, most):
            assert getattr(Config.lan(**cast("ConfigFields", {name: accepted})), name) == accepted
        for refused in (least - 1, most + 1):
            with pytest.raises(ConfigurationError, match=name):
                Config.lan(**cast("ConfigFields", {name: refused}))


def test_a_configuration_is_a_value() -> None:
    config = Config.local(expiration=10, bind=["127.0.0.1:4433"])
    assert config.bind == ("127.0.0.1:4433",)
    assert pickle.loads(pickle.dumps(config)) == config  # noqa: S301  # made here
    assert hash(dataclasses.replace(config)) == hash(config)
    assert dataclasses.replace(config, expiration=None).expiration is None
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.expiration = 1.0  # type: ignore[misc]


def test_a_configuration_without_a_preset_names_the_presets() -> None:
    presets = r"Config\.lan\(\), Config\.local\(\) or Config\.internet\(\)"
    with pytest.raises(TypeError, match=rf"{presets}\. Missing here: bind, advertise, mdns, …$"):
        Config()  # type: ignore[call-arg]
    fields = dataclasses.asdict(Config.lan())
    assert Config(**fields) == Config.lan()
    del fields["capacity"]
    with pytest.raises(TypeError, match=rf"{presets}\. Missing here: capacity$"):
        Config(**fields)
    with pytest.raises(TypeError, match=r"unexpected keyword argument 'capacit'"):
        Config.lan(capacit=7)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"positional"):
        Config("127.0.0.1:0")  # type: ignore[call-arg]
    assert list(inspect.signature(Config).parameters) == list(ConfigFields.__annotations__)


@pytest.mark.parametrize("field", DURATIONS)
@pytest.mark.parametrize(
    "value", [-1, -1e-9, float("nan"), float("inf"), -float("inf"), 1e300, 10**400]
)
def test_an_impossible_duration_is_refused_by_name(field: str, value: float) -> None:
    with pytest.raises(ConfigurationError, match=rf"^{field} ") as caught:
        overridden(**{field: value})
    assert caught.value.field == field


@pytest.mark.parametrize("field", COUNTS)
@pytest.mark.parametrize("value", [-1, 0, 10**12, 2**64])
def test_an_impossible_count_is_refused_by_name(field: str, value: int) -> None:
    if (field, value) == ("observers", 0):
        assert overridden(observers=0).observers == 0
        return
    with pytest.raises(ConfigurationError, match=rf"^{field} "):
        overridden(**{field: value})


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(Config)])
@pytest.mark.parametrize("value", ["text", b"bytes", object(), 3 + 4j])
def test_a_wrong_type_is_refused_by_name(field: str, value: object) -> None:
    if (field, value) == ("relay_ca", "text"):
        value = 7  # the one field that is text
    with pytest.raises(TypeError, match=rf"^{field} must be "):
        overridden(**{field: value})


@pytest.mark.parametrize("field", [*DURATIONS, *COUNTS])
def test_a_bool_is_not_taken_as_a_number(field: str) -> None:
    with pytest.raises(TypeError, match=rf"^{field} must be "):
        overridden(**{field: True})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"bind": []}, "bind must name at least one"),
        ({"bind": ["127.0.0.1:0", "127.0.0.2:0"]}, "bind must name at most one IPv4"),
        ({"bind": ["localhost:1"]}, r"bind\[0\] \"localhost:1\" is not ip:port"),
        ({"bind": ["127.0.0.1:70000"]}, r"bind\[0\] "),
        ({"relay_urls": ["https://relay.example"]}, "relay_urls are given, but relay is off"),
        ({"relay_ca": "x"}, "relay_ca is given, but relay is off"),
        ({"relay": True, "relay_ca": "x"}, "relay_ca has no certificate in PEM"),
        ({"relay": True, "relay_urls": ["no url"]}, r"relay_urls\[0\] \"no url\" is not a URL"),
        ({"keep_alive": 2.0, "idle_timeout": 3.0}, "keep_alive must be"),
        ({"redial_min": 5.0, "redial_max": 1.0}, "redial_max must be"),
        ({"expiration": 0.5}, "expiration must be 1 s"),
    ],
)
def test_a_contradiction_is_refused_by_name(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"^{message}"):
        overridden(**fields)


@pytest.mark.parametrize("preset", ["local", "lan", "internet"])
def test_every_preset_checks_its_overrides(preset: Literal["local", "lan", "internet"]) -> None:
    with pytest.raises(ConfigurationError, match=r"^capacity "):
        getattr(Config, preset)(capacity=0)


@given(
    field=st.sampled_from(DURATIONS),
    value=st.floats() | st.integers() | st.none() | st.text() | st.booleans(),
)
def test_any_value_is_taken_or_refused_by_name(field: str, value: object) -> None:
    try:
        config = overridden(**{field: value})
    except (ConfigurationError, TypeError) as error:
        # A limit may be that of a field that depends on this one.
        assert str(error).split()[0] in {*DURATIONS}  # noqa: PT017  # refusal is one of two ends
    else:
        assert getattr(config, field) == value
