"""Huawei Cloud's signature: what its own library makes of the same request, and a new one for each attempt."""

import re
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from urllib.parse import parse_qsl, quote, urlencode

import httpx
import pytest
import trio
from huaweicloudsdkcore.sdk_request import SdkRequest  # type: ignore[import-untyped] # it has no types
from huaweicloudsdkcore.signer.signer import Signer  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st

from bulkrestart import AccessKey, AuthError, Outcome, Reason, RestartClient, StopReason
from bulkrestart.cloud.signature import sign
from bulkrestart.core.secrets import Secret
from bulkrestart.simulator import Call, Cloud, Face, Fault, asgi
from tests.virtual import EPOCH, virtually

AK: Final = "AKEXAMPLE"
SK: Final = "SKEXAMPLE/with+all=signs"
PROJECT: Final = "0123456789abcdef0123456789abcdef"
HOST: Final = "ecs.eu-de.otc.t-systems.com"
SERVER: Final = "616fb98f-46ca-475e-917e-2563e5a8cd19"
#: 2024-01-01T00:00:00Z
MIDNIGHT: Final = 1_704_067_200.0


@dataclass(frozen=True, slots=True)
class Keys:
    """The credentials of the provider's own library, as far as its signer reads them."""

    ak: str
    sk: str


def flow(request: httpx.Request, *, auth: AccessKey | None = None) -> httpx.Request:
    """Sign a request as httpx lets it be signed."""
    signs = auth or AccessKey(AK, SK, clock=lambda: MIDNIGHT)
    steps = signs.sync_auth_flow(request)
    try:
        return next(steps)
    finally:
        steps.close()


def theirs(request: httpx.Request, *, secret_key: str = SK) -> str:
    """Let the provider's own library sign what we signed: the same headers, the path and the query as they are sent."""
    path, _, query = request.url.raw_path.decode().partition("?")
    signed_headers = re.search(r"SignedHeaders=([^,]+),", request.headers["authorization"])
    assert signed_headers is not None
    signed = SdkRequest(
        method=request.method,
        schema=request.url.scheme,
        host=request.headers["host"],
        resource_path=path,
        query_params=parse_qsl(query, keep_blank_values=True),
        header_params={name: request.headers[name] for name in signed_headers[1].split(";")},
        body=request.content,
    )
    # It signs UNSIGNED-PAYLOAD where it takes the body for no JSON; what is sent here always is.
    authorization: str = Signer(Keys(AK, secret_key)).sign(signed).header_params["Authorization"]
    return authorization


def test_the_known_vector() -> None:
    """A reboot at midnight has the signature that huaweicloudsdkcore 3.1.219 gives it."""
    auth = AccessKey(AK, "SKEXAMPLE", project_id=PROJECT, clock=lambda: MIDNIGHT)
    url = f"https://{HOST}/v2.1/{PROJECT}/servers/{SERVER}/action"
    body = b'{"reboot":{"type":"SOFT"}}'
    request = flow(httpx.Request("POST", url, content=body, headers={"Content-Type": "application/json"}), auth=auth)
    assert request.headers["x-sdk-date"] == "20240101T000000Z"
    assert request.headers["x-project-id"] == PROJECT
    assert request.headers["authorization"] == (
        f"SDK-HMAC-SHA256 Access={AK}, SignedHeaders=content-type;host;x-project-id;x-sdk-date, "
        "Signature=fad4bdb75fd965a80b3ba8f39fe62a32dcb448e5e4dd6a5d8f8c56d5fe2bb258"
    )


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("/", id="root"),
        pytest.param("", id="no path"),
        pytest.param("/v2.1/p/servers/detail", id="plain"),
        pytest.param("/v2.1/p/servers/", id="slash at the end"),
        pytest.param("/a//b", id="empty segment"),
        pytest.param("/a/../b/.", id="dots"),
        pytest.param("/servers/a%20b", id="encoded blank"),
        pytest.param("/servers/a b", id="blank"),
        pytest.param("/servers/a%2Fb", id="encoded slash"),
        pytest.param("/servers/%25", id="encoded per cent"),
        pytest.param("/servers/%252F", id="encoded twice"),
        pytest.param("/servers/a+b", id="plus"),
        pytest.param("/servers/a~b-c_d.e", id="unreserved"),
        pytest.param("/servers/!$&'()*,;=:@", id="what a path may hold"),
        pytest.param("/servers/\u00fcml\u00e4ut", id="umlauts"),
        pytest.param("/servers/%C3%BC", id="encoded umlaut"),
        pytest.param("/servers/%FF", id="encoded byte that is no text"),
        pytest.param("/servers/\U0001f600", id="emoji"),
        pytest.param("/servers/%zz", id="per cent that encodes nothing"),
        pytest.param("/s?limit=1000&marker=a", id="query"),
        pytest.param("/s?b=2&a=1", id="order"),
        pytest.param("/s?a=2&a=10&a=1", id="repeated"),
        pytest.param("/s?a=1&b=1&a=0", id="repeated apart"),
        pytest.param("/s?a=&b", id="blank values"),
        pytest.param("/s?", id="empty query"),
        pytest.param("/s?a=b=c", id="equals sign in a value"),
        pytest.param("/s?changes-since=2024-01-01T00:00:00Z", id="colons"),
        pytest.param("/s?name=%5Eweb-%28a%7Cb%29%24", id="encoded pattern"),
        pytest.param("/s?a=x%20y", id="encoded blank in the query"),
        pytest.param("/s?a=x+y", id="plus in the query"),
        pytest.param("/s?a=x%2By", id="encoded plus in the query"),
        pytest.param("/s?a=%26&b=%3D", id="encoded delimiters"),
        pytest.param("/s?tags=\u00fc&tags=~", id="umlaut and tilde in the query"),
        pytest.param("/s?A=1&a=1&_=1", id="case and underline"),
    ],
)
def test_each_url_has_the_signature_of_the_library(url: str) -> None:
    """Whatever the path and the query, the signature is that of the provider's own library."""
    request = flow(httpx.Request("GET", f"https://{HOST}{url}"))
    assert request.headers["authorization"] == theirs(request)


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "post"])
@pytest.mark.parametrize("body", [b"", b"{}", b'{"a": "\xc3\xbc"}', b"\x00\xff", b"x" * 100_000])
def test_each_body_has_the_signature_of_the_library(method: str, body: bytes) -> None:
    """Whatever the method and the body, the signature is that of the provider's own library."""
    request = flow(httpx.Request(method, f"https://{HOST}/a", content=body))
    assert request.headers["authorization"] == theirs(request)


@pytest.mark.parametrize(
    ("url", "headers"),
    [
        pytest.param(f"https://{HOST}:8443/a", {}, id="port"),
        pytest.param(f"http://{HOST}:80/a", {}, id="usual port"),
        pytest.param("https://[::1]/a", {}, id="address"),
        pytest.param("https://b\u00fccher.example/a", {}, id="international name"),
        pytest.param(f"https://{HOST}/a", {"Host": "other.example"}, id="host of its own"),
        pytest.param(f"https://{HOST}/a", {"Content-Type": "application/json;charset=utf8"}, id="charset"),
        pytest.param(f"https://{HOST}/a", {"Content-Type": "  application/json "}, id="blanks around a value"),
        pytest.param(f"https://{HOST}/a", {"X_Odd": "1", "X-Own": "2", "Accept": "*/*"}, id="headers of others"),
        pytest.param(f"https://{HOST}/a", {"X-Sdk-Date": "old", "Authorization": "old"}, id="old signature"),
    ],
)
def test_headers_have_the_signature_of_the_library(url: str, headers: dict[str, str]) -> None:
    """The host is signed as it is sent, and so is the content type; what others add is not."""
    request = flow(httpx.Request("POST", url, content=b"{}", headers=headers))
    assert request.headers["authorization"] == theirs(request)
    assert request.headers["x-sdk-date"] == "20240101T000000Z"
    types = ["content-type"] if "Content-Type" in headers else []
    names = ";".join([*types, "host", "x-sdk-date"])
    assert f"SignedHeaders={names}," in request.headers["authorization"]


texts = st.text(st.characters(codec="utf-8"), max_size=12)


@settings(max_examples=100, deadline=None)
@given(
    segments=st.lists(texts, max_size=4),
    query=st.lists(st.tuples(texts, texts), max_size=5),
    body=st.binary(max_size=64),
    secret_key=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=64),
    project_id=st.none() | st.from_regex("[0-9a-f]{32}", fullmatch=True),
)
def test_any_request_has_the_signature_of_the_library(
    segments: list[str], query: list[tuple[str, str]], body: bytes, secret_key: str, project_id: str | None
) -> None:
    """Whatever is sent, the signature is that of the provider's own library."""
    url = f"https://{HOST}/{'/'.join(quote(one, safe='') for one in segments)}?{urlencode(query)}"
    auth = AccessKey(AK, secret_key, project_id=project_id, clock=lambda: MIDNIGHT)
    request = flow(httpx.Request("POST", url, content=body), auth=auth)
    assert request.headers["authorization"] == theirs(request, secret_key=secret_key)


@given(pairs=st.lists(st.tuples(texts, texts), max_size=6), shift=st.integers(0, 5))
def test_the_order_of_the_query_does_not_matter(pairs: list[tuple[str, str]], shift: int) -> None:
    """A query that a proxy reorders is the same to the gateway."""

    def signed(query: list[tuple[str, str]]) -> str:
        headers = {"host": HOST, "x-sdk-date": "20240101T000000Z"}
        return sign(
            method="GET",
            path="/a",
            query=query,
            headers=Secret(headers),
            body=b"",
            access_key=Secret(AK),
            secret_key=Secret(SK),
        )

    assert signed(pairs) == signed(pairs[shift:] + pairs[:shift])


def test_temporary_keys_send_and_sign_their_token() -> None:
    """What came with temporary keys is sent with every request, and signed."""
    auth = AccessKey(AK, SK, security_token="ST/EXAMPLE==", clock=lambda: MIDNIGHT)
    request = flow(httpx.Request("GET", f"https://{HOST}/a"), auth=auth)
    assert request.headers["x-security-token"] == "ST/EXAMPLE=="
    assert "x-project-id" not in request.headers
    assert "SignedHeaders=host;x-sdk-date;x-security-token," in request.headers["authorization"]
    assert request.headers["authorization"] == theirs(request)


@pytest.mark.parametrize("change", ["method", "path", "query", "body", "host", "date", "secret"])
def test_whatever_is_changed_changes_the_signature(change: str) -> None:
    """No part of a request can be changed under its signature."""

    def signature(change: str = "") -> str:
        host = "other.example" if change == "host" else HOST
        url = f"https://{host}/{'b' if change == 'path' else 'a'}?a={'2' if change == 'query' else '1'}"
        at = MIDNIGHT + (1.0 if change == "date" else 0.0)
        request = httpx.Request(
            "PUT" if change == "method" else "POST", url, content=b"[]" if change == "body" else b"{}"
        )
        auth = AccessKey(AK, "other" if change == "secret" else SK, clock=lambda: at)
        return flow(request, auth=auth).headers["authorization"].rpartition("=")[2]

    assert signature(change) != signature()


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", ["bytes", "stream"])
async def test_it_signs_for_any_client_of_httpx(kind: str) -> None:
    """The body is hashed as it is sent, also where it comes in pieces."""
    seen: list[httpx.Request] = []

    async def pieces() -> AsyncIterator[bytes]:
        yield b'{"reboot":'
        yield b"{}}"

    async def answer(request: httpx.Request) -> httpx.Response:
        await request.aread()
        seen.append(request)
        return httpx.Response(202)

    auth = AccessKey(AK, SK, clock=lambda: MIDNIGHT)
    async with httpx.AsyncClient(transport=httpx.MockTransport(answer), auth=auth) as http:
        await http.post(f"https://{HOST}/a", content=b'{"reboot":{}}' if kind == "bytes" else pieces())
    assert seen[0].headers["authorization"] == theirs(seen[0])


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("access_key", lambda bad: AccessKey(bad, SK)),
        ("secret_key", lambda bad: AccessKey(AK, bad)),
        ("project_id", lambda bad: AccessKey(AK, SK, project_id=bad)),
        ("security_token", lambda bad: AccessKey(AK, SK, security_token=bad)),
    ],
)
@pytest.mark.parametrize(
    "bad",
    [
        pytest.param("", id="empty"),
        pytest.param(" ", id="blank"),
        pytest.param("TOPSECRET\n", id="newline at the end, as a file has it"),
        pytest.param("TOPSECRET\r\nX-Evil: 1", id="another header"),
        pytest.param("TOP SECRET", id="two words"),
        pytest.param("TOPSECRET\x00", id="null byte"),
        pytest.param("TOPSECRET\u200b", id="zero-width space, as a web page pastes it"),
        pytest.param("TOPSECRET\xe9", id="not ASCII"),
        pytest.param(b"TOPSECRET", id="bytes"),
        pytest.param(5, id="number"),
    ],
)
def test_what_cannot_be_a_key_is_refused(name: str, make: Callable[[object], AccessKey], bad: object) -> None:
    """It is a ValueError that says which one it is, and does not repeat what may be most of a secret."""
    with pytest.raises(ValueError, match=f"^{name} must be printable ASCII without white space") as caught:
        make(bad)
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize("make", [lambda none: AccessKey(none, SK), lambda none: AccessKey(AK, none)])
def test_a_key_that_is_none_is_refused(make: Callable[[None], AccessKey]) -> None:
    """None, as an unset variable gives it, is no key."""
    with pytest.raises(ValueError, match="_key must be printable ASCII"):
        make(None)


def test_keys_are_not_shown() -> None:
    """Keys are not shown where they, or what holds them, are printed."""
    auth = AccessKey(AK, SK, security_token="ST")
    assert repr(auth) == str(auth) == f"{auth}" == "AccessKey(...)"


def refusal(date: float | str | None) -> httpx.Response:
    """Make a 401 of a gateway that writes this time, or none."""
    if isinstance(date, float):
        date = datetime.fromtimestamp(date, UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
    return httpx.Response(401, headers={} if date is None else {"Date": date})


@pytest.mark.parametrize(
    ("date", "remedy"),
    [
        pytest.param(MIDNIGHT, "check the access key, the secret key and the project", id="same time"),
        pytest.param(MIDNIGHT - 900.0, "check the access key", id="15 minutes behind"),
        pytest.param(MIDNIGHT + 900.0, "check the access key", id="15 minutes ahead"),
        pytest.param(None, "check the access key", id="no date"),
        pytest.param("rubbish", "check the access key", id="odd date"),
        pytest.param("", "check the access key", id="empty date"),
        pytest.param(MIDNIGHT - 1200.0, "clock is 20 minutes ahead of the cloud's: set it", id="20 minutes behind"),
        pytest.param(MIDNIGHT + 1200.0, "clock is 20 minutes behind the cloud's: set it", id="20 minutes ahead"),
        pytest.param(MIDNIGHT + 7200.0, "clock is 120 minutes behind", id="wrong zone"),
        pytest.param(MIDNIGHT - 901.0, "clock is 15 minutes ahead", id="a second more than is borne"),
        pytest.param(0.0, "check the access key", id="a date that cannot be true"),
        pytest.param(1_300_000_000.0, "minutes ahead of the cloud's", id="long ago"),
    ],
)
def test_a_clock_that_is_off_is_named(date: float | str | None, remedy: str) -> None:
    """Where the gateway's date shows that our clock is off, that is the remedy; else the keys are."""
    assert remedy in AccessKey(AK, SK, clock=lambda: MIDNIGHT).remedy(refusal(date))


class SignedCloud:
    """A cloud behind Huawei Cloud's gateway, and every request to it with its signature.

    Args:
        off: Seconds by which our clock is ahead of the cloud's.
    """

    def __init__(self, servers: int, *, off: float = 0.0) -> None:
        def clock() -> float:
            return EPOCH + trio.current_time()

        self.cloud = Cloud(servers, face=Face.HUAWEI, clock=clock)
        self.cloud.add_access_key(AK)
        self.requests: list[httpx.Request] = []
        self._app = httpx.ASGITransport(asgi(self.cloud))
        auth = AccessKey(AK, SK, project_id=self.cloud.project_id, clock=lambda: clock() + off)
        http = httpx.AsyncClient(transport=httpx.MockTransport(self._answer))
        self.client = RestartClient(f"http://cloud.test/v2.1/{self.cloud.project_id}", auth=auth, http=http)

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return await self._app.handle_async_request(request)

    def posts(self, server_id: str) -> Iterator[httpx.Request]:
        """Give the reboots of one server that were sent."""
        return (one for one in self.requests if one.method == "POST" and server_id in one.url.path)


@pytest.mark.parametrize(
    ("fault", "call"),
    [
        pytest.param(lambda: Fault.throttled(3.0), Call.REBOOT, id="429"),
        pytest.param(lambda: Fault.busy(3.0), Call.REBOOT, id="409"),
        pytest.param(lambda: Fault.throttled(3.0), Call.SHOW, id="429 to a look"),
    ],
)
def test_each_attempt_is_signed_anew(fault: Callable[[], Fault], call: Call) -> None:
    """A request that is made again has a date of its own and a signature that is good for it."""

    async def main() -> None:
        signed = SignedCloud(1)
        [server_id] = signed.cloud.ids
        signed.cloud.script(server_id, fault(), call=call)
        report = await signed.client.restart([server_id])
        assert report.summary == {Outcome.COMPLETED: 1}
        again = list(signed.posts(server_id)) if call is Call.REBOOT else signed.requests[:2]
        assert len({one.headers["x-sdk-date"] for one in again}) == len(again) > 1
        for request in signed.requests:
            assert request.headers["authorization"] == theirs(request)

    virtually(main)


@pytest.mark.parametrize(
    ("off", "words"), [(1200.0, "20 minutes ahead of the cloud's"), (-1200.0, "20 minutes behind the cloud's")]
)
def test_a_clock_that_is_off_is_told_before_anything_is_sent(off: float, words: str) -> None:
    """The gateway refuses signatures of 20 minutes ago: the error names the clock, and nothing was sent."""

    async def main() -> None:
        signed = SignedCloud(3, off=off)
        with pytest.raises(AuthError, match=words):
            await signed.client.restart(signed.cloud.ids)
        assert not signed.cloud.posts

    virtually(main)


def test_keys_that_nobody_knows_are_told_before_anything_is_sent() -> None:
    """Keys that the gateway does not know are named as the remedy, and the secret key is not shown."""

    async def main() -> None:
        signed = SignedCloud(3)
        signed.cloud.access_keys.clear()
        with pytest.raises(AuthError, match="check the access key, the secret key and the project") as caught:
            await signed.client.restart(signed.cloud.ids)
        assert SK not in str(caught.value)
        assert not signed.cloud.posts

    virtually(main)


def test_keys_that_are_revoked_stop_the_run() -> None:
    """Keys cannot be renewed: where they are refused in mid-run, the run stops, and nothing is lost."""

    async def main() -> None:
        signed = SignedCloud(200)
        for server_id in signed.cloud.ids:
            signed.cloud.script(server_id, Fault.slow(1.0))
        signed.cloud.later(2.5, signed.cloud.access_keys.clear)
        report = await signed.client.restart(signed.cloud.ids, max_at_once=10)
        assert report.stopped is not None
        assert report.stopped.reason is StopReason.UNAUTHORIZED
        assert "check the access key" in report.stopped.detail
        # Whether a send or a poll is the first to be refused is chance.
        outcomes = {one.outcome for one in report} - {Outcome.REFUSED}
        assert outcomes == {Outcome.ACCEPTED, Outcome.SKIPPED}
        assert {one.reason for one in report if one.outcome == "refused"} <= {Reason.UNAUTHORIZED, Reason.STOPPED}
        assert max(signed.cloud.posts.values()) <= 3

    virtually(main)
