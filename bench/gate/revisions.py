"""The two trees that a gate compares: which revisions, unpacked where."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from fastppo.bench.static.gate import check_out, commit_of
from fastppo.errors import UserError
from fastppo.revision import git
from fastppo.text import print_err

PREFIX = "fastppo-gate-"
OWNER = "owner"
"""File in the folder of a gate: the process that it belongs to."""
WORKTREE = "the working tree"


@dataclass(frozen=True, slots=True)
class GateSide:
    """One of the two trees."""

    name: str
    """base or head: as long as each other, so that no path is longer on one side."""
    revision: str
    tree: Path
    cache: Path
    """Of compiled kernels."""
    python: str = sys.executable
    """The interpreter whose packages this side has."""


@contextmanager
def sides(
    repository: Path, base: str, head: str, *, worktree: bool, kernels: bool = True
) -> Iterator[tuple[GateSide, GateSide]]:
    """Unpacks both trees into a folder of their own, which is gone after the block.

    Args:
        kernels: whether they are fastppo's own, so that there must be some.

    Raises:
        UserError: not a repository, an unknown revision, or none that both have in common.
    """
    remove_leftovers()
    folder = Path(tempfile.mkdtemp(prefix=PREFIX)).resolve()
    try:
        (folder / OWNER).write_text(_me())
        for name in ("base", "head"):
            (folder / name).mkdir()
        common = _merge_base(repository, base, "HEAD" if worktree else head)
        base_sha = check_out(common, repository, folder / "base", option="BASE", kernels=kernels)
        if worktree:
            _copy_files(repository, folder / "head")
            head_sha = WORKTREE
        else:
            head_sha = check_out(head, repository, folder / "head", option="HEAD", kernels=kernels)
            _mention_changes(repository)
        yield (
            GateSide("base", base_sha, folder / "base", folder / "cache-base"),
            GateSide("head", head_sha, folder / "head", folder / "cache-head"),
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _merge_base(repository: Path, base: str, head: str) -> str:
    commits = commit_of(base, repository, "BASE"), commit_of(head, repository, "HEAD")
    found = git(repository, "merge-base", *commits)
    if found is None:
        raise UserError(
            f"BASE: {base!r} and {head!r} have no commit in common; in a shallow clone, fetch more "
            "of the history"
        )
    return found.decode().strip()


def _copy_files(repository: Path, target: Path) -> None:
    """What git tracks, and what it does not ignore, as it is now."""
    listed = git(repository, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in sorted(set((listed or b"").split(b"\0")) - {b""}):
        source = repository / os.fsdecode(name)
        if source.is_symlink() or source.is_file():
            place = target / os.fsdecode(name)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, place, follow_symlinks=False)


def _mention_changes(repository: Path) -> None:
    changed = git(repository, "status", "--porcelain")
    if changed:
        count = len(changed.splitlines())
        print_err(f"{count} files have changes that are not committed, and are not judged; "
                  "--worktree judges them")  # fmt: skip


def _me() -> str:
    """This process: its number, and when it started, as a number may come again."""
    return f"{os.getpid()} {_started(os.getpid())}"


def _started(pid: int) -> str:
    with suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    return ""


def remove_leftovers() -> None:
    """Removes the folders of gates that were killed; their processes died with them."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*/"):
        with suppress(OSError, ValueError):
            pid, _, started = (folder / OWNER).read_text().partition(" ")
            if folder.stat().st_uid == os.getuid() and _started(int(pid)) != started:
                shutil.rmtree(folder, ignore_errors=True)
