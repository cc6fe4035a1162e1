"""The fused PPO losses on the GPU, under the names that every backend gives them."""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

import torch
from torch import Tensor

from fastppo.kernels.backends import BackendUnavailable
from fastppo.kernels.loss import triton_categorical, triton_narrow, triton_vocab
from fastppo.kernels.loss.spec import STATS
from fastppo.kernels.loss.terms import Rows, Terms, Tokens
from fastppo.kernels.loss.triton_gaussian import gaussian
from fastppo.kernels.loss.triton_rows import finish, prepare
from fastppo.kernels.tools.triton_rows import dense_rows

__all__ = ["categorical", "gaussian", "tokens"]


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
    """Loss, STATS [6] and the gradients of logits and values, as `spec`, on CUDA.

    With `overwrite_logits` the third is the logits' own memory.
    """
    heads = (logits.shape[1],) if nvec is None else tuple(nvec)
    widest, one_head = max(heads), len(heads) == 1
    if widest > triton_categorical.MAX_WIDTH and not one_head:
        raise BackendUnavailable(
            f"backend 'triton' serves heads of up to {triton_categorical.MAX_WIDTH} actions, if "
            f"there are several, got nvec={heads}: pass backend='torch', or one call per head"
        )
    if widest > triton_categorical.MAX_WIDTH:
        result = tokens(
            logits, new_values, actions, rows, terms, Tokens(), action_mask, overwrite_logits
        )
        return result[0], result[1][: len(STATS)], *result[2:]
    source = logits.contiguous()
    d_logits, d_values = _gradients(logits, source, new_values, overwrite_logits)
    mask = None if action_mask is None else action_mask.contiguous()
    arguments = (source, new_values.contiguous(), actions.contiguous(), mask, d_logits, d_values)
    with torch.cuda.device_of(logits):
        settings = prepare(rows, terms)
        if one_head and widest <= triton_narrow.MAX_WIDTH:
            partials = triton_narrow.launch(*arguments, settings)
        else:
            partials = triton_categorical.launch(*arguments, settings, heads)
        loss, stats = finish(partials, settings)
        d_logits = _returned(logits, source, d_logits, overwrite_logits)
    return loss, stats, d_logits, d_values


def tokens(
    logits: Tensor,
    new_values: Tensor,
    actions: Tensor,
    rows: Rows,
    terms: Terms,
    extras: Tokens,
    action_mask: Tensor | None,
    overwrite_logits: bool,
) -> tuple[Tensor, ...]:
    """Loss, STATS and ref_kl [7], and the gradients of logits and values, as `spec`, on CUDA."""
    source = dense_rows(logits)
    d_logits, d_values = _gradients(logits, source, new_values, overwrite_logits)
    mask = None if action_mask is None else dense_rows(action_mask)
    arguments = (source, new_values.contiguous(), actions.contiguous(), mask, d_logits, d_values)
    with torch.cuda.device_of(logits):
        settings = prepare(rows, terms)
        partials = triton_vocab.launch(*arguments, settings, extras)
        loss, stats = finish(partials, settings, extras.kl_coef)
        d_logits = _returned(logits, source, d_logits, overwrite_logits)
    return loss, stats, d_logits, d_values


def _gradients(
    logits: Tensor, source: Tensor, new_values: Tensor, overwrite_logits: bool
) -> tuple[Tensor, Tensor]:
    """Memory for the gradients of the logits and of the values."""
    d_values = torch.empty(new_values.shape, dtype=torch.float32, device=new_values.device)
    # `.data` has a version of its own: autograd shall not take the gradients for changed logits
    if overwrite_logits and source is logits:
        return logits.data, d_values
    return torch.empty(source.shape, dtype=source.dtype, device=source.device), d_values


def _returned(logits: Tensor, source: Tensor, d_logits: Tensor, overwrite_logits: bool) -> Tensor:
    """The gradient of the dense copy `source`, or the logits' own memory."""
    if overwrite_logits and source is not logits:
        logits.data.copy_(d_logits)
        return logits.data
    return d_logits
