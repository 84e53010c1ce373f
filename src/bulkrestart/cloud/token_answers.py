"""Says what is wrong with an answer to a sign-in that keystoneauth1 cannot use, and with a catalog that it cannot read.

Law: nothing is requested here. keystoneauth1 does not check the form of an answer, and raises a KeyError or the like.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

import requests
from keystoneauth1 import exceptions

from bulkrestart.cloud.body import coding_fault
from bulkrestart.cloud.configuration import kind_of, shown

CHECK_AUTH_URL: Final = "check auth_url (OS_AUTH_URL) and HTTPS_PROXY"
_CHECK_GATEWAY: Final = "check auth_url (OS_AUTH_URL), and what stands between it and Keystone"
_SECOND_FACTOR: Final = (
    "use an application credential, or auth_type v3multifactor with auth_methods and a value for each of them"
)
#: The header of an answer that asks for another factor (docs.openstack.org/keystone, "Multi-Factor Authentication").
_RECEIPT: Final = "Openstack-Auth-Receipt"
_TOKEN: Final = "X-Subject-Token"  # noqa: S105 (the name of a header)


@dataclass(frozen=True, slots=True)
class Complaint:
    """What is wrong with an answer, and what the user can do."""

    words: str
    remedy: str


def is_unreadable(error: Exception) -> bool:
    """Return whether an error shows that keystoneauth1 could not read an answer."""
    is_odd = isinstance(error, exceptions.InvalidResponse | exceptions.MissingAuthMethods)
    return is_odd or not isinstance(error, exceptions.ClientException)


def complaint_about(response: requests.Response) -> Complaint | None:
    """Return what is wrong with an answer that keystoneauth1 could not read.

    None means that nothing is wrong with it: the error has another cause, such as a missing password.

    Args:
        response: The answer, read to its end.
    """
    if _RECEIPT in response.headers:
        words = f"Keystone asks for another factor (HTTP {response.status_code} with {_RECEIPT})"
        return Complaint(words, _SECOND_FACTOR)
    request = response.request
    url = shown((request.url or "").partition("?")[0])
    answer = f"{request.method} {url} is answered {response.status_code}"
    if 300 < response.status_code < 400:
        target = shown(response.headers.get("Location", "nowhere"))
        return Complaint(f"{answer}, a redirect to {target}", CHECK_AUTH_URL)
    if not response.content:
        return Complaint(f"{answer} without a body", CHECK_AUTH_URL)
    if fault := coding_fault(response.headers, response.content, is_cut_short=False):
        return Complaint(f"{answer}: {fault}", _CHECK_GATEWAY)
    try:
        document = response.json()
    except (ValueError, RecursionError):
        kind = shown(response.headers.get("Content-Type", "no Content-Type"))
        return Complaint(f"{answer} with a body that is not JSON ({kind})", CHECK_AUTH_URL)
    if request.method != "POST" or not url.endswith("/auth/tokens"):
        if _holds_versions(document):
            return None
        return Complaint(f"{answer} with JSON in another form than Keystone's", CHECK_AUTH_URL)
    token = document.get("token") if isinstance(document, dict) else None
    if not isinstance(token, dict):
        return Complaint(f"{answer} with JSON that holds no token", CHECK_AUTH_URL)
    if not response.headers.get(_TOKEN):
        return Complaint(f"{answer} without the header {_TOKEN}, which holds the token", _CHECK_GATEWAY)
    return Complaint(f"{answer} with a token {_odd_part_of(token)}", _CHECK_GATEWAY)


def _holds_versions(document: object) -> bool:
    if not isinstance(document, dict):
        return False
    versions = document.get("versions", [document.get("version")])
    if isinstance(versions, dict):
        versions = versions.get("values")
    return isinstance(versions, list) and all(isinstance(version, dict) for version in versions)


def _odd_part_of(token: dict[str, object]) -> str:
    for key in ("expires_at", "issued_at"):
        if key in token and not _is_time(token[key]):
            return f"whose {key} is not a time: {shown(token[key])!r:.40}"
    if "user" not in token:
        return "that names no user"
    for key in ("user", "project"):
        if key in token and not isinstance(token[key], dict):
            return f"whose {key} must be a mapping, not {kind_of(token[key])}"
    return "in another form than Keystone's"


def _is_time(value: object) -> bool:
    try:
        datetime.fromisoformat(str(value))
    except ValueError:
        return False
    return True


def complaint_about_catalog(catalog: object) -> str | None:
    """Return what is wrong with the form of a catalog; None if nothing is."""
    if not isinstance(catalog, list):
        return f"it must be a list, not {kind_of(catalog)}"
    for service in catalog:
        if not isinstance(service, dict):
            return f"a service must be a mapping, not {kind_of(service)}"
        name, endpoints = shown(service.get("type")), service.get("endpoints")
        if not isinstance(endpoints, list):
            return f"the endpoints of {name} must be a list, not {kind_of(endpoints)}"
        for endpoint in endpoints:
            if not isinstance(endpoint, dict):
                return f"an endpoint of {name} must be a mapping, not {kind_of(endpoint)}"
            for key in ("interface", "url"):
                if not isinstance(endpoint.get(key), str):
                    return f"the {key} of an endpoint of {name} must be text, not {kind_of(endpoint.get(key))}"
    return None
