"""The fused PPO losses on the GPU, under the names that every backend gives them."""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

import torch
from torch import Tensor

from fastppo.kernels.backends import BackendUnavailable
from fastppo.kernels.loss import triton_categorical, triton_narrow, triton_vocab
from fastppo.kernels.loss.terms import Rows, Terms
from fastppo.kernels.loss.triton_gaussian import gaussian
from fastppo.kernels.loss.triton_rows import finish, prepare

__all__ = ["categorical", "gaussian"]


def _dense_rows(tensor: Tensor) -> Tensor:
    return tensor if tensor.stride(1) == 1 else tensor.contiguous()


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
    vocab = one_head and widest > triton_categorical.MAX_WIDTH
    source = _dense_rows(logits) if vocab else logits.contiguous()
    # `.data` has a version of its own: autograd shall not take the gradients for changed logits
    if overwrite_logits and source is logits:
        d_logits = logits.data
    else:
        d_logits = torch.empty(source.shape, dtype=source.dtype, device=source.device)
    d_values = torch.empty(new_values.shape, dtype=torch.float32, device=new_values.device)
    if action_mask is not None:
        action_mask = _dense_rows(action_mask) if vocab else action_mask.contiguous()
    arguments = (source, new_values.contiguous(), actions.contiguous(), action_mask)
    with torch.cuda.device_of(logits):
        settings = prepare(rows, terms)
        if vocab:
            partials = triton_vocab.launch(*arguments, d_logits, d_values, settings)
        elif one_head and widest <= triton_narrow.MAX_WIDTH:
            partials = triton_narrow.launch(*arguments, d_logits, d_values, settings)
        else:
            partials = triton_categorical.launch(*arguments, d_logits, d_values, settings, heads)
        loss, stats = finish(partials, settings)
        if overwrite_logits and source is not logits:
            logits.data.copy_(d_logits)
            d_logits = logits.data
    return loss, stats, d_logits, d_values
