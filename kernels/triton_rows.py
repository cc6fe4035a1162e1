"""What both fused Triton losses share: the scales before, the row losses within, the sums after.

A loss is three launches. `scales_kernel` (one program) reads the advantages and leaves their mean
and spread and the divisor on the device. The policy's own kernel maps one program to BLOCK_B rows,
writes their gradients, and leaves six partial sums. `finish_kernel` (one program) adds those up in
a fixed order, so the same input gives the same bits; float atomics would not. Invalid rows are
masked out of the loads: whatever they hold is never read.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from .reference import STATS
from .terms import Rows, Terms

SCALES = 4  # floats that scales_kernel writes
PARTIALS = 8  # floats per program, of which len(STATS) are used: tiles are powers of two
SCALES_BLOCK = 1024
FINISH_BLOCK = 256


@triton.jit
def load_ok(valid_ptr, row, in_range):
    """Which of the rows are valid rows of the batch."""
    ok = in_range
    if valid_ptr is not None:
        ok = ok & (tl.load(valid_ptr + row, in_range, other=0) != 0)
    return ok


@triton.jit(do_not_specialize=["batch_size"])
def scales_kernel(
    advantages_ptr,  # [B] f32
    valid_ptr,  # [B] bool, or None for all
    normalizer_ptr,  # [] of any number type, or None
    scales_ptr,  # [SCALES] f32, written: mean, its correction, 1 / (std + 1e-8), 1 / divisor
    batch_size,
    normalizer,  # used if above 0 and normalizer_ptr is None
    NORM_ADV: tl.constexpr,
    BLOCK_B: tl.constexpr,
):
    normalizer = tl.cast(normalizer, tl.float32)
    lane = tl.arange(0, BLOCK_B).to(tl.int64)
    counts = tl.zeros([BLOCK_B], tl.float32)
    totals = tl.zeros([BLOCK_B], tl.float32)
    for start in range(0, batch_size, BLOCK_B):
        row = start + lane
        ok = load_ok(valid_ptr, row, row < batch_size)
        counts += tl.where(ok, 1.0, 0.0)
        totals += tl.load(advantages_ptr + row, ok, other=0.0)
    count = tl.sum(counts, 0)
    at_least_one = tl.where(count > 0, count, 1.0)

    mean = 0.0
    correction = 0.0
    rstd = 1.0
    if NORM_ADV:
        rounded = tl.sum(totals, 0) / at_least_one
        # Centred by the rounded mean, the second sum holds what rounding took from it.
        totals = tl.zeros([BLOCK_B], tl.float32)
        squares = tl.zeros([BLOCK_B], tl.float32)
        for start in range(0, batch_size, BLOCK_B):
            row = start + lane
            ok = load_ok(valid_ptr, row, row < batch_size)
            centred = tl.where(ok, tl.load(advantages_ptr + row, ok, other=0.0) - rounded, 0.0)
            totals += centred
            squares += centred * centred
        total = tl.sum(totals, 0)
        at_least_two = tl.where(count > 1, count, 2.0)
        variance = (tl.sum(squares, 0) - total * (total / at_least_one)) / (at_least_two - 1.0)
        variance = tl.where(variance < 0, 0.0, variance)
        mean = tl.where(count > 1, rounded, 0.0)
        correction = tl.where(count > 1, total / at_least_one, 0.0)
        rstd = tl.where(count > 1, 1.0 / (tl.sqrt(variance) + 1e-8), 1.0)
    if normalizer_ptr is not None:
        divisor = tl.load(normalizer_ptr).to(tl.float32)
    else:
        divisor = tl.where(normalizer > 0, normalizer, count)
    divisor = tl.where(count > 0, divisor, 1.0)
    tl.store(scales_ptr, mean)
    tl.store(scales_ptr + 1, correction)
    tl.store(scales_ptr + 2, rstd)
    tl.store(scales_ptr + 3, tl.where(count > 0, 1.0 / divisor, 0.0))


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
    scales_ptr,
    partials_ptr,
    low,
    high,
    clip_coef,
    clip_vloss,
    dual_clip,
    CLIP_VLOSS: tl.constexpr,
    DUAL_CLIP: tl.constexpr,
):
    """Stores six sums over the rows; returns d policy / d log_prob and d value / d new_value [B].

    Written with comparisons, because maximum and minimum drop NaN on the device.
    """
    old_log_prob = tl.load(old_log_probs_ptr + row, ok, other=0.0)
    advantage = tl.load(advantages_ptr + row, ok, other=0.0)
    advantage = (advantage - tl.load(scales_ptr) - tl.load(scales_ptr + 1)) * tl.load(
        scales_ptr + 2
    )
    log_ratio = tl.where(ok, log_prob - old_log_prob, 0.0)
    ratio = tl.exp(log_ratio)
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

    at = partials_ptr + tl.program_id(0).to(tl.int64) * 8
    deviation = tl.abs(ratio - 1.0)
    tl.store(at, tl.sum(tl.where(ok, policy, 0.0), 0))
    tl.store(at + 1, tl.sum(tl.where(ok, 0.5 * value, 0.0), 0))
    tl.store(at + 2, tl.sum(tl.where(ok, entropy, 0.0), 0))
    tl.store(at + 3, tl.sum(ratio - 1.0 - log_ratio, 0))
    tl.store(at + 4, tl.sum(-log_ratio, 0))
    tl.store(at + 5, tl.sum(tl.where(ok & (deviation > clip_coef), 1.0, 0.0), 0))
    return policy_grad, value_grad


@triton.jit(do_not_specialize=["num_partials"])
def finish_kernel(
    partials_ptr,  # [P, 8] f32
    scales_ptr,  # [SCALES] f32
    loss_ptr,  # [] f32, written
    stats_ptr,  # [6] f32, written
    num_partials,
    vf_coef,
    ent_coef,
    BLOCK_P: tl.constexpr,
):
    vf_coef = tl.cast(vf_coef, tl.float32)
    ent_coef = tl.cast(ent_coef, tl.float32)
    stat = tl.arange(0, 8)
    lane = tl.arange(0, BLOCK_P)
    sums = tl.zeros([BLOCK_P, 8], tl.float32)
    for start in range(0, num_partials, BLOCK_P):
        at = (start + lane)[:, None]
        mask = (at < num_partials) & (stat < 6)[None, :]
        sums += tl.load(partials_ptr + at * 8 + stat[None, :], mask, other=0.0)
    stats = tl.sum(sums, 0) * tl.load(scales_ptr + 3)
    tl.store(stats_ptr + stat, stats, stat < 6)
    # Only the terms of the loss: 0 * inf of a statistic would make it NaN.
    terms = tl.where(stat == 0, stats, 0.0)
    terms += tl.where(stat == 1, vf_coef * stats, 0.0)
    terms -= tl.where(stat == 2, ent_coef * stats, 0.0)
    tl.store(loss_ptr, tl.sum(terms, 0))


def launch_scales(rows: Rows, terms: Terms) -> Tensor:
    """[SCALES]: what scales_kernel leaves for the other two. The rows are contiguous."""
    advantages, normalizer = rows.advantages, terms.normalizer
    scales = torch.empty(SCALES, device=advantages.device)
    on_device = isinstance(normalizer, Tensor)
    scales_kernel[(1,)](
        advantages,
        rows.valid,
        normalizer if on_device else None,
        scales,
        len(advantages),
        0.0 if normalizer is None or on_device else float(normalizer),
        NORM_ADV=terms.norm_adv,
        BLOCK_B=SCALES_BLOCK,
    )
    return scales


def launch_finish(partials: Tensor, scales: Tensor, terms: Terms) -> tuple[Tensor, Tensor]:
    """The loss, 0-d, and STATS [6]."""
    loss = torch.empty((), device=partials.device)
    stats = torch.empty(len(STATS), device=partials.device)
    finish_kernel[(1,)](
        partials,
        scales,
        loss,
        stats,
        len(partials),
        float(terms.vf_coef),
        float(terms.ent_coef),
        BLOCK_P=FINISH_BLOCK,
    )
    return loss, stats


def row_settings(terms: Terms) -> dict[str, float | bool]:
    """Keyword arguments of a loss kernel that `row_losses` needs."""
    clip_vloss, dual_clip = terms.clip_vloss, terms.dual_clip
    return {
        "low": 1.0 - terms.clip_coef,
        "high": 1.0 + terms.clip_coef,
        "clip_coef": float(terms.clip_coef),
        "clip_vloss": 0.0 if clip_vloss is None else float(clip_vloss),
        "dual_clip": math.inf if dual_clip is None else float(dual_clip),
        "CLIP_VLOSS": clip_vloss is not None,
        "DUAL_CLIP": dual_clip is not None,
    }
