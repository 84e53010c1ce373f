"""What an argument may not be: each check raises a `ValueError` that names the argument and the remedy."""

import re
import sys
from typing import Final

#: Requests a second: fewer would never come to an end.
_SLOWEST: Final = 1.0 / 86_400.0
#: No fleet and no bound is larger.
_LARGEST: Final = 1_000_000_000
#: The user and password of a URL. A path that was made from a URL has a single slash.
_USERINFO: Final = re.compile(r":/+.*@", re.DOTALL)


def check_count(name: str, value: object, *, least: int = 1) -> None:
    """Refuse what is not a whole number from the least up, or is beyond reason."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} must be a whole number from {least} up, not {value!r}")
    if value > _LARGEST:
        raise ValueError(f"{name} must be {_LARGEST} at most")


def check_seconds(name: str, value: object) -> None:
    """Refuse what is not a positive, finite number; a whole number may be too large for a float."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= sys.float_info.max:
        raise ValueError(f"{name} must be a positive number of seconds, not {value!r:.40}")


def check_rate(name: str, value: object) -> None:
    """Refuse what is neither None nor a finite number of requests a second, from one a day up."""
    if value is None:
        return
    if not isinstance(value, int | float) or isinstance(value, bool) or not _SLOWEST <= value <= sys.float_info.max:
        raise ValueError(
            f"{name} must be a number of requests a second, one a day at least, or None for no bound, not {value!r:.40}"
        )


def check_flag(name: str, value: object) -> None:
    """Refuse what is not a bool: "no" would count as yes."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, not {value!r}")


def check_verify(value: object) -> None:
    """Refuse what cannot be called; what it gives is seen when it is called."""
    if value is not None and not callable(value):
        raise ValueError(
            f"verify must be an async function that takes a Server, such as tcp_open(22), not {value!r:.60}"
        )


def without_userinfo(text: str) -> str:
    """Remove the user and the password from a URL, or from a path that was made from one.

    All up to the last @ is removed, because a password may hold @ and slashes.
    """
    return _USERINFO.sub("://…@", text)
