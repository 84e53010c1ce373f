"""How a command gets in: where the compute API is, what signs its requests, and whose certificates are trusted."""

import os
import ssl
from dataclasses import dataclass, replace
from typing import Final

from bulkrestart.cli.errors import InputError, input_checked, refusals_told
from bulkrestart.client import RestartClient
from bulkrestart.cloud.auth import AccessKey, Token
from bulkrestart.cloud.credentials import CatalogAuth, CloudAuth
from bulkrestart.cloud.network import tls_context
from bulkrestart.core.arguments import without_userinfo
from bulkrestart.core.endpoint import Endpoint
from bulkrestart.core.target import Target

_ENDPOINT_REMEDY: Final = "give --endpoint https://HOST/v2.1/PROJECT_ID, or --cloud NAME"
_TOKEN_REMEDY: Final = "export OS_TOKEN=$(openstack token issue -f value -c id)"  # noqa: S105 - how to get one
_HUAWEI: Final = "HUAWEICLOUD_SDK_"
#: What holds the arguments of an `AccessKey`, where it is not their name.
_VARIABLES: Final = {"access_key": "AK", "secret_key": "SK"}


class _TokenOfEnvironment(Token):
    """`OS_TOKEN`."""

    def remedy(self, _: object) -> str:
        """Say how to go on."""
        return "export a new OS_TOKEN and give the same command"


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """A way in, read and checked.

    Attributes:
        target: TargetOptions the servers are; None where only the catalog knows it.
        auth: Signs requests. The auth of a cloud finds the target once, and keeps it for each client.
        tls: Whose certificates are trusted, and who we are.
    """

    target: Target | None
    auth: CloudAuth
    tls: ssl.SSLContext

    def client(self, *, max_at_once: int = 1, max_per_second: float | None = None) -> RestartClient:
        """Make a client."""
        target = None if isinstance(self.auth, CatalogAuth) else self.target
        return RestartClient(
            None if target is None else target.endpoint,
            auth=self.auth,
            verify=self.tls,
            max_at_once=max_at_once,
            max_per_second=max_per_second,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """What the options say about certificates; "" where one is not given."""

    cacert: str = ""
    cert: str = ""
    key: str = ""
    is_insecure: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetOptions:
    """The options that name the target; None if one is not given.

    Attributes:
        endpoint: The project's compute endpoint.
        cloud: The cloud in clouds.yaml.
        region: The region of the cloud.
        interface: The interface of its endpoint.
        project: The project, by its name or id.
    """

    endpoint: str | None = None
    cloud: str | None = None
    region: str | None = None
    interface: str | None = None
    project: str | None = None


def read_access(where: TargetOptions, trust: Trust) -> Access:
    """Read the target and the credentials from options, files and the environment, without a sign-in.

    Raises:
        InputError: Something is missing, or cannot be used.
    """
    endpoint, cloud = where.endpoint, where.cloud
    if endpoint is not None and cloud is not None:
        raise InputError(
            "give --endpoint or --cloud, not both; compute_endpoint_override in clouds.yaml sets an endpoint"
        )
    for option in ("region", "interface", "project"):
        if endpoint is not None and getattr(where, option) is not None:
            raise InputError(f"give --endpoint or --{option}, not both: the endpoint names its region and its project")
    trust = Trust(
        cacert=trust.cacert or os.environ.get("OS_CACERT", ""),
        cert=trust.cert or os.environ.get("OS_CERT", ""),
        key=trust.key or os.environ.get("OS_KEY", ""),
        is_insecure=trust.is_insecure,
    )
    if trust.key and not trust.cert:
        words = f"a key without a certificate: give the certificate of {trust.key} too"
        raise InputError(without_userinfo(words))
    if endpoint is not None:
        if os.environ.get("OS_INSECURE", "").lower() not in ("", "false") and not trust.is_insecure:
            raise InputError("OS_INSECURE is set, and --endpoint does not read it: unset it, or give --insecure")
        return _read_endpoint(endpoint, trust)
    if cloud == "":
        raise InputError("--cloud is empty: give the name of a cloud in clouds.yaml")
    if cloud is None and not os.environ.get("OS_CLOUD"):
        _check_variables()
    return _read_cloud(where, trust)


async def locate(access: Access) -> Access:
    """Find out where the compute API is.

    Raises:
        InputError: The sign-in fails, or the catalog leaves open where the compute API is.
    """
    if access.target is not None:
        return access
    with refusals_told():
        async with access.client() as client:
            return replace(access, target=await client.locate())


def _check_variables() -> None:
    """See that the `OS_*` variables describe a cloud."""
    if not os.environ.get("OS_AUTH_URL"):
        raise InputError(f"no endpoint: {_ENDPOINT_REMEDY}")
    if os.environ.get("OS_TOKEN") and not os.environ.get("OS_AUTH_TYPE"):
        # openstack.config would take it for an option of the sign-in by password.
        raise InputError("OS_TOKEN and OS_AUTH_URL are both set: give --endpoint, or unset OS_TOKEN to sign in")


def _read_endpoint(url: str, trust: Trust) -> Access:
    with input_checked("--endpoint: "):
        endpoint = Endpoint.parse(url)
    target = Target(endpoint=endpoint.url, project_id=endpoint.project_id)
    return Access(target=target, auth=_read_auth(endpoint), tls=_read_trust(trust))


def _read_auth(endpoint: Endpoint) -> CloudAuth:
    # No local variable holds a secret: a traceback may show them.
    has_token = bool(os.environ.get("OS_TOKEN"))
    has_access_key, has_secret_key = (bool(os.environ.get(f"{_HUAWEI}{name}")) for name in ("AK", "SK"))
    if has_token and has_access_key:
        raise InputError(f"OS_TOKEN and {_HUAWEI}AK are both set: unset the one that is not meant")
    if not has_token and has_access_key and has_secret_key:
        return _read_access_key(endpoint)
    if not has_token and (has_access_key or has_secret_key):
        given, missing = ("AK", "SK") if has_access_key else ("SK", "AK")
        raise InputError(f"{_HUAWEI}{given} is set without {_HUAWEI}{missing}: export both")
    if not has_token:
        raise InputError(f"no token in OS_TOKEN: {_TOKEN_REMEDY}, or give --cloud NAME in place of --endpoint")
    with input_checked("OS_TOKEN: "):
        return _TokenOfEnvironment(os.environ["OS_TOKEN"])


def _read_access_key(endpoint: Endpoint) -> AccessKey:
    project_id = os.environ.get(f"{_HUAWEI}PROJECT_ID") or endpoint.project_id
    if project_id != endpoint.project_id:
        raise InputError(
            f"{_HUAWEI}PROJECT_ID is {project_id}, and --endpoint ends in {endpoint.project_id}: make them one project"
        )
    try:
        return AccessKey(
            os.environ[f"{_HUAWEI}AK"],
            os.environ[f"{_HUAWEI}SK"],
            project_id=project_id,
            security_token=os.environ.get(f"{_HUAWEI}SECURITY_TOKEN") or None,
        )
    except ValueError as error:
        argument, _, words = str(error).partition(" ")
        raise InputError(f"{_HUAWEI}{_VARIABLES.get(argument, argument.upper())} {words}") from error


def _read_cloud(where: TargetOptions, trust: Trust) -> Access:
    try:
        from bulkrestart.cloud.keystone import Keystone, Overrides
    except ImportError as error:
        raise InputError(str(error)) from error
    with input_checked():
        overrides = Overrides(
            region=where.region,
            interface=where.interface,
            project=where.project,
            cacert=trust.cacert or None,
            cert=trust.cert or None,
            key=trust.key or None,
            is_insecure=trust.is_insecure,
        )
        keystone = Keystone.from_cloud(where.cloud, overrides)
        return Access(target=None, auth=keystone, tls=keystone.tls_context())


def _read_trust(trust: Trust) -> ssl.SSLContext:
    with input_checked():
        return tls_context(
            verify=not trust.is_insecure,
            cacert=trust.cacert or None,
            cert=trust.cert or None,
            key=trust.key or None,
        )
