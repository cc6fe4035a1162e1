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

Array = np.ndarray[Any, Any]
_NO_ROWS = np.empty(0, np.bool_)


def _array(tensor: Tensor) -> Array:
    return tensor.detach().contiguous().numpy()


def _numbers(
    clip_coef: float,
    vf_coef: float,
    ent_coef: float,
    clip_vloss: float | None,
    dual_clip: float | None,
    norm_adv: bool,
    normalizer: float | Tensor | None,
) -> tuple[float | bool, ...]:
    """The kernels' scalar arguments: None becomes the number that turns a term off."""
    if isinstance(normalizer, Tensor):
        normalizer = float(normalizer.detach().numpy())
    return (
        float(clip_coef),
        float(vf_coef),
        float(ent_coef),
        -1.0 if clip_vloss is None else float(clip_vloss),
        math.inf if dual_clip is None else float(dual_clip),
        bool(norm_adv),
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
    old_log_probs: Tensor,
    advantages: Tensor,
    returns: Tensor,
    old_values: Tensor,
    valid: Tensor | None = None,
    *,
    clip_coef: float,
    vf_coef: float,
    ent_coef: float,
    clip_vloss: float | None = None,
    dual_clip: float | None = None,
    norm_adv: bool = True,
    action_mask: Tensor | None = None,
    nvec: Sequence[int] | None = None,
    normalizer: float | Tensor | None = None,
) -> tuple[Tensor, Stats]:
    """As `reference.categorical_ppo_loss`, for float32 on the CPU."""
    batch_size, width = logits.shape
    heads = _head_sizes((width,) if nvec is None else tuple(nvec))
    old = [_array(t) for t in (old_log_probs, advantages, returns, old_values)]
    numbers = _numbers(clip_coef, vf_coef, ent_coef, clip_vloss, dual_clip, norm_adv, normalizer)

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
            _NO_ROWS if valid is None else _array(valid),
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
    old_log_probs: Tensor,
    advantages: Tensor,
    returns: Tensor,
    old_values: Tensor,
    valid: Tensor | None = None,
    *,
    clip_coef: float,
    vf_coef: float,
    ent_coef: float,
    clip_vloss: float | None = None,
    dual_clip: float | None = None,
    norm_adv: bool = True,
    normalizer: float | Tensor | None = None,
) -> tuple[Tensor, Stats]:
    """As `reference.gaussian_ppo_loss`, for float32 on the CPU."""
    old = [_array(t) for t in (old_log_probs, advantages, returns, old_values)]
    numbers = _numbers(clip_coef, vf_coef, ent_coef, clip_vloss, dual_clip, norm_adv, normalizer)

    def run(
        mean: Tensor, log_std: Tensor, new_values: Tensor
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        d_mean = torch.empty(mean.shape)
        d_log_std = torch.empty(log_std.shape)
        d_values = torch.empty(new_values.shape)
        loss, stats = torch.empty(()), torch.empty(len(STATS))
        rows = (-1, mean.shape[1])
        gaussian_kernel(
            _array(mean),
            _array(log_std).reshape(rows),
            _array(actions),
            *old,
            _array(new_values),
            _NO_ROWS if valid is None else _array(valid),
            *numbers,
            d_mean.numpy(),
            d_log_std.numpy().reshape(rows),
            d_values.numpy(),
            loss.numpy().reshape(1),
            stats.numpy(),
        )
        return loss, stats, (d_mean, d_log_std, d_values)

    return fused_loss(run, mean, log_std, new_values)
