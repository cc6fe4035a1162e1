"""The import graph points one way, every package is shipped, the version is the same everywhere."""

import ast
import re
import runpy
import sys
import tomllib
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import fastppo

ROOT = Path(__file__).resolve().parent.parent
MAY_IMPORT = {
    "kernels": {"kernels"},
    "fastppo": {"fastppo", "kernels"},
    "bench": {"bench", "fastppo", "kernels"},
    "tests": {"bench", "fastppo", "kernels"},
}
FOLDERS = ("kernels", "fastppo", "bench")
BENCH = tuple(
    f"bench/{name}"
    for name in (
        "contract", "peers", "results", "report", "launch", "track", "kernels", "env", "profile",
        "static", "gate", "plugin", "compare", "learn", "train", "gpu_check",
    )
)  # fmt: skip
"""Lowest first: results <- report <- commands. A room that is not here is above them all."""
TRAINER = ("fastppo/tracking", "fastppo/run")


def layer(module: str) -> str | None:
    """Folder that `module` lives in; None for a third-party module."""
    head, _, rest = module.partition(".")
    if head in ("kernels", "bench"):
        return f"bare {head}"  # resolves only from the checkout, or to somebody else's package
    if head != "fastppo":
        return None
    sub = rest.partition(".")[0]
    return sub if sub in ("kernels", "bench") else "fastppo"


def imported(path: Path) -> set[str]:
    modules: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            modules.update(f"{node.module}.{alias.name}" for alias in node.names)
    return modules


def sources(folder: str) -> list[Path]:
    # Path.rglob does not follow directory symlinks, so fastppo/ does not list kernels/ again
    return sorted((ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_imports_point_one_way(folder: str) -> None:
    wrong = {
        (str(path.relative_to(ROOT)), module)
        for path in sources(folder)
        for module in imported(path)
        if layer(module) not in MAY_IMPORT[folder] | {None}
    }

    assert wrong == set()


def module_of(path: Path) -> str:
    """The name that a file is imported by."""
    folder, *parts = path.relative_to(ROOT).with_suffix("").parts
    start = ["fastppo"] if folder == "fastppo" else ["fastppo", folder]
    return ".".join([*start, *parts]).removesuffix(".__init__")


def arrows() -> dict[Path, set[Path]]:
    """Who imports whom, file by file, imports inside functions included."""
    files = {module_of(path): path for folder in FOLDERS for path in sources(folder)}
    found: dict[Path, set[Path]] = {}
    for path in files.values():
        targets = found.setdefault(path, set())
        for name in imported(path):
            while name and name not in files:
                name = name.rpartition(".")[0]
            if name and files[name] != path:
                targets.add(files[name])
    return found


def room(path: Path) -> str:
    """The folder of a file; a file at the top of one of FOLDERS is a room of its own."""
    parts = path.relative_to(ROOT).parts
    return "/".join(parts[:2])


def cycles(graph: dict[Any, set[Any]]) -> list[Any]:
    """What is left once everything without an import is taken away, again and again."""
    left = {node: set(targets) for node, targets in graph.items()}
    while free := [node for node, targets in left.items() if not targets & left.keys()]:
        for node in free:
            del left[node]
    return sorted(left)


def by_room() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for path, targets in arrows().items():
        found.setdefault(room(path), set()).update(map(room, targets))
    return {name: targets - {name} for name, targets in found.items()}


def test_no_import_leads_back_to_where_it_began() -> None:
    assert cycles(arrows()) == []
    assert cycles(by_room()) == []
    # red where there is one
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": set()}) == ["a", "b", "c"]


@pytest.mark.parametrize("order", [BENCH, TRAINER])
def test_a_room_imports_only_what_is_below_it(order: tuple[str, ...]) -> None:
    found = by_room()
    top = order[0].partition("/")[0] + "/"
    rooms = {name for name in found if name.startswith(top) and not name.endswith(".py")}
    assert set(order) <= rooms
    order = (*order, *sorted(rooms - set(order)))
    upward = {
        (name, target)
        for name in order
        for target in found[name] & set(order)
        if order.index(target) > order.index(name)
    }

    assert upward == set()


@pytest.mark.parametrize("folder", ["fastppo", "kernels"])
def test_only_the_command_line_reaches_into_the_rooms_above(folder: str) -> None:
    """The trainer's own files know no run, no mirror; an operation's shared files, no operation."""
    allowed = {"fastppo/cli.py", "fastppo/__main__.py", "kernels/api.py", "kernels/aot.py"}
    reaching = {
        (name, target)
        for name, targets in by_room().items()
        if name.startswith(f"{folder}/") and name.endswith(".py") and name not in allowed
        for target in targets
        if target.startswith(f"{folder}/") and not target.endswith(".py")
    }

    assert {one for one in reaching if one[1] != "kernels/tools"} == set()


def test_no_two_classes_of_the_benchmarks_share_a_name() -> None:
    """But for the arguments of each command, and the adapters of other libraries."""
    names = Counter(
        node.name
        for path in sources("bench")
        if room(path) != "bench/peers"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and node.name != "Args"
    )

    assert [name for name, times in names.items() if times > 1] == []


def test_every_package_is_shipped(monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, Any] = {}
    monkeypatch.setitem(sys.modules, "setuptools", SimpleNamespace(setup=told.update))
    monkeypatch.chdir(ROOT)
    runpy.run_path("setup.py")

    def package(directory: Path) -> str:
        folder, *rest = directory.relative_to(ROOT).parts
        name = next(pkg for pkg, where in told["package_dir"].items() if where == folder)
        return ".".join([name, *rest])

    folders = told["package_dir"].values()
    on_disk = {package(path.parent) for folder in folders for path in sources(folder)}

    assert on_disk == set(told["packages"])


@pytest.mark.parametrize("folder", ["kernels", "bench"])
def test_the_links_that_tools_follow_are_relative(folder: str) -> None:
    link = ROOT / "fastppo" / folder

    assert link.is_symlink()
    assert link.readlink() == Path("..") / folder
    assert link.resolve() == ROOT / folder


def test_every_package_says_that_it_is_typed() -> None:
    untyped = [f for f in ("fastppo", "kernels", "bench") if not (ROOT / f / "py.typed").exists()]

    assert untyped == []


def test_pyproject_package_and_changelog_tell_the_same_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    newest = re.search(r"^## \[(\d[^\]]*)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)

    assert newest is not None
    assert project["version"] == fastppo.__version__ == newest[1]


def test_every_direct_dependency_is_pinned_inside_its_range() -> None:
    """`make lock` writes constraints.txt; a dependency added without it would float."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    declared = [Requirement(line) for group in groups for line in group]
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = {
        canonicalize_name(name): version
        for name, _, version in (line.partition("==") for line in lines)
        if version
    }

    floating = [
        str(need)
        for need in declared
        if pins.get(canonicalize_name(need.name), "0") not in need.specifier
    ]

    assert floating == []


LONG_FILES = {
    "bench/reference.py",  # one file by design: the textbook loop, to be read at a stretch
}


def functions(path: Path) -> dict[str, int]:
    """Lines of every function of a file by name; of two with one name the longer."""
    lines: dict[str, int] = {}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno is not None
            count = node.end_lineno - node.lineno + 1
            lines[node.name] = max(count, lines.get(node.name, 0))
    return lines


def test_no_file_is_over_400_lines_and_no_function_over_60() -> None:
    """Kernels may be long functions: one is one launch."""
    files, long = set(), set()
    for folder in FOLDERS:
        for path in sources(folder):
            name = path.relative_to(ROOT).as_posix()
            if len(path.read_text().splitlines()) > 400:
                files.add(name)
            if folder != "kernels":
                long |= {f"{name}:{f}" for f, count in functions(path).items() if count > 60}

    assert files == LONG_FILES
    assert long == set()
