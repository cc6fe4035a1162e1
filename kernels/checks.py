"""Checks of one argument, for those of an operation: one-line ValueErrors, in a few us."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

INTEGERS = (torch.int64, torch.int32)
FUSED = (torch.float32, torch.bfloat16)


def expect(
    name: str, tensor: Tensor | None, like: Tensor, shape: Sequence[int], dtype: object
) -> None:
    """Raises ValueError unless it has `shape`, `dtype` (one, or one of several), like's device."""
    if tensor is None:
        raise ValueError(f"{name} is missing: expected a tensor of shape {list(shape)}")
    if tensor.shape != shape:
        raise ValueError(f"{name} has shape {list(tensor.shape)}: expected {list(shape)}")
    allowed = dtype if isinstance(dtype, tuple) else (dtype,)
    if tensor.dtype not in allowed:
        names = " or ".join(str(d) for d in allowed)
        raise ValueError(f"{name} has dtype {tensor.dtype}: expected {names}")
    if tensor.device != like.device:
        raise ValueError(f"{name} is on {tensor.device}: expected {like.device}, as its siblings")


def expect_floats(name: str, tensor: Tensor, ndim: int, shape: str) -> None:
    """Raises ValueError unless `tensor` is of floats with `ndim` dimensions, none of them 0."""
    if tensor.ndim != ndim or 0 in tensor.shape:
        raise ValueError(f"{name} has shape {list(tensor.shape)}: expected {shape}, no size 0")
    if not tensor.dtype.is_floating_point:
        raise ValueError(f"{name} has dtype {tensor.dtype}: expected a floating dtype")


def expect_logits(name: str, logits: Tensor) -> None:
    """Raises ValueError unless `logits` are floats [..., V], no size 0."""
    expect_floats(name, logits, max(2, logits.ndim), "[..., V]")


def check_temperature(temperature: float) -> None:
    """Raises ValueError unless logits can be divided by it."""
    if not 0.0 < temperature < math.inf:
        raise ValueError(f"temperature={temperature}: expected a finite number > 0")


def check_vocabulary(name: str, tokens: Tensor, width: int, valid: Tensor | None) -> None:
    """Raises ValueError if a valid token is outside 0 .. width - 1.

    Looks at those that a CPU holds: a GPU would have to be waited for.
    """
    if not tokens.is_cpu or torch.compiler.is_compiling():
        return
    outside = (tokens < 0) | (tokens >= width)
    if valid is not None and valid.shape == tokens.shape:
        outside &= valid
    if bool(outside.any()):
        at = outside.nonzero()[0].tolist()
        raise ValueError(
            f"{name}: token {int(tokens[tuple(at)])} at {at} is outside the vocabulary of {width}: "
            f"expected 0 to {width - 1}, or valid=False there"
        )
