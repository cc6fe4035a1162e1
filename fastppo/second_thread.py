"""A second thread for a part of the work that another core can do, where a probe says it pays."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

PROBES = 3
"""Turns of each way before one is chosen."""
GAIN = 0.95
"""The second thread is kept where it takes less than this part of the time of one."""


class SecondThread:
    """Decides from turn to turn whether there are two threads, and runs the second.

    Args:
        allowed: whether there may be one at all.
    """

    def __init__(self, *, allowed: bool) -> None:
        self._seconds: dict[bool, list[float]] = {False: [], True: []}
        self._choice: bool | None = None if allowed else False
        self._pool: ThreadPoolExecutor | None = None
        self._turns = 0

    @contextmanager
    def turn(self) -> Iterator[bool]:
        """One turn of the work, which is timed until a way is chosen; yields whether two run."""
        if self._choice is not None:
            yield self._choice
            return
        # the first turn of each finds its code and its data cold
        second = self._turns % 2 == 1
        begin = time.perf_counter()
        yield second
        if self._turns >= 2:
            self._seconds[second].append(time.perf_counter() - begin)
        self._turns += 1
        if min(map(len, self._seconds.values())) >= PROBES:
            # the least: whatever else runs here only ever adds
            one, two = (min(self._seconds[way]) for way in (False, True))
            self._choice = two < GAIN * one

    def start(self, work: Callable[..., Any], *arguments: Any) -> "Future[Any]":
        """Runs a function that releases the GIL on a second thread, next to the caller."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="fastppo-second")
        return self._pool.submit(work, *arguments)
