"""Compiled numba kernels of earlier gates: a minute of compiling for each side is saved.

numba compares the content of a kernel's file, and of all that the file imports, with what it
compiled, so that a wrong one is never taken from here.
"""

import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from fastppo.bench.gate import closure
from fastppo.bench.gate.revisions import GateSide

KEPT = 100
"""Folders; the one that was not used for longest goes first."""


def root() -> Path:
    """fastppo/gate in the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser().absolute() / "fastppo" / "gate"


def fill(side: GateSide) -> None:
    """Gives a side what was compiled from the same sources before."""
    for kept, place in _folders(side):
        if kept.is_dir():
            with suppress(OSError):  # it is compiled again
                shutil.copytree(kept, place, dirs_exist_ok=True)
                os.utime(kept)


def keep(side: GateSide) -> None:
    """Keeps what a side compiled, for later gates; a disk that refuses keeps nothing."""
    for kept, place in _folders(side):
        if place.is_dir() and not kept.exists():
            with suppress(OSError):
                root().mkdir(parents=True, exist_ok=True)
                made = Path(tempfile.mkdtemp(dir=root(), prefix="new-"))
                shutil.copytree(place, made, dirs_exist_ok=True)
                made.rename(kept)
    with suppress(OSError):
        by_age = sorted(root().iterdir(), key=lambda one: one.stat().st_mtime)
        for old in by_age[:-KEPT]:
            shutil.rmtree(old, ignore_errors=True)


def _folders(side: GateSide) -> Iterator[tuple[Path, Path]]:
    """Of every operation with numba kernels: where they are kept, and where the side has them."""
    import numba
    from numba.core.caching import UserProvidedCacheLocator

    known = closure.modules(side.tree)
    for folder in sorted((side.tree / "kernels").iterdir()):
        sources = sorted(folder.glob("numba_*.py"))
        if not sources:
            continue
        digest = hashlib.sha256(f"{sys.version} {numba.__version__}".encode())
        for name in closure.closure(
            side.tree, [f"fastppo.kernels.{folder.name}.{one.stem}" for one in sources]
        ):
            digest.update(name.encode())
            if name in known:
                digest.update(known[name].read_bytes())
        imported = side.tree / "fastppo" / "kernels" / folder.name / sources[0].name
        place = UserProvidedCacheLocator.get_suitable_cache_subpath(str(imported))
        yield root() / f"{folder.name}-{digest.hexdigest()[:32]}", side.cache / "numba" / place
