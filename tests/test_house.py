"""The repository keeps its own shape: who may import whom, what the core must not touch, file size.

The modules of `alg` stand on floors; each imports from its own floor and those below. `nat_table`
is the ground. A new module of `alg` is given its floor here, and that is a decision.
"""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted(
    path for top in ("alg", "nat_table", "rules") for path in (ROOT / top).rglob("*.py")
)
FILES = [*SOURCES, *sorted((ROOT / "tests").rglob("*.py"))]

FLOORS = (
    {
        "alg.sip",
        "alg.sdp",
        "alg.dialogs",
        "alg.stored",
        "alg.verdict",
        "alg.packet",
        "alg.datagram",
    },
    {
        "alg.mappings",
        "alg.rewrite_body",
        "alg.rewrite",
        "alg.written",
        "alg.notes",
        "alg.inbound",
        "alg.outbound",
        "alg.left",
    }
    | {"alg.outside", "alg.state", "alg.exchange", "alg.methods", "alg.gateway"}
    | {"alg.gateway_settings", "alg.drop", "alg.new_call", "alg.failures"},
    {"alg.io", "alg.observe", "alg.port_manager", "alg.upstream", "alg.config", "alg.config_file"}
    | {"alg.static_mapping", "alg.version", "alg.config_text"},
    {"alg.cli", "alg.daemon", "alg.__main__"},
)
FLOOR_OF = {name: number for number, names in enumerate(FLOORS) for name in names}
CORE = FLOORS[0] | FLOORS[1] | {"nat_table"}
OUTSIDE_WORLD = {
    "asyncio",
    "datetime",
    "io",
    "multiprocessing",
    "os",
    "pathlib",
    "secrets",
    "select",
    "shutil",
    "signal",
    "socket",
    "subprocess",
    "tempfile",
    "threading",
    "time",
}
HOMES = {
    "netfilterqueue": ("alg/io/queue.py", "tests/netns/"),
    "pyroute2": ("rules/", "tests/lab/", "tests/netns/"),
    "scapy": ("tests/",),
    "dpkt": ("alg/packet.py", "alg/observe/", "tests/"),
}
FORBIDDEN_NAMES = {"utils.py", "helpers.py", "manager.py", "common.py"}
LINES_PER_FILE = 400


def name_of(path: Path) -> str:
    """Returns the file's path from the root, as a test id."""
    return str(path.relative_to(ROOT))


def module_of(path: Path) -> str:
    """Returns "alg.sip" for anything inside alg/sip/, "alg.gateway" for alg/gateway.py."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:2]) if parts[0] == "alg" else parts[0]


def imports(path: Path) -> Iterator[str]:
    """Yields the absolute name of every module that the file imports, wherever it does so."""
    for node in run_time_nodes(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}:{node.lineno}: imports are absolute"
            module = node.module or ""
            yield module
            if module == "alg":
                yield from (f"alg.{alias.name}" for alias in node.names)


def run_time_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Yields every node except those under `if TYPE_CHECKING:`, which never run."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from run_time_nodes(child)


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_imports_go_down(path: Path) -> None:
    importer = module_of(path)
    top = importer.partition(".")[0]
    for imported in imports(path):
        package = imported.partition(".")[0]
        if top == "nat_table":
            assert package == "nat_table" or package in sys.stdlib_module_names, imported
        elif top == "rules":
            assert package != "alg", imported
        elif package == "rules":
            assert importer == "alg.daemon", f"only alg.daemon imports rules, not {importer}"
        elif package == "alg" and importer != "alg" and imported != "alg":
            target = ".".join(imported.split(".")[:2])
            assert importer in FLOOR_OF, f"{importer} has no floor yet: give it one here"
            assert FLOOR_OF[target] <= FLOOR_OF[importer], f"{importer} imports {imported}"


@pytest.mark.parametrize("path", [p for p in SOURCES if module_of(p) in CORE], ids=name_of)
def test_core_has_no_clock_random_socket_or_file(path: Path) -> None:
    assert not {name.partition(".")[0] for name in imports(path)} & OUTSIDE_WORLD
    tree = ast.parse(path.read_text())
    calls = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    assert not calls & {"open", "random.Random"}
    drawn = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert {name for name in drawn if name.startswith("random.")} <= {"random.Random"}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_outside_libraries_stay_in_their_homes(path: Path) -> None:
    for imported in imports(path):
        homes = HOMES.get(imported.partition(".")[0])
        assert homes is None or name_of(path).startswith(homes), imported


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_files_are_short_well_named_and_open_with_their_strategy(path: Path) -> None:
    text = path.read_text()
    assert path.name not in FORBIDDEN_NAMES
    assert len(text.splitlines()) <= LINES_PER_FILE
    assert not text or ast.get_docstring(ast.parse(text)), "a file opens with what it is for"


def test_every_file_of_data_is_in_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packed = {
        path
        for package, patterns in project["tool"]["setuptools"]["package-data"].items()
        for pattern in patterns
        for path in (ROOT / package).glob(pattern)
    }
    data = {path for top in ("alg", "rules", "nat_table") for path in (ROOT / top).rglob("*.*")}
    read = (".py", ".md", ".so")
    missing = {path for path in data - packed if path.is_file() and path.suffix not in read}
    assert not {name_of(path) for path in missing if "__pycache__" not in path.parts}
