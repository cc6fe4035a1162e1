"""Parts of one numba kernel over the threads that torch may use.

numba's own parallel loops bring an OpenMP runtime beside torch's, whose idle threads spin on the
cores that the other needs, and a second body for every kernel. A kernel that releases the GIL
needs neither: a plain Python thread runs its share. Handing a share over takes some 50 us, so an
operation asks for it only above a size that it has measured (docs/kernels.md).
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import torch

_pool: ThreadPoolExecutor | None = None


def _forget_pool() -> None:
    global _pool
    _pool = None


os.register_at_fork(after_in_child=_forget_pool)  # threads do not survive a fork


def run_parts(
    kernel: Callable[..., None], parts: int, *arguments: object, serial: bool = False
) -> None:
    """Runs `kernel(first, stop, *arguments)` so that the ranges cover 0 .. parts.

    Args:
        kernel: nogil; computes the parts first .. stop, each the same whatever the range, so that
            the result does not depend on the number of threads.
        parts: how many there are.
        serial: keeps them all on this thread.
    """
    global _pool
    threads = 1 if serial else min(parts, torch.get_num_threads())
    if threads == 1:
        kernel(0, parts, *arguments)
        return
    if _pool is None:
        _pool = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="fastppo")
    bounds = [parts * i // threads for i in range(threads + 1)]
    shares = [_pool.submit(kernel, first, stop, *arguments) for first, stop in pairwise(bounds[1:])]
    kernel(0, bounds[1], *arguments)
    for share in shares:
        share.result()
