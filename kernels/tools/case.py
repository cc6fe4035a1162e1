"""What `kernels/<operation>/cases.py` is made of: shapes to time, and checks at awkward ones.

`benchmarks(device, quick)` yields every `Case` to time, next to what users write today: eager torch
as in a single-file PPO (CleanRL's, without its detours through numpy), doing the same work,
statistics included. `checks(device)` yields every `Check`: the operation against float64.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Run = Callable[[], tuple[Tensor, ...]]
Check = tuple[str, Callable[[], None]]
"""A name, and a function that raises AssertionError where the kernel is wrong."""


@dataclass(frozen=True, slots=True)
class Work:
    """One operation on one set of tensors."""

    ours: Run
    textbook: Run
    compilable: Callable[..., Any] | None
    """The textbook function that torch.compile gets; None where `Case.compiles` is false."""
    with_function: Callable[[Callable[..., Any]], Run]
    """`textbook` with that function in place of its own."""
    oracle: Callable[[], tuple[Tensor, ...]]
    """What `ours` must return, in float64."""
    comparable: Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]] = lambda result: result
    """The part of our result that the oracle speaks of."""
    rtol: float = 1e-4
    atol: float = 1e-5


@dataclass(frozen=True, slots=True)
class Case:
    """One operation at one shape."""

    operation: str
    shape: tuple[tuple[str, int | str], ...]
    size: int
    """Elements or rows, the abscissa of the picture."""
    bytes_moved: int
    """Every input read once, every output written once."""
    build: Callable[[torch.device], Work]
    compiles: bool = True
    """Whether the work has something that torch.compile can be given."""

    @property
    def label(self) -> str:
        return " ".join(f"{name}={value}" for name, value in self.shape)

    @property
    def id(self) -> str:
        return f"{self.operation}[{self.label}]"


def some(quick: bool, *grid: int) -> tuple[int, ...]:
    """The grid, or its two ends."""
    return (grid[0], grid[-1]) if quick else grid


def name_of(dtype: torch.dtype) -> str:
    """As in `bfloat16`."""
    return str(dtype).removeprefix("torch.")


class Draw:
    """Seeded tensors on one device."""

    def __init__(self, device: torch.device, seed: int = 0) -> None:
        self.device = device
        self.generator = torch.Generator(device).manual_seed(seed)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator, device=self.device)

    def flags(self, *shape: int, chance: float = 0.1) -> Tensor:
        return torch.rand(shape, generator=self.generator, device=self.device) < chance

    def integers(self, high: int, *shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
        return torch.randint(
            0, high, shape, generator=self.generator, device=self.device, dtype=dtype
        )

    def permutation(self, count: int) -> Tensor:
        return torch.randperm(count, generator=self.generator, device=self.device)


def double(value: Any) -> Any:
    """Floating tensors in float64, all else as it is."""
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.detach().double()
    return value


def check(name: str, function: Callable[..., None], device: torch.device, *arguments: Any) -> Check:
    """`function(draw, *arguments)`, with a draw that is seeded by the name's length."""
    return name, lambda: function(Draw(device, seed=len(name)), *arguments)


def require(is_so: bool, wrong: str) -> None:
    """As assert, which python -O leaves out: nothing would be checked, and all would pass."""
    if not is_so:
        raise AssertionError(wrong)


def require_close(name: str, actual: Tensor, expected: Tensor, tolerance: float) -> None:
    """Both relative and absolute; NaN equals NaN.

    Raises:
        AssertionError: with the name and the first of what differs.
    """
    torch.testing.assert_close(
        actual.double(),
        expected.double(),
        rtol=tolerance,
        atol=tolerance,
        equal_nan=True,
        msg=lambda text: f"{name}: {text.splitlines()[0]} {' '.join(text.split()[-40:])}",
    )


def require_same(name: str, first: Tensor, again: Tensor) -> None:
    """Two runs of one kernel on the same inputs give the same numbers; NaN equals NaN."""
    same = (first == again) | ((first != first) & (again != again))
    require(bool(same.all()), f"{name}: two runs differ")
