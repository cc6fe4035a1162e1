"""The fused PPO loss for very many discrete actions on the CPU: SIMD along the row.

As many rows at a time as stay in the cache with their exponentials, but at least one: both wait
there until the rows' losses are known, and become the gradient.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

import numpy as np
from numba import carray

from fastppo.kernels.loss.numba_rows import (
    ENTROPY,
    LANES,
    LOG_PROB,
    PLAIN,
    POLICY_GRAD,
    ROWS,
    SHARE,
    VALUE_GRAD,
    WEIGHT,
    LossRows,
    compute_scales,
    copy,
    fill,
    load_rows,
    row_arrays,
)
from fastppo.kernels.loss.numba_token_rows import finish_tokens, load_token_rows, token_losses
from fastppo.kernels.tools.numba_math import ONE, ZERO, log
from fastppo.kernels.tools.numba_memory import kernel_of_records, pointer
from fastppo.kernels.tools.numba_softmax import (
    forbid,
    gradient,
    load_row,
    maximum,
    rounded,
    softmax,
)

CACHED = 32_768
"""Logits that, with their exponentials, stay in a core's cache between the two passes."""


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
    inverse_temperature: float,
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
    cooled = np.float32(inverse_temperature)

    group = max(1, min(ROWS, CACHED // width))
    z = np.empty((group, width), np.float32)  # logits, then logits - their maximum, then gradients
    e = np.empty((group, width), np.float32)  # exp of these
    inverse = np.empty((group, num_heads), np.float32)  # 1 / sum of exponentials
    shift = np.empty((group, num_heads), np.float32)  # entropy - log of that sum
    lane = np.empty((LANES, ROWS), np.float32)
    sums = np.zeros(PLAIN + 1, np.float64)

    for first in range(0, batch_size, group):
        rows = min(group, batch_size - first)
        load_rows(arrays, first, rows, adv_mean, adv_rstd, lane)
        load_token_rows(batch_size, given, first, rows, lane)
        fill(lane[LOG_PROB], ZERO)
        fill(lane[ENTROPY], ZERO)
        for k in range(rows):
            i = first + k
            if lane[WEIGHT, k] == ZERO:
                continue
            load_row(logits, halves, i, bfloat16, cooled, z[k])
            if allowed_address:
                forbid(allowed[i], z[k])
            start = 0
            for h in range(num_heads):
                head = slice(start, start + nvec[h])
                top = maximum(z[k, head])
                action = actions[i, h]
                in_range = action >= 0 and action < nvec[h]
                chosen = z[k, start + action] - top if in_range else np.float32(np.nan)
                total, weighted = softmax(z[k, head], top, e[k, head])
                log_total = log(total)
                inverse[k, h] = ONE / total
                shift[k, h] = -weighted * inverse[k, h]
                lane[ENTROPY, k] += log_total + shift[k, h]
                lane[LOG_PROB, k] += chosen - log_total
                start += nvec[h]

        token_losses(lane, given, sums)

        for k in range(rows):
            i = first + k
            d_values[i] = value_scale * lane[VALUE_GRAD, k]
            if lane[WEIGHT, k] == ZERO:
                fill(z[k], ZERO)
            else:
                policy_grad = policy_scale * lane[POLICY_GRAD, k]
                slope = entropy_scale * lane[SHARE, k]
                start = 0
                for h in range(num_heads):
                    head = slice(start, start + nvec[h])
                    tail = slope * shift[k, h] - policy_grad
                    gradient(z[k, head], e[k, head], cooled * inverse[k, h], slope, tail)
                    action = actions[i, h]
                    if action >= 0 and action < nvec[h]:
                        z[k, start + action] += cooled * policy_grad
                    start += nvec[h]
            if bfloat16:
                rounded(z[k], d_halves[i])
            else:
                copy(z[k], d_logits[i])
    finish_tokens(sums, scale, given)
