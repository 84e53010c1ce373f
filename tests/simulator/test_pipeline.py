"""What comes before the controllers: versions, tokens, paths and microversions."""

import pytest

from bulkrestart.simulator import Cloud
from tests.simulator.asking import ask


@pytest.mark.parametrize("path", ["/servers", "/servers/x/action", "/nowhere"])
def test_unauthorized(cloud: Cloud, path: str) -> None:
    """Without a token that counts, Keystone's middleware answers whatever is asked."""
    answer = ask(cloud, "GET", path, headers={"x-auth-token": "old"})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith('Keystone uri="http')
    message = "The request you have made requires authentication."
    assert answer.json() == {"error": {"code": 401, "title": "Unauthorized", "message": message}}
    assert "openstack-api-version" not in answer.headers


def test_wrong_project(cloud: Cloud) -> None:
    """A URL of another project than the token's is malformed; one without a project is not."""
    answer = ask(cloud, "GET", "http://cloud.test/v2.1/abcdef/servers")
    assert answer.status_code == 400
    assert answer.json()["badRequest"]["message"] == (
        f"Malformed request URL: URL's project_id 'abcdef' doesn't match Context's project_id '{cloud.project_id}'"
    )
    answer = ask(cloud, "GET", "http://cloud.test/v2.1/servers?limit=1")
    assert len(answer.json()["servers"]) == 1
    assert answer.json()["servers_links"][0]["href"].startswith("http://cloud.test/v2.1/servers?limit=1&marker=")


@pytest.mark.parametrize(
    ("accept", "content_type", "text"),
    [
        ("*/*", "text/html; charset=UTF-8", "<title>404 Not Found</title>"),
        ("application/json", "application/json", '"code": "404 Not Found"'),
        ("image/png", "text/plain; charset=UTF-8", "404 Not Found\n\nThe resource could not be found."),
    ],
)
@pytest.mark.parametrize(
    ("method", "url"),
    [
        ("GET", "/nowhere"),
        ("GET", "/servers/x/action"),
        ("PUT", "/servers/x/action"),
        ("POST", "/servers/x/os-instance-actions"),
        ("GET", "/servers/"),
        ("GET", "http://cloud.test/v2.1/not-hexadecimal/servers"),
    ],
)
def test_no_such_path(cloud: Cloud, method: str, url: str, accept: str, content_type: str, text: str) -> None:
    """A path or method that leads nowhere is webob's 404, in the form that is asked for; never 405."""
    answer = ask(cloud, method, url, headers={"accept": accept})
    assert (answer.status_code, answer.headers["content-type"]) == (404, content_type)
    assert text in answer.text


@pytest.mark.parametrize(
    ("path", "status", "ids"),
    [("/", 200, ["v2.0", "v2.1"]), ("/v2", 200, "v2.0"), ("/v2.1/", 200, "v2.1"), ("/v2.1", 200, "v2.1")],
)
def test_version_documents(cloud: Cloud, path: str, status: int, ids: object) -> None:
    """The versions are told without a token."""
    answer = ask(cloud, "GET", f"http://cloud.test{path}", headers={"x-auth-token": ""})
    assert answer.status_code == status
    document = answer.json()
    assert ids == ([one["id"] for one in document["versions"]] if path == "/" else document["version"]["id"])


@pytest.mark.parametrize("path", ["/v3", "/v3/abc/servers", "/nowhere"])
def test_multiple_choices(cloud: Cloud, path: str) -> None:
    """A version that is none is answered with a choice of those that are."""
    answer = ask(cloud, "GET", f"http://cloud.test{path}")
    assert answer.status_code == 300
    assert [choice["id"] for choice in answer.json()["choices"]] == ["v2.0", "v2.1"]


@pytest.mark.parametrize(
    ("headers", "seen"),
    [
        ({}, "2.1"),
        ({"openstack-api-version": "compute 2.60"}, "2.60"),
        ({"openstack-api-version": "volume 3.1, compute 2.9"}, "2.9"),
        ({"openstack-api-version": "volume 3.1"}, "2.1"),
        ({"x-openstack-nova-api-version": "2.60"}, "2.60"),
        ({"x-openstack-nova-api-version": "2.60", "openstack-api-version": "compute 2.9"}, "2.9"),
        ({"x-openstack-nova-api-version": "latest"}, "2.96"),
    ],
)
def test_microversion(cloud: Cloud, headers: dict[str, str], seen: str) -> None:
    """Either header asks for a microversion on /v2.1; the newer header counts; none is 2.1."""
    answer = ask(cloud, "GET", "/servers", headers=headers, microversion=None)
    assert answer.status_code == 200
    assert answer.headers["openstack-api-version"] == f"compute {seen}"
    assert answer.headers["x-openstack-nova-api-version"] == seen


@pytest.mark.parametrize(
    ("wanted", "status", "body"),
    [
        (
            "2.200",
            406,
            {
                "computeFault": {
                    "code": 406,
                    "message": "Version 2.200 is not supported by the API. Minimum is 2.1 and maximum is 2.96.",
                }
            },
        ),
        (
            "1.0",
            406,
            {
                "computeFault": {
                    "code": 406,
                    "message": "Version 1.0 is not supported by the API. Minimum is 2.1 and maximum is 2.96.",
                }
            },
        ),
        (
            "x",
            400,
            {
                "badRequest": {
                    "code": 400,
                    "message": "API Version String x is of invalid format. Must be of format MajorNum.MinorNum.",
                }
            },
        ),
    ],
)
def test_bad_microversion(cloud: Cloud, wanted: str, status: int, body: object) -> None:
    """A microversion that is not there is refused on /v2.1, and not looked at on /v2."""
    answer = ask(cloud, "GET", "/servers", microversion=wanted)
    assert (answer.status_code, answer.json()) == (status, body)
    on_v2 = ask(cloud, "GET", "/servers", microversion=wanted, api="v2")
    assert on_v2.status_code == 200
    assert "openstack-api-version" not in on_v2.headers
