"""Rows of many fields at once, in plain torch: the specification."""

from collections.abc import Sequence

import torch
from torch import Tensor


def gather_rows(
    fields: Sequence[Tensor], index: Tensor, out: Sequence[Tensor] | None
) -> tuple[Tensor, ...]:
    """field[index] of every field, a new tensor or the one in `out`.

    Args:
        fields: [R, ...] each, of any dtype.
        index: [B] int64 in 0 .. R - 1.
        out: [B, ...] each, written, or None.
    """
    if out is None:
        return tuple(torch.index_select(field, 0, index) for field in fields)
    for field, target in zip(fields, out, strict=True):
        torch.index_select(field, 0, index, out=target)
    return tuple(out)
