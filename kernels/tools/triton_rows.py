"""Rows as Triton kernels take them: dense, any distance apart."""

from torch import Tensor


def dense_rows(tensor: Tensor) -> Tensor:
    """`tensor` [R, W], or a copy whose rows are dense."""
    return tensor if tensor.stride(1) == 1 else tensor.contiguous()
