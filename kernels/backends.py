"""Which backend runs a call: decided by name, device and dtype, never by what can be imported."""

import os
from collections.abc import Iterable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

NAMES = ("triton", "numba", "torch")
OPERATIONS = tuple(sorted(path.parent.name for path in Path(__file__).parent.glob("*/op.py")))
"""Every folder with a public function is an operation."""
_FILES = {"triton": "triton_gpu", "numba": "numba_cpu", "torch": "spec"}
_FUSED_DTYPES = (torch.float32, torch.bfloat16)


class BackendUnavailable(RuntimeError):
    """The backend that was asked for cannot serve these tensors; the message names the remedy."""


@cache
def _missing(package: str) -> str | None:
    """Why `package` cannot be imported, or None."""
    if find_spec(package) is not None:
        return None
    where = " (Linux only)" if package == "triton" else ""
    return f"{package} is not installed: pip install {package}{where}, or pass backend='torch'"


@cache
def triton_is_interpreted() -> bool:
    """Whether the Triton kernels of this process run in Triton's CPU interpreter.

    Triton reads TRITON_INTERPRET when a kernel is decorated, so ask a kernel, not the environment.
    """
    from triton.runtime.interpreter import InterpretedFunction

    from fastppo.kernels.tools import triton_philox

    return isinstance(triton_philox.words, InterpretedFunction)


@cache
def _cached_resolve(backend: str, device_type: str, dtype: torch.dtype) -> str:
    name = backend
    if name == "auto":
        if dtype not in _FUSED_DTYPES or device_type not in ("cuda", "cpu"):
            return "torch"
        name = "triton" if device_type == "cuda" else "numba"
    if name == "torch":
        return name
    if name not in NAMES:
        raise ValueError(f"backend={backend!r} is unknown: expected 'auto' or one of {NAMES}")
    if dtype not in _FUSED_DTYPES:
        raise BackendUnavailable(
            f"backend {name!r} serves float32 and bfloat16, got {dtype}: "
            "cast the inputs or pass backend='torch'"
        )
    reason = _missing(name)
    if reason is not None:
        raise BackendUnavailable(reason)
    if name == "numba" and device_type != "cpu":
        raise BackendUnavailable(
            f"backend 'numba' serves CPU tensors, got a {device_type} tensor: "
            "pass backend='triton' or move the tensors"
        )
    if name == "triton" and device_type != "cuda" and not triton_is_interpreted():
        raise BackendUnavailable(
            f"backend 'triton' serves CUDA tensors, got a {device_type} tensor: pass "
            "backend='numba', or set TRITON_INTERPRET=1 before importing to debug on the CPU"
        )
    return name


def _resolve(backend: str, device_type: str, dtype: torch.dtype) -> str:
    return _cached_resolve(backend, device_type, dtype)


# torch.compile calls it while it traces; a function with a cache it would trace through. This is
# what torch.compiler.assume_constant_result does, but that imports torch._dynamo: 2 s of a start.
_resolve._dynamo_marked_constant = True  # type: ignore[attr-defined]


def resolve_backend(backend: str, device: torch.device | str, dtype: torch.dtype) -> str:
    """The backend ("triton", "numba" or "torch") that serves `device` and `dtype`.

    "auto" means triton on CUDA and numba on the CPU for float32 and bfloat16, and torch for every
    other dtype or device, because only torch serves those.

    Raises:
        BackendUnavailable: `backend` cannot serve; the message gives the reason and the remedy.
        ValueError: `backend` is not a known name.
    """
    name = str(_resolve(backend, torch.device(device).type, dtype))
    # torch.compile would break its graph here, and reports what it cannot trace by itself
    if name != "torch" and not torch.compiler.is_compiling():
        check_not_transformed(f"backend {name!r}")
    return name


def check_not_transformed(what: str) -> None:
    """Raises BackendUnavailable where torch.func runs the call: its tensors have no memory."""
    if torch._C._functorch.peek_interpreter_stack() is not None:
        raise BackendUnavailable(
            f"{what} has no torch.func transforms (grad, vmap, jacrev and the like): "
            "pass backend='torch' to fastppo.kernels.api, or call it outside of them"
        )


@cache
def _module(operation: str, name: str) -> ModuleType:
    """Imported on demand: triton is absent on macOS."""
    return import_module(f"fastppo.kernels.{operation}.{_FILES[name]}")


def load(name: str, operations: Iterable[str]) -> None:
    """Imports the modules of one backend, and with them compiles what it compiles on import.

    Args:
        operations: `gae`, or `loss.gaussian` for one of the `PARTS` that a module imports when they
            are first called; `loss` is all of them.
    """
    for operation in operations:
        room, _, part = operation.partition(".")
        module = _module(room, name)
        parts: dict[str, str] = getattr(module, "PARTS", {})
        for one in (part,) if part else parts:
            if one in parts:  # another backend may have its parts in one module
                import_module(parts[one])


def implementation(operation: str, backend: str, tensor: Tensor) -> Any:
    """The module that runs `operation` on tensors like `tensor`; errors as `resolve_backend`."""
    return _module(operation, resolve_backend(backend, tensor.device, tensor.dtype))


def available_backends() -> dict[str, str | None]:
    """Each backend, with None if it serves float32 on this machine, else why it does not."""
    triton = _missing("triton")
    if triton is None and not torch.cuda.is_available() and not triton_is_interpreted():
        interpret = os.environ.get("TRITON_INTERPRET")
        triton = f"no CUDA device, and TRITON_INTERPRET was {interpret or 'not set'} at import"
    return {"triton": triton, "numba": _missing("numba"), "torch": None}
