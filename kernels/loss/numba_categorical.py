"""The fused PPO loss for discrete actions on the CPU: forward, statistics, gradients in one pass.

ROWS rows at a time are transposed into a tile [W, ROWS], so that every inner loop runs over rows
and fills whole SIMD registers whatever the number of actions.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

import numpy as np
from numba import carray, njit

from fastppo.kernels.loss.numba_rows import (
    ENTROPY,
    LANES,
    LOG_PROB,
    POLICY_GRAD,
    ROWS,
    VALUE_GRAD,
    WEIGHT,
    LossRows,
    clear_invalid,
    compute_scales,
    copy,
    fill,
    finish,
    load_rows,
    row_arrays,
    row_losses,
    scaled,
)
from fastppo.kernels.tools.numba_math import LOG_MIN, NO_CHANCE, ONE, ZERO, exp_of_negative, log
from fastppo.kernels.tools.numba_memory import OPTIONS, SIZE, fetch, kernel_of_records, pointer
from fastppo.kernels.tools.numba_transpose import from_tile, to_tile


# Functions that get slices, for the reason given in numba_rows.
@njit(**OPTIONS)
def _forbid(allowed, width, tile):
    for j in range(width):
        for k in range(tile.shape[1]):
            tile[j, k] = tile[j, k] if allowed[k * width + j] else -np.inf


@njit(**OPTIONS)
def _maxima(z, top):
    copy(z[0], top)
    for j in range(1, z.shape[0]):
        for k in range(ROWS):
            top[k] = z[j, k] if z[j, k] > top[k] else top[k]


@njit(**OPTIONS)
def _exponentials(z, top, e, total, weighted, ahead):
    """z to q = z - top, e to exp q; sums of exp q and q exp q; `ahead` is prefetched."""
    fill(total, ZERO)
    fill(weighted, ZERO)
    for j in range(z.shape[0]):
        fetch(ahead + j * ROWS * SIZE, ROWS * SIZE)
        for k in range(ROWS):
            q = z[j, k] - top[k]
            p = exp_of_negative(q)
            # finite, so that 0 * q is no NaN
            q = NO_CHANCE if q < LOG_MIN else q
            e[j, k] = p
            z[j, k] = q
            total[k] += p
            weighted[k] += p * q


@njit(**OPTIONS)
def _head_ends(total, weighted, inverse, shift, lane):
    for k in range(ROWS):
        log_total = log(total[k])
        inverse[k] = ONE / total[k]
        shift[k] = -weighted[k] / total[k]
        lane[LOG_PROB, k] -= log_total
        lane[ENTROPY, k] += log_total + shift[k]


@njit(**OPTIONS)
def _slopes(inverse, shift, entropy_scale, lane, factor, tail):
    for k in range(ROWS):
        factor[k] = inverse[k] * lane[WEIGHT, k]
        tail[k] = entropy_scale * shift[k] - lane[POLICY_GRAD, k]


@njit(**OPTIONS)
def _gradients(z, e, factor, entropy_scale, tail, ahead):
    """q to factor * exp q * (entropy_scale * q + tail); `ahead` is prefetched."""
    for j in range(z.shape[0]):
        fetch(ahead + j * ROWS * SIZE, ROWS * SIZE)
        for k in range(ROWS):
            z[j, k] = factor[k] * e[j, k] * (entropy_scale * z[j, k] + tail[k])


@kernel_of_records
def categorical_kernel(
    batch_size: int,
    width: int,  # W
    num_heads: int,  # H
    logits_address: int,  # [B, W] f32
    actions_address: int,  # [B, H] i64
    allowed_address: int,  # [B, W] bool, or 0 for all
    nvec_address: int,  # [H] i64, sums to W
    d_logits_address: int,  # [B, W] f32, written; may be the logits themselves
    given: LossRows,
):
    logits = carray(pointer(logits_address), (batch_size * width,), np.float32)
    actions = carray(pointer(actions_address), (batch_size, num_heads), np.int64)
    allowed = carray(
        pointer(allowed_address), (batch_size * width if allowed_address else 0,), np.bool_
    )
    nvec = carray(pointer(nvec_address), (num_heads,), np.int64)
    arrays = row_arrays(batch_size, given)
    d_logits = carray(pointer(d_logits_address), (batch_size * width,), np.float32)
    d_values = carray(pointer(given.d_values), (batch_size,), np.float32)
    adv_mean, adv_rstd, scale = compute_scales(arrays, given)
    policy_scale, value_scale = np.float32(scale), np.float32(given.vf_coef * scale)
    entropy_scale = np.float32(given.ent_coef * scale)

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
        load_rows(arrays, first, rows, adv_mean, adv_rstd, lane)
        next_tile = (first + ROWS) * width * SIZE
        block = slice(first * width, (first + rows) * width)
        if rows < ROWS:
            z[:, :] = ZERO
        to_tile(logits[block], width, z)
        if allowed_address:
            _forbid(allowed[block], width, z[:, :rows])
        fill(lane[LOG_PROB], ZERO)
        fill(lane[ENTROPY], ZERO)
        start = 0
        for h in range(num_heads):
            stop = start + nvec[h]
            if given.valid:
                for j in range(start, stop):
                    clear_invalid(lane[WEIGHT], z[j])
            _maxima(z[start:stop], top)
            for k in range(rows):
                action = actions[first + k, h]
                in_range = action >= 0 and action < nvec[h]
                chosen[h, k] = start + (action if in_range else 0)
                log_prob = z[chosen[h, k], k] - top[k]
                lane[LOG_PROB, k] += log_prob if in_range else np.float32(np.nan)
            ahead = next_tile + start * ROWS * SIZE
            _exponentials(
                z[start:stop], top, e[start:stop], total, weighted, logits_address + ahead
            )
            _head_ends(total, weighted, inverse[h], shift[h], lane)
            start = stop

        row_losses(lane, given, sums)

        scaled(lane[VALUE_GRAD], value_scale, d_values[first : first + rows])
        scaled(lane[POLICY_GRAD], policy_scale, lane[POLICY_GRAD])
        # d loss / d z = pg * (chosen - p) + es * p * (log p + H), and log p + H = q + shift
        start = 0
        for h in range(num_heads):
            stop = start + nvec[h]
            _slopes(inverse[h], shift[h], entropy_scale, lane, total, weighted)
            ahead = next_tile + start * ROWS * SIZE
            _gradients(
                z[start:stop],
                e[start:stop],
                total,
                entropy_scale,
                weighted,
                d_logits_address + ahead,
            )
            for k in range(rows):
                z[chosen[h, k], k] += lane[POLICY_GRAD, k] * lane[WEIGHT, k]
            start = stop
        from_tile(z, width, d_logits[block])
    finish(sums, scale, given)
