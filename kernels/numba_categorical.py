"""The fused PPO loss for discrete actions on the CPU: forward, statistics, gradients in one pass.

ROWS rows at a time are transposed into a tile [W, ROWS], so that every inner loop runs over rows
and fills whole SIMD registers whatever the number of actions.
"""

import numpy as np
from numba import carray, njit

from .numba_math import LOG_MIN, NO_CHANCE, ONE, ZERO, exp_of_negative, log
from .numba_memory import OPTIONS, kernel, pointer
from .numba_rows import (
    ENTROPY,
    LANES,
    LOG_PROB,
    POLICY_GRAD,
    ROWS,
    ROWS_SIGNATURE,
    VALUE_GRAD,
    WEIGHT,
    clear_invalid,
    compute_scales,
    finish,
    load_rows,
    row_losses,
    scaled,
)


# Functions that get slices, for the reason given in numba_rows.
@njit(**OPTIONS)
def _transpose(rows, width, tile):
    for j in range(width):
        for k in range(tile.shape[1]):
            tile[j, k] = rows[k * width + j]


@njit(**OPTIONS)
def _transpose_back(tile, width, rows):
    for k in range(tile.shape[1]):
        for j in range(width):
            rows[k * width + j] = tile[j, k]


@njit(**OPTIONS)
def _forbid(allowed, width, tile):
    for j in range(width):
        for k in range(tile.shape[1]):
            tile[j, k] = tile[j, k] if allowed[k * width + j] else -np.inf


@njit(**OPTIONS)
def _raise_to(top, z):
    for k in range(ROWS):
        top[k] = z[k] if z[k] > top[k] else top[k]


@njit(**OPTIONS)
def _exponentials(z, top, e):
    """z to q = z - top, e to exp q."""
    for k in range(ROWS):
        q = z[k] - top[k]
        e[k] = exp_of_negative(q)
        # finite, so that 0 * q is no NaN
        z[k] = NO_CHANCE if q < LOG_MIN else q


@njit(**OPTIONS)
def _sums(e, q, total, weighted):
    for k in range(ROWS):
        total[k] += e[k]
        weighted[k] += e[k] * q[k]


@njit(**OPTIONS)
def _head_ends(total, weighted, inverse, shift, lane):
    for k in range(ROWS):
        log_total = log(total[k])
        inverse[k] = ONE / total[k]
        shift[k] = -weighted[k] / total[k]
        lane[LOG_PROB, k] -= log_total
        lane[ENTROPY, k] += log_total + shift[k]


@njit(**OPTIONS)
def _gradients(z, e, factor, entropy_scale, tail):
    for k in range(ROWS):
        z[k] = factor[k] * e[k] * (entropy_scale * z[k] + tail[k])


@kernel(f"void(int64, int64, int64, int64, int64, int64, int64, int64, {ROWS_SIGNATURE})")
def categorical_kernel(
    batch_size,
    width,  # W
    num_heads,  # H
    logits_address,  # [B, W] f32
    actions_address,  # [B, H] i64
    allowed_address,  # [B, W] bool, or 0 for all
    nvec_address,  # [H] i64, sums to W
    d_logits_address,  # [B, W] f32, written; may be the logits themselves
    old_log_probs_address,  # this and the next four: [B] f32
    advantages_address,
    returns_address,
    old_values_address,
    new_values_address,
    valid_address,  # [B] bool, or 0 for all
    given_stats_address,  # [4] f32 from advantage_stats, or 0
    norm_adv,
    normalizer,  # below 0: the number of valid rows
    clip_coef,
    vf_coef,
    ent_coef,
    clip_vloss,  # below 0: off
    dual_clip,  # inf: off
    d_values_address,  # [B] f32, written
    loss_address,  # [] f32, written
    stats_address,  # [6] f32, written
):
    logits = carray(pointer(logits_address), (batch_size * width,), np.float32)
    actions = carray(pointer(actions_address), (batch_size, num_heads), np.int64)
    allowed = carray(
        pointer(allowed_address), (batch_size * width if allowed_address else 0,), np.bool_
    )
    nvec = carray(pointer(nvec_address), (num_heads,), np.int64)
    old_log_probs = carray(pointer(old_log_probs_address), (batch_size,), np.float32)
    advantages = carray(pointer(advantages_address), (batch_size,), np.float32)
    returns = carray(pointer(returns_address), (batch_size,), np.float32)
    old_values = carray(pointer(old_values_address), (batch_size,), np.float32)
    new_values = carray(pointer(new_values_address), (batch_size,), np.float32)
    valid = carray(pointer(valid_address), (batch_size if valid_address else 0,), np.bool_)
    d_logits = carray(pointer(d_logits_address), (batch_size * width,), np.float32)
    d_values = carray(pointer(d_values_address), (batch_size,), np.float32)
    adv_mean, adv_rstd, scale = compute_scales(
        advantages, valid, given_stats_address, norm_adv, normalizer
    )
    policy_scale, value_scale = np.float32(scale), np.float32(vf_coef * scale)
    entropy_scale = np.float32(ent_coef * scale)

    z = np.empty((width, ROWS), np.float32)  # logits, then logits - their maximum, then gradients
    e = np.empty((width, ROWS), np.float32)  # exp of these
    chosen = np.empty((num_heads, ROWS), np.int64)  # column of the tile
    top = np.empty(ROWS, np.float32)
    total = np.empty(ROWS, np.float32)
    weighted = np.empty(ROWS, np.float32)
    inverse = np.empty((num_heads, ROWS), np.float32)  # 1 / total
    shift = np.empty((num_heads, ROWS), np.float32)  # entropy - log total
    lane = np.empty((LANES, ROWS), np.float32)
    sums = np.zeros(6, np.float64)

    for first in range(0, batch_size, ROWS):
        rows = min(ROWS, batch_size - first)
        load_rows(
            first,
            rows,
            old_log_probs,
            advantages,
            returns,
            old_values,
            new_values,
            valid,
            adv_mean,
            adv_rstd,
            lane,
        )
        block = slice(first * width, (first + rows) * width)
        if rows < ROWS:
            z[:, :] = ZERO
        _transpose(logits[block], width, z[:, :rows])
        if allowed_address:
            _forbid(allowed[block], width, z[:, :rows])
        lane[LOG_PROB, :] = ZERO
        lane[ENTROPY, :] = ZERO
        start = 0
        for h in range(num_heads):
            stop = start + nvec[h]
            for k in range(ROWS):
                action = actions[first + k, h] if lane[WEIGHT, k] > ZERO else 0
                in_range = action >= 0 and action < nvec[h]
                chosen[h, k] = start + (action if in_range else 0)
                lane[LOG_PROB, k] += ZERO if in_range else np.float32(np.nan)
            if valid_address:
                for j in range(start, stop):
                    clear_invalid(lane[WEIGHT], z[j])
            top[:] = z[start]
            total[:] = ZERO
            weighted[:] = ZERO
            for j in range(start + 1, stop):
                _raise_to(top, z[j])
            for k in range(ROWS):
                lane[LOG_PROB, k] += z[chosen[h, k], k] - top[k]
            for j in range(start, stop):
                _exponentials(z[j], top, e[j])
                _sums(e[j], z[j], total, weighted)
            _head_ends(total, weighted, inverse[h], shift[h], lane)
            start = stop

        row_losses(lane, clip_coef, clip_vloss, dual_clip, sums)

        scaled(lane[VALUE_GRAD], value_scale, d_values[first : first + rows])
        scaled(lane[POLICY_GRAD], policy_scale, lane[POLICY_GRAD])
        # d loss / d z = pg * (chosen - p) + es * p * (log p + H), and log p + H = q + shift
        start = 0
        for h in range(num_heads):
            stop = start + nvec[h]
            for k in range(ROWS):
                total[k] = inverse[h, k] * lane[WEIGHT, k]
                weighted[k] = entropy_scale * shift[h, k] - lane[POLICY_GRAD, k]
            for j in range(start, stop):
                _gradients(z[j], e[j], total, entropy_scale, weighted)
            for k in range(ROWS):
                z[chosen[h, k], k] += lane[POLICY_GRAD, k] * lane[WEIGHT, k]
            start = stop
        _transpose_back(z[:, :rows], width, d_logits[block])
    finish(sums, scale, vf_coef, ent_coef, loss_address, stats_address)
