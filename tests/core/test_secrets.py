"""Secrets are masked in whatever form a cloud repeats them, and the cloud's own words are left alone."""

import copy
import html
import json
import pickle
import random
import string
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable
from typing import Final
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bulkrestart.core.faults import plain, read_fault
from bulkrestart.core.secrets import MASK, NO_SECRETS, Secret, SecretMask

FERNET: Final = "gAAAAABlq-Zt7_Xk2QvJ9rWb0uYcN5mPdL8aTfEiGhSoKxVwRz1BjCnUyDqM6s3H4g=="
UUID_TOKEN: Final = "4f1c0a9be2d34c7f8a6b5d0e9c817263"
BASE64_KEY: Final = "q7+Zk/9Xw2+LmN4/pRt8Vb=="
JWT: Final = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiI3In0.Kx3-pQ_7vLw9"
PASSWORD: Final = "correct & <horse> 'battery' \"9\""
ACCESS_KEY: Final = "QTWAOYTTINDUT2QVKYUC"
SECRETS: Final = {
    "fernet": FERNET,
    "uuid": UUID_TOKEN,
    "base64": BASE64_KEY,
    "jwt": JWT,
    "password": PASSWORD,
    "access key": ACCESS_KEY,
    "short": "hunt3r!",
}


def _escaped(text: str, form: str) -> str:
    return "".join(form.format(ord(char)) for char in text)


def _mixed_json(text: str) -> str:
    return "".join(f"\\u{ord(char):04x}" if place % 3 == 1 else char for place, char in enumerate(text))


FORMS: Final[dict[str, Callable[[str], str]]] = {
    "as it is": str,
    "upper case": str.upper,
    "lower case": str.lower,
    "json": lambda text: json.dumps(text)[1:-1],
    "json, every character": lambda text: _escaped(text, "\\u{:04x}"),
    "json, some characters": _mixed_json,
    "json, slashes": lambda text: json.dumps(text)[1:-1].replace("/", "\\/"),
    "json in json": lambda text: json.dumps(json.dumps(_mixed_json(text)))[3:-3],
    "javascript": lambda text: _escaped(text, "\\u{{{:x}}}"),
    "repr, hexadecimal": lambda text: _escaped(text, "\\x{:02x}"),
    "octal": lambda text: _escaped(text, "\\{:03o}"),
    "url": lambda text: quote(text, safe=""),
    "url, form": lambda text: quote(text, safe="").replace("%20", "+"),
    "url, every character": lambda text: _escaped(text, "%{:02X}"),
    "url, lower case": lambda text: _escaped(text, "%{:02x}"),
    "url, twice": lambda text: quote(quote(text, safe=""), safe=""),
    "url, five times": lambda text: _escaped(text, "%25252525{:02x}"),
    "url, unicode": lambda text: _escaped(text, "%u{:04x}"),
    "html": html.escape,
    "html, decimal": lambda text: _escaped(text, "&#{};"),
    "html, zeros": lambda text: _escaped(text, "&#{:05};"),
    "html, hexadecimal": lambda text: _escaped(text, "&#x{:X};"),
    "html, twice": lambda text: html.escape(html.escape(text)),
    "html, named": lambda text: text.replace("+", "&plus;").replace("/", "&sol;").replace("=", "&equals;"),
    "base64": lambda text: b64encode(text.encode()).decode(),
    "base64, for URLs": lambda text: urlsafe_b64encode(text.encode()).decode(),
    "base64, after 1": lambda text: b64encode(f":{text}".encode()).decode(),
    "base64, after 2": lambda text: b64encode(f"u:{text}, x".encode()).decode(),
    "base64, in lines": lambda text: "\n".join(
        b64encode(text.encode()).decode()[at : at + 16] for at in range(0, 400, 16)
    ),
    "hexadecimal": lambda text: text.encode().hex(),
    "hexadecimal, upper case": lambda text: text.encode().hex().upper(),
    "hexadecimal, pairs": lambda text: text.encode().hex(":"),
    "lines": lambda text: "\n  ".join(text[at : at + 5] for at in range(0, len(text), 5)),
    "null bytes between": lambda text: "\0".join(text),
    "zero-width characters between": lambda text: "\u200b".join(text),
    "soft hyphens and a direction between": lambda text: "\xad\u202e".join(text),
    "blanks between": lambda text: " ".join(text),
    "markup between": lambda text: "<wbr>".join(text[at : at + 4] for at in range(0, len(text), 4)),
    "in an attribute": lambda text: f'<input name="t" value="{html.escape(text)}">',
    "a list": lambda text: json.dumps(list(text)),
    "joined": lambda text: '" + "'.join(text[at : at + 6] for at in range(0, len(text), 6)),
}


def letters(text: str) -> str:
    """Keep the letters and digits, in lower case."""
    return "".join(char for char in text.lower() if char in string.ascii_lowercase + string.digits)


def parts_of(text: str, *, with_forms: bool = True) -> set[str]:
    """Give all parts of a text of six letters and digits; and with forms of its base64 and hexadecimal too."""
    forms = (text, b64encode(text.encode()).decode(), text.encode().hex()) if with_forms else (text,)
    return {form[at : at + 6] for form in map(letters, forms) for at in range(len(form) - 5)}


def test_what_is_shown_of_a_secret() -> None:
    """No repr, text, format, pickle or copy of a secret, or of a mask, tells it; only `reveal` does."""
    secret, mask = Secret(FERNET), SecretMask([FERNET])
    assert secret.reveal() == FERNET
    for shown in (repr(secret), str(secret), f"{secret}", f"{secret!r:>9}", repr([secret]), repr(mask), str(mask)):
        assert FERNET not in shown
        assert MASK in shown
    for copied in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="cannot be pickled or copied"):
            copied(secret)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", SECRETS)
def test_every_form_is_masked(name: str, form: str) -> None:
    """A secret is masked in every form, in the middle of a message that stays readable."""
    secret = SECRETS[name]
    text = f"The request carried {FORMS[form](secret)} which is refused."
    shown = plain(text, secrets=SecretMask([secret]))
    assert MASK in shown
    assert shown.startswith("The request carried ")
    assert shown.endswith(" which is refused.")
    assert not parts_of(secret) & parts_of(shown, with_forms=False)


@pytest.mark.parametrize("kind", ["json message", "json text", "page", "title", "text", "code", "cut short"])
@pytest.mark.parametrize("form", FORMS)
def test_every_kind_of_body(form: str, kind: str) -> None:
    """It is masked wherever a fault is read from: after the body was decoded, whatever the body is."""
    echo = FORMS[form](FERNET)
    body = {
        "json message": json.dumps({"forbidden": {"code": 403, "message": f"no {echo} here"}}),
        "json text": json.dumps({"headers": {"token": echo}}),
        "page": f"<html><body><p>no {html.escape(echo)} here</p></body></html>",
        "title": f"<html><title>no {html.escape(echo)} here</title></html>",
        "text": f"no {echo} here",
        "code": json.dumps({"error": {"code": echo, "message": "no"}}),
        "cut short": f'{{"forbidden": {{"message": "no {echo}',
    }[kind]
    fault = read_fault(403, {}, body.encode(), is_cut_short=kind == "cut short", secrets=SecretMask([FERNET]))
    assert not parts_of(FERNET) & parts_of(f"{fault.code} {fault.message}", with_forms=False)


@pytest.mark.parametrize("length", range(8, 66))
def test_a_part_of_a_secret_is_masked(length: int) -> None:
    """A part is masked: of at least 8 letters and digits at either end, or 11 in the middle."""
    rng = random.Random(length)
    for _ in range(10):
        secret = "".join(rng.choices(string.ascii_letters + string.digits, k=80)) + "aB3dE9"
        start = rng.randrange(len(secret) - length)
        for part in (secret[:length], secret[-length:], *([secret[start : start + length]] if length >= 11 else [])):
            shown = SecretMask([secret]).apply(f"This is a part of it: {part}.")
            assert shown.startswith("This is a part of i")
            assert shown.endswith(f"{MASK}.")
            assert not {part[at : at + 6] for at in range(length - 5)} & {
                shown[at : at + 6] for at in range(len(shown))
            }


@pytest.mark.parametrize("kept", range(0, 60))
def test_what_the_longest_message_cuts(kept: int) -> None:
    """The bound on a message cuts after the masking, so that no first half of a secret is left at its end."""
    shown = plain("x " * ((500 - kept) // 2) + FERNET, secrets=SecretMask([FERNET]))
    assert letters(FERNET)[:4] not in letters(shown)


@pytest.mark.parametrize("kept", range(8, 60))
def test_what_the_longest_text_cuts(kept: int) -> None:
    """What is cut before it is cleaned may leave a first half, which is masked too."""
    shown = plain("x" * 30 + " " * (4000 - 30 - kept) + FERNET, secrets=SecretMask([FERNET]))
    assert letters(FERNET)[:4] not in letters(shown)


#: What clouds and proxies say.
WORDS: Final = [
    "Cannot 'reboot' instance 616fb98f-46ca-475e-917e-2563e5a8cd19 while it is in task_state reboot_started",
    "Instance 616fb98f-46ca-475e-917e-2563e5a8cd19 is locked",
    "project_id in token mismatches with project_id in url.",
    "Malformed request URL: URL's project_id 'abc' doesn't match Context's project_id '0123456789abcdef'",
    "Version 9.9 is not supported by the API. Minimum is 2.1 and maximum is 2.60.",
    "Incorrect IAM authentication information: verify aksk signature fail, SDK-HMAC-SHA256",
    "policy user over ratelimit,limit:200,time:5 minute",
    "The server is under maintenance; see https://status.example.com/a%20b?c=1&amp;d=2 &#8211; sorry.",
    "<unparsable \\u0041 \\101 \\x41 %41 %zz &nosuch; \\",
]


@pytest.mark.parametrize("text", WORDS)
def test_the_words_of_a_cloud_are_left_alone(text: str) -> None:
    """No word is masked that stands in no secret, however many there are."""
    mask = SecretMask([*SECRETS.values(), "close", "no", "", "application", "web-restart-server-2024"])
    assert mask.apply(text) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("my-server-restart-key", "no server restart of my server"),
        ("instance", "an inst ance"[:7]),
        ("platform-team-production", "the platform team says: production"),
        ("12345678901234567890", "1234567890"),
        ("locked", "Instance x is locked"),
        ("reboot1", "cannot reboot 2"),
        ("a1b2c", "a1b2c"),
    ],
)
def test_parts_of_words_are_no_secrets(value: str, text: str) -> None:
    """Of a value of plain words, or of digits, only all of it is masked; and nothing that is short."""
    assert SecretMask([value]).apply(text) == text


def test_a_value_of_words_is_masked_as_a_whole() -> None:
    """A value of words is a secret all the same."""
    mask = SecretMask(["swordfish-opensesame"])
    assert mask.apply("key Swordfish-OpenSesame is unknown") == f"key {MASK} is unknown"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"a {FERNET} b {FERNET} c", f"a {MASK} b {MASK} c"),
        (f"{FERNET}{FERNET}", f"{MASK}{MASK}"),
        (f"{FERNET[:20]}-._{FERNET[20:40]}", MASK),
        (f"{FERNET[:20]}?{UUID_TOKEN[:20]}", f"{MASK}?{MASK}"),
        (f"{FERNET[:20]} or {UUID_TOKEN}", f"{MASK} or {MASK}"),
        ("é" + FERNET + "é", f"é{MASK}é"),
    ],
    ids=range(6),
)
def test_what_is_left(text: str, shown: str) -> None:
    """All between the first and the last character of a secret is masked, and nothing besides."""
    assert SecretMask([FERNET, UUID_TOKEN]).apply(text) == shown


def test_more_encodings_than_are_decoded() -> None:
    """Ever more encodings on top of one another are not decoded for ever, and what is left of them is no secret."""
    for text in ("%" + "25" * 2000 + "41", FERNET.replace("g", "%" + "25" * 12 + "67", 1)):
        assert FERNET not in SecretMask([FERNET]).apply(text)


def test_punctuation_alone() -> None:
    """A value without letters and digits is masked as it is."""
    assert SecretMask(["!?!?!?!?$", "ab----------"]).apply("a !?!?!?!?$ b ab---------- c") == f"a {MASK} b {MASK} c"


def test_short_skeleton_of_random_value() -> None:
    """A value that is long by its punctuation alone is found without it too."""
    assert SecretMask(["a1b2..c3."]).apply("it is A1B2C3, it is") == f"it is {MASK}, it is"


def test_nothing_to_mask() -> None:
    """Without secrets, and without a text, there is nothing to do."""
    assert NO_SECRETS.apply(FERNET) == FERNET
    assert SecretMask([FERNET]).apply("") == ""


@pytest.mark.parametrize("header", ["x-compute-request-id", "x-openstack-request-id"])
def test_an_id_of_a_request_that_is_a_secret(header: str) -> None:
    """A request id that repeats a secret is none."""
    headers = {header: f"req-{UUID_TOKEN}"}
    assert read_fault(500, headers, b"", secrets=SecretMask([UUID_TOKEN])).request_id is None
    assert read_fault(500, headers, b"", secrets=SecretMask([FERNET])).request_id == f"req-{UUID_TOKEN}"


@given(st.text(alphabet="\\u%&#x41;<>ab01 \n", max_size=80))
@settings(deadline=None)
def test_any_text(text: str) -> None:
    """No text, whatever it escapes, makes a mask raise, and one without the secret is left as it is."""
    assert SecretMask([FERNET]).apply(text) == text


@given(st.text(alphabet="ab01-", min_size=8, max_size=12), st.text(alphabet="ab01-%\\", max_size=60))
@settings(deadline=None)
def test_any_secret(secret: str, text: str) -> None:
    """A secret never stands in what was masked."""
    assert secret not in SecretMask([secret]).apply(f"{text}{secret}{text}")
