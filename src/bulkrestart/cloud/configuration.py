"""Which cloud is meant: clouds.yaml, secure.yaml and `OS_*`, read as `openstack` reads them in the same shell.

Law: what is taken is what python-openstackclient takes, or it is refused with the two settings that contradict each
other. openstack.config reads the files; what openstackclient adds to it is here (osc_lib/shell.py
`build_option_parser`, osc_lib/api/auth.py `build_auth_plugins_option_parser`, osc_lib/cli/client_config.py
`OSC_Config`): each `OS_*` variable is the default of an option, an option counts before the file, and that also inside
the `auth` section.
"""

import json
import os
import re
import warnings
from argparse import Namespace
from collections.abc import Mapping
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

from bulkrestart.core.arguments import without_userinfo
from bulkrestart.core.faults import plain

SERVICE: Final = "compute"
INTERFACES: Final = ("public", "internal", "admin")

#: A project id as Keystone makes them (keystone/resource/core.py `uuid.uuid4().hex`), also written with dashes.
_PROJECT_ID: Final = re.compile(r"[0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
#: What options of openstackclient besides those of the auth types are (osc_lib/shell.py).
_GLOBAL: Final = frozenset(
    {
        *("region_name", "interface", "cacert", "cert", "key", "auth_type", "default_domain", "identity_api_version"),
        *("service_provider", "remote_project_id", "remote_project_name"),
    }
)
#: Variables that choose a file or a cloud, and describe none.
_SELECTORS: Final = frozenset({"OS_CLOUD", "OS_CLIENT_CONFIG_FILE", "OS_CLIENT_SECURE_FILE", "OS_CLOUD_NAME"})
#: What openstack.config reads of a cloud for one service. openstackclient has no option for them.
_OF_SERVICE: Final = (
    *("endpoint_override", "endpoint", "region_name", "interface", "endpoint_type", "service_type", "service_name"),
)
_PROJECT_KEYS: Final = ("project_id", "project_name", "tenant_id", "tenant_name")
#: Values of a cloud, at most: anchors of YAML can make a short file of billions.
_LARGEST: Final = 100_000
_DEEPEST: Final = 50
_UNEXPECTED: Final = re.compile(r"unexpected keyword argument '(\w+)'")
_AUTH_TYPE: Final = re.compile(r"[\w.-]+")
_ONE: Final = "make them one"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What the caller says itself; each counts before `OS_*`, which counts before the file.

    Attributes:
        region: The region; None: it is not said, here as with the others.
        interface: The interface of the endpoint: "public", "internal" or "admin".
        project: The project. 32 hexadecimal digits, with or without dashes, are its id; anything else is its name.
        cacert: A file of certificates that are trusted.
        cert: A file of a certificate of one's own.
        key: The file of its key.
        is_insecure: No certificate is verified.

    Raises:
        ValueError: One of them cannot be meant.
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
        """The project, if it is named by its id."""
        is_id = self.project is not None and _PROJECT_ID.fullmatch(self.project) is not None
        return self.project.replace("-", "").lower() if self.project is not None and is_id else None

    @property
    def project_name(self) -> str | None:
        """The project, if it is named by its name."""
        return None if self.project_id is not None else self.project


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """What is known of a cloud before a sign-in.

    Attributes:
        cloud: Its name; "envvars" for one that `OS_*` variables describe.
        settings: What openstack.config makes of it; it holds the secrets.
        region: The region of the compute API; "" if none is named.
        interface: The interface of its endpoint, or several in the order of preference.
        service_type: The type of the compute API in the catalog.
        service_name: Its name there; None: any.
        override: The endpoint, where the configuration names it; None: the catalog does.
        expected: Names that the sign-in must turn out to be for, by what they name (`project`, `project_domain`,
            `user`, `user_domain`): Keystone is only told the id that the configuration has beside each.
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


def read_configuration(name: str | None, choice: Choice) -> Configuration:
    """Read a cloud's configuration: files and the environment. The network is not used, unless its profile is a URL.

    Args:
        name: The cloud in clouds.yaml; None for `OS_CLOUD`, or the cloud that the `OS_*` variables describe.
        choice: What the caller says itself.

    Raises:
        ConfigException: The cloud is not there, a file that may hold it cannot be read, or settings contradict.
        Exception: Whatever openstack.config and keystoneauth1 make of values that they do not expect.
    """
    with warnings.catch_warnings():
        # openstacksdk 4.22 warns of its own future whenever it reads a configuration, and of a profile that it does
        # not find.
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", message="Couldn't find the vendor profile")
        return _read(name, choice)


def _read(name: str | None, choice: Choice) -> Configuration:
    variables = _variables()
    config = _Config(name, choice, variables)
    asked = choice.region or variables.get("region_name", "")
    known = config.regions()
    _check_regions(known, asked)
    given: dict[str, str | bool | None] = {
        **variables,
        "region_name": asked or None,
        "interface": choice.interface or variables.get("interface"),
        "cacert": choice.cacert or variables.get("cacert"),
        "cert": choice.cert or variables.get("cert"),
        "key": choice.key or variables.get("key"),
        "insecure": choice.is_insecure or None,
    }
    if choice.project is not None:
        given |= {"project_id": choice.project_id, "project_name": choice.project_name}
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
        # openstack.config would write any other value as text.
        if not isinstance(settings.config.get(key, ""), str | None) and not key.endswith("interface"):
            raise ConfigException(f"{key} must be text, not {_kind(settings.config[key])}")
    region, interface = settings.get_region_name(SERVICE) or "", settings.get_interface(SERVICE) or "public"
    if asked and region != asked:
        raise ConfigException(f"OS_REGION_NAME is {shown(asked)}, and compute_region_name is {shown(region)}: {_ONE}")
    if choice.interface is None:
        _check_interface(interface)
    _check_service_variables(settings)
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
    """Read the `OS_*` variables that are options of openstackclient, by the names of the options.

    An empty one counts as unset (osc_lib/utils `env`).
    """
    given = {name for name, value in os.environ.items() if name.startswith("OS_") and value} - _SELECTORS
    known = set(_GLOBAL)
    if not given <= {f"OS_{key.upper()}" for key in known}:
        # To load every auth type takes a quarter of a second.
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
        choice: What the caller says itself.
        variables: The `OS_*` variables, by the names of the options.

    Attributes:
        cloud: Its name.

    Raises:
        ConfigException: A file cannot be read, or the cloud is not there.
    """

    def __init__(self, name: str | None, choice: Choice, variables: Mapping[str, str]) -> None:
        self._choice = choice
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
        if self.cloud == self.envvar_key and choice.region is not None:
            # Or the region of the variables would be the only one that this cloud has.
            self._own["region_name"] = choice.region

    def _choose(self, name: str | None) -> str:
        names = [one for one in self.get_cloud_names() if one != "defaults"]
        chosen = self.default_cloud if name is None else name
        if chosen is None or (name is None and chosen not in names and not os.environ.get("OS_CLOUD")):
            raise ConfigException("neither OS_CLOUD nor OS_AUTH_URL is set")
        file = os.environ.get("OS_CLIENT_CONFIG_FILE")
        if chosen != self.envvar_key and file and not os.path.exists(file):
            # openstack.config would look into the others.
            raise ConfigException(f"OS_CLIENT_CONFIG_FILE names {shown(file)}, and there is no such file")
        if chosen not in names:
            there = ", ".join(sorted(map(str, names))) or "none"
            raise ConfigException(f"there is none of that name; there are: {there}")
        return chosen

    def regions(self) -> list[str]:
        """Give the regions that the configuration names, in its order.

        Raises:
            ConfigException: They are not named as they must be, or two settings contradict each other.
        """
        listed = self._own.get("regions", [])
        if not isinstance(listed, list):
            raise ConfigException("regions must be a list")
        named = self._own.get("region_name")
        for one in (*listed, *(named if isinstance(named, list) else ())):
            values = one.get("values", {}) if isinstance(one, dict) else {}
            if not isinstance(values, dict) or (isinstance(one, dict) and set(one) - {"name", "values"}):
                # openstack.config would show the whole entry, and what is secret in it.
                raise ConfigException("an entry of regions has a name, a mapping of values, and nothing else")
        names = [_text(region["name"], "the name of a region") for region in self._get_known_regions(self.cloud)]
        if listed and len(names) == 1 and named not in (None, names[0]):
            # openstack.config takes that of the list.
            raise ConfigException(f"region_name is {shown(named)}, and regions has only {shown(names[0])}: {_ONE}")
        return [name for name in names if name]

    def auth_config_hook(self, config: dict[str, object]) -> dict[str, object]:
        """Do what openstackclient does before an auth type is loaded (osc_lib/cli/client_config.py)."""
        auth = config["auth"]
        assert isinstance(auth, dict), "openstack.config cannot read another"
        # That of a named cloud may stand beside its auth section.
        given, own = config.get("auth_url"), auth.get("auth_url") or self._own.get("auth_url")
        if given and own and str(given).rstrip("/") != str(own).rstrip("/"):
            raise ConfigException(
                f"OS_AUTH_URL is {shown(given)}, and auth_url in the file {shown(own)}, which is another cloud: "
                "unset OS_AUTH_URL and what belongs to it, or do not name this cloud"
            )
        if config.get("service_provider"):
            raise ConfigException("service_provider is set: bulkrestart signs in to one Keystone, and through no other")
        if self._choice.region is not None:
            config.pop(f"{SERVICE}_region_name", None)
        if self._choice.interface is not None:
            config["interface"] = self._choice.interface
            config.pop(f"{SERVICE}_interface", None)
        if self._choice.project is not None:
            # keystoneauth1 takes an id before a name, so that of the file has to go.
            for key in _PROJECT_KEYS:
                auth.pop(key, None)
            auth["project_name" if self._choice.project_id is None else "project_id"] = (
                self._choice.project_id or self._choice.project
            )
        auth_type = config.get("auth_type") or _default_auth_type(config)
        if not isinstance(auth_type, str) or not _AUTH_TYPE.fullmatch(auth_type):
            raise ConfigException("auth_type must be the name of an auth type, such as password")
        _align_versions(auth_type, config, auth)
        return {**config, "auth_type": auth_type}

    def _validate_auth(self, config: dict[str, object], loader: BaseLoader[BaseAuthPlugin]) -> dict[str, object]:
        """Take options before the `auth` section, the other way round than openstack.config does."""
        auth = config["auth"]
        assert isinstance(auth, dict), "the hook has seen to it"
        for option in loader.get_options():
            keys = _keys_of(option)
            value = _first(config, keys) or _first(auth, keys)
            for key in keys:
                config.pop(key, None)
                auth.pop(key, None)
            if value:
                is_list = option.name == "auth_methods" and isinstance(value, list)
                if not is_list and not isinstance(value, str):
                    raise ConfigException(f"{option.name} must be text, not {_kind(value)}: put it in quotes")
                auth[option.dest or keys[0]] = value
        return config

    def _load_yaml_json_file(self, filelist: list[str]) -> tuple[str, dict[str, object]] | tuple[None, None]:
        """Read the first file that is there, and refuse it where openstack.config goes on with the next.

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
            # Its words may hold a piece of the file: a password that begins with * is an alias to YAML.
            mark = getattr(error, "problem_mark", None)
            where = "" if mark is None else f" (line {mark.line + 1}, column {mark.column + 1})"
            raise ConfigException(f"{shown(path)} is not valid {kind}{where}") from None
        _check_size(document, path)
        clouds = document.get("clouds", {}) if isinstance(document, dict) else {}
        if not isinstance(clouds, dict):
            raise ConfigException(f"clouds in {shown(path)} must be a mapping of clouds")
        return path, document


def _keys_of(option: Opt) -> list[str]:
    """Give the keys of an option of an auth type, the deprecated ones last."""
    return [name.replace("-", "_") for name in (option.name, *(old.name for old in option.deprecated))]


def _first(settings: Mapping[str, object], keys: list[str]) -> object:
    return next((settings[key] for key in keys if key in settings), None)


def _default_auth_type(config: Mapping[str, object]) -> str:
    return "token" if config.get("token") and not config.get("username") else "password"


def _align_versions(auth_type: str, config: Mapping[str, object], auth: dict[str, object]) -> None:
    """Write for the version of Keystone what is written for another, and name the domain that is left out."""
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
    """See that a document is a tree of a size that can be walked: openstack.config follows each way through it."""
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
            f"the region {shown(asked)} is asked for, and it has only {names}: name one of these, or add it to "
            "regions in clouds.yaml"
        )


def remedy_of(regions: list[str]) -> str:
    """Say how one of several regions is named."""
    last = next(filter(None, map(shown, reversed(regions))), "NAME")
    return f'--region {last}, region="{last}" or OS_REGION_NAME={last}'


def _check_interface(interface: str | list[str]) -> None:
    """Refuse an interface of the environment that `openstack` does not take.

    It reads OS_ENDPOINT_TYPE for no cloud that is named, and takes `endpoint_type` and `compute_interface` of the file
    before OS_INTERFACE.
    """
    taken = [_without_url(one) for one in ([interface] if isinstance(interface, str) else interface)]
    for variable in ("OS_INTERFACE", "OS_ENDPOINT_TYPE"):
        value = os.environ.get(variable)
        if value and [_without_url(value)] != taken:
            raise ConfigException(f"{variable} is {shown(value)}, and the interface is {shown(interface)}: {_ONE}")


def _check_service_variables(settings: CloudRegion) -> None:
    """Refuse variables of the compute API that count only where no cloud is named."""
    for key in _OF_SERVICE:
        variable = f"OS_COMPUTE_{key.upper()}"
        value = os.environ.get(variable)
        if value and value != settings.config.get(f"{SERVICE}_{key.replace('endpoint_type', 'interface')}"):
            raise ConfigException(f"{variable} is set, and `openstack` does not read it for a named cloud: unset it")


def _expected(auth: Mapping[str, object], variables: Mapping[str, str]) -> dict[str, str]:
    """Find the names that keystoneauth1 does not tell Keystone, because there is an id as well.

    A name of the environment must not be passed over for an id of the file; an id of the environment may be told
    beside a name of the file.
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
    """Write a setting in a message: on one line, and without the password that a URL may hold."""
    return plain(without_userinfo(str(value)))


def _without_url(interface: str) -> str:
    """Give the interface that a catalog has for `publicURL` (keystoneauth1/access/service_catalog.py)."""
    return interface.removesuffix("URL")


def _text(value: object, what: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ConfigException(f"{what} must be text, not {_kind(value)}")
    return str(value)


def _kind(value: object) -> str:
    kinds = {bool: "true or false", list: "a list", dict: "a mapping"}
    return kinds.get(type(value), f"a {type(value).__name__}")
