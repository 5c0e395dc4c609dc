"""The gate of instruction counts names what changed."""

import pytest

import instructions

KEPT = {"sign": 1000, "verify": 2000}


@pytest.mark.parametrize(
    ("now", "beyond"),
    [
        ({"sign": 1050, "verify": 1900}, []),
        ({"sign": 1051, "verify": 2000}, ["sign"]),
        ({"sign": 1000, "verify": 1899}, ["verify"]),
        ({"sign": 1000}, ["verify"]),
        ({"sign": 1000, "verify": 2000, "sync": 1}, ["sync"]),
    ],
)
def test_a_case_beyond_the_limit_or_without_a_counterpart_is_named(
    now: dict[str, int], beyond: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert instructions.compare(KEPT, now) == beyond
    printed = capsys.readouterr().out
    assert all(case in printed for case in KEPT | now)
