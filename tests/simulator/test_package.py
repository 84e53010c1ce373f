"""The package's names, and what it needs for them."""

import importlib
import subprocess
import sys

import pytest

from bulkrestart import simulator


def test_names() -> None:
    """Every public name is there, and they are sorted."""
    assert simulator.__all__ == sorted(simulator.__all__)
    for name in simulator.__all__:
        assert getattr(simulator, name)


def test_unknown_name() -> None:
    """A name that is not there is an AttributeError like any other."""
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        _ = simulator.nope


def test_the_cloud_is_pure() -> None:
    """The cloud and its faults come without the packages of the extra."""
    code = (
        "import sys; from bulkrestart.simulator import Cloud, Fault, Faults, ManualClock; Cloud(3); "
        "print([name for name in ('starlette', 'uvicorn') if name in sys.modules])"
    )
    # Under `-c` the package is found as it was found here.
    environment = {"PYTHONPATH": ":".join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(("name", "missing"), [("asgi", "starlette"), ("LoopbackCloud", "uvicorn")])
def test_missing_extra(monkeypatch: pytest.MonkeyPatch, name: str, missing: str) -> None:
    """Without the extra, its names fail in one line with the remedy."""

    def cannot(module: str) -> None:
        raise ModuleNotFoundError(f"No module named '{missing}'", name=missing)

    monkeypatch.setattr(simulator, "import_module", cannot)
    with pytest.raises(ImportError) as raised:
        getattr(simulator, name)
    assert str(raised.value) == (f"bulkrestart.simulator.{name} needs {missing}: pip install 'bulkrestart[simulator]'")


def test_other_import_errors_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that is missing for another reason is told as it is."""

    def cannot(module: str) -> None:
        raise ModuleNotFoundError("No module named 'zlib'", name="zlib")

    monkeypatch.setattr(simulator, "import_module", cannot)
    with pytest.raises(ModuleNotFoundError, match=r"^No module named 'zlib'$"):
        _ = simulator.asgi


def test_reload() -> None:
    """The names are the same objects however they are reached."""
    app = importlib.import_module("bulkrestart.simulator.app")
    assert simulator.asgi is app.asgi
