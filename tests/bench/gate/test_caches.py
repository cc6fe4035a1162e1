"""Compiled kernels are handed from gate to gate, and only where the sources are the same."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fastppo.bench.gate import caches
from fastppo.bench.gate.own import environment
from fastppo.bench.gate.revisions import GateSide

ROOT = Path(caches.__file__).resolve().parents[2]


def side(folder: Path, name: str) -> GateSide:
    """A tree whose only kernels are those of gae."""
    tree = folder / name
    for package in ("kernels", "fastppo"):
        shutil.copytree(ROOT / package, tree / package, symlinks=True,
                        ignore=shutil.ignore_patterns("__pycache__", "bench"))  # fmt: skip
    return GateSide(name, name, tree, folder / f"cache-{name}")


def compiled(one: GateSide) -> str:
    """What numba says of its cache while the kernels of gae are imported on a side."""
    program = "import fastppo.kernels.gae.numba_cpu as m; print(m.__file__)"
    env = environment(one, 0) | {"PYTHONPATH": str(one.tree), "NUMBA_DEBUG_CACHE": "1"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", program], env=env, text=True, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    assert str(one.tree) in done.stdout
    return done.stdout


def test_the_same_sources_are_compiled_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    first, second, other = (side(tmp_path, name) for name in ("first", "second", "other"))
    source = other.tree / "kernels" / "gae" / "numba_cpu.py"
    source.write_text(source.read_text() + "\nchanged = 1\n")

    caches.fill(first)
    assert "data saved" in compiled(first)
    caches.keep(first)
    for one in (second, other):
        caches.fill(one)

    assert "data saved" not in compiled(second)
    assert not list((other.cache / "numba").glob("gae_*"))


def test_the_oldest_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(caches, "KEPT", 2)
    one = side(tmp_path, "one")
    for number in range(4):
        (caches.root() / f"old-{number}").mkdir(parents=True)

    caches.keep(one)

    assert len(list(caches.root().iterdir())) == 2
