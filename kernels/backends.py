"""Which backend runs a call: decided by name, device and dtype, never by what happens to import."""

import os
from functools import cache
from importlib.util import find_spec

import torch

NAMES = ("triton", "numba", "torch")


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

    from . import triton_gae

    return isinstance(triton_gae.gae_kernel, InterpretedFunction)


@cache
def _resolve(backend: str, device_type: str, dtype: torch.dtype) -> str:
    name = backend
    if name == "auto":
        if dtype != torch.float32 or device_type not in ("cuda", "cpu"):
            return "torch"
        name = "triton" if device_type == "cuda" else "numba"
    if name == "torch":
        return name
    if name not in NAMES:
        raise ValueError(f"backend={backend!r} is unknown: expected 'auto' or one of {NAMES}")
    if dtype != torch.float32:
        raise BackendUnavailable(
            f"backend {name!r} computes in float32 only, got {dtype}: "
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


def resolve_backend(backend: str, device: torch.device | str, dtype: torch.dtype) -> str:
    """The backend ("triton", "numba" or "torch") that serves `device` and `dtype`.

    "auto" means triton for float32 on CUDA, numba for float32 on the CPU, and torch for every
    other dtype or device, because only torch serves those.

    Raises:
        BackendUnavailable: `backend` cannot serve; the message gives the reason and the remedy.
        ValueError: `backend` is not a known name.
    """
    return _resolve(backend, torch.device(device).type, dtype)


def available_backends() -> dict[str, str | None]:
    """Each backend, with None if it serves float32 on this machine, else why it does not."""
    triton = _missing("triton")
    if triton is None and not torch.cuda.is_available() and not triton_is_interpreted():
        interpret = os.environ.get("TRITON_INTERPRET")
        triton = f"no CUDA device, and TRITON_INTERPRET was {interpret or 'not set'} at import"
    return {"triton": triton, "numba": _missing("numba"), "torch": None}
