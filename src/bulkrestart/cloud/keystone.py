"""Sign-in as the OpenStack tools do it: clouds.yaml and `OS_*` by openstack.config, Keystone by keystoneauth1.

Both block, so what they do over the network they do in a worker thread. They come with the extra `openstack`.
"""

import os
import re
import ssl
from collections.abc import Sequence
from contextlib import suppress
from typing import Final
from urllib.parse import urlsplit

import anyio
import httpx

try:
    from keystoneauth1 import exceptions
    from keystoneauth1.access import AccessInfo
    from keystoneauth1.identity.base import BaseIdentityPlugin
    from keystoneauth1.plugin import BaseAuthPlugin
    from keystoneauth1.session import Session
    from openstack.exceptions import ConfigException, SDKException

    from bulkrestart.cloud.bounded import BoundedAdapter
    from bulkrestart.cloud.configuration import (
        Configuration,
        Overrides,
        logged_warnings,
        read_configuration,
        remedy_of,
        shown,
    )
    from bulkrestart.cloud.token_answers import (
        CHECK_AUTH_URL,
        complaint_about,
        complaint_about_catalog,
        is_unreadable,
    )
except ModuleNotFoundError as error:
    raise ImportError("clouds.yaml and OS_* need an extra: pip install 'bulkrestart[openstack]'") from error

from bulkrestart.cloud.credentials import LONGEST_FETCH, CatalogAuth, Issued, SignInError, Trouble, in_thread
from bulkrestart.cloud.failures import Failure, failure_of, peer_at
from bulkrestart.cloud.network import CertificatesError, proxy_of, tls_context
from bulkrestart.core.arguments import without_userinfo
from bulkrestart.core.endpoint import Endpoint
from bulkrestart.core.errors import EndpointError
from bulkrestart.core.faults import plain, read_fault
from bulkrestart.core.observation import CHECK_URL
from bulkrestart.core.secrets import NO_SECRETS, Secret, SecretMask
from bulkrestart.core.target import Target

__all__ = ["Keystone", "Overrides"]

#: Seconds for one request to Keystone, where the configuration names none.
_TIMEOUT: Final = 60.0
#: A compute endpoint with its version, and one with its project as well.
_VERSIONED: Final = re.compile(r"/v2(\.1)?$")
_SCOPED: Final = re.compile(r"/v2(\.1)?/[^/]+$")
#: The placeholder for the project in a configured endpoint, as in a catalog's templates.
_PROJECT: Final = re.compile(r"[%$]\((?:project|tenant)_id\)s")
#: Options of auth types that hold a secret: those that keystoneauth1 marks so.
SECRET_OPTIONS: Final = (
    *("password", "passcode", "token", "access_token", "code"),
    *("application_credential_secret", "client_secret", "oauth2_client_secret"),
)
#: Statuses below 500 that say that another try may go well.
_PASSING: Final = frozenset({408, 413, 429})


class Keystone(CatalogAuth):
    """Signs with tokens of an OpenStack cloud, and knows where its compute API is.

    Args:
        configuration: The cloud's configuration.
    """

    def __init__(self, configuration: Configuration) -> None:
        super().__init__()
        self._configuration = configuration
        with logged_warnings():
            self._session = configuration.settings.get_session()
        self._session.timeout = self._session.timeout or _TIMEOUT
        self._context = _context_of(self._session, configuration)
        self._adapter = BoundedAdapter(self._context)
        for scheme in ("https://", "http://"):
            self._session.mount(scheme, self._adapter)
        auth = configuration.settings.get_auth_args()
        self._secrets = tuple(Secret(str(auth[key])) for key in SECRET_OPTIONS if auth.get(key))
        plugin = configuration.settings.get_auth()
        assert plugin is not None, "get_session raises without one"
        self._plugin: BaseAuthPlugin = plugin
        self._auth_url = ""
        self._target: Target | None = None
        if isinstance(plugin, BaseIdentityPlugin):
            self._auth_url = plugin.auth_url or ""
            _check_url(self._auth_url)
            self._adapter.versions_url = self._auth_url
            # We decide when to sign in again. The plugin would do it at each use of a token that ends in two minutes.
            plugin.reauthenticate = False

    @classmethod
    def from_cloud(cls, name: str | None = None, overrides: Overrides | None = None) -> "Keystone":
        """Read a cloud's configuration from files and the environment. The network is used only if a profile is a URL.

        Args:
            name: The cloud in clouds.yaml; None for `OS_CLOUD`, or the cloud that the `OS_*` variables describe.
            overrides: The settings that the caller gives; the environment and the files decide on the others.

        Raises:
            ValueError: There is no such cloud, a setting is missing, settings contradict each other, or a file of
                certificates cannot be used.
        """
        if name is not None and not isinstance(name, str):
            raise ValueError(f"the name of a cloud must be a string, not {type(name).__name__}")
        try:
            keystone = cls(read_configuration(name, overrides or Overrides()))
        except CertificatesError as error:
            raise ValueError(shown(error)) from None
        except Exception as error:  # openstack.config and the plugins may raise anything for what a user wrote
            named = name or os.environ.get("OS_CLOUD")
            cloud = f"cloud {shown(named)!r:.60}" if named else "the cloud in OS_CLOUD or OS_*"
            # The cause may hold secrets; `_complaint` repeats the rest of its text.
            raise ValueError(f"{cloud} cannot be used: {_complaint(error)}; see clouds.yaml, or OS_*") from None
        # Report a proxy that cannot be used before the proxy is needed.
        proxy_of(keystone._auth_url)
        return keystone

    @property
    def secrets(self) -> Sequence[Secret[str]]:
        """What it signs in with."""
        return self._secrets

    @property
    def name(self) -> str:
        """The cloud's name and region."""
        return self._configuration.name

    def tls_context(self) -> ssl.SSLContext:
        """Return the TLS context of the sign-in, which the requests to the compute API share."""
        return self._context

    async def fetch(self) -> Issued:
        """Sign in."""
        return await in_thread(self._fetch)

    def _fetch(self) -> Issued:
        try:
            return self._sign_in()
        except SignInError:
            raise
        except Exception as error:  # whatever a plugin makes of what it is answered
            raise SignInError(self._explain(error)) from error

    def _sign_in(self) -> Issued:
        self._plugin.invalidate()
        self._adapter.latest = None
        seconds = None
        if isinstance(self._plugin, BaseIdentityPlugin):
            access = self._plugin.get_access(self._session)
            seconds = _life_of(access)
            if access.project_id is None:
                words = f"the sign-in to cloud {self.name} is for no project"
                raise SignInError(Trouble(words, "set project_name (OS_PROJECT_NAME)", is_final=True))
            self._check_names(access)
        headers = self._plugin.get_headers(self._session)
        if headers is None or not all(map(_is_header, headers.values())):
            raise SignInError(self._refused("it gives no token"))
        return Issued(headers, seconds)

    def _check_names(self, access: AccessInfo) -> None:
        """Compare a token with the configured names of which Keystone got only the id.

        Raises:
            SignInError: The token is for another project, domain or user.
        """
        found = {
            "project": access.project_name,
            "project_domain": access.project_domain_name,
            "user": access.username,
            "user_domain": access.user_domain_name,
        }
        for kind, name in self._configuration.expected.items():
            # Keystone compares names as its database does, which is mostly without case.
            if found[kind] is not None and str(found[kind]).casefold() != name.casefold():
                what = kind.replace("_", " ")
                words = (
                    f"the sign-in to cloud {self.name} is for the {what} {plain(str(found[kind]))}, which has the "
                    f"configured id, and not for {shown(name)}, the configured name"
                )
                raise SignInError(Trouble(words, f"leave out the name or the id of the {what}", is_final=True))

    def _explain(self, error: Exception) -> Trouble:
        failure, why = self._cause_of(error)
        words = f"the sign-in to cloud {self.name} fails: {why}"
        if failure is not None and failure.is_insecure:
            return Trouble(words, "check cacert (OS_CACERT)", is_final=True)
        if failure is not None:
            remedy = CHECK_AUTH_URL if failure.remedy is CHECK_URL else failure.remedy
            return Trouble(words, remedy, is_cut=failure.is_cut)
        if isinstance(error, exceptions.HttpError):
            if error.http_status < 500 and error.http_status not in _PASSING:
                return self._refused(why)
            headers = {} if error.response is None else error.response.headers
            return Trouble(
                words, "try again later", retry_after=read_fault(error.http_status, headers, b"").retry_after
            )
        if isinstance(error, exceptions.ConnectionError | exceptions.DiscoveryFailure):
            return Trouble(words, CHECK_AUTH_URL)
        latest = self._adapter.latest
        complaint = complaint_about(latest) if latest is not None and is_unreadable(error) else None
        if complaint is not None:
            words = f"the sign-in to cloud {self.name} fails: {plain(complaint.words, secrets=self._mask())}"
            return Trouble(words, complaint.remedy, is_final=True)
        return Trouble(words, "check its auth section in clouds.yaml, or OS_*", is_final=True)

    def _cause_of(self, error: Exception) -> tuple[Failure | None, str]:
        """Return why a connection failed, None if none did, and the text for an error."""
        # An HttpError means that an answer came, even if a connection failed before it.
        failure = None if isinstance(error, exceptions.HttpError) else failure_of(error, self._peer_of(error))
        return failure, self._words(error) if failure is None else plain(failure.words)

    def _peer_of(self, error: Exception) -> str:
        """Name the other end of the request that failed: a sign-in does not send all requests to `auth_url`."""
        source: BaseException | None = error
        while source is not None and getattr(source, "request", None) is None:
            source = source.__cause__ or source.__context__
        url = str(getattr(getattr(source, "request", None), "url", self._auth_url))
        proxy = None
        with suppress(ValueError):  # the proxy's URL may be what is wrong
            proxy = proxy_of(url)
        return peer_at(url, proxy)

    def _words(self, error: Exception) -> str:
        """Repeat what an error says, without our secrets: Keystone, or what stands before it, may have echoed them."""
        return _words(error, self._mask())

    def _mask(self) -> SecretMask:
        access = getattr(self._plugin, "auth_ref", None)
        token = () if access is None else (str(access.auth_token),)
        return SecretMask((*(secret.reveal() for secret in self._secrets), *token))

    def _refused(self, why: str) -> Trouble:
        words = f"the sign-in to cloud {self.name} is refused: {why}"
        return Trouble(words, "check its auth section in clouds.yaml, or OS_*", is_final=True)

    def remedy(self, refusal: httpx.Response) -> str:
        """Name who signed in."""
        return f"check that the user of cloud {self.name} may use the compute API"

    async def find_target(self) -> Target:
        """Find the compute endpoint of the project: in the configuration, or else in the catalog.

        The first result is kept, so a catalog that changes during a run does not change the target.
        """
        if self._target is None:
            try:
                with anyio.fail_after(LONGEST_FETCH):
                    self._target = await in_thread(self._find_target)
            except TimeoutError as error:
                raise EndpointError(
                    f"the compute API of cloud {self.name} is not found in {LONGEST_FETCH:.0f} s; "
                    "set compute_endpoint_override; nothing was sent"
                ) from error
        return self._target

    def _find_target(self) -> Target:
        try:
            return self._read_catalog()
        except EndpointError:
            raise
        except Exception as error:  # a plugin may raise anything for an odd answer; our message has its text
            complaint = None if isinstance(error, exceptions.ClientException) else self._complaint_about_catalog()
            raise EndpointError(
                f"the compute API of cloud {self.name} is not found: {complaint or self._cause_of(error)[1]}; "
                "set compute_endpoint_override; nothing was sent"
            ) from None

    def _complaint_about_catalog(self) -> str | None:
        access = getattr(self._plugin, "auth_ref", None)
        catalog = access.service_catalog.catalog if access is not None and access.has_service_catalog() else []
        complaint = complaint_about_catalog(catalog)
        return None if complaint is None else f"the catalog in the token is not in Keystone's form: {complaint}"

    def _read_catalog(self) -> Target:
        settings, access = self._configuration, None
        if isinstance(self._plugin, BaseIdentityPlugin):
            access = self._plugin.get_access(self._session)
        if settings.override is None:
            url, region = self._find_url(access)
        else:
            url, region = settings.override, self._region_of(settings.override, access)
        if not _is_versioned(url):
            found = self._plugin.get_endpoint_data(self._session, endpoint_override=url, min_version="2.1")
            url = found.url or url if found is not None else url
        project_id = None if access is None else access.project_id
        url = _PROJECT.sub(project_id or "", url).rstrip("/")
        if project_id is not None and _VERSIONED.search(url):
            url = f"{url}/{project_id}"
        try:
            endpoint = Endpoint.parse(url)
        except ValueError as error:
            raise EndpointError(f"the catalog names {shown(url)}: {error}; nothing was sent") from error
        is_another = project_id is not None and endpoint.project_id != project_id
        if is_another and settings.override is not None:
            raise EndpointError(
                f"the sign-in to cloud {self.name} is for project {shown(project_id)}, and its compute endpoint is of "
                f"project {plain(endpoint.project_id)}: check compute_endpoint_override and project_name; nothing was "
                "sent"
            )
        return Target(
            endpoint=endpoint.url,
            project_id=endpoint.project_id,
            # A catalog may lead to another project, whose name the token does not have.
            project_name="" if access is None or is_another else plain(str(access.project_name or "")),
            cloud=settings.cloud,
            region=shown(region),
        )

    def _find_url(self, access: AccessInfo | None) -> tuple[str, str]:
        """Return the URL and the region of the compute API in the catalog.

        Raises:
            EndpointError: The catalog has none, or has several regions and none is named.
        """
        settings = self._configuration
        regions = [] if access is None else list(dict.fromkeys(region for _, region in self._listed(access)))
        if not settings.region and len(regions) > 1:
            names = ", ".join(region or "one without a name" for region in map(shown, regions))
            raise EndpointError(
                f"the catalog of cloud {self.name} has the compute API in several regions ({plain(names)}): name one, "
                f"such as {plain(remedy_of(regions))}; nothing was sent"
            )
        try:
            url = self._plugin.get_endpoint(
                self._session,
                service_type=settings.service_type,
                service_name=settings.service_name,
                interface=settings.interface,
                region_name=settings.region or None,
                skip_discovery=True,
            )
        except exceptions.CatalogException:
            url = None
        if url is None:
            where = f"interface {shown(settings.interface)}, region {shown(settings.region) or 'any'}"
            there = f", and it has it in {shown(', '.join(filter(None, regions)))}" if any(regions) else ""
            raise EndpointError(
                f"the catalog of cloud {self.name} has no compute service ({where}){there}; check region_name and "
                "interface, or set compute_endpoint_override; nothing was sent"
            )
        return url, settings.region or next(iter(regions), "")

    def _region_of(self, url: str, access: AccessInfo | None) -> str:
        """Return the region of a configured endpoint, from the catalog or else from the configuration.

        Raises:
            EndpointError: The endpoint is in another region than the configured one.
        """
        region = self._configuration.region
        if access is None:
            return region

        def place(one: str) -> str:
            return _PROJECT.sub(access.project_id or "", one).rstrip("/").removesuffix(f"/{access.project_id}")

        regions = {there for listed, there in self._listed(access, is_any=True) if place(listed) == place(url)}
        if region and regions and region not in regions:
            raise EndpointError(
                f"compute_endpoint_override of cloud {self.name} is the endpoint of region "
                f"{shown(' and '.join(sorted(regions)))}, and the configured region is {shown(region)}: make "
                "them the same; nothing was sent"
            )
        return region or (regions.pop() if len(regions) == 1 else "")

    def _listed(self, access: AccessInfo, *, is_any: bool = False) -> list[tuple[str, str]]:
        """Return the compute endpoints of the catalog and their regions, for the configured interface or for any."""
        if not access.has_service_catalog():
            return []
        settings = self._configuration
        listed = access.service_catalog.get_endpoint_data_list(
            service_type=settings.service_type,
            service_name=settings.service_name,
            interface=None if is_any else settings.interface,
        )
        return [(str(endpoint.url), str(endpoint.region_name or "")) for endpoint in listed]


def _context_of(session: Session, configuration: Configuration) -> ssl.SSLContext:
    """Make the TLS context of a configuration, from `verify` or `insecure`, `cacert`, `cert` and `key`.

    Raises:
        CertificatesError: A file cannot be used; the message names the cloud and the setting, unless it is a file of
            the environment.
    """
    verify, cert = session.verify, session.cert
    own, key = cert if isinstance(cert, tuple) else (cert, None)
    trusted = verify if isinstance(verify, str) else None
    try:
        return tls_context(verify=verify is not False, cacert=trusted, cert=own, key=key)
    except CertificatesError as error:
        # openstack.config prefers cacert to a file in verify (`get_requests_verify_args`).
        files = {
            "cacert" if configuration.settings.config.get("cacert") else "verify": trusted,
            "cert": own,
            "key": key,
        }
        names = [name for name, file in files.items() if file is not None and file in str(error)]
        if not names:
            raise
        raise CertificatesError(f"{' and '.join(names)} of cloud {configuration.cloud!r:.60}: {error}") from None


def _check_url(auth_url: str) -> None:
    try:
        # It is read only when it is asked for.
        _ = urlsplit(auth_url).port
    except ValueError:
        raise ConfigException(f"auth_url must be a URL, not {shown(auth_url)}") from None


def _is_versioned(url: str) -> bool:
    path = urlsplit(url).path.rstrip("/")
    return _VERSIONED.search(path) is not None or _SCOPED.search(path) is not None


def _is_header(value: str) -> bool:
    """Tell whether a value can be sent in a header."""
    return value.isascii() and value.isprintable() and bool(value.strip())


def _life_of(access: AccessInfo) -> float | None:
    """Tell how many seconds a token lives, by Keystone's own clock; None if it does not say."""
    try:
        expires, issued = access.expires, access.issued
    except KeyError:
        return None
    return None if expires is None or issued is None else (expires - issued).total_seconds()


def _complaint(error: Exception) -> str:
    """Return what is wrong with a configuration. Values of it are shown only in errors that are meant for users."""
    if _is_meant(error):
        return _words(error)
    # The text of these two names types. That of others, such as a KeyError, may hold values.
    kind = type(error).__name__
    words = f"{kind}: {error}" if isinstance(error, TypeError | AttributeError) else kind
    return f"something in it is missing or of the wrong type ({plain(words)})"


def _words(error: Exception, secrets: SecretMask = NO_SECRETS) -> str:
    words = plain(without_userinfo(str(error)), secrets=secrets)
    return words if words and _is_meant(error) else f"{type(error).__name__}: {words}"


def _is_meant(error: Exception) -> bool:
    """Return whether the text of an error is meant for users."""
    return isinstance(error, exceptions.ClientException | SDKException | Warning)
