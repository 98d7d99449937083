"""The house rules that a machine can check: import directions, packages, file sizes, nothing that
belongs to one machine."""

import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import subpc

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    tomllib = None  # type: ignore[assignment]

ROOT = Path(__file__).parents[1]
ROOMS = ("subpc", "frontend", "passes", "schedules", "algorithms", "cli")
MAX_LINES = 300

# What each room, and each file in the root of subpc/, may import stands in a line above it.
ORDER = (
    ("errors", "__version__"),
    ("text",),
    ("records", "progress", "versions", "worker", "files"),
    ("scratch", "onnx_places"),
    ("model_files",),
    ("schedules",),
    ("machine",),
    ("library",),
    ("algorithms",),
    ("frontend",),
    ("tuned_schedules", "images"),
    ("passes",),
    ("profiling",),
    ("runtime", "training"),
    ("calibration",),
    ("compiler", "compression", "bench"),
    ("tuning", "comparison", "profile_page"),
    ("doctor", "demo"),
    ("cli",),
)
RANK = {room: rank for rank, rooms in enumerate(ORDER) for room in rooms}
# What compresses: every folder that a method.py makes one, and SUBP, which trains.
METHODS = sorted(
    {path.parent.name for path in (ROOT / "algorithms").glob("*/method.py")} | {"subp"}
)
# The same inside algorithms/: what is shared first, then the methods, which do not know each other,
# then the list of them.
ALGORITHMS = (
    ("config",),
    ("numerics",),
    ("report",),
    ("method", "network"),
    ("images", "file_format"),
    ("statistics",),
    ("layer_fit",),
    ("distill",),
    tuple(METHODS),
    ("registry",),
)
# Rooms of at most this many files: more are two rooms.
MAX_FILES, FLAT = 20, {"passes", "schedules", "cli"}
# Files of a room whose names begin alike: more would be a folder.
MAX_PREFIX = 4
# Files in the root of subpc/ that need nothing but the standard library.
LEAVES = (
    "errors",
    "text",
    "records",
    "progress",
    "versions",
    "worker",
    "files",
    "scratch",
    "onnx_places",
    "model_files",
)
# Only these may import the heavy libraries at module level.
HEAVY = {
    "torch": ("frontend", "algorithms", "subpc/calibration"),
    "tvm": ("frontend", "passes", "schedules", "subpc/calibration"),
}


def sources(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts if parts[0] == "subpc" else ("subpc", *parts))


def imported(path: Path, *, deferred: bool) -> Iterator[str]:
    """Modules that a file imports; without `deferred` only those at module level that run (not
    under TYPE_CHECKING)."""
    tree = ast.parse(path.read_text())
    nodes = ast.walk(tree) if deferred else iter(tree.body)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def place_of(module: str) -> str | None:
    """The room or root file that a module of ours belongs to; None for the package itself and for
    others' modules."""
    parts = module.split(".")
    return parts[1] if parts[0] == "subpc" and len(parts) > 1 else None


ALL = [(room, path) for room in ROOMS for path in sources(room)]
MODULES = [(module_of(path).removesuffix(".__init__"), path) for _, path in ALL]


@pytest.mark.parametrize(
    ("module", "path"), MODULES, ids=[str(p.relative_to(ROOT)) for _, p in ALL]
)
def test_imports_follow_the_order_of_rooms(module: str, path: Path) -> None:
    here = place_of(module)
    if here is None:  # subpc/__init__.py, which names what is public
        return
    assert here in RANK, (
        f"{path.relative_to(ROOT)}: {here} has no place in the order; give it one, in ORDER and in"
        " docs/architecture.md"
    )
    for other in imported(path, deferred=True):
        there = place_of(other)
        if there is not None and there != here:
            assert RANK[there] < RANK[here], f"{path.relative_to(ROOT)} imports {other}"


def test_the_page_about_it_shows_the_same_orders() -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    shown = [block.split("\n") for block in re.findall(r"(?:^ {4}.*\n)+", page, re.MULTILINE)]
    rooms, inside = ([line.strip() for line in block if line.strip()] for block in shown)
    assert rooms == [", ".join(r for r in line if r != "__version__") for line in ORDER]
    methods = ", ".join(METHODS)
    lines = [", ".join(line) for line in ALGORITHMS]
    assert inside == ["the methods" if line == methods else line for line in lines]


RANK_INSIDE = {part: rank for rank, parts in enumerate(ALGORITHMS) for part in parts}
INSIDE = [(module, path) for module, path in MODULES if module.startswith("subpc.algorithms.")]


@pytest.mark.parametrize(("module", "path"), INSIDE, ids=[module for module, _ in INSIDE])
def test_imports_inside_algorithms_follow_an_order(module: str, path: Path) -> None:
    here = module.split(".")[2]
    assert here in RANK_INSIDE, (
        f"{path.relative_to(ROOT)}: {here} is no method (it has no method.py) and has no place in"
        " ALGORITHMS"
    )
    for other in imported(path, deferred=True):
        if other.startswith("subpc.algorithms."):
            there = other.split(".")[2]
            assert there == here or RANK_INSIDE[there] < RANK_INSIDE[here], (
                f"{path.relative_to(ROOT)} imports {other}"
            )


def test_files_do_not_import_each_other_in_circles() -> None:
    known = dict(MODULES)
    edges = {
        m: {_file_of(i, known) for i in imported(p, deferred=True)} - {m, None, "subpc"}
        for m, p in known.items()
        if m != "subpc"
    }
    circles = [module for module in edges if module in _reached(module, edges)]
    assert not circles


def _file_of(imported_name: str, known: dict[str, Path]) -> str | None:
    """The module that an import reads: the name itself, or what holds it."""
    return (
        imported_name
        if imported_name in known
        else imported_name.rpartition(".")[0]
        if imported_name.rpartition(".")[0] in known
        else None
    )


def _reached(module: str, edges: dict[str, set[str | None]]) -> set[str | None]:
    found: set[str | None] = set()
    waiting = [module]
    while waiting:
        for other in edges.get(waiting.pop(), set()) - found:
            found.add(other)
            waiting += [other] if other is not None else []
    return found


@pytest.mark.parametrize("room", sorted(set(ROOMS) - FLAT))
def test_rooms_are_small_and_their_files_share_no_prefix(room: str) -> None:
    for folder in {path.parent for path in sources(room)}:
        names = [path.stem for path in folder.glob("*.py") if path.stem != "__init__"]
        assert len(names) <= MAX_FILES, f"{folder.relative_to(ROOT)} holds {len(names)} files"
        prefixes = Counter(name.split("_")[0] for name in names)
        assert max(prefixes.values(), default=0) <= MAX_PREFIX, (
            f"{folder.relative_to(ROOT)}: {prefixes.most_common(1)} could be a folder"
        )


@pytest.mark.parametrize("leaf", LEAVES)
def test_leaves_import_nothing_heavy(leaf: str) -> None:
    heads = {m.split(".")[0] for m in imported(ROOT / "subpc" / f"{leaf}.py", deferred=False)}
    assert heads <= {*sys.stdlib_module_names, "subpc", "_typeshed"}


@pytest.mark.parametrize(("library", "rooms"), HEAVY.items())
def test_heavy_imports_stay_in_their_rooms(library: str, rooms: tuple[str, ...]) -> None:
    for _, path in ALL:
        if not any(path.is_relative_to(ROOT / room) for room in rooms):
            heads = {module.split(".")[0] for module in imported(path, deferred=False)}
            assert library not in heads, (
                f"{path.relative_to(ROOT)} imports {library} at module level"
            )


def test_algorithms_know_no_tvm() -> None:
    for path in sources("algorithms"):
        assert "tvm" not in {m.split(".")[0] for m in imported(path, deferred=True)}, path


@pytest.mark.skipif(tomllib is None, reason="reading pyproject.toml needs Python 3.11")
def test_every_folder_is_packaged() -> None:
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert setup["package-dir"] == {
        room if room == "subpc" else f"subpc.{room}": room for room in ROOMS
    }
    listing = "import setuptools; setuptools.setup = lambda **given: print(*given['packages'])"
    script = f"{listing}; exec(open('setup.py').read())"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    folders = {path.parent for room in ROOMS for path in (ROOT / room).rglob("__init__.py")}
    names = {module_of(folder / "__init__.py").removesuffix(".__init__") for folder in folders}
    assert set(done.stdout.split()) == names
    for room in ROOMS:
        assert {p.parent for p in sources(room)} <= folders, (
            f"{room}: a folder with code but no __init__.py"
        )


@pytest.mark.skipif(tomllib is None, reason="reading pyproject.toml needs Python 3.11")
def test_the_version_stands_in_one_place() -> None:
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" not in setup["project"]
    assert setup["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "subpc.__version__"}
    sources_with_it = [
        str(path.relative_to(ROOT)) for _, path in ALL if subpc.__version__ in path.read_text()
    ]
    assert sources_with_it == ["subpc/__init__.py"]


def test_files_are_short() -> None:
    paths = [p for _, p in ALL] + [
        p for folder in ("tests", "benchmarks", "examples") for p in (ROOT / folder).rglob("*.py")
    ]
    long = {
        str(p.relative_to(ROOT)): n
        for p in paths
        if (n := len(p.read_text().splitlines())) > MAX_LINES
    }
    assert not long


def test_modules_say_what_they_hold() -> None:
    missing = [
        str(p.relative_to(ROOT))
        for _, p in ALL
        if ast.get_docstring(ast.parse(p.read_text())) is None
    ]
    assert not missing


def test_nothing_belongs_to_one_machine() -> None:
    pattern = re.compile(r"(?<![\w.])/(?:work|opt|root|home)/|[\w-]+\.(?:internal|corp|lan)\b")
    endings = {".py", ".md", ".toml", ".txt", ".sh", ".yml", ""}
    folders = [*ROOMS, "tests", "benchmarks", "examples", "docs", ".ci"]
    files = [
        p
        for folder in folders
        for p in (ROOT / folder).rglob("*")
        if p.is_file() and p.suffix in endings
    ]
    files += [p for p in ROOT.iterdir() if p.is_file() and p.suffix in endings]
    others = [p for p in files if p.name != Path(__file__).name]
    found = [f"{p.relative_to(ROOT)}: {m}" for p in others for m in pattern.findall(p.read_text())]
    assert not found
