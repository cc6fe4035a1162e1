"""Clocks for kernels: seconds per call on a CPU, and two kinds of them on a GPU."""

import ctypes
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
SLICE = 2e-3
"""Seconds that a CPU slice should last: long against the clock, short against the noise."""
COLD_BYTES = 256 * 2**20
"""Written between cold launches; more than any L2 cache holds."""
SLEEP_CYCLES = 10**7
"""Of the device's clock, to see how fast it runs: some 5 ms."""
GRAPH_CALLS = 10
"""Calls in one captured graph."""

Measure = Callable[[], float]


def keep_freed_memory() -> None:
    """Makes glibc keep what this process frees, where there is a glibc.

    It hands large blocks back to the system, or not, by what was freed before. A way of computing
    would then pay the page faults of the one that ran before it: 0.2 or 2 ms for the same GAE.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(_M_MMAP_THRESHOLD, 32 * 2**20)
            mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def cpu_clock(run: Callable[[], Any]) -> Measure:
    """Wall seconds per call, averaged over as many calls as fill a slice."""
    run()
    start = time.perf_counter()
    run()
    calls = max(1, min(1000, int(SLICE / max(time.perf_counter() - start, 1e-9))))

    def measure() -> float:
        start = time.perf_counter()
        for _ in range(calls):
            run()
        return (time.perf_counter() - start) / calls

    return measure


class ColdClock:
    """Device seconds of one call with an empty L2, by events.

    The device is kept busy for twice as long as the host needs to queue the call: what lies between
    the events is then the device's work alone, however slow the host.
    """

    def __init__(self, device: torch.device) -> None:
        self._cache = torch.empty(COLD_BYTES, dtype=torch.uint8, device=device)
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        torch.cuda._sleep(SLEEP_CYCLES)
        stop.record()
        stop.synchronize()
        self._cycles_per_s = SLEEP_CYCLES / (start.elapsed_time(stop) * 1e-3)

    def __call__(self, run: Callable[[], Any]) -> Measure:
        """A measure of `run`, which is warmed up here."""
        for _ in range(3):
            run()
        torch.cuda.synchronize()
        begin = time.perf_counter()
        run()
        host = time.perf_counter() - begin
        torch.cuda.synchronize()
        cycles = int(2 * host * self._cycles_per_s)

        def measure() -> float:
            start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            self._cache.zero_()
            torch.cuda._sleep(cycles)
            start.record()
            run()
            stop.record()
            stop.synchronize()
            return float(start.elapsed_time(stop)) * 1e-3

        return measure


def graph_clock(run: Callable[[], Any]) -> Measure:
    """Device seconds per call in the replay of a CUDA graph: no launch costs, a warm L2.

    Raises:
        RuntimeError: `run` cannot be captured.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(GRAPH_CALLS):
            run()
    graph.replay()
    torch.cuda.synchronize()

    def measure() -> float:
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        stop.record()
        stop.synchronize()
        return float(start.elapsed_time(stop)) * 1e-3 / GRAPH_CALLS

    return measure
