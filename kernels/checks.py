"""Checks of one argument, for those of an operation: one-line ValueErrors, in a few us."""

from collections.abc import Sequence

import torch
from torch import Tensor

INTEGERS = (torch.int64, torch.int32)
FUSED = (torch.float32, torch.bfloat16)


def expect(name: str, tensor: Tensor, like: Tensor, shape: Sequence[int], dtype: object) -> None:
    """Raises ValueError unless it has `shape`, `dtype` (one, or one of several), like's device."""
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
