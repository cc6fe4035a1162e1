"""Where numba keeps compiled kernels and when it renews them; an error where it cannot."""

import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from numba import config

_REMEDY = "set NUMBA_CACHE_DIR to a folder that can be written, or take --backend torch"

_PACKAGE = Path(__file__).parents[1]
_IMPORT = re.compile(r"^from fastppo\.kernels\.(\S+) import (\([^)]*\)|.*)", re.MULTILINE)


class CacheUnavailable(RuntimeError):
    """There is no place for compiled kernels; the message names the remedy."""


def check() -> None:
    """Refuses a NUMBA_CACHE_DIR that cannot be written: numba would silently take another.

    Raises:
        CacheUnavailable: NUMBA_CACHE_DIR cannot be written.
    """
    folder = config.CACHE_DIR
    if not folder:
        return
    try:
        os.makedirs(folder, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        reason = f"{folder!r} cannot be written ({(error.strerror or str(error)).lower()})"
        raise CacheUnavailable(f"NUMBA_CACHE_DIR: {reason}; {_REMEDY}") from None


@contextmanager
def kept() -> Iterator[None]:
    """For the block that compiles a kernel and keeps it.

    Raises:
        CacheUnavailable: the disk is full, or no folder can be written.
    """
    try:
        yield
    except OSError as error:
        reason = f"{error.filename or 'numba'}: {error.strerror or error}"
        raise CacheUnavailable(f"{reason}; free space there, or {_REMEDY}") from None
    except RuntimeError as error:
        if "no locator available" not in str(error):
            raise
        folders = f"neither {Path(__file__).parent.parent} nor the user's cache can be written"
        kept_there = "where compiled kernels are kept"
        raise CacheUnavailable(f"numba: {folders}, {kept_there}; {_REMEDY}") from None


def stamp(path: str) -> str:
    """Digest of a file and of all that it imports from this package, directly or not."""
    digest = hashlib.sha256()
    seen: set[Path] = set()
    waiting = [Path(path)]
    while waiting:
        file = waiting.pop()
        if file not in seen:
            seen.add(file)
            content, imported = _read(file)
            digest.update(content)
            waiting += imported
    return digest.hexdigest()


@cache
def _read(file: Path) -> tuple[bytes, list[Path]]:
    """Its digest, and the files that it imports at its top level, in their order."""
    content = file.read_bytes()
    found = []
    for module, names in _IMPORT.findall(content.decode()):
        place = _PACKAGE.joinpath(*module.split("."))
        candidates = [place, *(place / name for name in re.findall(r"\w+", names))]
        found += [one.with_suffix(".py") for one in candidates]
    return hashlib.sha256(content).digest(), [one for one in found if one.is_file()]
