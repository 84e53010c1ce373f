"""Moments that are given: `since` lies in the past, `deadline` is yet to come, and both have a zone."""

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone

import pytest

from bulkrestart.core.options import parse_deadline, parse_since

MOMENT = datetime(2026, 3, 29, 1, 30, tzinfo=UTC)
NOW = MOMENT.timestamp()
#: East of Greenwich, where the same moment has another hour.
EAST = timezone(timedelta(hours=5, minutes=45))

Parser = Callable[[object, float], float | None]
BOTH = pytest.mark.parametrize(("name", "parse"), [("since", parse_since), ("deadline", parse_deadline)])


@BOTH
def test_none_is_none(name: str, parse: Parser) -> None:
    """No moment is no moment."""
    assert parse(None, NOW) is None


@pytest.mark.parametrize("seconds", [0.0, 0.000001, 1.0, 86_400.0 * 365])
@pytest.mark.parametrize("zone", [UTC, EAST])
def test_since_lies_in_the_past(seconds: float, zone: timezone) -> None:
    """Any moment up to the present is read, whatever zone it is told in."""
    since = (MOMENT - timedelta(seconds=seconds)).astimezone(zone)

    assert parse_since(since, NOW) == pytest.approx(NOW - seconds, abs=1e-6)


@pytest.mark.parametrize("seconds", [0.000001, 1.0, 86_400.0 * 365])
@pytest.mark.parametrize("zone", [UTC, EAST])
def test_deadline_is_yet_to_come(seconds: float, zone: timezone) -> None:
    """Any moment after the present is read, whatever zone it is told in."""
    deadline = (MOMENT + timedelta(seconds=seconds)).astimezone(zone)

    assert parse_deadline(deadline, NOW) == pytest.approx(NOW + seconds, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "parse", "moment"),
    [
        ("since", parse_since, datetime.min.replace(tzinfo=EAST)),
        ("deadline", parse_deadline, datetime.max.replace(tzinfo=timezone(-timedelta(hours=10)))),
    ],
)
def test_what_no_calendar_holds(name: str, parse: Parser, moment: datetime) -> None:
    """A moment that is in no year of UTC is refused: nobody could write it down."""
    with pytest.raises(ValueError, match=rf"^{name} must be a moment between the years 1 and 9999 in UTC, not "):
        parse(moment, NOW)


@pytest.mark.parametrize("seconds", [0.001, 3600.0])
def test_since_in_the_future(seconds: float) -> None:
    """A `since` that is yet to come is refused: it would send to everybody, who asks so meant something else."""
    since = MOMENT + timedelta(seconds=seconds)

    with pytest.raises(ValueError, match=rf"^since must be a moment of the past, not {re.escape(str(since))}: nothing"):
        parse_since(since, NOW)


@pytest.mark.parametrize("seconds", [0.0, 3600.0])
def test_deadline_in_the_past(seconds: float) -> None:
    """A `deadline` that has come already is refused."""
    deadline = MOMENT - timedelta(seconds=seconds)

    with pytest.raises(ValueError, match=rf"^deadline must be a moment .* to come, not {re.escape(str(deadline))}$"):
        parse_deadline(deadline, NOW)


@BOTH
@pytest.mark.parametrize("value", [MOMENT.replace(tzinfo=None), datetime.min, datetime.max])
def test_moment_without_a_zone(name: str, parse: Parser, value: datetime) -> None:
    """A `datetime` without a zone is refused before it is compared: it is another moment in each."""
    words = rf"^{name} must have a zone: {value.isoformat()} is another moment in each; add one, such as UTC$"

    with pytest.raises(ValueError, match=words):
        parse(value, NOW)


@BOTH
@pytest.mark.parametrize(
    "value", ["2026-03-29T01:30:00Z", "", NOW, 0, True, timedelta(hours=1), date(2026, 3, 29), "x" * 1000]
)
def test_moment_of_another_kind(name: str, parse: Parser, value: object) -> None:
    """Texts, numbers, days and durations are no moments; the error names the argument, on a short line."""
    with pytest.raises(ValueError, match=rf"^{name} must be a datetime with a zone, not ") as caught:
        parse(value, NOW)

    assert len(str(caught.value)) < 120
