"""The clock of those who are waited for: time in which nothing can be seen counts against nobody."""

from bulkrestart.core.sight import Sight


def test_it_goes_on_while_something_is_seen() -> None:
    """As long as each look shows something, it is the clock that it is read from."""
    sight = Sight()
    for now in (1.0, 5.0, 100.0):
        sight.see(now)
        assert sight.time(now + 3.0) == now + 3.0


def test_it_stands_still_since_something_was_last_seen() -> None:
    """What has passed since the last sight is blind time as well, and what passed before it is not."""
    sight = Sight()
    sight.see(10.0)
    sight.miss()
    assert [sight.time(moment) for moment in (8.0, 10.0, 25.0, 1000.0)] == [8.0, 10.0, 10.0, 10.0]
    sight.miss()
    assert sight.time(1000.0) == 10.0


def test_it_goes_on_where_it_stood() -> None:
    """Blind times add up, and each ends with the next sight."""
    sight = Sight()
    sight.see(10.0)
    sight.miss()
    sight.see(40.0)
    assert sight.time(45.0) == 15.0
    sight.miss()
    sight.see(60.0)
    assert sight.time(61.0) == 11.0


def test_a_sight_of_before() -> None:
    """An answer to a look that left before others were answered turns nothing back."""
    sight = Sight()
    sight.see(10.0)
    sight.see(7.0)
    sight.miss()
    assert sight.time(12.0) == 10.0
    sight.see(9.0)
    assert sight.time(12.0) == 12.0
