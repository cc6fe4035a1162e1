"""Host side of the categorical losses on the CPU, and the names that every backend gives them."""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from functools import cache
from typing import Any

import torch
from torch import Tensor

from fastppo.kernels.loss.numba_rows import RowArguments
from fastppo.kernels.loss.spec import STATS
from fastppo.kernels.loss.terms import Rows, Terms, Tokens
from fastppo.kernels.tools.numba_memory import address, dense, empty

PARTS = {
    "categorical": "fastppo.kernels.loss.numba_categorical",
    "gaussian": "fastppo.kernels.loss.numba_gaussian",
    "tokens": "fastppo.kernels.loss.numba_vocab",
}
"""Imported by the functions that need them: each compiles for seconds, and a run needs one."""
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
    from fastppo.kernels.loss.numba_categorical import categorical_kernel

    batch_size, width = logits.shape
    heads = (width,) if nvec is None else nvec
    if width > WIDE:
        policy = (logits, new_values, actions, rows, terms, Tokens())
        loss, stats, *grads = tokens(*policy, action_mask, overwrite_logits, heads)
        return loss, stats[: len(STATS)], *grads
    sizes = _head_sizes(heads)
    z = dense(logits if logits.dtype == torch.float32 else logits.float())
    mask = None if action_mask is None else dense(action_mask)
    choices = dense(actions if actions.dtype == torch.int64 else actions.long())
    arguments = RowArguments(rows, new_values, terms)
    # `.data` has its own version counter: autograd does not see this as a change to the logits
    d_logits = z.data if overwrite_logits else empty(*z.shape)
    categorical_kernel(
        batch_size,
        width,
        len(heads),
        z.data_ptr(),
        choices.data_ptr(),
        address(mask),
        sizes.data_ptr(),
        d_logits.data_ptr(),
        arguments.for_kernel,
    )
    d_logits = _returned(logits, z, d_logits, overwrite_logits)
    return arguments.loss, arguments.stats, d_logits, arguments.d_values


def gaussian(*arguments: Any) -> tuple[Tensor, ...]:
    """As `numba_gaussian.gaussian`."""
    from fastppo.kernels.loss import numba_gaussian

    return numba_gaussian.gaussian(*arguments)


def tokens(
    logits: Tensor,
    new_values: Tensor,
    actions: Tensor,
    rows: Rows,
    terms: Terms,
    extras: Tokens,
    action_mask: Tensor | None,
    overwrite_logits: bool,
    heads: tuple[int, ...] | None = None,
) -> tuple[Tensor, ...]:
    """Loss, STATS and ref_kl [7], and the gradients of logits and values, as `spec`.

    Args:
        heads: of a control task's many actions; None for one.
    """
    from fastppo.kernels.loss.numba_vocab import vocab_kernel

    batch_size, width = logits.shape
    heads = (width,) if heads is None else heads
    sizes, z, choices = _head_sizes(heads), dense(logits), dense(actions.long())
    mask = None if action_mask is None else dense(action_mask)
    arguments = RowArguments(rows, new_values, terms, extras)
    d_logits = z.data if overwrite_logits else empty(*z.shape, dtype=z.dtype)
    vocab_kernel(
        batch_size,
        width,
        len(heads),
        z.data_ptr(),
        z.dtype == torch.bfloat16,
        choices.data_ptr(),
        address(mask),
        sizes.data_ptr(),
        1.0 / extras.temperature,
        d_logits.data_ptr(),
        arguments.for_kernel,
    )
    d_logits = _returned(logits, z, d_logits, overwrite_logits)
    return arguments.loss, arguments.stats, d_logits, arguments.d_values


def _returned(logits: Tensor, z: Tensor, d_logits: Tensor, overwrite_logits: bool) -> Tensor:
    """The gradient of the dense or widened copy `z`, in the logits' own dtype or memory."""
    if overwrite_logits and z is not logits:
        logits.data.copy_(d_logits)
        return logits.data
    return d_logits if d_logits.dtype == logits.dtype else d_logits.to(logits.dtype)
