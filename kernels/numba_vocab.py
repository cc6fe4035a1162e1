"""The fused PPO loss for very many discrete actions on the CPU: SIMD along the row.

Each row is read twice: once for its maximum and its sums, and, when its loss is known, once more
for the gradient. The exponentials are computed again rather than kept: a row of 131,072 and its
exponentials leave the cache together, one alone stays.
"""

import numpy as np
from numba import carray, njit

from .numba_math import LOG_MIN, NO_CHANCE, ONE, ZERO, exp_of_negative, log
from .numba_memory import OPTIONS, SUMMING, kernel, pointer
from .numba_rows import (
    ENTROPY,
    LANES,
    LOG_PROB,
    POLICY_GRAD,
    ROWS,
    ROWS_SIGNATURE,
    VALUE_GRAD,
    WEIGHT,
    compute_scales,
    finish,
    load_rows,
    row_losses,
)

BLOCK = 1024
"""Columns that add up in float32 before they join a float64 sum."""


@njit(**OPTIONS)
def _widened(halves, out):
    """bfloat16 bits to float32."""
    for j in range(out.shape[0]):
        out[j] = np.int32(np.int32(halves[j]) << np.int32(16)).view(np.float32)


@njit(**OPTIONS)
def _rounded(values, out):
    """float32 to bfloat16 bits, to nearest even; NaN stays NaN."""
    for j in range(out.shape[0]):
        bits = np.float32(values[j]).view(np.int32)
        odd = (bits >> np.int32(16)) & np.int32(1)
        near = np.int32(bits + np.int32(0x7FFF) + odd) >> np.int32(16)
        out[j] = np.uint16(0x7FC0 if values[j] != values[j] else near)


@njit(**OPTIONS)
def _raise_to(top, values):
    for x in range(values.shape[0]):
        top[x] = values[x] if values[x] > top[x] else top[x]


@njit(**OPTIONS)
def _maximum(z, top):
    """Largest of a row, -inf if there is none; top: [BLOCK] scratch.

    A NaN never wins; it survives as the difference to whatever did.
    """
    top[:] = -np.inf
    for first in range(0, z.shape[0], BLOCK):
        block = z[first : first + BLOCK]
        _raise_to(top[: block.shape[0]], block)
    largest = top[0]
    for x in range(1, min(BLOCK, z.shape[0])):
        largest = top[x] if top[x] > largest else largest
    return largest


@njit(**OPTIONS)
def _exponentials(z, top, p, pq):
    """p = exp q and p * q of q = z - top."""
    for j in range(z.shape[0]):
        q = z[j] - top
        p[j] = exp_of_negative(q)
        # finite, so that 0 * q is no NaN
        pq[j] = p[j] * (NO_CHANCE if q < LOG_MIN else q)


@njit(**SUMMING)
def _sum(values):
    total = ZERO
    for j in range(values.shape[0]):
        total += values[j]
    return np.float64(total)


# "reassoc" must not reach into an exponential, so what is added up is written down first
@njit(**OPTIONS)
def _sums(z, top, p, pq):
    """Sums of p and p * q over a row; p, pq: [BLOCK] scratch."""
    total, weighted = 0.0, 0.0
    for first in range(0, z.shape[0], BLOCK):
        block = z[first : first + BLOCK]
        size = block.shape[0]
        _exponentials(block, top, p[:size], pq[:size])
        total += _sum(p[:size])
        weighted += _sum(pq[:size])
    return np.float32(total), np.float32(weighted)


@njit(**OPTIONS)
def _gradient(z, top, entropy_scale, shift, factor):
    """z to factor * p * (entropy_scale * q + shift)."""
    for j in range(z.shape[0]):
        q = z[j] - top
        p = exp_of_negative(q)
        q = NO_CHANCE if q < LOG_MIN else q
        z[j] = factor * p * (entropy_scale * q + shift)


@kernel(f"void(int64, int64, int64, int64, boolean, int64, int64, int64, int64, {ROWS_SIGNATURE})")
def vocab_kernel(
    batch_size,
    width,  # W
    num_heads,  # H
    logits_address,  # [B, W] f32, or bf16 as u16
    bfloat16,
    actions_address,  # [B, H] i64
    allowed_address,  # [B, W] bool, or 0 for all
    nvec_address,  # [H] i64, sums to W
    d_logits_address,  # as the logits, written; may be the logits themselves
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
    wide, narrow = (0, batch_size) if bfloat16 else (batch_size, 0)
    logits = carray(pointer(logits_address), (wide, width), np.float32)
    halves = carray(pointer(logits_address), (narrow, width), np.uint16)
    d_logits = carray(pointer(d_logits_address), (wide, width), np.float32)
    d_halves = carray(pointer(d_logits_address), (narrow, width), np.uint16)
    actions = carray(pointer(actions_address), (batch_size, num_heads), np.int64)
    allowed = carray(
        pointer(allowed_address), (batch_size if allowed_address else 0, width), np.bool_
    )
    nvec = carray(pointer(nvec_address), (num_heads,), np.int64)
    old_log_probs = carray(pointer(old_log_probs_address), (batch_size,), np.float32)
    advantages = carray(pointer(advantages_address), (batch_size,), np.float32)
    returns = carray(pointer(returns_address), (batch_size,), np.float32)
    old_values = carray(pointer(old_values_address), (batch_size,), np.float32)
    new_values = carray(pointer(new_values_address), (batch_size,), np.float32)
    valid = carray(pointer(valid_address), (batch_size if valid_address else 0,), np.bool_)
    d_values = carray(pointer(d_values_address), (batch_size,), np.float32)
    adv_mean, adv_rstd, scale = compute_scales(
        advantages, valid, given_stats_address, norm_adv, normalizer
    )
    policy_scale, value_scale = np.float32(scale), np.float32(vf_coef * scale)
    entropy_scale = np.float32(ent_coef * scale)

    row = np.empty(width, np.float32)
    p, pq = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    top = np.empty((ROWS, num_heads), np.float32)
    inverse = np.empty((ROWS, num_heads), np.float32)  # 1 / sum of exponentials
    shift = np.empty((ROWS, num_heads), np.float32)  # entropy - log of that sum
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
        lane[LOG_PROB, :] = ZERO
        lane[ENTROPY, :] = ZERO
        for k in range(rows):
            i = first + k
            if lane[WEIGHT, k] == ZERO:
                continue
            if bfloat16:
                _widened(halves[i], row)
            else:
                row[:] = logits[i]
            if allowed_address:
                for j in range(width):
                    row[j] = row[j] if allowed[i, j] else -np.inf
            start = 0
            for h in range(num_heads):
                z = row[start : start + nvec[h]]
                top[k, h] = _maximum(z, p)
                total, weighted = _sums(z, top[k, h], p, pq)
                log_total = log(total)
                inverse[k, h] = ONE / total
                shift[k, h] = -weighted * inverse[k, h]
                lane[ENTROPY, k] += log_total + shift[k, h]
                action = actions[i, h]
                if action >= 0 and action < nvec[h]:
                    lane[LOG_PROB, k] += z[action] - top[k, h] - log_total
                else:
                    lane[LOG_PROB, k] = np.nan
                start += nvec[h]

        row_losses(lane, clip_coef, clip_vloss, dual_clip, sums)

        for k in range(rows):
            i = first + k
            d_values[i] = value_scale * lane[VALUE_GRAD, k]
            if lane[WEIGHT, k] == ZERO:
                row[:] = ZERO
            else:
                if bfloat16:
                    _widened(halves[i], row)
                else:
                    row[:] = logits[i]
                if allowed_address:
                    for j in range(width):
                        row[j] = row[j] if allowed[i, j] else -np.inf
                policy_grad = policy_scale * lane[POLICY_GRAD, k]
                start = 0
                for h in range(num_heads):
                    z = row[start : start + nvec[h]]
                    tail = entropy_scale * shift[k, h] - policy_grad
                    _gradient(z, top[k, h], entropy_scale, tail, inverse[k, h])
                    action = actions[i, h]
                    if action >= 0 and action < nvec[h]:
                        z[action] += policy_grad
                    start += nvec[h]
            if bfloat16:
                _rounded(row, d_halves[i])
            else:
                d_logits[i] = row
    finish(sums, scale, vf_coef, ent_coef, loss_address, stats_address)
