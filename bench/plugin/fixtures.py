"""The fixtures `ab`, `rate_benchmark`, `gpu_benchmark` and `static_check`.

pytest loads this module wherever fastppo is installed, so it imports nothing slow.
"""

from collections.abc import Callable
from typing import Any

import pytest

from fastppo.bench.plugin import private

Function = Callable[[], Any]


@pytest.fixture
def ab(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Fails where one function is slower than another: pairs in this process, the gate's rule.

    `ab(base, head, tolerance=0.05, rounds=20, strict=False)` returns `PairedCalls`: ratio (cost of
    head over base), low, high, verdict, pairs. A slow-down that a second run confirms fails the
    test with one sentence; where nothing can be told, a warning says so, with `strict` a failure.
    Both functions wait for a GPU themselves, if they use one. Where the session does not measure
    (pytest-xdist, --benchmark-disable, pytest-codspeed) each is called once, and None is returned.
    """

    def compare(
        base: Function,
        head: Function,
        *,
        tolerance: float = 0.05,
        rounds: int = 20,
        strict: bool = False,
    ) -> Any:
        if not private.is_measuring(request.config):
            base(), head()
            return None
        from fastppo.bench.plugin import measures

        found = measures.compare(base, head, tolerance, rounds)
        private.record(request, {"base": found.base, "head": found.head}, found.summary())
        found.judge(strict=strict)
        return found

    return compare


@pytest.fixture
def rate_benchmark(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Steps per second of a function that returns how many steps it made.

    `rate_benchmark(function, rounds=7)` calls it once untimed, then so many times, and returns the
    median rate. The table has seconds per step. Without measuring it is called once: None.
    """

    def measure(function: Callable[[], float], *, rounds: int = 7) -> float | None:
        if not private.is_measuring(request.config):
            function()
            return None
        from fastppo.bench.plugin import measures

        seconds, rate = measures.rates(function, rounds)
        private.record(request, {"rate": seconds}, {"steps_per_s": rate})
        return rate

    return measure


@pytest.fixture
def gpu_benchmark(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Device seconds of a function: by events with an empty L2, and in the replay of a graph.

    `gpu_benchmark(function, rounds=21)` returns both medians as `cold` and `graph`; the table has
    the cold one. Skips where torch sees no GPU.
    """

    def measure(function: Function, *, rounds: int = 21) -> dict[str, float] | None:
        from fastppo.bench.plugin import measures

        if not measures.has_gpu():
            pytest.skip("torch sees no GPU")
        if not private.is_measuring(request.config):
            function()
            return None
        samples, medians = measures.on_gpu(function, rounds)
        private.record(request, {"cold": samples}, medians)
        return medians

    return measure


@pytest.fixture
def static_check() -> Callable[..., Any]:
    """Fails where a function does more than allowed; exact, the same on every machine.

    `static_check(function, operators=None, allocated=None, syncs=0, graph_breaks=None)`: at most so
    many operators of torch, bytes of new tensors, waits for the device and graph breaks of
    torch.compile; None does not look. Returns the `Counts`.
    """

    def check(
        function: Function,
        *,
        operators: int | None = None,
        allocated: int | None = None,
        syncs: int | None = 0,
        graph_breaks: int | None = None,
    ) -> Any:
        from fastppo.bench.plugin import measures

        allowed = {
            "operators": operators,
            "bytes allocated": allocated,
            "waits for the device": syncs,
            "graph breaks": graph_breaks,
        }
        return measures.check(function, allowed)

    return check
