"""What `kernels/<operation>/cases.py` is made of: shapes to time, and checks at awkward ones.

`benchmarks(device, quick)` yields every `Case` to time, next to what users write today: eager torch
as in a single-file PPO (CleanRL's, without its detours through numpy), doing the same work,
statistics included. `checks(device)` yields every `Check`: the operation against float64.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
    """Of every output's norm, by `difference`."""


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


WORST = 50.0
"""How many times its tolerance an element may be off, of the root mean square of its tensor: far
below one, so that two rows that were swapped show in the largest tensor."""


def difference(actual: Tensor, expected: Tensor, tolerance: float, floor: float = 0.0) -> str:
    """What is wrong with one output; empty where it is right.

    Right is ||actual - expected|| <= tolerance ||expected||, no single element far off, and NaN and
    infinities in the same places.

    Args:
        floor: least root mean square that errors are held against: of what may be about zero.
    """
    if actual.shape != expected.shape:
        return f"its shape is {tuple(actual.shape)}, not {tuple(expected.shape)}"
    ours, theirs = actual.double(), expected.double()
    finite = theirs.isfinite()
    if not bool(((ours == theirs) | (ours.isnan() & theirs.isnan()) | finite).all()):
        return "NaN or infinity is not where it should be"
    if not bool(ours[finite].isfinite().all()):
        return "it is not finite"
    if not bool(finite.any()):
        return ""
    off = (ours[finite] - theirs[finite]).abs()
    scale = max(theirs[finite].square().mean().sqrt().item(), floor)
    error, worst = off.square().mean().sqrt().item(), off.max().item()
    if error > tolerance * scale:
        return (
            f"it is off by {error:.3g} in the root mean square, by up to {worst:.3g}; that of the "
            f"expected is {scale:.3g}, of which {tolerance:g} is allowed"
        )
    # of itself, too: in a gradient over a vocabulary one element is thousands of times the rest
    beyond = (off - tolerance * theirs[finite].abs()).max().item()
    if beyond > WORST * tolerance * scale:
        return (
            f"an element is off by {worst:.3g}, {WORST * tolerance:g} of the root mean square "
            f"{scale:.3g} is allowed"
        )
    return ""


ABOUT_ZERO = 1e-2
"""Statistics and gradients of a row are about one; what is below this may be a sum that cancels."""


def require_close(name: str, actual: Tensor, expected: Tensor, tolerance: float) -> None:
    """By `difference`.

    Raises:
        AssertionError: with the name and what is wrong.
    """
    wrong = difference(actual, expected, tolerance, ABOUT_ZERO)
    require(not wrong, f"{name}: {wrong}")


@contextmanager
def poisoned() -> Iterator[None]:
    """For the block, torch fills new memory with NaN: what a kernel does not write shows."""
    before = torch.are_deterministic_algorithms_enabled()
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of operators that have no deterministic form
        torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before, warn_only=warns)


def require_same(name: str, first: Tensor, again: Tensor) -> None:
    """Two runs of one kernel on the same inputs give the same numbers; NaN equals NaN."""
    same = (first == again) | ((first != first) & (again != again))
    require(bool(same.all()), f"{name}: two runs differ")
