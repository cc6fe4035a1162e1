"""The fused PPO loss for very many discrete actions on the CPU: SIMD along the row.

As many rows at a time as stay in the cache with their exponentials, but at least one: both wait
there until the rows' losses are known, and become the gradient.
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
    compute_scales,
    copy,
    fill,
    finish,
    load_rows,
    row_arrays,
    row_losses,
)
from fastppo.kernels.tools.numba_math import LOG_MIN, NO_CHANCE, ONE, ZERO, exp_of_negative, log
from fastppo.kernels.tools.numba_memory import OPTIONS, SUMMING, kernel_of_records, pointer

BLOCK = 1024
"""Columns that add up in float32 before they join a float64 sum."""
CACHED = 32_768
"""Logits that, with their exponentials, stay in a core's cache between the two passes."""


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
def _forbid(allowed, z):
    for j in range(z.shape[0]):
        z[j] = z[j] if allowed[j] else -np.inf


@njit(**OPTIONS)
def _ordered(bits):
    """float32 bits to integers in the same order, and back; NaN beyond the infinities."""
    return bits ^ ((bits >> np.int32(31)) & np.int32(0x7FFFFFFF))


@njit(**OPTIONS)
def _maximum(z):
    """Largest of a row. A NaN wins, or is passed over and shows in the differences to the largest.

    By integers, because LLVM vectorises a float maximum only if it may assume that none is NaN.
    """
    bits = z.view(np.int32)
    largest = _ordered(bits[0])
    for j in range(1, bits.shape[0]):
        key = _ordered(bits[j])
        largest = key if key > largest else largest
    return np.int32(_ordered(largest)).view(np.float32)


@njit(**OPTIONS)
def _exponentials(z, top, e):
    """z to q = z - top, e to exp q."""
    for j in range(z.shape[0]):
        q = z[j] - top
        e[j] = exp_of_negative(q)
        # finite, so that 0 * q is no NaN
        z[j] = NO_CHANCE if q < LOG_MIN else q


# "reassoc" must not reach into an exponential, so the terms are stored before they are added
@njit(**SUMMING)
def _sum(e):
    total = ZERO
    for j in range(e.shape[0]):
        total += e[j]
    return np.float64(total)


@njit(**SUMMING)
def _weighted_sum(e, q):
    total = ZERO
    for j in range(e.shape[0]):
        total += e[j] * q[j]
    return np.float64(total)


@njit(**OPTIONS)
def _softmax(z, top, e):
    """`_exponentials`, and the sums of e and e * q over the row."""
    total, weighted = 0.0, 0.0
    for first in range(0, z.shape[0], BLOCK):
        q, p = z[first : first + BLOCK], e[first : first + BLOCK]
        _exponentials(q, top, p)
        total += _sum(p)
        weighted += _weighted_sum(p, q)
    return np.float32(total), np.float32(weighted)


@njit(**OPTIONS)
def _gradient(z, e, factor, entropy_scale, tail):
    for j in range(z.shape[0]):
        z[j] = factor * e[j] * (entropy_scale * z[j] + tail)


@kernel_of_records
def vocab_kernel(
    batch_size: int,
    width: int,  # W
    num_heads: int,  # H
    logits_address: int,  # [B, W] f32, or bf16 as u16
    bfloat16: bool,
    actions_address: int,  # [B, H] i64
    allowed_address: int,  # [B, W] bool, or 0 for all
    nvec_address: int,  # [H] i64, sums to W
    d_logits_address: int,  # as the logits, written; may be the logits themselves
    given: LossRows,
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
    arrays = row_arrays(batch_size, given)
    d_values = carray(pointer(given.d_values), (batch_size,), np.float32)
    adv_mean, adv_rstd, scale = compute_scales(arrays, given)
    policy_scale, value_scale = np.float32(scale), np.float32(given.vf_coef * scale)
    entropy_scale = np.float32(given.ent_coef * scale)

    group = max(1, min(ROWS, CACHED // width))
    z = np.empty((group, width), np.float32)  # logits, then logits - their maximum, then gradients
    e = np.empty((group, width), np.float32)  # exp of these
    inverse = np.empty((group, num_heads), np.float32)  # 1 / sum of exponentials
    shift = np.empty((group, num_heads), np.float32)  # entropy - log of that sum
    lane = np.empty((LANES, ROWS), np.float32)
    sums = np.zeros(6, np.float64)

    for first in range(0, batch_size, group):
        rows = min(group, batch_size - first)
        load_rows(arrays, first, rows, adv_mean, adv_rstd, lane)
        fill(lane[LOG_PROB], ZERO)
        fill(lane[ENTROPY], ZERO)
        for k in range(rows):
            i = first + k
            if lane[WEIGHT, k] == ZERO:
                continue
            if bfloat16:
                _widened(halves[i], z[k])
            else:
                copy(logits[i], z[k])
            if allowed_address:
                _forbid(allowed[i], z[k])
            start = 0
            for h in range(num_heads):
                head = slice(start, start + nvec[h])
                top = _maximum(z[k, head])
                action = actions[i, h]
                in_range = action >= 0 and action < nvec[h]
                chosen = z[k, start + action] - top if in_range else np.float32(np.nan)
                total, weighted = _softmax(z[k, head], top, e[k, head])
                log_total = log(total)
                inverse[k, h] = ONE / total
                shift[k, h] = -weighted * inverse[k, h]
                lane[ENTROPY, k] += log_total + shift[k, h]
                lane[LOG_PROB, k] += chosen - log_total
                start += nvec[h]

        row_losses(lane, given, sums)

        for k in range(rows):
            i = first + k
            d_values[i] = value_scale * lane[VALUE_GRAD, k]
            if lane[WEIGHT, k] == ZERO:
                fill(z[k], ZERO)
            else:
                policy_grad = policy_scale * lane[POLICY_GRAD, k]
                start = 0
                for h in range(num_heads):
                    head = slice(start, start + nvec[h])
                    tail = entropy_scale * shift[k, h] - policy_grad
                    _gradient(z[k, head], e[k, head], inverse[k, h], entropy_scale, tail)
                    action = actions[i, h]
                    if action >= 0 and action < nvec[h]:
                        z[k, start + action] += policy_grad
                    start += nvec[h]
            if bfloat16:
                _rounded(z[k], d_halves[i])
            else:
                copy(z[k], d_logits[i])
    finish(sums, scale, given)
