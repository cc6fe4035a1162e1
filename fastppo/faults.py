"""Faults of the machine that surface as errors of a library, each as one line."""

import errno
import re
import sys

from fastppo.errors import why
from fastppo.text import printable

_MACHINE = frozenset({
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO,
    errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.ESTALE, errno.ENODEV,
})  # fmt: skip
_MEMORY = re.compile(
    r"can.t allocate memory|cannot allocate memory|out of memory|bad_alloc|failed to map segment",
    re.I,
)
_BYTES = re.compile(r"tried to allocate ([\d.]+ \w+)", re.I)
_THREADS = re.compile(r"can't start new thread|Resource temporarily unavailable")


def as_line(error: Exception) -> str | None:
    """The fault, with a remedy; None for an error that is none of the machine's."""
    cache = sys.modules.get("fastppo.kernels.tools.numba_cache")  # imported it would take seconds
    if cache is not None and isinstance(error, cache.CacheUnavailable):
        return str(printable(str(error)))
    text = str(error)
    if isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError | ImportError) and _MEMORY.search(text)
    ):
        found = _BYTES.search(text)
        more = f" for {found[1]} more" if found else ""
        return (
            f"memory: there is none{more}; free some, raise the limit (ulimit -v, memory.max), or "
            "lower num_envs, num_steps or hidden_sizes"
        )
    if isinstance(error, RuntimeError) and _THREADS.search(text):
        return (
            "threads: the system starts no more of them; raise the limit (ulimit -u, pids.max), or "
            "lower env_threads and torch_threads"
        )
    if isinstance(error, OSError) and error.errno in _MACHINE:
        name = error.filename if error.filename is not None else "machine"
        return str(printable(f"{name}: {why(error)}; make room, or make it accessible"))
    return None
