"""Host side of the categorical losses on the CPU, and the names that every backend gives them."""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from functools import cache

import torch
from torch import Tensor

from fastppo.kernels.loss.numba_categorical import categorical_kernel
from fastppo.kernels.loss.numba_gaussian import gaussian
from fastppo.kernels.loss.numba_rows import RowArguments
from fastppo.kernels.loss.numba_vocab import vocab_kernel
from fastppo.kernels.loss.terms import Rows, Terms
from fastppo.kernels.tools.numba_memory import address, dense, empty

__all__ = ["categorical", "gaussian"]

WIDE = 128
"""Rows of more logits than this are computed along the row instead of across rows."""


@cache
def _head_sizes(nvec: tuple[int, ...]) -> Tensor:
    return torch.tensor(nvec, device="cpu")


def categorical(
    logits: Tensor,
    new_values: Tensor,
    actions: Tensor,
    rows: Rows,
    terms: Terms,
    action_mask: Tensor | None,
    nvec: tuple[int, ...] | None,
    overwrite_logits: bool,
) -> tuple[Tensor, ...]:
    """Loss, STATS [6] and the gradients of logits and values, as `spec`, on the CPU."""
    batch_size, width = logits.shape
    wide = width > WIDE
    heads = _head_sizes((width,) if nvec is None else nvec)
    z = dense(logits if wide or logits.dtype == torch.float32 else logits.float())
    mask = None if action_mask is None else dense(action_mask)
    choices = dense(actions if actions.dtype == torch.int64 else actions.long())
    arguments = RowArguments(rows, new_values, terms)
    # `.data` has its own version counter: autograd does not see this as a change to the logits
    d_logits = z.data if overwrite_logits else empty(*z.shape, dtype=z.dtype)
    sizes = (batch_size, width, len(heads), z.data_ptr())
    policy = (choices.data_ptr(), address(mask), heads.data_ptr(), d_logits.data_ptr())
    if wide:
        vocab_kernel(*sizes, z.dtype == torch.bfloat16, *policy, arguments.for_kernel)
    else:
        categorical_kernel(*sizes, *policy, arguments.for_kernel)
    if overwrite_logits and z is not logits:
        logits.data.copy_(d_logits)
        d_logits = logits.data
    elif d_logits.dtype != logits.dtype:
        d_logits = d_logits.to(logits.dtype)
    return arguments.loss, arguments.stats, d_logits, arguments.d_values
