"""What the package promises to those who import it: its names, its records, its errors and its types."""

import copy
import inspect
import pickle
import sys
from dataclasses import FrozenInstanceError, fields, is_dataclass
from enum import Enum
from importlib.resources import files
from types import ModuleType
from typing import Final

import pytest

import bulkrestart
from bulkrestart import (
    AccessKey,
    Address,
    Attempt,
    AuthError,
    BulkRestartError,
    EndpointError,
    FleetError,
    Forecast,
    JournalError,
    Outcome,
    Plan,
    Proof,
    Reason,
    RebootType,
    RestartClient,
    Rollout,
    Server,
    ServerResult,
    Statistics,
    Stop,
    StopReason,
    Target,
    Token,
)
from bulkrestart.core.options import Options
from tests.core.samples import report

PUBLIC: Final = {name: getattr(bulkrestart, name) for name in bulkrestart.__all__}
CLASSES: Final = [value for value in PUBLIC.values() if inspect.isclass(value)]

ATTEMPT = Attempt(1.5, "202", "req-7f1b3c62-9b43-4a0e-8f0c-0d2f3c1a5b77")
RESULT = ServerResult(
    server_id="616fb98f-46ca-475e-917e-2563e5a8cd19",
    outcome=Outcome.FAILED,
    reason=Reason.NOT_BACK,
    reboot_type=RebootType.HARD,
    attempts=(ATTEMPT,),
    proof=Proof.STATE,
)
STOP = Stop(StopReason.ASKED, "the run was asked to stop")
REPORT = report(RESULT, stopped=STOP)
FORECAST = Forecast(
    server_id=RESULT.server_id,
    name="web-1",
    wave=1,
    domain="",
    reboot_type=RebootType.SOFT,
    reason=Reason.LOCKED,
    detail="vm_state active, task_state None, locked",
)
ADDRESS = Address(address="192.0.2.7", network="private", version=4, is_floating=True)
#: One of each record and each error.
SAMPLES: Final = [
    ADDRESS,
    ATTEMPT,
    RESULT,
    STOP,
    REPORT,
    Rollout(canary=1, wave="10%", max_failures=5),
    FORECAST,
    Plan(
        forecasts=(FORECAST,),
        waves=((RESULT.server_id,),),
        max_down=None,
        max_failures=5,
        max_refused=20,
        failures=0,
        refused=0,
        requests=4,
        seconds=1.6,
    ),
    Server(
        id="616fb98f-46ca-475e-917e-2563e5a8cd19",
        vm_state="active",
        tags=("a",),
        metadata={"role": "web"},
        addresses=(ADDRESS,),
    ),
    Statistics(**{field.name: number for number, field in enumerate(fields(Statistics))}),
    Target(endpoint="https://nova.test/v2.1/p", project_id="p", project_name="web", cloud="lab", region="eu-2"),
    BulkRestartError("words"),
    AuthError("words"),
    EndpointError("words"),
    JournalError("words"),
    FleetError(REPORT),
]
RECORDS: Final = [sample for sample in SAMPLES if not isinstance(sample, Exception)]


def name_of(value: object) -> str:
    """Name a sample by its class."""
    return type(value).__name__


def test_names_are_sorted_and_once() -> None:
    """The list of public names is kept in order."""
    assert bulkrestart.__all__ == sorted(set(bulkrestart.__all__))


def test_package_shows_its_public_names_and_nothing_else() -> None:
    """What can be had from the package's front is what it promises."""
    shown = {
        name
        for name, value in vars(bulkrestart).items()
        if not name.startswith("_") and not isinstance(value, ModuleType) and value is not Final
    }

    assert shown - {"TYPE_CHECKING", "import_module"} == set(bulkrestart.__all__)


@pytest.mark.parametrize("name", sorted({*bulkrestart.__all__} - {"__version__"}))
def test_public_name_is_imported_when_it_is_asked_for(name: str) -> None:
    """The name that the package imports is the one that its module defines."""
    value = bulkrestart.__getattr__(name)

    assert value is PUBLIC[name]
    assert value is getattr(sys.modules[value.__module__], name)


@pytest.mark.parametrize("name", ["restart_client", "Restart", "core", "_HOMES2", ""])
def test_name_that_is_not_public_is_an_attribute_error(name: str) -> None:
    """Nothing but a public name is imported."""
    with pytest.raises(AttributeError, match=f"^module 'bulkrestart' has no attribute '{name}'$"):
        bulkrestart.__getattr__(name)


@pytest.mark.parametrize("name", bulkrestart.__all__)
def test_public_name_is_documented(name: str) -> None:
    """Every public name says in its own words what it is."""
    value = PUBLIC[name]

    assert value.__doc__
    assert not value.__doc__.startswith(f"{name}(")


def test_every_record_and_error_has_a_sample() -> None:
    """A new record or error is tested below before it is public."""
    wanted = {value for value in CLASSES if is_dataclass(value) or issubclass(value, BaseException)}

    assert wanted == {type(sample) for sample in SAMPLES}


@pytest.mark.parametrize("record", RECORDS, ids=name_of)
def test_record_is_frozen(record: object) -> None:
    """A record cannot be changed, and takes no attributes beside its own."""
    assert is_dataclass(record)
    for name in (*(field.name for field in fields(record)), "another"):
        # TypeError is CPython's for a name that a frozen class with slots does not have (issue 90562).
        with pytest.raises((FrozenInstanceError, TypeError)):
            setattr(record, name, None)


@pytest.mark.parametrize("record", RECORDS, ids=name_of)
def test_record_can_be_kept_and_sent(record: object) -> None:
    """A record is equal to its copy and to what another process would get, and serves as a key."""
    assert pickle.loads(pickle.dumps(record)) == copy.deepcopy(record) == record  # noqa: S301 - our own bytes
    assert {record: 1}[copy.copy(record)] == 1


@pytest.mark.parametrize("enum", [value for value in CLASSES if issubclass(value, Enum)])
def test_closed_sets_print_as_reports_do(enum: type[Enum]) -> None:
    """A member is its own text, so it needs no translation in JSON, in logs or in comparisons."""
    for member in enum:
        assert str(member) == member.value == member
        assert pickle.loads(pickle.dumps(member)) is member  # noqa: S301 - our own bytes


@pytest.mark.parametrize("error", [sample for sample in SAMPLES if isinstance(sample, Exception)], ids=name_of)
def test_error_is_one_of_ours(error: Exception) -> None:
    """Every error can be caught as one, says what it has to say, and survives pickling."""
    returned = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes

    assert isinstance(error, BulkRestartError)
    assert type(returned) is type(error)
    assert str(returned) == str(error) != ""


@pytest.mark.parametrize(
    "auth", [Token("s3cret"), Token(lambda: "s3cret"), AccessKey("s3cret", "s3cret", security_token="s3cret")]
)
def test_what_signs_shows_no_secret(auth: object) -> None:
    """Neither printing nor formatting what signs shows a secret."""
    assert f"{auth} {auth!r}" == f"{type(auth).__name__}(...) {type(auth).__name__}(...)"


def test_a_restart_is_asked_for_in_one_way() -> None:
    """`restart` and `restarting` take the same, but for what a report keeps of a stream; `plan` takes nothing else.

    `Options` has the same defaults.
    """
    restart = inspect.signature(RestartClient.restart).parameters
    restarting = inspect.signature(RestartClient.restarting).parameters
    plan = inspect.signature(RestartClient.plan).parameters
    assert {name: restarting[name] for name in restarting if name != "keep_details"} == dict(restart)
    assert dict(plan) == {name: restart[name] for name in plan}
    assert {field.name for field in fields(Options)} == restart.keys() - {"self", "ids", "journal"}
    options = Options(reboot_type=RebootType.SOFT, wait=True, escalate=False, start_stopped=False, max_at_once=50)
    shared = restart.keys() - {"self", "ids", "journal", "max_at_once"}
    assert {name: getattr(options, name) for name in shared} == {name: restart[name].default for name in shared}


def test_a_client_is_made_in_one_way() -> None:
    """A client of a cloud by its name goes as fast as any other by default."""
    usual = inspect.signature(RestartClient).parameters
    by_name = inspect.signature(RestartClient.from_cloud).parameters
    assert {name: by_name[name] for name in by_name if name not in ("name", "region", "interface", "project")} == {
        name: usual[name] for name in ("max_at_once", "max_per_second", "adaptive")
    }


def test_types_are_shipped() -> None:
    """Type checkers read the annotations of the installed package (PEP 561)."""
    assert files("bulkrestart").joinpath("py.typed").is_file()
