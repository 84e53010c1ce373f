"""Reads a cloud's configuration: clouds.yaml, secure.yaml and `OS_*`, as `openstack` reads them in the same shell.

Law: the result is the one of python-openstackclient, or the configuration is refused with the two settings that
contradict each other. openstack.config reads the files. This module adds what openstackclient adds to it
(osc_lib/shell.py `build_option_parser`, osc_lib/api/auth.py `build_auth_plugins_option_parser`,
osc_lib/cli/client_config.py `OSC_Config`): each `OS_*` variable is the default of an option, and an option overrides
the file, also in the `auth` section.
"""

import json
import logging
import os
import re
import warnings
from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import yaml
from keystoneauth1 import loading
from keystoneauth1.loading import BaseLoader
from keystoneauth1.loading.opts import Opt
from keystoneauth1.plugin import BaseAuthPlugin
from openstack.config import OpenStackConfig
from openstack.config.cloud_region import CloudRegion
from openstack.exceptions import ConfigException
from openstack.warnings import OpenStackDeprecationWarning

from bulkrestart.core.arguments import without_userinfo
from bulkrestart.core.faults import plain

_log = logging.getLogger(__name__)

SERVICE: Final = "compute"
INTERFACES: Final = ("public", "internal", "admin")

#: A project id as Keystone makes it (keystone/resource/core.py `uuid.uuid4().hex`), or the same with dashes.
_PROJECT_ID: Final = re.compile(r"[0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
#: The options of openstackclient besides those of the auth types (osc_lib/shell.py).
_GLOBAL: Final = frozenset(
    {
        *("region_name", "interface", "cacert", "cert", "key", "auth_type", "default_domain", "identity_api_version"),
        *("service_provider", "remote_project_id", "remote_project_name"),
    }
)
#: Variables that choose a file or a cloud, and do not describe one.
_SELECTORS: Final = frozenset({"OS_CLOUD", "OS_CLIENT_CONFIG_FILE", "OS_CLIENT_SECURE_FILE", "OS_CLOUD_NAME"})
#: The settings that openstack.config reads for one service. openstackclient has no options for them.
_OF_SERVICE: Final = (
    *("endpoint_override", "endpoint", "region_name", "interface", "endpoint_type", "service_type", "service_name"),
)
_PROJECT_KEYS: Final = ("project_id", "project_name", "tenant_id", "tenant_name")
#: The most values of a file: with YAML anchors a short file can have billions.
_LARGEST: Final = 100_000
_DEEPEST: Final = 50
_UNEXPECTED: Final = re.compile(r"unexpected keyword argument '(\w+)'")
_AUTH_TYPE: Final = re.compile(r"[\w.-]+")
_EQUAL: Final = "make them the same"
#: What messages call the types of YAML and JSON.
_KINDS: Final[dict[type, str]] = {
    **{type(None): "null", bool: "true or false", int: "a number", float: "a number"},
    **{str: "text", list: "a list", dict: "a mapping"},
}
#: Texts that mean true or false, or nothing. openstack.config would take each of them for a file of certificates.
_BOOLEAN_WORDS: Final = frozenset({"", "true", "false", "yes", "no", "on", "off", "none", "null"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Overrides:
    """The settings that the caller gives. They override `OS_*`, which overrides the file.

    Attributes:
        region: The region. None, here and below: not given.
        interface: The interface of the endpoint: "public", "internal" or "admin".
        project: The project. 32 hexadecimal digits, with or without dashes, are its id; anything else is its name.
        cacert: A file of trusted certificates.
        cert: A file with a client certificate.
        key: The file of its key.
        is_insecure: Whether no certificate is verified.

    Raises:
        ValueError: One of them has the wrong type or an impossible value.
    """

    region: str | None = None
    interface: str | None = None
    project: str | None = None
    cacert: str | None = None
    cert: str | None = None
    key: str | None = None
    is_insecure: bool = False

    def __post_init__(self) -> None:
        for kind, value in (("region", self.region), ("interface", self.interface), ("project", self.project)):
            if value is not None and not isinstance(value, str):
                raise ValueError(f"{kind} must be a string, not {type(value).__name__}")
            if value is not None and (not value.strip() or not value.isprintable()):
                raise ValueError(f"{kind} is empty or holds control characters: leave it out, or give a name")
        if self.interface is not None and self.interface not in INTERFACES:
            raise ValueError(f"interface must be public, internal or admin, not {self.interface!r:.40}")

    @property
    def project_id(self) -> str | None:
        """The project's id, if an id was given."""
        is_id = self.project is not None and _PROJECT_ID.fullmatch(self.project) is not None
        return self.project.replace("-", "").lower() if self.project is not None and is_id else None

    @property
    def project_name(self) -> str | None:
        """The project's name, if a name was given."""
        return None if self.project_id is not None else self.project


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """A cloud's configuration, as it is known before a sign-in.

    Attributes:
        cloud: The cloud's name; "envvars" for a cloud that `OS_*` variables describe.
        settings: The settings as openstack.config resolved them, with the secrets.
        region: The region of the compute API; "" if none is named.
        interface: The interface of its endpoint, or several in the order of preference.
        service_type: The type of the compute API in the catalog.
        service_name: Its name there; None: any.
        override: The endpoint, if the configuration has one; None: the catalog has it.
        expected: The configured names of `project`, `project_domain`, `user` and `user_domain` that have a configured
            id beside them. Keystone gets only the id, so the token must be compared with the name.
    """

    cloud: str
    settings: CloudRegion
    region: str
    interface: str | list[str]
    service_type: str
    service_name: str | None
    override: str | None
    expected: Mapping[str, str]

    def __repr__(self) -> str:
        return f"{type(self).__name__}(cloud={self.cloud!r}, ...)"

    @property
    def name(self) -> str:
        """The cloud's name and region."""
        return f"{self.cloud}:{shown(self.region)}" if self.region else self.cloud


def read_configuration(name: str | None, overrides: Overrides) -> Configuration:
    """Read a cloud's configuration from files and the environment. The network is used only if its profile is a URL.

    Args:
        name: The cloud in clouds.yaml; None for `OS_CLOUD`, or the cloud that the `OS_*` variables describe.
        overrides: The settings that the caller gives.

    Raises:
        ConfigException: There is no such cloud, a file cannot be read, or settings contradict each other.
        Exception: openstack.config and keystoneauth1 may raise anything for values that they do not expect.
    """
    with logged_warnings():
        return _read(name, overrides)


@contextmanager
def logged_warnings() -> Iterator[None]:
    """Log the warnings of openstack.config for users within the block, each text once."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        # A missing profile is an error here.
        warnings.filterwarnings("error", message="Couldn't find the vendor profile")
        yield
    # Python's deprecation warnings are for developers, and openstacksdk 4.22 always gives some about itself.
    meant = (one for one in caught if not issubclass(one.category, DeprecationWarning | PendingDeprecationWarning))
    deprecated = (one for one in caught if issubclass(one.category, OpenStackDeprecationWarning))
    for text in dict.fromkeys(shown(one.message) for one in (*meant, *deprecated)):
        _log.warning("%s", text)


def _read(name: str | None, overrides: Overrides) -> Configuration:
    variables = _variables()
    config = _Config(name, overrides, variables)
    is_named = config.cloud != config.envvar_key
    _check_insecure(config.insecure, is_named=is_named)
    asked = overrides.region or variables.get("region_name", "")
    known = config.regions()
    _check_regions(known, asked)
    given: dict[str, str | bool | None] = {
        **variables,
        "region_name": asked or None,
        "interface": overrides.interface or variables.get("interface"),
        "cacert": overrides.cacert or variables.get("cacert"),
        "cert": overrides.cert or variables.get("cert"),
        "key": overrides.key or variables.get("key"),
        "insecure": overrides.is_insecure or None,
    }
    if overrides.project is not None:
        given |= {"project_id": overrides.project_id, "project_name": overrides.project_name}
    try:
        settings = config.get_one(config.cloud, argparse=Namespace(**given))
    except TypeError as error:
        unexpected = _UNEXPECTED.search(str(error))
        if unexpected is None:
            raise
        key = unexpected[1]
        source = f"OS_{key.upper()}" if key in variables else f"auth.{key}"
        raise ConfigException(f"its auth type has no use for {source}: unset it, or set auth_type") from None
    for key in ("region_name", "cacert", "cert", "key", *(f"{SERVICE}_{one}" for one in _OF_SERVICE)):
        # openstack.config would convert any other value to text.
        if not isinstance(settings.config.get(key, ""), str | None) and not key.endswith("interface"):
            raise ConfigException(f"{key} must be text, not {kind_of(settings.config[key])}")
    region, interface = settings.get_region_name(SERVICE) or "", settings.get_interface(SERVICE) or "public"
    if asked and region != asked:
        raise ConfigException(f"OS_REGION_NAME is {shown(asked)}, and compute_region_name is {shown(region)}: {_EQUAL}")
    if overrides.interface is None:
        _check_interface(interface)
    _check_service_variables(settings)
    _check_verification(settings, is_named=is_named)
    return Configuration(
        cloud=shown(settings.name),
        settings=settings,
        region=region,
        interface=interface,
        service_type=settings.get_service_type(SERVICE),
        service_name=settings.get_service_name(SERVICE),
        override=settings.get_endpoint(SERVICE),
        expected=_expected(settings.get_auth_args(), variables),
    )


def _variables() -> dict[str, str]:
    """Return the `OS_*` variables that openstackclient has as options, by the names of the options.

    An empty variable counts as unset (osc_lib/utils `env`).
    """
    given = {name for name, value in os.environ.items() if name.startswith("OS_") and value} - _SELECTORS
    known = set(_GLOBAL)
    if not given <= {f"OS_{key.upper()}" for key in known}:
        # Loading every auth type takes a quarter of a second.
        for plugin in loading.get_available_plugin_names():
            known.update(option.name.lower().replace("-", "_") for option in loading.get_plugin_options(plugin))
    variables = {
        key: os.environ[f"OS_{key.upper()}"]
        for key in sorted(known)
        if f"OS_{key.upper()}" in given and not key.startswith("tenant_")
    }
    for key in ("id", "name"):
        if f"OS_TENANT_{key.upper()}" in given:
            variables.setdefault(f"project_{key}", os.environ[f"OS_TENANT_{key.upper()}"])
    return variables


class _Config(OpenStackConfig):
    """openstack.config with what openstackclient adds to it, for one cloud.

    Args:
        name: The cloud; None for that of the environment.
        overrides: The settings that the caller gives.
        variables: The `OS_*` variables, by the names of the options.

    Attributes:
        cloud: The cloud's name.

    Raises:
        ConfigException: A file cannot be read, or there is no such cloud.
    """

    def __init__(self, name: str | None, overrides: Overrides, variables: Mapping[str, str]) -> None:
        self._overrides = overrides
        is_admin_token = "endpoint" in variables and "token" in variables
        super().__init__(
            override_defaults={
                "interface": "public",
                # openstackclient/shell.py `_final_defaults`.
                "auth_type": "admin_token" if is_admin_token else "password",
            }
        )
        self.cloud = self._choose(name)
        self._own: dict[str, object] = self.cloud_config["clouds"][self.cloud]
        if not isinstance(self._own, dict):
            raise ConfigException("it must be a mapping of settings")
        if not isinstance(auth := self._own.get("auth", {}), dict):
            raise ConfigException(f"auth must be a mapping, not {kind_of(auth)}")
        texts = {
            "auth_url": auth.get("auth_url", ""),
            **{key: self._own.get(key) or "" for key in ("profile", "cloud")},
        }
        for key, value in texts.items():
            if not isinstance(value, str):
                raise ConfigException(f"{key} must be text, not {kind_of(value)}")
        if self.cloud == self.envvar_key and overrides.region is not None:
            # Otherwise this cloud would have only the region of the variables.
            self._own["region_name"] = overrides.region

    def _choose(self, name: str | None) -> str:
        names = [one for one in self.get_cloud_names() if one != "defaults"]
        chosen = self.default_cloud if name is None else name
        if chosen is None or (name is None and chosen not in names and not os.environ.get("OS_CLOUD")):
            raise ConfigException("neither OS_CLOUD nor OS_AUTH_URL is set")
        file = os.environ.get("OS_CLIENT_CONFIG_FILE")
        if chosen != self.envvar_key and file and not os.path.exists(file):
            # openstack.config would read the default files instead.
            raise ConfigException(f"OS_CLIENT_CONFIG_FILE names {shown(file)}, and there is no such file")
        if chosen not in names:
            there = ", ".join(sorted(map(str, names))) or "none"
            raise ConfigException(f"there is no cloud of that name; there are: {there}")
        return chosen

    @property
    def insecure(self) -> object:
        """`insecure` as the file has it: openstack.config takes any text but "true" for false."""
        return self._own.get("insecure")

    def regions(self) -> list[str]:
        """Return the regions that the configuration names, in its order.

        Raises:
            ConfigException: They are not in the expected form, or two settings contradict each other.
        """
        listed = self._own.get("regions", [])
        if not isinstance(listed, list):
            raise ConfigException("regions must be a list")
        named = self._own.get("region_name")
        if "region_name" in self._own and (isinstance(named, bool) or not isinstance(named, str | int | float | list)):
            raise ConfigException(f"region_name must be text, not {kind_of(named)}")
        for one in (*listed, *(named if isinstance(named, list) else ())):
            values = one.get("values", {}) if isinstance(one, dict) else {}
            if not isinstance(values, dict) or (isinstance(one, dict) and set(one) - {"name", "values"}):
                # The error of openstack.config would show the whole entry with its secrets.
                raise ConfigException("an entry of regions may have a name and a mapping of values, and nothing else")
        names = [_text(region["name"], "the name of a region") for region in self._get_known_regions(self.cloud)]
        if listed and len(names) == 1 and named not in (None, names[0]):
            # openstack.config would use the region of the list.
            raise ConfigException(f"region_name is {shown(named)}, and regions has only {shown(names[0])}: {_EQUAL}")
        return [name for name in names if name]

    def auth_config_hook(self, config: dict[str, object]) -> dict[str, object]:
        """Adjust the settings before an auth type is loaded, as openstackclient does (osc_lib/cli/client_config.py)."""
        auth = config["auth"]
        assert isinstance(auth, dict), "openstack.config fails with anything else"
        # A named cloud may have auth_url outside its auth section.
        given, own = config.get("auth_url"), auth.get("auth_url") or self._own.get("auth_url")
        if given and own and str(given).rstrip("/") != str(own).rstrip("/"):
            raise ConfigException(
                f"OS_AUTH_URL is {shown(given)}, and auth_url in the file {shown(own)}, which is another cloud: "
                "unset OS_AUTH_URL and what belongs to it, or do not name this cloud"
            )
        if config.get("service_provider"):
            raise ConfigException("service_provider is set: bulkrestart signs in to one Keystone, and through no other")
        if self._overrides.region is not None:
            config.pop(f"{SERVICE}_region_name", None)
        if self._overrides.interface is not None:
            config["interface"] = self._overrides.interface
            config.pop(f"{SERVICE}_interface", None)
        if self._overrides.project is not None:
            # keystoneauth1 prefers an id to a name, so the project of the file is removed.
            for key in _PROJECT_KEYS:
                auth.pop(key, None)
            auth["project_name" if self._overrides.project_id is None else "project_id"] = (
                self._overrides.project_id or self._overrides.project
            )
        auth_type = config.get("auth_type") or _default_auth_type(config)
        if not isinstance(auth_type, str) or not _AUTH_TYPE.fullmatch(auth_type):
            raise ConfigException("auth_type must be the name of an auth type, such as password")
        _align_versions(auth_type, config, auth)
        return {**config, "auth_type": auth_type}

    def _validate_auth(self, config: dict[str, object], loader: BaseLoader[BaseAuthPlugin]) -> dict[str, object]:
        """Let options override the `auth` section; in openstack.config the section overrides them."""
        auth = config["auth"]
        assert isinstance(auth, dict), "auth_config_hook has checked it"
        for option in loader.get_options():
            keys = _keys_of(option)
            value = _first(config, keys) or _first(auth, keys)
            for key in keys:
                config.pop(key, None)
                auth.pop(key, None)
            if value:
                is_list = option.name == "auth_methods" and isinstance(value, list)
                if not is_list and not isinstance(value, str):
                    raise ConfigException(f"{option.name} must be text, not {kind_of(value)}: put it in quotes")
                auth[option.dest or keys[0]] = value
        return config

    def _load_yaml_json_file(self, filelist: list[str]) -> tuple[str, dict[str, object]] | tuple[None, None]:
        """Read the first file that exists. If it cannot be read, openstack.config would read the next one.

        Raises:
            ConfigException: It cannot be read.
        """
        path = next(filter(os.path.exists, filelist), None)
        if path is None:
            return None, None
        kind = "JSON" if path.endswith("json") else "YAML"
        try:
            with open(path, encoding="utf-8") as file:
                document = json.load(file) if kind == "JSON" else yaml.safe_load(file)
        except OSError as error:
            raise ConfigException(f"cannot read {shown(path)}: {error.strerror}") from None
        except (ValueError, yaml.YAMLError, RecursionError) as error:
            # The error's text may quote the file: a password that begins with * is an alias in YAML.
            mark = getattr(error, "problem_mark", None)
            where = "" if mark is None else f" (line {mark.line + 1}, column {mark.column + 1})"
            raise ConfigException(f"{shown(path)} is not valid {kind}{where}") from None
        _check_size(document, path)
        clouds = document.get("clouds", {}) if isinstance(document, dict) else {}
        if not isinstance(clouds, dict):
            raise ConfigException(f"clouds in {shown(path)} must be a mapping of clouds")
        return path, document


def _keys_of(option: Opt) -> list[str]:
    """Return the keys of an option of an auth type, the deprecated ones last."""
    return [name.replace("-", "_") for name in (option.name, *(old.name for old in option.deprecated))]


def _first(settings: Mapping[str, object], keys: list[str]) -> object:
    return next((settings[key] for key in keys if key in settings), None)


def _default_auth_type(config: Mapping[str, object]) -> str:
    return "token" if config.get("token") and not config.get("username") else "password"


def _align_versions(auth_type: str, config: Mapping[str, object], auth: dict[str, object]) -> None:
    """Translate the settings to those of the configured version of Keystone, and fill in the default domain."""
    version = str(config.get("identity_api_version", ""))
    if auth_type.startswith("v2"):
        for key in ("id", "name"):
            if f"project_{key}" in auth:
                auth[f"tenant_{key}"] = auth.pop(f"project_{key}")
    if version.startswith("2") and auth_type.endswith("password"):
        for key in ("project_domain_id", "project_domain_name", "user_domain_id", "user_domain_name"):
            auth.pop(key, None)
    if version == "3" and auth_type in ("password", "v3password", "v3totp"):
        for kind in ("project", "user"):
            if not auth.get(f"{kind}_domain_id") and not auth.get(f"{kind}_domain_name"):
                auth[f"{kind}_domain_id"] = config.get("default_domain") or "default"


def _check_size(document: object, path: str) -> None:
    """Check the size and depth of a document, because openstack.config walks every path through it."""
    left = _LARGEST
    below: list[tuple[object, int]] = [(document, 0)]
    while below:
        value, depth = below.pop()
        left -= 1
        if left < 0 or depth > _DEEPEST:
            raise ConfigException(f"{shown(path)} is too large, or refers to itself")
        if isinstance(value, dict):
            below.extend((child, depth + 1) for child in value.values())
        elif isinstance(value, list):
            below.extend((child, depth + 1) for child in value)


def _check_regions(known: list[str], asked: str) -> None:
    names = ", ".join(map(shown, known))
    if len(known) > 1 and not asked:
        raise ConfigException(f"it has several regions ({names}): name one, such as {remedy_of(known)}")
    if known and asked and asked not in known:
        raise ConfigException(
            f"it has no region {shown(asked)}, only {names}: name one of these, or add the region to regions in "
            "clouds.yaml"
        )


def remedy_of(regions: list[str]) -> str:
    """Return how to name one of several regions, for a message."""
    last = next(filter(None, map(shown, reversed(regions))), "NAME")
    return f'--region {last}, region="{last}" or OS_REGION_NAME={last}'


def _check_interface(interface: str | list[str]) -> None:
    """Refuse an interface of the environment that `openstack` would not use.

    `openstack` ignores OS_ENDPOINT_TYPE for a named cloud, and prefers `endpoint_type` and `compute_interface` of the
    file to OS_INTERFACE.
    """
    taken = [_without_url(one) for one in ([interface] if isinstance(interface, str) else interface)]
    for variable in ("OS_INTERFACE", "OS_ENDPOINT_TYPE"):
        value = os.environ.get(variable)
        if value and [_without_url(value)] != taken:
            raise ConfigException(f"{variable} is {shown(value)}, and the interface is {shown(interface)}: {_EQUAL}")


def _check_service_variables(settings: CloudRegion) -> None:
    """Refuse variables of the compute API that `openstack` ignores for a named cloud."""
    for key in _OF_SERVICE:
        variable = f"OS_COMPUTE_{key.upper()}"
        value = os.environ.get(variable)
        if value and value != settings.config.get(f"{SERVICE}_{key.replace('endpoint_type', 'interface')}"):
            raise ConfigException(f"{variable} is set, and `openstack` does not read it for a named cloud: unset it")


def _check_insecure(configured: object, *, is_named: bool) -> None:
    """Refuse what openstack.config takes for false, although it may be meant as true."""
    source = "insecure" if is_named else "OS_INSECURE"
    for name, value in ((source, configured), ("OS_INSECURE", _insecure_variable())):
        if value not in (None, "") and str(value).lower() not in ("true", "false"):
            raise ConfigException(f"{name} must be true or false, not {_word_of(value)}")


def _check_verification(settings: CloudRegion, *, is_named: bool) -> None:
    """Refuse a `verify` that is neither a bool nor a path, and an OS_INSECURE that `openstack` does not read.

    openstack.config reads OS_INSECURE for the cloud that the variables describe, and for no named cloud.
    """
    verify = settings.config.get("verify", True)
    if not isinstance(verify, bool):
        word = str(verify).lower()
        if not isinstance(verify, str) or word in _BOOLEAN_WORDS or word.isdigit():
            raise ConfigException(f"verify must be true or false without quotes, not {_word_of(verify)}")
    # `get_requests_verify_args` would tell the same, but it warns at each call.
    is_verified = verify is not False and not settings.config.get("insecure")
    if is_named and is_verified and _insecure_variable().lower() == "true":
        raise ConfigException(
            "OS_INSECURE is true, and `openstack` does not read it for a named cloud: unset it, or set verify to false "
            "(or give --insecure)"
        )


def _word_of(value: object) -> str:
    """Repeat a short word, and name the kind of anything else, which may be a secret in the wrong place."""
    word = str(value)
    return repr(word) if value is not None and len(word) <= len("false") and word.isprintable() else kind_of(value)


def _insecure_variable() -> str:
    return os.environ.get("OS_INSECURE", "")


def _expected(auth: Mapping[str, object], variables: Mapping[str, str]) -> dict[str, str]:
    """Return the names that keystoneauth1 does not send to Keystone, because there is an id as well.

    An id of the file must not silently override a name of the environment. An id of the environment may override a name
    of the file.
    """
    expected = {}
    for kind, id_key, name_key in (
        ("project", "project_id", "project_name"),
        ("project_domain", "project_domain_id", "project_domain_name"),
        ("user", "user_id", "username"),
        ("user_domain", "user_domain_id", "user_domain_name"),
    ):
        name = auth.get(name_key)
        is_overridden = id_key in variables and name_key not in variables
        if auth.get(id_key) and isinstance(name, str) and not is_overridden:
            expected[kind] = name
    return expected


def shown(value: object) -> str:
    """Format a setting for a message: on one line, and without the password that a URL may hold."""
    return plain(without_userinfo(str(value)))


def _without_url(interface: str) -> str:
    """Return the catalog's name of an interface: "public" for "publicURL" (keystoneauth1/access/service_catalog.py)."""
    return interface.removesuffix("URL")


def _text(value: object, what: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ConfigException(f"{what} must be text, not {kind_of(value)}")
    return str(value)


def kind_of(value: object) -> str:
    """Name the kind of a value for a message."""
    return _KINDS.get(type(value), f"a {type(value).__name__}")
