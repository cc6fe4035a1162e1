"""Which backends this process tests, and poison for memory that a kernel forgets to write.

Triton fixes at import whether it interprets, so the suite runs twice: `pytest tests/kernels` tests
torch and numba, `TRITON_INTERPRET=1 pytest tests/kernels` tests triton.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch._dynamo  # learns the functions of torch before `empty` is replaced here
from torch import Tensor

from fastppo.kernels.backends import triton_is_interpreted

INTERPRETED = triton_is_interpreted()

# The compiler cannot run in a process that interprets.
collect_ignore = ["test_aot.py"] if INTERPRETED else []


@pytest.fixture(scope="session", params=["triton"] if INTERPRETED else ["torch", "numba"])
def backend(request: pytest.FixtureRequest) -> str:
    """A backend under test; `api.resolve_backend` confirms what it runs."""
    name: str = request.param
    return name


@pytest.fixture(autouse=True)
def poison_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes a kernel that leaves an output element unwritten yield NaN rather than luck."""

    def poisoned(empty: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def fill(*args: Any, **kwargs: Any) -> Tensor:
            out = empty(*args, **kwargs)
            return out.fill_(float("nan")) if out.is_floating_point() else out

        return fill

    monkeypatch.setattr(torch, "empty", poisoned(torch.empty))
    monkeypatch.setattr(torch, "empty_like", poisoned(torch.empty_like))


@pytest.fixture(autouse=True)
def quiet_interpreter() -> Iterator[None]:
    """A GPU does not warn of inf - inf; numpy, on which the interpreter computes, does."""
    with np.errstate(all="ignore"):
        yield
