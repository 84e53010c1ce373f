"""What is read of a cloud before a sign-in: what openstackclient adds to openstack.config, and what is not shown."""

import os
from pathlib import Path

import pytest

from bulkrestart.cloud.configuration import Overrides, read_configuration, shown

from .two_regions import PASSWORD, PROJECTS, dump

WEB = PROJECTS["default", "web"]
AUTH: dict[str, object] = {
    "auth_url": "http://127.0.0.1:9/v3",
    "username": "ops",
    "password": PASSWORD,
    "project_name": "web",
    "user_domain_name": "Default",
    "project_domain_name": "Default",
}


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("OS_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(tmp_path / "clouds.yaml"))
    monkeypatch.setenv("OS_CLIENT_SECURE_FILE", str(tmp_path / "secure.yaml"))


def auth_read(overrides: Overrides | None = None, /, **settings: object) -> dict[str, object]:
    """Read a cloud of these settings, and give what its auth type is given."""
    Path("clouds.yaml").write_text(dump({"lab": {"auth": AUTH, **settings}}))
    return read_configuration("lab", overrides or Overrides()).settings.get_auth_args()


def test_the_sign_in_is_not_shown() -> None:
    """What is read holds the password, and its repr names the cloud alone."""
    Path("clouds.yaml").write_text(dump({"lab": {"auth": AUTH}}))
    configuration = read_configuration("lab", Overrides())
    assert repr(configuration) == "Configuration(cloud='lab', ...)"


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (Overrides(), {"tenant_name": "web"}),
        (Overrides(project="db"), {"tenant_name": "db"}),
        (Overrides(project=WEB), {"tenant_id": WEB}),
    ],
)
def test_version_2_of_keystone_has_tenants(overrides: Overrides, named: dict[str, str]) -> None:
    """An auth type of version 2 is told the project as its tenant, and no domain."""
    auth = auth_read(overrides, auth_type="v2password", identity_api_version="2")
    assert {key: auth[key] for key in auth if key.startswith("tenant")} == named
    assert not [key for key in auth if "domain" in key]


@pytest.mark.parametrize("version", ["2", "2.0", 2])
def test_version_2_of_keystone_has_no_domains(version: object) -> None:
    """`identity_api_version: 2` leaves domains out, as openstackclient does."""
    auth = auth_read(identity_api_version=version)
    assert not [key for key in auth if "domain" in key]
    assert auth["project_name"] == "web"


@pytest.mark.parametrize(
    ("project", "project_id", "name"),
    [
        ("web", None, "web"),
        (WEB, WEB, None),
        (WEB.upper(), WEB, None),
        ("616fb98f-46ca-475e-917e-2563e5a8cd19", "616fb98f46ca475e917e2563e5a8cd19", None),
        (WEB[:-1], None, WEB[:-1]),
        (f"{WEB}0", None, f"{WEB}0"),
        ("g" * 32, None, "g" * 32),
        (None, None, None),
    ],
)
def test_a_project_is_named_by_its_name_or_its_id(
    project: str | None, project_id: str | None, name: str | None
) -> None:
    """32 hexadecimal digits are an id, with or without dashes and in either case; anything else is a name."""
    overrides = Overrides(project=project)
    assert (overrides.project_id, overrides.project_name) == (project_id, name)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("http://ops:pass@h/v3", "http://…@h/v3"),
        ("http://ops:pa/ss@wo rd@h/v3", "http://…@h/v3"),
        ("/folder/http:/ops:pa/ss@h", "/folder/http://…@h"),
        ("ops@h", "ops@h"),
        ("one\ntwo", "one two"),
    ],
)
def test_a_setting_is_shown_without_its_password(value: str, words: str) -> None:
    """A message shows a setting on one line, and nothing of what stands before the host of a URL."""
    assert shown(value) == words
