"""A check that cannot fail checks nothing: every case and check is red for a planted fault."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from fastppo.bench.kernels import command as kernels
from fastppo.bench.kernels.cases import cases
from fastppo.kernels.tools import case as tools
from fastppo.kernels.tools.case import Case, Work

CPU = torch.device("cpu")
EVERY, QUICK = list(cases(CPU)), list(cases(CPU, quick=True))
SMALL = [c for c in EVERY if c.bytes_moved < 2**22 and (c in QUICK or c.size < 2**12)]
GRID = [*SMALL, *(c for c in QUICK if c.operation == "vocabulary")]


def swapped(x: Tensor) -> Tensor:
    """The row that is largest and the one that is least, in each other's place."""
    sizes = x.reshape(len(x), -1).double().nan_to_num().abs().sum(1)
    order = torch.arange(len(x))
    a, b = int(sizes.argmax()), int(sizes.argmin())
    order[[a, b]] = order[[b, a]]
    return x[order]


FAULTS: dict[str, Callable[[Tensor], Tensor]] = {
    "zero": torch.zeros_like,
    "swapped rows": swapped,
    "wrong last block": lambda x: torch.cat([x[:-1], x[-1:] + 1 + x[-1:].abs()]),
    "not written": lambda x: torch.full_like(x, torch.nan),
}


def with_fault(case: Case, output: int, fault: Callable[[Tensor], Tensor]) -> Work:
    """The work of a case, of which one output is wrong."""
    work = case.build(CPU)
    right = work.comparable(work.ours())

    def ours() -> tuple[Tensor, ...]:
        return tuple(fault(x) if i == output else x for i, x in enumerate(right))

    return replace(work, ours=ours, comparable=lambda result: result)


@pytest.mark.parametrize("case", GRID, ids=lambda case: case.id)
def test_every_output_of_every_shape_can_turn_its_case_red(case: Case) -> None:
    """From the smallest shape to the largest, where a relative error of one row is least."""
    kernels.check(case, case.build(CPU))
    work = case.build(CPU)
    outputs = work.comparable(work.ours())
    planted = 0
    for number, output in enumerate(outputs):
        for name, fault in FAULTS.items():
            if not output.is_floating_point() or (output.dim() == 0 and "written" not in name):
                continue  # a swapped action may be the same; a number has no rows
            if len(output.reshape(-1)) < 2 or torch.equal(fault(output), output):
                continue
            planted += 1
            with pytest.raises(kernels.NotEqual):
                kernels.check(case, with_fault(case, number, fault))
    assert planted >= 3, "nothing could be planted"


def test_what_is_right_to_rounding_passes() -> None:
    x = torch.randn(10_000, generator=torch.Generator().manual_seed(0))
    assert tools.difference(x, x.double(), 1e-6) == ""
    assert tools.difference(x * (1 + 1e-6), x, 1e-5) == ""
    assert tools.difference(torch.zeros(3), torch.zeros(3), 1e-3) == ""


@pytest.mark.parametrize(
    ("ours", "theirs", "wrong"),
    [
        ([1.0, 2.0], [1.0], "its shape is (2,), not (1,)"),
        ([1.0, float("nan")], [1.0, 2.0], "it is not finite"),
        ([1.0, 2.0], [1.0, float("nan")], "NaN or infinity is not where it should be"),
        ([float("inf"), 1.0], [float("-inf"), 1.0], "NaN or infinity is not where it should be"),
        ([0.0, 0.0], [1e-9, -1e-9], "root mean square"),
    ],
)
def test_what_is_wrong_is_said(ours: list[float], theirs: list[float], wrong: str) -> None:
    assert wrong in tools.difference(torch.tensor(ours), torch.tensor(theirs), 1e-3)


def test_nan_and_infinity_where_they_belong_are_right() -> None:
    x = torch.tensor([1.0, float("nan"), float("inf"), float("-inf")])
    assert tools.difference(x, x.double(), 1e-6) == ""


def test_one_wrong_element_of_a_million_shows() -> None:
    theirs = torch.randn(1_000_000, generator=torch.Generator().manual_seed(0))
    ours = theirs.clone()
    ours[123_456] += 0.1
    assert "an element is off by 0.1" in tools.difference(ours, theirs, 1e-3)


def test_new_memory_is_poisoned_within_the_block_alone() -> None:
    before = torch.are_deterministic_algorithms_enabled()
    with tools.poisoned():
        assert bool(torch.empty(100).isnan().all())
    assert torch.are_deterministic_algorithms_enabled() == before


def _mutated(function: Any, fault: Callable[[Tensor], Tensor]) -> Any:
    """The public function, whose first float output, or gradient, is wrong but for the oracle."""

    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            return fault(gradient)

    def call(*arguments: Any, backend: str = "auto", **options: Any) -> Any:
        if backend == "torch":
            return function(*arguments, backend=backend, **options)
        first, *others = arguments
        if isinstance(first, Tensor) and first.requires_grad:
            apply: Any = Wrong.apply
            return function(apply(first), *others, backend=backend, **options)
        found = function(*arguments, backend=backend, **options)
        if isinstance(found, Tensor):
            return fault(found)
        at = next(i for i, one in enumerate(found) if one.is_floating_point())
        return tuple(fault(one) if i == at else one for i, one in enumerate(found))

    return call


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(
    ("operation", "name", "which"),
    [
        ("gae", "gae", "T=128 N=8"),
        ("loss", "categorical_ppo_loss", "categorical B=257"),
        ("loss", "gaussian_ppo_loss", "gaussian B=257"),
        ("loss", "categorical_ppo_loss", "vocabulary A=50257"),
        ("act", "act_categorical", "act_categorical B=33"),
        ("act", "act_gaussian", "act_gaussian B=33"),
        ("gather", "gather_rows", "R=100 B=257"),
        ("frames", "gather_frames", "B=65"),
        ("moments", "normalize", "moments B=33"),
        ("advantage_stats", "advantage_stats", "M=3 B=33"),
    ],
)
def test_every_awkward_check_can_turn_red(
    operation: str, name: str, which: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from importlib import import_module

    op = import_module(f"fastppo.kernels.{operation}.op")
    checks = [
        check
        for label, check in import_module(f"fastppo.kernels.{operation}.cases").checks(CPU)
        if which in label and not (operation == "frames" and "84" not in label)
    ]
    assert checks
    monkeypatch.setattr(op, name, _mutated(getattr(op, name), FAULTS[fault]))
    for check in checks[:3]:
        with pytest.raises(AssertionError):
            check()
