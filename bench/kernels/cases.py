"""Every operation's benchmark cases and checks: what `kernels/<operation>/cases.py` lists."""

from collections.abc import Iterable, Iterator
from importlib import import_module
from types import ModuleType

import torch

from fastppo.kernels.backends import OPERATIONS
from fastppo.kernels.tools.case import Case, Check


def _modules(names: Iterable[str] = OPERATIONS) -> Iterator[ModuleType]:
    return (import_module(f"fastppo.kernels.{name}.cases") for name in names)


def cases(device: torch.device, *, quick: bool = False) -> Iterator[Case]:
    """The grid for a device: the CPU's leaves out what only a GPU has the memory speed for.

    Args:
        quick: two shapes per operation, the ends of the grid.
    """
    return (case for module in _modules() for case in module.benchmarks(device, quick))


def checks(device: torch.device, operation: str | None = None) -> Iterator[Check]:
    """Kernels on the device against their specification in float64, at shapes that are awkward.

    Args:
        operation: None for all.

    What a machine without a GPU cannot show: the tests run Triton's interpreter, which has no
    races, computes exp and log with numpy, and accepts code that the compiler rejects.
    """
    names = OPERATIONS if operation is None else (operation,)
    return (check for module in _modules(names) for check in module.checks(device))
