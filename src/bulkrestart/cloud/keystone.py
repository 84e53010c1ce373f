"""Sign-in as the OpenStack tools do it: clouds.yaml and `OS_*` by openstack.config, Keystone by keystoneauth1.

Both block, so what they do over the network they do in a worker thread. They come with the extra `openstack`.
"""

import logging
import os
import re
import ssl
import warnings
from argparse import Namespace
from typing import Final
from urllib.parse import urlsplit

import anyio
import httpx

try:
    from keystoneauth1 import exceptions
    from keystoneauth1.access import AccessInfo
    from keystoneauth1.identity.base import BaseIdentityPlugin
    from keystoneauth1.plugin import BaseAuthPlugin
    from openstack.config import OpenStackConfig
    from openstack.config.cloud_region import CloudRegion
    from openstack.exceptions import ConfigException, SDKException
except ModuleNotFoundError as error:
    raise ImportError("clouds.yaml and OS_* need an extra: pip install 'bulkrestart[openstack]'") from error

from bulkrestart.cloud.credentials import LONGEST_FETCH, CatalogAuth, Issued, SignInError, Trouble, in_thread
from bulkrestart.cloud.network import proxy_of, tls_context
from bulkrestart.core.errors import EndpointError
from bulkrestart.core.faults import plain, read_fault

#: Seconds for one request to Keystone, where the configuration names none.
_TIMEOUT: Final = 60.0
_SERVICE: Final = "compute"
#: A compute endpoint with its version, and one with its project as well.
_VERSIONED: Final = re.compile(r"/v2(\.1)?$")
_SCOPED: Final = re.compile(r"/v2(\.1)?/[^/]+$")
#: What stands for the project in an endpoint that is configured, as in a catalog's templates.
_PROJECT: Final = re.compile(r"[%$]\((?:project|tenant)_id\)s")
#: Statuses below 500 that say that another try may go well.
_PASSING: Final = frozenset({408, 413, 429})


class Keystone(CatalogAuth):
    """Signs with tokens of an OpenStack cloud, and knows where its compute API is.

    Args:
        region: The cloud's configuration, for one region.
    """

    def __init__(self, region: CloudRegion) -> None:
        super().__init__()
        self._region = region
        self._session = region.get_session()
        self._session.timeout = self._session.timeout or _TIMEOUT
        plugin = region.get_auth()
        assert plugin is not None, "get_session raises without one"
        self._plugin: BaseAuthPlugin = plugin
        self._auth_url = ""
        if isinstance(plugin, BaseIdentityPlugin):
            self._auth_url = plugin.auth_url or ""
            # When to sign in again is ours to say: it would do so at every look at a token of less than two minutes.
            plugin.reauthenticate = False

    @classmethod
    def from_cloud(
        cls, name: str | None = None, *, cacert: str = "", cert: str = "", key: str = "", is_insecure: bool = False
    ) -> "Keystone":
        """Read a cloud's configuration: files and the environment. Nobody is asked, unless its profile is a URL.

        Args:
            name: The cloud in clouds.yaml; None for `OS_CLOUD`, or the cloud that the `OS_*` variables describe.
            cacert: A file of certificates that are trusted; "" as the configuration has it, here as with the others.
            cert: A file of a certificate of one's own.
            key: The file of its key.
            is_insecure: Whether no certificate is verified.

        Raises:
            ValueError: There is no such cloud, or something that it needs is missing.
        """
        if name is not None and not isinstance(name, str):
            raise ValueError(f"the name of a cloud must be a string, not {type(name).__name__}")
        given = Namespace(cacert=cacert, cert=cert, key=key, insecure=is_insecure or None)
        try:
            with warnings.catch_warnings():
                # openstacksdk 4.22 warns of its own future whenever it reads a configuration, and of a profile that it
                # does not find.
                warnings.simplefilter("ignore")
                warnings.filterwarnings("error", message="Couldn't find the vendor profile")
                keystone = cls(_read(name, given))
        except Exception as error:  # whatever openstack.config and the plugins make of what a user wrote
            shown = f"cloud {name!r:.60}" if name else "the cloud in OS_CLOUD or OS_*"
            words = _words(error)
            if not _is_meant(error):
                words = f"something in it is missing or of the wrong type ({words})"
            # Its own words are in ours, without secrets.
            raise ValueError(f"{shown} cannot be used: {words}; see clouds.yaml, or OS_*") from None
        # A proxy that cannot be used is named before it is needed.
        proxy_of(keystone._auth_url)
        return keystone

    @property
    def name(self) -> str:
        """The cloud's name and region."""
        return str(self._region.full_name)

    def tls_context(self) -> ssl.SSLContext:
        """Trust whom the configuration trusts, and be who it says.

        Raises:
            ValueError: A file that it names cannot be used.
        """
        verify, cert = self._session.verify, self._session.cert
        # requests, and so the OpenStack tools, heed these too.
        trusted = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or None
        own, key = cert if isinstance(cert, tuple) else (cert, None)
        return tls_context(
            verify=verify is not False, cacert=verify if isinstance(verify, str) else trusted, cert=own, key=key
        )

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
        seconds = None
        if isinstance(self._plugin, BaseIdentityPlugin):
            access = self._plugin.get_access(self._session)
            seconds = _life_of(access)
            if access.project_id is None:
                words = f"the sign-in to cloud {self.name} is for no project"
                raise SignInError(Trouble(words, "set project_name (OS_PROJECT_NAME)", is_final=True))
        headers = self._plugin.get_headers(self._session)
        if headers is None or not all(value.isascii() and value.strip() for value in headers.values()):
            raise SignInError(self._refused("it gives no token"))
        return Issued(headers, seconds)

    def _explain(self, error: Exception) -> Trouble:
        words = f"the sign-in to cloud {self.name} fails: {_words(error)}"
        if "SSL" in _words(error):
            return Trouble(words, "check cacert (OS_CACERT)", is_final=True)
        if isinstance(error, exceptions.HttpError):
            if error.http_status < 500 and error.http_status not in _PASSING:
                return self._refused(_words(error))
            headers = {} if error.response is None else error.response.headers
            return Trouble(
                words, "try again later", retry_after=read_fault(error.http_status, headers, b"").retry_after
            )
        if isinstance(error, exceptions.ConnectionError | exceptions.DiscoveryFailure):
            return Trouble(words, "check auth_url (OS_AUTH_URL) and HTTPS_PROXY")
        return Trouble(words, "check its auth section in clouds.yaml, or OS_*", is_final=True)

    def _refused(self, why: str) -> Trouble:
        words = f"the sign-in to cloud {self.name} is refused: {why}"
        return Trouble(words, "check its auth section in clouds.yaml, or OS_*", is_final=True)

    def remedy(self, refusal: httpx.Response) -> str:
        """Name who signed in."""
        return f"check that the user of cloud {self.name} may use the compute API"

    async def find_endpoint(self) -> str:
        """Find the compute endpoint of the project: in the configuration, or else in the catalog."""
        try:
            with anyio.fail_after(LONGEST_FETCH):
                return await in_thread(self._find_endpoint)
        except TimeoutError as error:
            raise EndpointError(
                f"the compute API of cloud {self.name} is not found in {LONGEST_FETCH:.0f} s; "
                "set compute_endpoint_override; nothing was sent"
            ) from error

    def _find_endpoint(self) -> str:
        region = self._region
        interface, region_name = region.get_interface(_SERVICE), region.get_region_name(_SERVICE)
        try:
            url = region.get_endpoint(_SERVICE) or self._plugin.get_endpoint(
                self._session,
                service_type=region.get_service_type(_SERVICE),
                service_name=region.get_service_name(_SERVICE),
                interface=interface,
                region_name=region_name,
                skip_discovery=True,
            )
            if url is not None and not _is_versioned(url):
                found = self._plugin.get_endpoint_data(self._session, endpoint_override=url, min_version="2.1")
                url = found.url if found is not None else url
            project_id = self._plugin.get_project_id(self._session)
        except exceptions.CatalogException:
            url = project_id = None
        except Exception as error:  # whatever a plugin makes of what it is answered; its words are in ours
            raise EndpointError(
                f"the compute API of cloud {self.name} is not found: {_words(error)}; "
                "set compute_endpoint_override; nothing was sent"
            ) from None
        if url is None:
            where = f"interface {interface or 'public'}, region {region_name or 'any'}"
            raise EndpointError(
                f"the catalog of cloud {self.name} has no compute service ({where}); check region_name and interface, "
                "or set compute_endpoint_override; nothing was sent"
            )
        url = _PROJECT.sub(project_id or "", url).rstrip("/")
        return f"{url}/{project_id}" if _VERSIONED.search(url) and project_id is not None else url


def _read(name: str | None, given: Namespace) -> CloudRegion:
    """Read a cloud's configuration.

    Raises:
        ConfigException: It is not there, or a file that may hold it cannot be read. openstack.config only logs that.
    """
    skipped = _Skipped()
    logger = logging.getLogger("openstack.config")
    logger.addHandler(skipped)
    try:
        config = OpenStackConfig()
    finally:
        logger.removeHandler(skipped)
    if skipped.words:
        raise ConfigException(skipped.words)
    # openstack.config makes up a cloud of that name where there is none.
    names = [one for one in config.get_cloud_names() if one != "defaults"]
    if name is not None and name not in names:
        file = os.environ.get("OS_CLIENT_CONFIG_FILE")
        if file and not os.path.isfile(file):
            raise ConfigException(f"OS_CLIENT_CONFIG_FILE names {file}, and there is no such file")
        raise ConfigException(f"there is none of that name; there are: {', '.join(sorted(names)) or 'none'}")
    return config.get_one(name, argparse=given)


class _Skipped(logging.Handler):
    """Keeps what is said of files that are skipped."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.words = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.words = self.words or record.getMessage()


def _is_versioned(url: str) -> bool:
    path = urlsplit(url).path.rstrip("/")
    return _VERSIONED.search(path) is not None or _SCOPED.search(path) is not None


def _life_of(access: AccessInfo) -> float | None:
    """Tell how many seconds a token lives, by Keystone's own clock; None if it does not say."""
    try:
        expires, issued = access.expires, access.issued
    except KeyError:
        return None
    return None if expires is None or issued is None else (expires - issued).total_seconds()


def _words(error: Exception) -> str:
    words = plain(str(error))
    return words if words and _is_meant(error) else f"{type(error).__name__}: {words}"


def _is_meant(error: Exception) -> bool:
    """Tell whether its words are meant for users."""
    return isinstance(error, exceptions.ClientException | SDKException)
