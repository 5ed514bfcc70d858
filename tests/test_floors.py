"""The architecture as a test: who lives on which floor, and who alone may use what.

A room is a folder of `zchunked/` or a lone file. Imports point down, or sideways on the same floor
as long as nobody goes in circles. Below the workshops the rooms of a floor do not even know each
other, the nouns aside.
"""

from __future__ import annotations

import ast
import builtins
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest

import zchunked

PACKAGE = "zchunked"
BUILTINS = frozenset(dir(builtins))
HOME = Path(__file__).parents[1] / PACKAGE

FLOORS = [
    # 0 · Nouns: values and the rules they keep. No network, no disk, no thread.
    "errors limits events oci ranges",
    # 1 · Values of a pull, and the bytes of one layer, understood: bytes in, values out.
    "interfaces receipt options results findings formats local",
    # 2 · The world outside: where bytes stay, where they come from.
    "store sources",
    # 3 · Stored layers, read and proved; the download, and what is forgiven on the way.
    "layers download",
    # 4 · Workshops: each does one job with what the floors below give it.
    "seeds maintenance export",
    # 5 · The whole story of a pull; an image's layers written anew; its files.
    "pull convert push browse",
    # 6 · The library: what a client does, and the client.
    "operations client api serve",
    # 7 · People.
    "cli __main__",
]
SHARED = {0, 1, 3, 6, 7}
"""Floors whose rooms may know each other."""

WHO_MAY = {
    # Libraries: one room each knows that they exist.
    "requests": "sources.http.client sources.http.response sources.http.connections.sessions",
    "urllib3": "sources.http.response sources.http.connections",
    "cheroot": "serve.server",
    "prometheus_client": "serve.monitoring.metrics",
    "obstore": "sources.objects",
    "zstandard": "formats.frames.zstd",
    "fastcrc": "layers.rebuild formats.writing.writer",
    "numpy": "formats.writing.chunker",
    "isal": "formats.frames.decompress",
    "tenacity": "download.retries.retry",
    "tqdm": "cli.terminal.progress",
    "shtab": "cli",
    "platformdirs": "operations.calls.client_store",
    # JSON from outside becomes typed values where it is parsed, and text again where it is written.
    # Values that nearly every start defines are its structs: a data class takes 0.3 ms to define.
    "msgspec": (
        "oci formats store sources export convert serve cli "
        "events interfaces limits receipt results findings"
    ),
    # Two threads that are the first to decode a type crash the process (msgspec 0.22): types are
    # known at import.
    "msgspec.json.decode": "",
    "msgspec.convert": "sources.config.registries",
    # The standard library's doors to the world.
    "sqlite3": "store.index",
    "fcntl": "store export.files.locks serve.slow_clients",
    "ctypes": "cli.tuning",
    "socket": "sources serve.server serve.slow_clients",
    "ssl": "sources",
    "http": "sources serve",
    "urllib": "sources serve",
    "subprocess": "sources.auth.helpers export.engines.program",
    "multiprocessing": "",
    "asyncio": "",
    "logging": "",
    # Threads are started by WorkerPool; others own locks at most. Only a pull that was stopped or
    # slept knows time. To look a name up nobody can set a bound but by a thread that nobody waits
    # for.
    "threading.Thread": "download.workers sources.http.connections.host_lookup",
    "threading.Timer": "",
    "concurrent.futures.ThreadPoolExecutor": "download.workers",
    "concurrent.futures.ProcessPoolExecutor": "",
    "time.sleep": "",  # retry waits on an Event, so that stopping ends the wait
    # People and their environment.
    "os.environ": "cli operations.calls.client_store",
    "os.getenv": "cli",
    "print": "cli",
    "input": "",
    "sys.argv": "cli",
    "sys.exit": "cli __main__",
    "sys.stderr": "cli",
    "sys.stdout": "cli export.files.sink",  # an archive may go to standard output
    # Doors that stay shut.
    "eval": "",
    "exec": "",
    "pickle": "",
    "os.system": "",
}

PUBLIC = "errors events findings receipt results"
"""What a program may import besides `zchunked.__all__`: `docs/library.md` promises them."""
SPELLING = "oci.digest oci.platform oci.quoting oci.reference"
"""Pure text that the command reads and prints: how references and platforms are written."""

# options name places on this machine, which `local` looks at
PURE = [*FLOORS[0].split(), *FLOORS[1].replace("options", "").replace("local", "").split()]
IMPURE = "os io socket ssl subprocess sqlite3 pathlib shutil tempfile requests urllib3 time"
"""What the two lowest floors never import.

Their inputs are bytes and values, their clock is passed in.
"""


@dataclass
class Module:
    """A file of the package: what it imports of ours, and every dotted name it uses of others."""

    name: str
    lines: int
    ours: set[str] = field(default_factory=set)
    uses: set[str] = field(default_factory=set)

    @property
    def room(self) -> str:
        return self.name.split(".")[0]


def module_name(path: Path) -> str:
    """Without the package's own name; the package itself has none."""
    parts = path.relative_to(HOME).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def modules() -> dict[str, Module]:
    paths = {module_name(path): path for path in sorted(HOME.rglob("*.py"))}
    return {name: read(name, path, frozenset(paths)) for name, path in paths.items()}


def read(name: str, path: Path, known: frozenset[str]) -> Module:
    text = path.read_text(encoding="utf-8")
    found = Module(name, text.count("\n"))
    nodes = list(ast.walk(ast.parse(text)))
    meant: dict[str, str] = {}  # a local name → the dotted name it was imported as
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                meant[alias.asname or alias.name.split(".")[0]] = (
                    alias.name if alias.asname else alias.name.split(".")[0]
                )
                note(found, alias.name, known)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name} imports relatively"
            for alias in node.names:
                meant[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                note(found, f"{node.module}.{alias.name}", known)
    for node in nodes:
        if isinstance(node, ast.Attribute | ast.Name) and (dotted := dotted_name(node)):
            first, dot, rest = dotted.partition(".")
            if first in meant or (first in BUILTINS and not dot):  # else a name of the module's own
                found.uses.add(meant.get(first, first) + dot + rest)
    return found


def note(module: Module, dotted: str, known: frozenset[str]) -> None:
    """`from zchunked.layer import frames` names a module.

    `from zchunked.layer.toc import Toc` something in one.
    """
    first, _, rest = dotted.partition(".")
    if first != PACKAGE:
        module.uses.add(dotted)
    elif rest in known:
        module.ours.add(rest)
    else:
        module.ours.add(rest.rpartition(".")[0])


def dotted_name(node: ast.expr) -> str | None:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (before := dotted_name(node.value)):
        return f"{before}.{node.attr}"
    return None


def floor(room: str) -> int:
    return next(number for number, rooms in enumerate(FLOORS) if room in rooms.split())


def is_in(name: str, rooms: str) -> bool:
    return any(name == room or name.startswith(f"{room}.") for room in rooms.split())


NAMES = sorted(modules())


def test_every_room_has_its_floor_and_every_floor_its_rooms() -> None:
    listed = [room for rooms in FLOORS for room in rooms.split()]
    assert len(listed) == len(set(listed))
    assert {module.room for module in modules().values()} - {""} == set(listed)


@pytest.mark.parametrize("name", NAMES)
def test_imports_point_down(name: str) -> None:
    module = modules()[name]
    for other in module.ours - {""}:
        there = other.split(".")[0]
        if there == module.room:
            continue
        assert module.room, (
            f"the package itself imports {other}: then every import of us pays for it"
        )
        assert floor(there) <= floor(module.room), f"{name} looks up at {other}"
        if floor(there) == floor(module.room):
            assert floor(there) in SHARED, f"{name} looks sideways at {other}"


def test_nobody_imports_in_circles() -> None:
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " → ".join([*way[way.index(name) :], name])
        if name not in done:
            for other in modules()[name].ours:
                if other and not name.startswith(f"{other}.") and other != name:
                    visit(other, (*way, name))
            done.add(name)

    for name in NAMES:
        visit(name, ())


def uses_of(thing: str) -> Iterator[str]:
    for name in NAMES:
        if any(use == thing or use.startswith(f"{thing}.") for use in modules()[name].uses):
            yield name


@pytest.mark.parametrize("thing", WHO_MAY)
def test_each_door_to_the_world_is_in_its_room(thing: str) -> None:
    for name in uses_of(thing):
        assert is_in(name, WHO_MAY[thing]), (
            f"{name} uses {thing}; only {WHO_MAY[thing] or 'nobody'} may"
        )


def test_every_library_from_outside_has_a_place_in_the_table() -> None:
    roots = {use.split(".")[0] for module in modules().values() for use in imported(module)}
    foreign = roots - set(sys.stdlib_module_names) - {PACKAGE}
    assert foreign <= set(WHO_MAY), f"not in the table: {foreign - set(WHO_MAY)}"


@pytest.mark.parametrize("name", [*uses_of("msgspec.json.Decoder")])
def test_decoders_are_made_at_import_by_one_thread(name: str) -> None:
    for function in ast.walk(tree(modules()[name])):
        if isinstance(function, ast.FunctionDef):
            made = [node for node in ast.walk(function) if isinstance(node, ast.Call)]
            assert "msgspec.json.Decoder" not in {dotted_name(call.func) for call in made}, (
                function.name
            )


def tree(module: Module) -> ast.Module:
    path = HOME.joinpath(*module.name.split(".")) if module.name else HOME
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(file.read_text(encoding="utf-8"))


def imported(module: Module) -> Iterator[str]:
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


@pytest.mark.parametrize("name", [name for name in NAMES if name and name.split(".")[0] in PURE])
def test_the_two_lowest_floors_touch_neither_disk_nor_network_nor_clock(name: str) -> None:
    roots = {use.split(".")[0] for use in imported(modules()[name])}
    assert not roots & set(IMPURE.split())
    assert "open" not in modules()[name].uses


def test_a_folder_holds_twelve_files_at_most() -> None:
    folders = Counter(path.parent for path in HOME.rglob("*.py") if path.name != "__init__.py")
    crowded = [str(folder.relative_to(HOME)) for folder, files in folders.items() if files > 12]
    assert not crowded, "group files by what they are about"


@pytest.mark.parametrize("name", NAMES)
def test_what_may_not_be_looked_at_is_never_taken_for_absent(name: str) -> None:
    """`seeds` may: what cannot be read is no seed."""
    silent = {
        node.func.attr
        for node in ast.walk(tree(modules()[name]))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in {"exists", "lexists", "is_dir", "is_file", "isdir"}
        and not node.keywords  # an entry of a folder that was read knows what it is
    }
    assert not silent or modules()[name].room == "seeds", f"{silent}: ask `local.paths`"


@pytest.mark.parametrize("name", NAMES)
def test_a_file_has_350_lines_at_most(name: str) -> None:
    assert modules()[name].lines <= 350, "find the second job in it, and give that a file"


@pytest.mark.parametrize("name", NAMES)
def test_a_constructor_takes_six_collaborators(name: str) -> None:
    for made in ast.walk(tree(modules()[name])):
        if not isinstance(made, ast.ClassDef):
            continue
        for method in made.body:
            if isinstance(method, ast.FunctionDef) and method.name == "__init__":
                width = len(method.args.args) + len(method.args.kwonlyargs) - 1
                assert width <= 6, f"{name}.{made.name} takes {width}"


@pytest.mark.parametrize("name", NAMES)
def test_a_file_imports_twelve_of_ours(name: str) -> None:
    ours = modules()[name].ours - {""}
    assert len(ours) <= 12, f"{name} imports {len(ours)} of our files; it does more than one thing"


def names_from(module: Module) -> Iterator[tuple[str, str]]:
    """(module, name) of everything that it imports of ours."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == PACKAGE:
            yield from ((node.module or "", alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((one.name, "") for one in node.names if one.name.split(".")[0] == PACKAGE)


@pytest.mark.parametrize("name", [name for name in NAMES if is_in(name, "cli")])
def test_the_command_uses_nothing_but_the_library(name: str) -> None:
    for module, what in names_from(modules()[name]):
        if module == PACKAGE:
            assert what in {*zchunked.__all__, "__version__"}, f"{name} imports a private {what}"
        else:
            there = module.removeprefix(f"{PACKAGE}.")
            assert is_in(there, f"cli {PUBLIC} {SPELLING}"), f"{name} imports {what} of {module}"


def test_the_table_sees_what_it_should_see(tmp_path: Path) -> None:
    """The reader of imports against every way to spell one.

    A test that looks away proves nothing.
    """
    path = tmp_path / "x.py"
    path.write_text(
        "import os.path, threading as t\nfrom time import sleep as rest\nfrom zchunked.layer "
        "import frames\n"
        "from zchunked.store.store import Store\nfrom concurrent.futures import "
        "ThreadPoolExecutor\n"
        "def f():\n    import tqdm\n    t.Thread(); rest(1); os.environ['A']; print(1); "
        "zchunked.x\n"
    )
    found = read("x", path, frozenset({"", "layer", "layer.frames", "store", "store.store"}))
    assert found.ours == {"layer.frames", "store.store"}
    assert {"threading.Thread", "time.sleep", "os.environ", "print", "tqdm"} <= found.uses
    assert "concurrent.futures.ThreadPoolExecutor" in found.uses
