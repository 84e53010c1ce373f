"""The code of docs/simulator.md, run, and the tests that it names."""

import re
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/simulator.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
PROGRAMS = [block for block in BLOCKS if "def test_" not in block]
TESTS = [block for block in BLOCKS if "def test_" in block]


def test_blocks_are_found() -> None:
    """There are as many blocks as the page was written with."""
    assert (len(PROGRAMS), len(TESTS)) == (7, 2)


def test_tests_are_there() -> None:
    """The tests that the page names are where it says."""
    named = re.findall(r"`(tests/[^`]+)`", PAGE)
    assert len(named) == 11
    assert [path for path in named if not (ROOT / path).is_file()] == []


@pytest.mark.parametrize("program", PROGRAMS)
def test_program(program: str) -> None:
    """A block runs by itself."""
    exec(compile(program, "docs/simulator.md", "exec"), {"__name__": "__main__"})  # noqa: S102


@pytest.mark.parametrize("text", TESTS)
def test_test(pytester: pytest.Pytester, text: str) -> None:
    """A block that is a test passes."""
    pytester.makepyfile(text)
    result = pytester.runpytest_inprocess("-p", "no:asyncio", "-p", "no:cacheprovider", "-W", "error")
    result.assert_outcomes(passed=1)
