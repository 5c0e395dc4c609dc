"""The suite's own rules: a skip fails, and what a machine lacks is left out by name."""

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

CONFTEST = Path(__file__).with_name("conftest.py")


def run(pytester: pytest.Pytester, test: str, conftest: str | None = None) -> pytest.RunResult:
    pytester.makeconftest(conftest or CONFTEST.read_text())
    pytester.makeini("[pytest]\nmarkers = needs(*what): ...\n")
    pytester.makepyfile(test)
    pytester.makepyfile(netns=CONFTEST.with_name("netns.py").read_text())
    return pytester.runpytest_subprocess("-p", "no:cacheprovider")


@pytest.mark.parametrize(
    "test",
    [
        "import pytest\ndef test_it():\n    pytest.skip('later')",
        "import pytest\n@pytest.mark.skip(reason='later')\ndef test_it(): ...",
        "import pytest\npytest.importorskip('no_such_module_later')\ndef test_it(): ...",
    ],
    ids=["call", "mark", "module"],
)
def test_a_skip_is_a_failure(pytester: pytest.Pytester, test: str) -> None:
    result = run(pytester, test)
    assert result.ret != 0
    result.stdout.fnmatch_lines(["*a skip is a failure here*later*"])


def test_tests_that_the_machine_cannot_run_are_left_out_and_listed(
    pytester: pytest.Pytester,
) -> None:
    test = """
        import pytest
        @pytest.mark.needs('moon')
        def test_lands(): ...
        def test_flies(): ...
    """
    result = run(pytester, test, CONFTEST.read_text() + "\nREASONS['moon'] = lambda: 'no moon'\n")
    assert result.ret == 0
    result.assert_outcomes(passed=1, deselected=1)
    result.stdout.fnmatch_lines(["*::test_lands: no moon"])
