"""The control groups around this process, of both versions, and the cores that they leave it.

Standard library only. Every group up to the mount limits it, not only the innermost.
"""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

PROC = Path("/proc")
BUSY = 0.5
"""Load per core above which others are at work, and a rate measured now is low."""


def available_cores() -> int:
    """Cores this process may use: its affinity mask, lowered by the least quota around it.

    Rounded down to whole cores, at least one.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min([cores or 1, *quotas()]))


def quotas() -> Iterator[int]:
    """Whole cores that each group with a quota allows: cpu.max (v2), cpu.cfs_quota_us (v1)."""
    for folder, version in groups("cpu"):
        if version == 2:
            words = " ".join(lines(folder / "cpu.max")).split()
        else:
            names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
            words = [word for name in names for word in lines(folder / name)]
        # "max" or -1: no quota
        if len(words) == 2 and all(word.isdigit() for word in words) and int(words[1]):
            yield int(words[0]) // int(words[1])


def groups(controller: str) -> Iterator[tuple[Path, int]]:
    """Folders of the groups that the controller has this process in, and their version, 1 or 2.

    From the innermost outwards. A container sees the tree from its own group on, which need not
    be where /proc/self/cgroup starts counting.
    """
    paths: dict[str, str] = {}
    for line in lines(PROC / "self/cgroup"):
        _, controllers, path = line.split(":", 2)
        paths |= dict.fromkeys(controllers.split(","), path)
    for line in lines(PROC / "self/mountinfo"):
        mount, _, kind = line.partition(" - ")
        root, point = (_unescaped(word) for word in mount.split()[3:5])
        file_system, _, options = kind.split()[:3]
        version = {"cgroup": 1, "cgroup2": 2}.get(file_system)
        if version == 1 and controller not in options.split(","):
            continue
        group = paths.get(controller if version == 1 else "")
        if version is None or group is None:
            continue
        inner = Path(point)
        if ".." not in group.split("/") and PurePosixPath(group).is_relative_to(root):
            inner /= PurePosixPath(group).relative_to(root)
        for folder in (inner, *inner.parents):
            yield folder, version
            if folder == Path(point):
                break


def lines(path: Path) -> list[str]:
    """Of a file of the system; none where it is missing: not Linux, no such group."""
    try:
        return path.read_text().splitlines()
    except (OSError, ValueError):
        return []


def _unescaped(word: str) -> str:
    """A path as mountinfo has it: blanks are \\040."""
    for escaped, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        word = word.replace(escaped, character)
    return word
