"""Whatever a request carried is masked in what the cloud, a proxy or an exception repeats of it."""

import json
from base64 import b64encode
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Final

import httpx
import pytest

from bulkrestart import AccessKey, Token
from bulkrestart.cloud.masking import secrets_of
from bulkrestart.cloud.proxied import ProxiedTransport
from bulkrestart.cloud.sender import LaneSender, LentSender, Sender, Trace
from bulkrestart.core.model import RebootType, Server
from bulkrestart.core.observation import Answer, Observation, Unanswered, Unsent
from tests.core.test_secrets import FERNET, FORMS, parts_of

from .loopback import TLS, Connection, compute_of, listening, read_request

SERVER: Final = "616fb98f-46ca-475e-917e-2563e5a8cd19"
PROJECT: Final = "0123456789abcdef0123456789abcdef"
SECRET_KEY: Final = "Zk8Qw3Xn5Rt7Yu9Ia2Sd4Fg6Hj1Kl0Mn5Bv3Cx7Q"
ACCESS_KEY: Final = "QTWAOYTTINDUT2QVKYUC"
SECURITY_TOKEN: Final = "hQ5jbi1ub3J0aC00iwpW9kmZ3xX7s8d6f5g4h3j2k1l0"
USER, PASSWORD = "operator", "correct-horse-battery"
BASIC: Final = b64encode(f"{USER}:{PASSWORD}".encode()).decode()
SIGNATURE: Final = "9c0ffee1bad5eed7ab1e5afe2dec0de3"


class SigningInTheQuery(httpx.Auth):
    """Signs a copy, in its URL."""

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Add the signature."""
        url = request.url.copy_merge_params({"X-Amz-Signature": SIGNATURE, "limit": "instance-42a"})
        yield httpx.Request(request.method, url, headers=request.headers, content=await request.aread())


#: Headers of a lent client, its auth, and what is a secret of them.
LENT: Final[Mapping[str, tuple[Mapping[str, str], httpx.Auth | None, tuple[str, ...]]]] = {
    "X-Auth-Token": ({"X-Auth-Token": FERNET}, None, (FERNET,)),
    "X-Api-Key": ({"X-Api-Key": FERNET}, None, (FERNET,)),
    "of words": ({"X-Whatever": "swordfish-opensesame"}, None, ("swordfish-opensesame",)),
    "Cookie": ({"Cookie": f'a=b; session="{FERNET}"'}, None, (FERNET,)),
    "Bearer": ({"Authorization": f"Bearer {FERNET}"}, None, (FERNET,)),
    "without a scheme": ({"Authorization": FERNET}, None, (FERNET,)),
    "Basic": ({}, httpx.BasicAuth(USER, PASSWORD), (BASIC, PASSWORD)),
    "Basic that is none": ({"Authorization": "Basic !bad9base64!"}, None, ("!bad9base64!",)),
    "Proxy-Authorization": ({"Proxy-Authorization": f"Basic {BASIC}"}, None, (BASIC, PASSWORD)),
    "query": ({}, SigningInTheQuery(), (SIGNATURE,)),
    "token": ({"X-Api-Key": SECRET_KEY}, Token(FERNET), (FERNET, SECRET_KEY)),
    "keys": (
        {},
        AccessKey(ACCESS_KEY, SECRET_KEY, security_token=SECURITY_TOKEN),
        (ACCESS_KEY, SECRET_KEY, SECURITY_TOKEN),
    ),
}


def words_of(seen: Server | Observation | object) -> str:
    """Give all that a report could show of an answer."""
    match seen:
        case Answer(fault=fault, remedy=remedy):
            return f"{fault.code} {fault.message} {remedy}"
        case Unsent() | Unanswered():
            return seen.words
        case Server():
            return f"{seen.name} {seen.fault}"
        case _:
            raise AssertionError(seen)


async def look(
    answer: Callable[[httpx.Request], httpx.Response],
    *,
    headers: Mapping[str, str],
    auth: httpx.Auth | None,
    is_read: bool = False,
) -> Server | Observation:
    """Send a request by a lent client, and give what comes back."""
    async with httpx.AsyncClient(transport=httpx.MockTransport(answer), headers=headers, trust_env=False) as http:
        compute = compute_of(http, project=PROJECT, auth=auth)
        return await (compute.show(SERVER) if is_read else compute.reboot(SERVER, RebootType.SOFT))


@pytest.mark.unmeasured
@pytest.mark.asyncio
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", LENT)
async def test_what_the_cloud_repeats(name: str, form: str) -> None:
    """No form of a secret of a request, of our auth or of a lent client, is left in the words of an answer."""
    headers, auth, secrets = LENT[name]
    for secret in secrets:
        echo = FORMS[form](secret)
        bodies = (
            json.dumps({"forbidden": {"message": f"you sent {echo} to me", "code": 403}}),
            f"you sent {echo} to me",
            json.dumps({"you": ["sent", echo]}),
        )
        for body in bodies:
            seen = await look(lambda _, text=body: httpx.Response(403, text=text), headers=headers, auth=auth)  # type: ignore[misc] # it binds the loop's variable
            assert isinstance(seen, Answer)
            assert not parts_of(secret) & parts_of(words_of(seen), with_forms=False)


@pytest.mark.asyncio
@pytest.mark.parametrize("name", LENT)
async def test_a_debugging_proxy(name: str) -> None:
    """A page that repeats all headers as they came shows no secret, and the harmless ones are left."""
    headers, auth, secrets = LENT[name]

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(400, text="\n".join(f"{name}: {value}" for name, value in request.headers.items()))

    seen = await look(answer, headers={**headers, "X-Project-Id": PROJECT}, auth=auth)
    for secret in secrets:
        assert not parts_of(secret) & parts_of(words_of(seen), with_forms=False)
    for word in ("cloud.test", "application/json", "gzip", "keep-alive", PROJECT):
        assert word in words_of(seen)


@pytest.mark.asyncio
async def test_the_signature_of_a_request() -> None:
    """The signature of the request that was refused is masked, and the name of the algorithm is left."""
    signatures = []

    def answer(request: httpx.Request) -> httpx.Response:
        signature = request.headers["authorization"].rpartition("=")[2]
        signatures.append(signature)
        return httpx.Response(401, json={"error_msg": f"SDK-HMAC-SHA256: {signature} is not what I expect"})

    seen = await look(answer, headers={}, auth=AccessKey(ACCESS_KEY, SECRET_KEY))
    assert len(signatures[0]) == 64
    assert "SDK-HMAC-SHA256: *** is not what I expect" in words_of(seen)


@pytest.mark.asyncio
async def test_what_is_no_secret() -> None:
    """Ids of servers, projects and requests stay readable, also where a header of the client repeats them."""
    headers = {
        "X-Tenant": PROJECT,
        "X-Request-Id": "req-8f14e45f-ceea-467f-a9d1-0b6c2f3e4d5a",
        "Traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "X-Short": "close",
        "User-Agent": "restart-service/1.2",
    }
    message = (
        f"Instance {SERVER} of project {PROJECT} is locked: close it, restart-service/1.2; "
        f"{headers['X-Request-Id']} {headers['Traceparent']}"
    )
    seen = await look(lambda _: httpx.Response(409, text=message), headers=headers, auth=Token(FERNET))
    assert message in words_of(seen)


@pytest.mark.asyncio
@pytest.mark.parametrize("form", ["as it is", "json, every character"])
@pytest.mark.parametrize("name", ["token", "X-Api-Key"])
async def test_what_a_success_repeats(name: str, form: str) -> None:
    """A server whose name or fault repeats a secret does not show it either, nor does a success that is no server."""
    headers, auth, _ = LENT[name]
    echo = FORMS[form](FERNET)
    server = f'{{"server": {{"id": "{SERVER}", "name": "n {echo}", "fault": {{"message": "f {echo}"}}}}}}'
    for body in (server, f'{{"message": "f {echo}"}}', f"<p>f {echo}</p>", f'{{"error": {{"message": "f {echo}"}}}}'):
        seen = await look(lambda _, text=body: httpx.Response(200, text=text), headers=headers, auth=auth, is_read=True)  # type: ignore[misc] # as above
        assert isinstance(seen, Server) is (body is server)
        assert not parts_of(FERNET) & parts_of(words_of(seen), with_forms=False)


@pytest.mark.asyncio
async def test_a_page_of_servers() -> None:
    """The names in a list show no secret, and one that is of another form is a server's all the same."""
    rows = [{"id": SERVER, "name": f"a {FERNET} b"}, {"id": "two", "name": "plain"}]

    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"servers": rows})

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer), trust_env=False) as http:
        page = await compute_of(http, auth=Token(FERNET)).page()
    assert not isinstance(page, Answer | Unsent | Unanswered)
    assert [server.name for server in page.servers] == ["a *** b", "plain"]


@pytest.mark.asyncio
@pytest.mark.parametrize("error", [httpx.ReadError, httpx.ConnectError, OSError, RuntimeError, httpx.HTTPError])
@pytest.mark.parametrize("name", LENT)
async def test_what_an_exception_repeats(name: str, error: type[Exception]) -> None:
    """The text of an exception of a transport, a hook or an auth flow shows no secret."""
    headers, auth, secrets = LENT[name]
    for secret in secrets:
        if name == "query" and error is not httpx.ReadError:
            continue  # only an error of httpx knows the copy that was sent

        def answer(request: httpx.Request, secret: str = secret) -> httpx.Response:
            failed = error(f"cannot send {secret} there")
            if isinstance(failed, httpx.RequestError):
                failed.request = request
            raise failed

        seen = await look(answer, headers=headers, auth=auth)
        assert isinstance(seen, Unsent | Unanswered)
        assert "there" in words_of(seen)
        assert not parts_of(secret) & parts_of(words_of(seen), with_forms=False)


def proxied(way: str, address: str) -> Sender:
    """Send through a proxy that asks for a password."""
    proxy = httpx.Proxy(f"http://{USER}:{PASSWORD}@{address}")
    if way == "ours":
        return LaneSender(ProxiedTransport(TLS, proxy))
    return LentSender(httpx.AsyncClient(proxy=proxy, verify=TLS, trust_env=False))


@pytest.mark.asyncio
@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("way", ["ours", "lent"])
async def test_the_password_of_a_proxy(way: str, scheme: str) -> None:
    """What a proxy repeats of the credentials that it was given is masked, in its body and in its reason."""

    async def refuse(connection: Connection) -> None:
        request = await read_request(connection)
        assert BASIC.encode() in request
        body = f"{BASIC} and {USER}:{PASSWORD} are refused".encode()
        head = f"HTTP/1.1 403 no {BASIC} here\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        await connection.send(head.encode() + body)

    async with listening(refuse) as address:
        sender = proxied(way, address)
        seen = await compute_of(sender, f"{scheme}://cloud.test").reboot(SERVER, RebootType.SOFT)
        await sender.aclose()
        if isinstance(sender, LentSender):
            await sender._http.aclose()
    assert ("*** and *** are refused" if scheme == "http" else "no *** here") in words_of(seen)
    for secret in (BASIC, PASSWORD):
        assert not parts_of(secret) & parts_of(words_of(seen), with_forms=False)


def test_a_request_without_headers_of_its_own() -> None:
    """Where nothing signs and nothing is added, nothing is a secret."""
    mask = secrets_of(httpx.Request("GET", f"https://cloud.test/v2.1/{PROJECT}"), Trace(), httpx.Auth())
    assert mask.apply(FERNET) == FERNET


@pytest.mark.asyncio
async def test_a_good_send_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """For an answer without a body, as every good send has one, no secret is looked for."""
    asked: list[object] = []
    monkeypatch.setattr("bulkrestart.cloud.compute.secrets_of", asked.append)
    seen = await look(lambda _: httpx.Response(202), headers={}, auth=Token(FERNET))
    assert isinstance(seen, Answer)
    assert seen.status == 202
    assert not asked
