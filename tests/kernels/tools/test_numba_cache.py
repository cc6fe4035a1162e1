"""Compiled kernels are renewed when anything changes that they are made of, and only then."""

import ast
from pathlib import Path

import pytest

from fastppo.kernels.tools import numba_cache

KERNELS = Path(numba_cache.__file__).parents[1]
SOURCES = sorted(KERNELS.rglob("numba_*.py"))


def imported(path: Path) -> set[Path]:
    """All of this package that a file imports at its top level, by its syntax tree."""
    found: set[Path] = set()
    waiting = [path]
    while waiting:
        file = waiting.pop()
        if file in found:
            continue
        found.add(file)
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("fastppo.kernels"):
                place = KERNELS.joinpath(*str(node.module).split(".")[2:])
                names = [place, *(place / alias.name for alias in node.names)]
                waiting += [name.with_suffix(".py") for name in names]
        waiting = [one for one in waiting if one.is_file()]
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_the_stamp_covers_what_a_file_imports(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[Path] = set()
    read = numba_cache._read

    def spy(file: Path) -> tuple[bytes, list[Path]]:
        seen.add(file)
        return read(file)

    monkeypatch.setattr(numba_cache, "_read", spy)
    numba_cache.stamp(str(path))
    assert seen == imported(path)


def test_a_changed_helper_changes_the_stamp(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tools").mkdir()
    kernel, helper, other = (tmp_path / f"tools/{name}.py" for name in ("a", "helper", "other"))
    kernel.write_text("from fastppo.kernels.tools import (\n    helper,\n)\n")
    helper.write_text("x = 1\n")
    other.write_text("y = 1\n")
    monkeypatch.setattr(numba_cache, "_PACKAGE", tmp_path)
    stamps = []
    for file, text in ((other, "y = 2\n"), (helper, "x = 2\n"), (kernel, kernel.read_text())):
        stamps.append(numba_cache.stamp(str(kernel)))
        file.write_text(text)
        numba_cache._read.cache_clear()

    assert stamps[0] == stamps[1] != stamps[2]
