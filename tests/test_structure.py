"""The house rules that a machine can check: import directions, packages, file sizes, nothing that belongs to one machine."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    tomllib = None  # type: ignore[assignment]

ROOT = Path(__file__).parents[1]
ROOMS = ("subpc", "frontend", "passes", "schedules", "algorithms", "cli")
MAX_LINES = 300

# room -> rooms of ours that it may import from (itself always). Errors and the leaf records of subpc/ are open to all.
MAY_IMPORT = {
    "cli": {"subpc", "frontend", "passes", "schedules", "algorithms"},
    "subpc": {"frontend", "passes", "schedules", "algorithms"},
    "passes": {"schedules"},
    "frontend": {"algorithms"},
    "schedules": set[str](),
    "algorithms": set[str](),
}
LEAVES = {"subpc.errors", "subpc.library.report", "subpc.files", "subpc.text", "subpc.worker", "subpc.progress"}
# Only these may import the heavy libraries at module level.
HEAVY = {"torch": {"frontend", "algorithms"}, "tvm": {"frontend", "passes", "schedules"}}


def sources(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts if parts[0] == "subpc" else ("subpc", *parts))


def imported(path: Path, *, deferred: bool) -> Iterator[str]:
    """Modules that a file imports; without `deferred` only those at module level that run (not under TYPE_CHECKING)."""
    tree = ast.parse(path.read_text())
    nodes = ast.walk(tree) if deferred else iter(tree.body)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(module: str) -> str | None:
    parts = module.split(".")
    if parts[0] != "subpc":
        return None
    return parts[1] if len(parts) > 1 and parts[1] in ROOMS else "subpc"


ALL = [(room, path) for room in ROOMS for path in sources(room)]


@pytest.mark.parametrize(("room", "path"), ALL, ids=[str(p.relative_to(ROOT)) for _, p in ALL])
def test_import_direction(room: str, path: Path) -> None:
    allowed = MAY_IMPORT[room] | {room}
    for module in imported(path, deferred=True):
        other = room_of(module)
        leaf = any(module == leaf or module.startswith(leaf + ".") for leaf in LEAVES)
        assert other is None or other in allowed or leaf, f"{path.relative_to(ROOT)} imports {module}"


@pytest.mark.parametrize("leaf", sorted(LEAVES))
def test_leaves_import_nothing_heavy(leaf: str) -> None:
    modules = set(imported(ROOT / f"{leaf.replace('.', '/')}.py", deferred=True))
    assert all(m.startswith("subpc.errors") for m in modules if m.startswith("subpc"))
    others = {m.split(".")[0] for m in modules} - {"subpc", "_typeshed"}
    assert others <= {
        *(sys.stdlib_module_names if leaf in ("subpc.files", "subpc.worker") else {"types", "typing", "collections", "dataclasses", "enum"})
    }


@pytest.mark.parametrize(("library", "rooms"), HEAVY.items())
def test_heavy_imports_stay_in_their_rooms(library: str, rooms: set[str]) -> None:
    for room, path in ALL:
        if room not in rooms:
            heads = {module.split(".")[0] for module in imported(path, deferred=False)}
            assert library not in heads, f"{path.relative_to(ROOT)} imports {library} at module level"


def test_algorithms_know_no_tvm() -> None:
    for path in sources("algorithms"):
        assert "tvm" not in {m.split(".")[0] for m in imported(path, deferred=True)}, path


@pytest.mark.skipif(tomllib is None, reason="reading pyproject.toml needs Python 3.11")
def test_every_folder_is_packaged() -> None:
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {path.parent for room in ROOMS for path in (ROOT / room).rglob("__init__.py")}
    names = {module_of(folder / "__init__.py").removesuffix(".__init__") for folder in folders}
    assert set(setup["packages"]) == names
    for room in ROOMS:
        assert {p.parent for p in sources(room)} <= folders, f"{room}: a folder with code but no __init__.py"


def test_files_are_short() -> None:
    paths = [p for _, p in ALL] + [p for folder in ("tests", "benchmarks", "examples") for p in (ROOT / folder).rglob("*.py")]
    long = {str(p.relative_to(ROOT)): n for p in paths if (n := len(p.read_text().splitlines())) > MAX_LINES}
    assert not long


def test_modules_say_what_they_hold() -> None:
    missing = [str(p.relative_to(ROOT)) for _, p in ALL if ast.get_docstring(ast.parse(p.read_text())) is None]
    assert not missing


def test_nothing_belongs_to_one_machine() -> None:
    pattern = re.compile(r"(?<![\w.])/(?:work|opt|root|home)/|[\w-]+\.(?:internal|corp|lan)\b")
    endings = {".py", ".md", ".toml", ".txt", ".sh", ".yml", ""}
    folders = [*ROOMS, "tests", "benchmarks", "examples", "docs", ".ci"]
    files = [p for folder in folders for p in (ROOT / folder).rglob("*") if p.is_file() and p.suffix in endings]
    files += [p for p in ROOT.iterdir() if p.is_file() and p.suffix in endings]
    found = [f"{p.relative_to(ROOT)}: {m.group()}" for p in files if p.name != Path(__file__).name for m in pattern.finditer(p.read_text())]
    assert not found
