"""What the fused Triton losses share: the row losses within, the sums after.

A loss is two launches, or up to four: unless the caller has them, the advantages' moments come
first (`triton_moments`). The policy's own kernel writes the gradients of its rows, and leaves six
partial sums a program, that of vocabularies seven. `finish_kernel` (one program) adds those up in a
fixed order, so the same input gives the same bits; float atomics would not. Invalid rows are masked
out of the loads: whatever they hold is never read.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastppo.kernels.loss.spec import STATS
from fastppo.kernels.loss.terms import LOG_RATIO_MAX, Rows, Terms
from fastppo.kernels.loss.triton_moments import advantage_moments
from fastppo.kernels.tools.triton_options import OPTIONS

PARTIALS = 8  # floats per program, of which len(STATS) are used: tiles are powers of two
FINISH_BLOCK = 256
_LOG_RATIO_MAX = tl.constexpr(LOG_RATIO_MAX)


@triton.jit
def load_scale(moments_ptr, normalizer_ptr, normalizer):
    """1 / divisor of every sum over rows; 0 without valid rows."""
    count = tl.load(moments_ptr + 3)
    if normalizer_ptr is not None:
        divisor = tl.load(normalizer_ptr).to(tl.float32)
    else:
        normalizer = tl.cast(normalizer, tl.float32)
        divisor = tl.where(normalizer > 0, normalizer, count)
    return tl.where(count > 0, 1.0 / tl.where(count > 0, divisor, 1.0), 0.0)


@triton.jit
def _add(a0, a1, a2, a3, a4, a5, b0, b1, b2, b3, b4, b5):
    return a0 + b0, a1 + b1, a2 + b2, a3 + b3, a4 + b4, a5 + b5


@triton.jit
def bounded_exp(log_ratio):
    """e**log_ratio, at most e**LOG_RATIO_MAX; its slope is its value."""
    # inf - inf: what is infinite was so in the inputs, and must show in the loss
    bound = _LOG_RATIO_MAX + (log_ratio - log_ratio)
    return tl.exp(tl.where(log_ratio > _LOG_RATIO_MAX, bound, log_ratio))


@triton.jit
def row_terms(
    log_prob,
    row,
    ok,
    old_log_probs_ptr,
    advantages_ptr,
    returns_ptr,
    old_values_ptr,
    new_values_ptr,
    moments_ptr,
    low,
    high,
    reach,
    clip_vloss,
    dual_clip,
    NORM_ADV: tl.constexpr,
    CLIP_VLOSS: tl.constexpr,
    DUAL_CLIP: tl.constexpr,
):
    """Of each row: policy and value loss, log-ratio, ratio, whether that is clipped.

    And d policy / d log_prob, d value / d new_value. Rows that are not ok have terms of 0.
    Written with comparisons, because maximum and minimum drop NaN on the device.
    """
    old_log_prob = tl.load(old_log_probs_ptr + row, ok, other=0.0)
    advantage = tl.load(advantages_ptr + row, ok, other=0.0)
    if NORM_ADV:
        advantage = advantage - tl.load(moments_ptr) - tl.load(moments_ptr + 1)
        advantage = advantage * tl.load(moments_ptr + 2)
    log_ratio = tl.where(ok, log_prob - old_log_prob, 0.0)
    ratio = bounded_exp(log_ratio)
    outside = (ratio < low) | (ratio > high)
    clipped = tl.where(ratio < low, low, tl.where(ratio > high, high, ratio))
    unclipped_loss = -advantage * ratio
    clipped_loss = -advantage * clipped
    policy = tl.where(clipped_loss > unclipped_loss, clipped_loss, unclipped_loss)
    # At a tie torch.maximum and minimum send half of the gradient to either side.
    tie = tl.where(unclipped_loss == clipped_loss, 0.5 * unclipped_loss, 0.0)
    policy_grad = tl.where(outside & (unclipped_loss <= clipped_loss), tie, unclipped_loss)
    if DUAL_CLIP:
        worst = -dual_clip * advantage
        bounded = (advantage < 0) & (policy >= worst)
        tie = tl.where(policy == worst, 0.5 * policy_grad, 0.0)
        policy_grad = tl.where(bounded, tie, policy_grad)
        policy = tl.where(bounded, worst, policy)

    new_value = tl.load(new_values_ptr + row, ok, other=0.0)
    target = tl.load(returns_ptr + row, ok, other=0.0)
    value_grad = new_value - target
    value = value_grad * value_grad
    if CLIP_VLOSS:
        old_value = tl.load(old_values_ptr + row, ok, other=0.0)
        step = new_value - old_value
        far = (step < -clip_vloss) | (step > clip_vloss)
        step = tl.where(step < -clip_vloss, -clip_vloss, step)
        step = tl.where(step > clip_vloss, clip_vloss, step)
        near_error = old_value + step - target
        near_value = near_error * near_error
        near_grad = tl.where(far, 0.0, near_error)
        tie = tl.where(near_value == value, 0.5 * (value_grad + near_grad), value_grad)
        value_grad = tl.where(near_value > value, near_grad, tie)
        value = tl.where(near_value > value, near_value, value)
    policy = tl.where(ok, policy, 0.0)
    value = tl.where(ok, 0.5 * value, 0.0)
    # exactly 1 for a range of two equal sides
    far = ok & (tl.abs(ratio - 0.5 * (low + high)) > reach)
    return policy, value, log_ratio, ratio, far, policy_grad, value_grad


@triton.jit
def row_losses(
    log_prob,
    entropy,
    row,
    ok,
    old_log_probs_ptr,
    advantages_ptr,
    returns_ptr,
    old_values_ptr,
    new_values_ptr,
    moments_ptr,
    partials_ptr,
    low,
    high,
    reach,
    clip_vloss,
    dual_clip,
    NORM_ADV: tl.constexpr,
    CLIP_VLOSS: tl.constexpr,
    DUAL_CLIP: tl.constexpr,
):
    """Stores six sums over the rows; returns the last two of `row_terms`."""
    policy, value, log_ratio, ratio, far, policy_grad, value_grad = row_terms(
        log_prob,
        row,
        ok,
        old_log_probs_ptr,
        advantages_ptr,
        returns_ptr,
        old_values_ptr,
        new_values_ptr,
        moments_ptr,
        low,
        high,
        reach,
        clip_vloss,
        dual_clip,
        NORM_ADV,
        CLIP_VLOSS,
        DUAL_CLIP,
    )
    # One reduction of six: each of its own would make all threads wait for each other again.
    sums = tl.reduce(
        (
            policy,
            value,
            tl.where(ok, entropy, 0.0),
            ratio - 1.0 - log_ratio,
            -log_ratio,
            tl.where(far, 1.0, 0.0),
        ),
        0,
        _add,
    )
    at = partials_ptr + tl.program_id(0).to(tl.int64) * 8
    for i in tl.static_range(6):
        tl.store(at + i, sums[i])
    return policy_grad, value_grad


@triton.jit(do_not_specialize=["num_partials"])
def finish_kernel(
    partials_ptr,  # [P, 8] f32
    moments_ptr,  # [MOMENTS] f32
    normalizer_ptr,  # [] of any number type, or None
    loss_ptr,  # [] f32, written
    stats_ptr,  # [SUMS] f32, written
    num_partials,
    normalizer,  # used if above 0 and normalizer_ptr is None
    vf_coef,
    ent_coef,
    kl_coef,
    SUMS: tl.constexpr,  # 6, or 7 with the reference's divergence
    BLOCK_P: tl.constexpr,
):
    vf_coef = tl.cast(vf_coef, tl.float32)
    ent_coef = tl.cast(ent_coef, tl.float32)
    kl_coef = tl.cast(kl_coef, tl.float32)
    stat = tl.arange(0, 8).to(tl.int64)
    lane = tl.arange(0, BLOCK_P).to(tl.int64)
    # of tokens in float64: where padding stands between the rows shall change no bit
    WIDE: tl.constexpr = tl.float64 if SUMS > 6 else tl.float32
    sums = tl.zeros([BLOCK_P, 8], WIDE)
    for start in range(0, num_partials, BLOCK_P):
        at = (start + lane)[:, None]
        mask = (at < num_partials) & (stat < SUMS)[None, :]
        sums += tl.load(partials_ptr + at * 8 + stat[None, :], mask, other=0.0).to(WIDE)
    stats = tl.sum(sums, 0) * load_scale(moments_ptr, normalizer_ptr, normalizer)
    stats = stats.to(tl.float32)
    tl.store(stats_ptr + stat, stats, stat < SUMS)
    # Only the terms of the loss: 0 * inf of a statistic would make it NaN.
    terms = tl.where(stat == 0, stats, 0.0)
    terms += tl.where(stat == 1, vf_coef * stats, 0.0)
    terms -= tl.where(stat == 2, ent_coef * stats, 0.0)
    if SUMS > 6:
        terms += tl.where(stat == 6, kl_coef * stats, 0.0)
    tl.store(loss_ptr, tl.sum(terms, 0))


_FINISH_ARGUMENTS = ("moments_ptr", "normalizer_ptr", "normalizer", "vf_coef", "ent_coef")


def prepare(rows: Rows, terms: Terms) -> dict[str, Any]:
    """The keyword arguments that all loss kernels share, by name.

    Launches what finds the moments, unless the rows bring their `advantage_stats`.
    """
    rows = rows.contiguous()
    moments = rows.advantage_stats
    if moments is None:
        moments = advantage_moments(rows.advantages, rows.valid, norm_adv=terms.norm_adv)
    normalizer, clip_vloss, dual_clip = terms.normalizer, terms.clip_vloss, terms.dual_clip
    on_device = isinstance(normalizer, Tensor)
    return {
        "old_log_probs_ptr": rows.old_log_probs,
        "advantages_ptr": rows.advantages,
        "returns_ptr": rows.returns,
        "old_values_ptr": rows.old_values,
        "valid_ptr": rows.valid,
        "moments_ptr": moments,
        "normalizer_ptr": normalizer if on_device else None,
        "normalizer": 0.0 if normalizer is None or on_device else float(normalizer),
        "vf_coef": float(terms.vf_coef),
        "ent_coef": float(terms.ent_coef),
        "low": 1.0 - float(terms.clip_low),
        "high": 1.0 + float(terms.clip_high),
        "reach": terms.reach,
        "clip_vloss": 0.0 if clip_vloss is None else float(clip_vloss),
        "dual_clip": math.inf if dual_clip is None else float(dual_clip),
        "NORM_ADV": terms.norm_adv,
        "CLIP_VLOSS": clip_vloss is not None,
        "DUAL_CLIP": dual_clip is not None,
    }


def finish(
    partials: Tensor, settings: dict[str, Any], kl_coef: float | None = None
) -> tuple[Tensor, Tensor]:
    """The loss, 0-d, and STATS [6]; with `kl_coef`, which a seventh sum is weighted by, [7]."""
    sums = len(STATS) if kl_coef is None else len(STATS) + 1
    loss = torch.empty((), dtype=torch.float32, device=partials.device)
    stats = torch.empty(sums, dtype=torch.float32, device=partials.device)
    finish_kernel[(1,)](
        partials,
        loss_ptr=loss,
        stats_ptr=stats,
        num_partials=len(partials),
        kl_coef=kl_coef or 0.0,
        **{name: settings[name] for name in _FINISH_ARGUMENTS},
        SUMS=sums,
        BLOCK_P=FINISH_BLOCK,
        **OPTIONS,
    )
    return loss, stats
