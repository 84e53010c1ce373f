"""The rooms of the package: who may import whom, read from the source. Data flows downwards, once."""

import ast
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Final, NamedTuple

import pytest

import bulkrestart

PACKAGE: Final = Path(bulkrestart.__file__).parent
MODULES: Final = sorted(PACKAGE.rglob("*.py"))

#: Each room, and the rooms below it; "" is the package's own front.
ROOMS: Final[dict[str, set[str]]] = {
    "core": set(),
    "limits": {"core"},
    "cloud": {"core"},
    "journal": {"core"},
    "engine": {"core", "limits", "cloud", "journal"},
    "run": {"core", "limits", "cloud", "journal", "engine"},
    "client": {"core", "limits", "cloud", "journal", "engine", "run"},
    "": {"core", "cloud", "journal", "engine", "run", "client"},
    "simulator": {"core"},
    "cli": {"core", "cloud", "journal", "engine", "run", "client", "", "simulator"},
    "__main__": {"cli"},
}

#: Where each package of others lives: a room, or one file of it.
HOMES: Final[dict[str, set[str]]] = {
    "httpx": {"cloud", "client"},
    "httpcore": {"cloud"},
    "httptools": {"cloud/answer.py"},
    "msgspec": {"journal/codec.py"},
    "tenacity": {"run/submit.py"},
    "anyio": {"engine", "run", "cloud", "cli", "client", "simulator"},
    "keystoneauth1": {
        *("cloud/bounded.py", "cloud/keystone.py", "cloud/configuration.py", "cloud/token_answers.py"),
    },
    "openstack": {"cloud/keystone.py", "cloud/configuration.py"},
    "requests": {"cloud/bounded.py", "cloud/token_answers.py"},
    "urllib3": {"cloud/bounded.py"},
    "certifi": {"cloud/network.py"},
    "yaml": {"cloud/configuration.py"},
    "typer": {"cli", "__main__"},
    "starlette": {"simulator"},
    "uvicorn": {"simulator"},
    "pytest": {"simulator/pytest_plugin.py"},
}

#: The standard library, and what type checkers alone import of it.
STANDARD: Final = sys.stdlib_module_names | {"_typeshed"}

#: What tells the time, rolls dice, talks or waits: the shell's business.
NOT_PURE: Final = frozenset(
    {
        *("asyncio", "concurrent", "contextvars", "multiprocessing", "queue", "sched", "selectors", "signal"),
        *("threading", "time", "random", "secrets", "logging", "warnings", "http", "socket", "ssl", "sqlite3"),
        *("io", "os", "pathlib", "shutil", "subprocess", "tempfile"),
    }
)
#: The same, in modules that are pure otherwise.
NOT_PURE_NAMES: Final = frozenset({"now", "utcnow", "today", "uuid1", "uuid4", "localtime", "print", "open", "input"})


class Import(NamedTuple):
    """One import statement."""

    path: Path
    line: int
    name: str

    def __str__(self) -> str:
        return f"{self.path.relative_to(PACKAGE)}:{self.line} imports {self.name}"


def tree(path: Path) -> ast.Module:
    """Read one file."""
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path) -> Iterator[Import]:
    """Give what a file imports, in whatever corner; of `from a import b` both `a` and `a.b` if that is a module."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (Import(path, node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            inner = [f"{module}.{alias.name}" for alias in node.names if f"{module}.{alias.name}" in NAMES]
            yield from (Import(path, node.lineno, name) for name in inner or [module])


def name_of(path: Path) -> str:
    """Name a file as an import does."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES: Final = {name_of(path): path for path in MODULES}
IMPORTS: Final = [imported for path in MODULES for imported in imports(path)]


def room_of(name: str) -> str:
    """Name the room of one of our modules."""
    return f"{name}.".split(".")[1]


def is_ours(name: str) -> bool:
    """Tell whether a module is of this package."""
    return name.split(".")[0] == "bulkrestart"


def test_every_room_is_known() -> None:
    """A new room gets its place in the law before it gets its first file."""
    assert {room_of(name) for name in NAMES} <= set(ROOMS)


def test_imports_are_absolute() -> None:
    """Every import names its room."""
    assert [str(imported) for imported in IMPORTS if imported.name.startswith(".")] == []


def test_imports_go_downwards() -> None:
    """A room imports itself and what lies below; only the command line knows the simulator."""
    wrong = [
        str(imported)
        for imported in IMPORTS
        if is_ours(imported.name)
        for room in [room_of(name_of(imported.path))]
        if room_of(imported.name) not in {room, *ROOMS[room]}
    ]

    assert wrong == []


def test_no_two_modules_need_each_other() -> None:
    """Within a room as well, imports have an order."""
    graph: dict[str, set[str]] = {name: set() for name in NAMES}
    for imported in IMPORTS:
        name = name_of(imported.path)
        if is_ours(imported.name) and imported.name != name:
            graph[name].add(imported.name)

    assert set(TopologicalSorter(graph).static_order()) == set(NAMES)


def test_packages_of_others_have_their_homes() -> None:
    """The edge has httpx, tenacity times one server, anyio runs the shell; whatever is new gets its place first."""
    wrong = [
        str(imported)
        for imported in IMPORTS
        for package in [imported.name.split(".")[0]]
        if not is_ours(package) and package not in STANDARD
        for file in [imported.path.relative_to(PACKAGE).as_posix()]
        if not {room_of(name_of(imported.path)), file} & HOMES.get(package, set())
    ]

    assert wrong == []


#: The rooms that neither wait, tell the time nor talk.
PURE_ROOMS: Final = {"core", "limits"}
PURE: Final = [path for path in MODULES if room_of(name_of(path)) in PURE_ROOMS]


@pytest.mark.parametrize("path", PURE, ids=[path.relative_to(PACKAGE).as_posix() for path in PURE])
def test_pure_rooms_import_nothing_that_acts(path: Path) -> None:
    """A pure module imports pure modules, and the parts of the standard library without clock, dice, files or waits."""
    wrong = [
        str(imported)
        for imported in imports(path)
        for package in [imported.name.split(".")[0]]
        if room_of(imported.name) not in PURE_ROOMS and (package not in STANDARD or package in NOT_PURE)
    ]

    assert wrong == []


@pytest.mark.parametrize("path", PURE, ids=[path.relative_to(PACKAGE).as_posix() for path in PURE])
def test_pure_rooms_do_nothing_by_another_way(path: Path) -> None:
    """A pure module awaits nothing, and calls no clock, dice or file that another pure module offers."""
    wrong = []
    for node in ast.walk(tree(path)):
        match node:
            case ast.AsyncFunctionDef() | ast.Await() | ast.AsyncFor() | ast.AsyncWith():
                wrong.append(f"{path.name}:{node.lineno} is asynchronous")
            case ast.Call(func=ast.Attribute(attr=name) | ast.Name(id=name)) if name in NOT_PURE_NAMES:
                wrong.append(f"{path.name}:{node.lineno} calls {name}")
            case _:
                pass

    assert wrong == []


def test_the_law_sees_what_it_forbids() -> None:
    """The reading itself works: known imports of this package are found where they are."""
    found = {(imported.path.relative_to(PACKAGE).as_posix(), imported.name) for imported in IMPORTS}

    assert {
        ("core/decide.py", "bulkrestart.core.faults"),
        ("cloud/compute.py", "httpx"),
        ("run/submit.py", "tenacity"),
        ("client.py", "anyio"),
        ("__init__.py", "bulkrestart.client"),
    } <= found
