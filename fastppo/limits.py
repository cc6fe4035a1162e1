"""What the system lets this process have: memory and threads. Standard library only."""

import os
import resource
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from fastppo import cgroups
from fastppo.errors import MachineError

_UNLIMITED = 1 << 60
"""A limit of so many bytes means no limit: cgroup v1 writes a huge number."""


def available_bytes() -> int:
    """Memory that this process may still take: the least of what machine, cgroups and limits leave.

    What a cgroup holds as cache of files is free for the taking.
    """
    status = _numbers(cgroups.PROC / "self/status", 1024)
    left = [_numbers(cgroups.PROC / "meminfo", 1024).get("MemAvailable:", _UNLIMITED)]
    left += [limit - used for limit, used in _cgroups()]
    for kind, used in ((resource.RLIMIT_AS, "VmSize:"), (resource.RLIMIT_DATA, "VmData:")):
        limit, _ = resource.getrlimit(kind)
        if limit != resource.RLIM_INFINITY:
            left.append(limit - status.get(used, 0))
    return max(0, min(left))


def _cgroups() -> Iterator[tuple[int, int]]:
    """Limit and use in bytes of every memory cgroup around this process, v2 and v1."""
    for folder, version in cgroups.groups("memory"):
        names = ("memory.max", "memory.current", "inactive_file")
        if version == 1:
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        limit, used = (cgroups.lines(folder / name) for name in names[:2])
        if limit and used and limit[0].isdigit():
            cache = _numbers(folder / "memory.stat").get(names[2], 0)
            yield int(limit[0]), int(used[0]) - cache


def check_threads(count: int, what: str) -> None:
    """Starts so many threads and ends them: a library that cannot start its own aborts.

    Args:
        what: the setting that they are for.

    Raises:
        MachineError: the system refuses one of them.
    """
    done = threading.Event()
    threads = [threading.Thread(target=done.wait, daemon=True) for _ in range(count)]
    started = 0
    try:
        for thread in threads:
            thread.start()
            started += 1
    except (RuntimeError, MemoryError):
        raise MachineError(
            f"{what}: {count} threads are needed and the system starts {started}; raise the limit "
            "(ulimit -u, pids.max, memory), or lower the number"
        ) from None
    finally:
        done.set()
        for thread in threads[:started]:
            thread.join()


def check_import_threads() -> None:
    """Of OpenBLAS, which numpy loads: it starts them, or prints and interrupts the process.

    Raises:
        MachineError: the system refuses them.
    """
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        with suppress(KeyError, ValueError):
            count = int(os.environ[name])
    check_threads(max(0, (count or 1) - 1), "OPENBLAS_NUM_THREADS")


def _numbers(path: Path, unit: int = 1) -> dict[str, int]:
    """The first number of every line, by the word before it."""
    found = {}
    for line in cgroups.lines(path):
        words = line.split()
        if len(words) > 1 and words[1].isdigit():
            found[words[0]] = int(words[1]) * unit
    return found
