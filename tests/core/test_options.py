"""The arguments of a restart are checked before anything is sent, and the error names the argument."""

import math
import re
from dataclasses import fields
from typing import Any

import pytest

from bulkrestart.cloud.verify import tcp_open
from bulkrestart.core.arguments import check_count, check_flag, check_seconds
from bulkrestart.core.model import RebootType
from bulkrestart.core.options import Options, parse_reboot_type

GOOD = Options(
    reboot_type=RebootType.SOFT,
    wait=True,
    max_attempts=1,
    request_timeout=0.001,
    server_timeout=1,
    wait_timeout=86_400.0,
    escalate=False,
    start_stopped=False,
    max_at_once=1,
)
COUNTS = ["max_attempts", "max_at_once"]
DURATIONS = ["request_timeout", "server_timeout", "wait_timeout", "verify_timeout", "stall_timeout"]
FLAGS = ["wait", "escalate", "start_stopped"]


def options_with(**others: object) -> Options:
    """Give good options, but for some."""
    arguments: dict[str, Any] = {field.name: getattr(GOOD, field.name) for field in fields(Options)}
    return Options(**arguments | others)


def test_every_option_is_checked() -> None:
    """An option is a count, a duration, a flag or the check, as below; the type and the moments are read before."""
    names = {field.name for field in fields(Options)}

    assert names == {"reboot_type", "since", "deadline", "rollout", "verify", *COUNTS, *DURATIONS, *FLAGS}


@pytest.mark.parametrize("value", [0, -1, 1.0, math.nan, True, "5", None])
@pytest.mark.parametrize("name", COUNTS)
def test_count_must_be_a_whole_number_from_one_up(name: str, value: object) -> None:
    """Zero, fractions and what is no number are refused: none of them can bound anything."""
    with pytest.raises(ValueError, match=rf"^{name} must be a whole number from 1 up, not {value!r}$"):
        options_with(**{name: value})


@pytest.mark.parametrize("value", [0, 0.0, -1.0, math.inf, -math.inf, math.nan, True, "60", None])
@pytest.mark.parametrize("name", DURATIONS)
def test_duration_must_be_positive_and_finite(name: str, value: object) -> None:
    """A wait without an end, and one that is over before it began, are refused."""
    with pytest.raises(ValueError, match=rf"^{name} must be a positive number of seconds, not {value!r}$"):
        options_with(**{name: value})


@pytest.mark.parametrize("name", DURATIONS)
def test_duration_must_be_a_float_at_least_nearly(name: str) -> None:
    """A whole number that no float can hold is refused on a short line: the clocks count in floats."""
    with pytest.raises(ValueError, match=rf"^{name} must be a positive number of seconds, not 10{{39}}$"):
        options_with(**{name: 10**400})


@pytest.mark.parametrize("value", ["no", "", 0, 1, None])
@pytest.mark.parametrize("name", FLAGS)
def test_flag_must_be_a_bool(name: str, value: object) -> None:
    """Nothing else is taken for a yes or a no: the word "no" would be a yes, and give leave to send HARD."""
    with pytest.raises(ValueError, match=rf"^{name} must be True or False, not {value!r}$"):
        options_with(**{name: value})


@pytest.mark.parametrize("value", [True, 22, "tcp_open(22)", ()])
def test_check_must_be_a_function(value: object) -> None:
    """What cannot be called checks nothing; `True` is for the certificates that a client trusts."""
    words = f"verify must be an async function that takes a Server, such as tcp_open(22), not {value!r}"
    with pytest.raises(ValueError, match=f"^{re.escape(words)}$"):
        options_with(verify=value)


def test_check_needs_to_wait() -> None:
    """A server is checked when it is back, so whoever does not wait for that is told which of the two to leave out."""
    with pytest.raises(ValueError, match=r"^verify needs wait: .* leave out the one or the other$"):
        options_with(verify=tcp_open(22), wait=False)


@pytest.mark.parametrize("value", [10**9 + 1, 10**400])
def test_count_beyond_reason(value: int) -> None:
    """A slip of the hand is refused, and not repeated at length."""
    with pytest.raises(ValueError, match=r"^max_at_once must be 1000000000 at most$"):
        check_count("max_at_once", value)


@pytest.mark.parametrize("value", [1, 50, 10**9])
def test_good_count(value: int) -> None:
    """Any whole number from one up is a count."""
    check_count("max_at_once", value)


@pytest.mark.parametrize("value", [1, 0.5, 1e9, 1e308])
def test_good_duration(value: float) -> None:
    """Whole and broken seconds are a duration."""
    check_seconds("wait_timeout", value)


@pytest.mark.parametrize("value", [True, False])
def test_good_flag(value: bool) -> None:
    """A bool is a flag."""
    check_flag("wait", value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("SOFT", RebootType.SOFT),
        ("soft", RebootType.SOFT),
        ("Hard", RebootType.HARD),
        (RebootType.HARD, RebootType.HARD),
    ],
)
def test_reboot_type(value: str, expected: RebootType) -> None:
    """The type is read in any case, as Nova reads it."""
    assert parse_reboot_type(value) is expected


@pytest.mark.parametrize("value", ["", "WARM", " soft", "SOFT|HARD", None, 1, b"SOFT"])
def test_reboot_type_that_is_none(value: str) -> None:
    """Anything else is refused, and both types are named."""
    with pytest.raises(ValueError, match='reboot_type must be "SOFT" or "HARD", not') as caught:
        parse_reboot_type(value)

    assert repr(value) in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "bound"),
    [
        pytest.param({}, 1800.0, id="none is longer"),
        pytest.param({"server_timeout": 2000.0}, 2000.0, id="server_timeout"),
        pytest.param({"wait_timeout": 3600.0}, 3600.0, id="wait_timeout"),
        pytest.param({"wait_timeout": 3600.0, "wait": False}, 1800.0, id="wait_timeout, and nothing is waited for"),
        pytest.param({"verify_timeout": 7200.0}, 1800.0, id="verify_timeout, and nothing is verified"),
        pytest.param({"verify_timeout": 7200.0, "verify": tcp_open(22)}, 7200.0, id="verify_timeout"),
        pytest.param({"stall_timeout": 900.0}, 900.0, id="as long as the longest"),
        pytest.param({"stall_timeout": 86_400.0}, 86_400.0, id="longer"),
    ],
)
def test_the_default_stall_timeout_gives_way(arguments: dict[str, Any], bound: float) -> None:
    """A run is not stalled before any time-out of a server that applies."""
    options = options_with(**{"wait_timeout": 600.0, "server_timeout": 900.0} | arguments)

    assert options.longest_stall == bound


@pytest.mark.parametrize("name", ["server_timeout", "wait_timeout", "verify_timeout"])
def test_a_shorter_stall_timeout_is_refused(name: str) -> None:
    """A bound that would cut a server's own time-out short names that, and what to do."""
    arguments: dict[str, Any] = {"server_timeout": 60.0, "wait_timeout": 60.0, "verify": tcp_open(22)}
    words = f"stall_timeout is 399, which is less than {name} (400): raise it, or lower {name}"
    with pytest.raises(ValueError, match=f"^{re.escape(words)}$"):
        options_with(**arguments | {name: 400.0, "stall_timeout": 399.0})
