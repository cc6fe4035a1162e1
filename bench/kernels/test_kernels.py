"""`pytest bench/`: the kernel grid under pytest-benchmark, for its tables, JSON and comparisons.

pytest-benchmark measures one way after the other, so what it calls a ratio holds the machine's
drift as well; `fastppo bench kernels` interleaves them. What both share is the grid, and that
nothing is timed before it equals float64.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from fastppo.bench.kernels.cases import cases
from fastppo.bench.kernels.command import COMPILED, OURS, TEXTBOOK, check
from fastppo.bench.results.result import SCHEMA
from fastppo.kernels.tools.case import Case, Work

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@cache
def _checked(case: Case) -> Work:
    work = case.build(DEVICE)
    check(case, work)
    return work


def _ways(case: Case) -> list[str]:
    ways = [OURS, TEXTBOOK]
    return [*ways, COMPILED] if case.compiles else ways


def _waiting(run: Callable[[], Any]) -> Callable[[], Any]:
    """`run`, and on a GPU the wait for its end: a host clock sees only the launch otherwise."""
    if DEVICE.type != "cuda":
        return run

    def wait() -> None:
        run()
        torch.cuda.synchronize()

    return wait


@pytest.mark.parametrize(
    ("case", "way"),
    [
        pytest.param(case, way, id=f"{case.id}-{way}")
        for case in cases(DEVICE)
        for way in _ways(case)
    ],
)
def test_kernel(case: Case, way: str, benchmark: BenchmarkFixture) -> None:
    work = _checked(case)
    run = work.ours if way == OURS else work.textbook
    if way == COMPILED:
        assert work.compilable is not None
        torch.compiler.reset()
        run = work.with_function(torch.compile(work.compilable, dynamic=False))
    run()
    benchmark.group = case.id
    benchmark.extra_info["fastppo"] = {
        "schema": SCHEMA,
        "id": case.id,
        "impl": way,
        "bytes": case.bytes_moved,
        "threads": torch.get_num_threads(),
        "device": str(DEVICE),
    }
    benchmark(_waiting(run))
    assert benchmark.stats is not None
    assert benchmark.stats.stats.rounds > 0
