"""What an answer of the cloud says went wrong, whoever wrote it: Nova, ECS, its gateway, Keystone or a proxy.

Law: every body, whatever its bytes, becomes one `Fault`; nothing here raises, and nothing here decides.
"""

import html
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from functools import lru_cache
from typing import Final

from bulkrestart.core.secrets import NO_SECRETS, SecretMask


class Body(StrEnum):
    """What the body of an answer was."""

    #: Nothing, or white space.
    EMPTY = "empty"
    JSON = "json"
    #: Not JSON: a proxy's page, or JSON that cannot be read.
    OTHER = "other"
    #: The connection ended before the body did. What had come by then is read all the same.
    CUT_SHORT = "cut_short"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What one answer says, in the cloud's own words.

    Attributes:
        code: The cloud's own code as it stands: "Ecs.0605", "APIGW.0308". A number in its place only repeats the
            status, so Nova's envelope gives its name ("conflictingRequest") and Keystone's its title
            ("Unauthorized"); the number itself is the last resort. "error" where an `error` names no code.
            "" where the answer names no error.
        message: The cloud's own words on one line of at most 500 characters; "" without any.
        retry_after: How long the cloud asks to wait, in seconds, as it said it; the caller bounds it.
            None if it does not ask. It does not say that the answer was throttled.
        request_id: Nova's id of the request, the one that its action log shows; None without one.
        body: What the body was.
    """

    code: str = ""
    message: str = ""
    retry_after: float | None = None
    request_id: str | None = None
    body: Body = Body.EMPTY

    @property
    def is_nova_fault(self) -> bool:
        """Whether the body has the envelope that only Nova's API writes, so the answer comes from the API itself."""
        return self.body is Body.JSON and self.code in _NOVA_FAULTS

    def has_code(self, *codes: str) -> bool:
        """Tell whether the code is one of these, in any case: ECS writes both "Ecs." and "ECS."."""
        return self.code.casefold() in {code.casefold() for code in codes}


#: nova/api/openstack/wsgi.py `Fault._fault_names`.
_NOVA_FAULTS: Final = frozenset(
    {
        "badRequest",
        "unauthorized",
        "forbidden",
        "itemNotFound",
        "badMethod",
        "conflictingRequest",
        "overLimit",
        "badMediaType",
        "notImplemented",
        "serviceUnavailable",
        "computeFault",
    }
)
#: What stands under one of these keys is a fault even if it names no code.
_ENVELOPES: Final = _NOVA_FAULTS | {"error"}
#: The order of Huawei's SDK (huaweicloudsdkcore/exceptions/exception_handler.py).
_CODES: Final = ("error_code", "errorCode", "code")
_MESSAGES: Final = ("error_msg", "error_message", "errorMsg", "message")
#: The only lists that hold faults: ECS's `error.details`, and `internalError` of its batch requests.
_FAULT_LISTS: Final = frozenset({"details", "internalError"})

#: How many objects deep a fault is looked for. A refusal is all about its fault. A success may show a server, whose
#: own past fault ({"server": {"fault": {"code": ..., "message": ...}}}) and metadata stand two deep and are not the
#: answer's.
_DEPTH: Final = 4
_DEPTH_OF_SUCCESS: Final = 1

_LONGEST_CODE: Final = 100
LONGEST_MESSAGE: Final = 500
#: Characters of a text that are looked at. With more than 4300 digits int(), and so html.unescape("&#999...;"), raises.
_LONGEST_READ: Final = 4000
#: Characters of a page that are looked at: its title stands in its head.
_LONGEST_PAGE: Final = 65536

_NUMBER: Final = re.compile(r"[0-9]+(?:\.[0-9]+)?")
#: A delay as clouds write it. RFC 9110, section 10.2.3, allows whole seconds only; some clouds add a sign or a unit.
_DELAY: Final = re.compile(r"\+?([0-9]+(?:\.[0-9]+)?)\s*([a-z]*)", re.IGNORECASE)
_UNITS: Final = {
    **dict.fromkeys(("", "s", "sec", "secs", "second", "seconds"), 1.0),
    **dict.fromkeys(("ms", "msec", "millisecond", "milliseconds"), 0.001),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), 60.0),
}
#: The longest plausible delay, in seconds: 30 days. A larger number is not a delay, and a later date is ignored.
_LONGEST_DELAY: Final = 2_592_000.0
#: Units per second of a time since the epoch: seconds, milliseconds, microseconds, nanoseconds.
_EPOCH_UNITS: Final = (1.0, 1e3, 1e6, 1e9)
#: oslo_context/context.py `generate_request_id`: "req-" and a UUID. It becomes part of a path, so nothing else passes.
_REQUEST_ID: Final = re.compile(r"req-[0-9A-Za-z-]{1,64}")
_WINDOW: Final = re.compile(
    r"over ratelimit,\s*limit:\s*[0-9]+,\s*time:\s*([0-9]{1,9})\s*(second|minute|hour|day)", re.IGNORECASE
)
_SECONDS: Final = {"second": 1.0, "minute": 60.0, "hour": 3600.0, "day": 86400.0}
#: Answers that are about a rate: there `x-ratelimit-reset` is an answer and not mere news.
_RATE_STATUSES: Final = frozenset({413, 429, 503})
#: A number between these may be a point in time, in seconds since the epoch: from 2001 to 2096.
_SMALLEST_EPOCH: Final = 1e9
_LARGEST_EPOCH: Final = 4e9

#: The year 2010, in which OpenStack began. An earlier `Date` comes from a clock that was never set.
_EARLIEST_DATE: Final = 1_262_304_000.0
#: The year 9000: what is reckoned from a later date could leave the calendar.
_LATEST_DATE: Final = 221_845_392_000.0

_TITLE: Final = re.compile(r"<title[^<>]{0,200}>([^<]{1,600})", re.IGNORECASE)
#: Ends at the end of the text if nothing closes it, so that no page makes the search quadratic.
_UNSEEN: Final = re.compile(r"<!--.*?(?:-->|\Z)|<(script|style)\b.*?(?:</\1\b[^>]*>?|\Z)", re.IGNORECASE | re.DOTALL)
_TAG: Final = re.compile(r"<[^<>]*>")
#: Text that may be a secret which we do not know: another user's token, or the password of a URL.
#: A run of 64 characters is a signature or a token; ids are shorter. A URL may hold a name and a password.
_SECRET: Final = re.compile(
    r"""((?:token|authorization|signature|password|secret)["'\\]*\s*[:=]\s*["'\\]*(?:(?:bearer|basic)\s+)?)"""
    r"""[\w.~%+/=-]{12,}|[\w+=-]{64,}|(?<=://)[^\s/@]+(?=@)""",
    re.IGNORECASE | re.ASCII,
)
#: The same, but long words are kept: a user who opens a link needs all of it.
_SECRET_OF_LINK: Final = re.compile(
    r"""((?:token|authorization|signature|password|secret)=)[^\s&#]{12,}|(?<=://)[^\s/@]+(?=@)""", re.IGNORECASE
)
_LINK: Final = re.compile(r"(https?://\S+)")


def read_fault(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    is_cut_short: bool = False,
    secrets: SecretMask = NO_SECRETS,
) -> Fault:
    """Read what an answer says, whoever wrote it.

    A success is read too: Huawei Cloud documents `Common.0024` "Flow limit exceeded" with status 202.

    `retry_after` is the first of these that can be read: the `Retry-After` header (seconds, or a date against the same
    answer's `Date`), Nova's `retryAfter` in the body, `x-ratelimit-reset` (if the status is about rates or nothing
    remains), the window that the gateway's message names.

    Ids of gateways (`X-Request-Id`, `request_id` in the body) are not read. The action log never shows them,
    so one in `request_id` would prove that nothing was started; in `message` they would make like answers unlike.

    Args:
        status: The answer's status code.
        headers: Its headers; looked up by lower-case names, so any mapping that ignores case will do.
        body: Its body, as far as it came.
        is_cut_short: Whether the connection ended before the body did.
        secrets: Masks the secrets of the request in what is read.

    Returns:
        The fault; without a code and a message where the answer names no error.
    """
    text = body.decode("utf-8-sig", errors="replace").strip()
    document: object = None
    kind = Body.EMPTY
    if text:
        try:
            # Numbers stay text: int() raises on one of more than 4300 digits, and a code needs no arithmetic.
            document = json.loads(text, parse_int=str, parse_float=str, parse_constant=str)
            kind = Body.JSON
        except (ValueError, RecursionError):
            kind = Body.OTHER

    is_success = 200 <= status < 300
    code, record = _find(document, _DEPTH_OF_SUCCESS if is_success else _DEPTH)
    if kind is not Body.JSON:
        words = _without_markup(text)
    elif is_success and not code:
        words = ""
    else:
        words = _first_text(record, _MESSAGES) or (text if document else "")

    return Fault(
        code=plain(code, _LONGEST_CODE, secrets=secrets),
        message=plain(words, secrets=secrets),
        retry_after=_retry_after(status, headers, _first_text(record, ("retryAfter",)), words),
        request_id=_request_id(headers, secrets),
        body=Body.CUT_SHORT if is_cut_short else kind,
    )


def cloud_time(headers: Mapping[str, str]) -> float | None:
    """Read the cloud's clock from the `Date` header of an answer.

    Args:
        headers: The answer's headers.

    Returns:
        Seconds since the epoch, in whole seconds as in HTTP; None without a plausible date.
    """
    date = _epoch(headers.get("date", ""))
    return date if date is not None and date >= _EARLIEST_DATE else None


def _find(document: object, depth: int) -> tuple[str, Mapping[str, object]]:
    """Find the outermost code of a document, and the object that says more about it."""
    if document is None:
        return "", {}
    for name, record in _walk(document, depth):
        if code := _code(name, record):
            return code, record
    if not isinstance(document, dict):
        return "", {}
    for name, value in document.items():
        if name in _ENVELOPES and value:
            return name, value if isinstance(value, dict) else {"message": value, **document}
    return "", document


def _walk(document: object, depth: int) -> Iterator[tuple[str, dict[str, object]]]:
    """Yield the objects of a document, the outermost first, each with the key that it stands under."""
    level: list[tuple[str, object]] = [("", document)]
    for _ in range(depth + 1):
        inner: list[tuple[str, object]] = []
        for name, value in level:
            if isinstance(value, dict):
                yield name, value
                inner.extend(value.items())
            elif isinstance(value, list) and name in _FAULT_LISTS:
                inner.extend((name, item) for item in value)
        level = inner


def _code(name: str, record: Mapping[str, object]) -> str:
    """Read the code of an object that stands under this key; "" if it is no fault."""
    for key in _CODES:
        code = _first_text(record, (key,))
        # A bare "code" may be anything's; beside a message, or in a fault's envelope, it is an error's.
        if not code or (key == "code" and "message" not in record and name not in _ENVELOPES):
            continue
        if not _NUMBER.fullmatch(code):
            return code
        return name if name in _NOVA_FAULTS else _first_text(record, ("title",)) or code
    return ""


def _first_text(record: Mapping[str, object], keys: tuple[str, ...]) -> str:
    """Read the first of these keys that holds text; "" if none does."""
    for key in keys:
        value = record.get(key)
        if isinstance(value, str) and value.strip():
            return value.strip()
    return ""


def _without_markup(text: str) -> str:
    """Read the title of a page, or else its text."""
    if not text.startswith("<"):
        return text
    page = _UNSEEN.sub(" ", text[:_LONGEST_PAGE])
    title = _TITLE.search(page)
    words = title[1] if title and title[1].strip() else _TAG.sub(" ", page)
    return html.unescape(words.strip()[:_LONGEST_READ])


def plain(
    text: str, longest: int = LONGEST_MESSAGE, *, secrets: SecretMask = NO_SECRETS, keeps_links: bool = False
) -> str:
    """Make one line of what a cloud wrote: printable characters without secrets, cut to a length.

    Secrets are masked after invisible characters are removed, which could split them, and before the line is cut, which
    could leave a part that is too short to be found.

    Args:
        text: What the cloud wrote, decoded.
        longest: The most characters of the line.
        secrets: Masks the secrets of the request. Text that looks like another secret is masked too.
        keeps_links: Whether long codes in a link are kept; a user name, a password or a token in it is still masked.
    """
    if not text:
        return ""
    # What is not printable includes lone surrogates, which no file takes, and marks that turn a terminal's line around.
    printable = "".join(char for char in text[:_LONGEST_READ] if char.isprintable() or char.isspace())
    line = secrets.apply(" ".join(printable.split()))
    parts = _LINK.split(line) if keeps_links else [line]
    line = "".join((_SECRET_OF_LINK if at % 2 else _SECRET).sub(r"\1…", part) for at, part in enumerate(parts))
    return line if len(line) <= longest else line[: longest - 1].rstrip() + "…"


def _request_id(headers: Mapping[str, str], secrets: SecretMask) -> str | None:
    """Read Nova's own id of the request."""
    # The first is Nova's by its name. Any OpenStack service on the way may write the second.
    for name in ("x-compute-request-id", "x-openstack-request-id"):
        # A header that came twice is joined by a comma. Two ids leave open which one the log shows.
        ids = {part.strip() for part in headers.get(name, "").split(",") if _REQUEST_ID.fullmatch(part.strip())}
        if len(ids) == 1:
            request_id = ids.pop()
            return request_id if secrets.apply(request_id) == request_id else None
    return None


def _retry_after(status: int, headers: Mapping[str, str], hint: str, words: str) -> float | None:
    """Read how long to wait, in seconds, from the first source that says it."""
    wait = _delay(headers.get("retry-after", ""), headers)
    if wait is None:
        wait = _delay(hint, headers)
    if wait is None:
        wait = _reset(status, headers)
    return _window(words) if wait is None else wait


def _delay(text: str, headers: Mapping[str, str]) -> float | None:
    """Return the seconds of a delay, or until a moment; the longest if a header was sent more than once.

    A number too large for a delay is read as a time since the epoch, in the unit that makes it plausible. None if there
    is no such unit.
    """
    if not text:
        return None
    parts = [_DELAY.fullmatch(part.strip()) for part in text.split(",")]
    delays = [
        _seconds_or_moment(float(part[1]) * _UNITS[part[2].lower()], headers)
        for part in parts
        if part is not None and part[2].lower() in _UNITS
    ]
    if len(delays) < len(parts):
        return _until(_epoch(text), headers)
    return max((delay for delay in delays if delay is not None), default=None)


def _seconds_or_moment(seconds: float, headers: Mapping[str, str]) -> float | None:
    """Return a number as a delay; one that is too large for that, as the delay until that time since the epoch."""
    if seconds <= _LONGEST_DELAY:
        return seconds
    moments = (seconds / unit for unit in _EPOCH_UNITS)
    return _until(next((moment for moment in moments if _SMALLEST_EPOCH < moment < _LARGEST_EPOCH), None), headers)


def _reset(status: int, headers: Mapping[str, str]) -> float | None:
    """Read `x-ratelimit-reset`, which some clouds send with every answer: a delay or a moment."""
    if status not in _RATE_STATUSES and _number(headers.get("x-ratelimit-remaining", "")) != 0:
        return None
    return _delay(headers.get("x-ratelimit-reset", ""), headers)


def _window(words: str) -> float | None:
    """Read the window of "policy user over ratelimit,limit:200,time:5 minute" as the wait: the whole of it.

    One limit's share of it (300 s / 200 = 1.5 s) is the pace to keep, not the wait once the limit is spent: after a
    burst nothing is free again before the burst is a window old, if the window slides, or before it starts anew, if it
    does not; and the gateway was seen to count the calls that it refused. After a whole window without a call of ours,
    none of our calls is in any window. The windows that were seen are 1 and 5 minutes, and the provider's Go SDK waits
    a minute, so this is of the same order; for a window of a day the caller's bound is the end of it.
    """
    window = _WINDOW.search(words[:_LONGEST_READ])
    return int(window[1]) * _SECONDS[window[2].lower()] if window else None


def _number(text: str) -> float | None:
    """Read a finite number that is not negative; of a header that came twice the larger one."""
    if not text:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(_NUMBER.fullmatch(part) for part in parts):
        return None
    number = max(float(part) for part in parts)
    return number if math.isfinite(number) else None


def _until(then: float | None, headers: Mapping[str, str]) -> float | None:
    """Return the seconds until then by the answer's own clock; None if unknown, past, or too far ahead."""
    now = cloud_time(headers)
    if then is None or now is None:
        return None
    return then - now if 0.0 <= then - now <= _LONGEST_DELAY else None


@lru_cache(maxsize=8)  # all answers of one second carry the same
def _epoch(date: str) -> float | None:
    """Read an HTTP-date (RFC 9110, section 5.6.7), or an ISO 8601 time, as seconds since the epoch."""
    if not date:
        return None
    try:
        moment = datetime.fromisoformat(date) if date[:4].isdigit() else parsedate_to_datetime(date)
        # Without a zone it is UTC, as HTTP has it; Python would take it for local time.
        seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        return seconds if 0.0 <= seconds < _LATEST_DATE else None
    except (ValueError, OverflowError):
        # ValueError by contract; OverflowError slips through for a zone of 20 digits.
        return None
