"""Host side of the fused numba losses: contiguous views in, loss and gradients out."""

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .fused import fused_loss
from .numba_kernels import categorical_kernel, gaussian_kernel
from .reference import STATS, Stats
from .terms import Rows, Terms

Array = np.ndarray[Any, Any]
_NO_ROWS = np.empty(0, np.bool_)


def _array(tensor: Tensor) -> Array:
    return tensor.detach().contiguous().numpy()


def _numbers(terms: Terms) -> tuple[float | bool, ...]:
    """The kernels' scalar arguments: None becomes the number that turns a term off."""
    normalizer = terms.normalizer
    if isinstance(normalizer, Tensor):
        normalizer = float(normalizer.detach().numpy())
    return (
        float(terms.clip_coef),
        float(terms.vf_coef),
        float(terms.ent_coef),
        -1.0 if terms.clip_vloss is None else float(terms.clip_vloss),
        math.inf if terms.dual_clip is None else float(terms.dual_clip),
        bool(terms.norm_adv),
        -1.0 if normalizer is None else float(normalizer),
    )


@cache
def _head_sizes(nvec: tuple[int, ...]) -> Array:
    return np.array(nvec, np.int64)


@cache
def _everything_allowed(width: int) -> Array:
    return np.empty((0, width), np.bool_)


def categorical_ppo_loss(
    logits: Tensor,
    new_values: Tensor,
    actions: Tensor,
    rows: Rows,
    terms: Terms,
    *,
    action_mask: Tensor | None = None,
    nvec: Sequence[int] | None = None,
) -> tuple[Tensor, Stats]:
    """As `reference.categorical_ppo_loss`, for float32 on the CPU."""
    batch_size, width = logits.shape
    heads = _head_sizes((width,) if nvec is None else tuple(nvec))
    old = [_array(t) for t in (rows.old_log_probs, rows.advantages, rows.returns, rows.old_values)]
    valid = _NO_ROWS if rows.valid is None else _array(rows.valid)
    numbers = _numbers(terms)

    def run(logits: Tensor, new_values: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        d_logits = torch.empty(logits.shape)
        d_values = torch.empty(new_values.shape)
        loss, stats = torch.empty(()), torch.empty(len(STATS))
        categorical_kernel(
            _array(logits),
            _array(actions.long()).reshape(batch_size, len(heads)),
            _everything_allowed(width) if action_mask is None else _array(action_mask),
            heads,
            *old,
            _array(new_values),
            valid,
            *numbers,
            d_logits.numpy(),
            d_values.numpy(),
            loss.numpy().reshape(1),
            stats.numpy(),
        )
        return loss, stats, (d_logits, d_values)

    return fused_loss(run, logits, new_values)


def gaussian_ppo_loss(
    mean: Tensor,
    log_std: Tensor,
    new_values: Tensor,
    actions: Tensor,
    rows: Rows,
    terms: Terms,
) -> tuple[Tensor, Stats]:
    """As `reference.gaussian_ppo_loss`, for float32 on the CPU."""
    old = [_array(t) for t in (rows.old_log_probs, rows.advantages, rows.returns, rows.old_values)]
    valid = _NO_ROWS if rows.valid is None else _array(rows.valid)
    numbers = _numbers(terms)

    def run(
        mean: Tensor, log_std: Tensor, new_values: Tensor
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        d_mean = torch.empty(mean.shape)
        d_log_std = torch.empty(log_std.shape)
        d_values = torch.empty(new_values.shape)
        loss, stats = torch.empty(()), torch.empty(len(STATS))
        matrix = (-1, mean.shape[1])
        gaussian_kernel(
            _array(mean),
            _array(log_std).reshape(matrix),
            _array(actions),
            *old,
            _array(new_values),
            valid,
            *numbers,
            d_mean.numpy(),
            d_log_std.numpy().reshape(matrix),
            d_values.numpy(),
            loss.numpy().reshape(1),
            stats.numpy(),
        )
        return loss, stats, (d_mean, d_log_std, d_values)

    return fused_loss(run, mean, log_std, new_values)
