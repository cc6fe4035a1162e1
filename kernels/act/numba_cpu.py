"""Acting on the CPU: noise, choice, log-probability and entropy in one pass over the rows.

ROWS rows at a time are columns of a tile [width, ROWS], so that every inner loop runs over rows and
fills whole SIMD registers, however few the actions. Rows that pad the last tile repeat the last row
and are not stored. Logarithms and sums are those of the losses, in their order: the first update on
fresh data finds ratios of 1. One thread: a second one never paid (docs/performance.md).
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from numba import carray
from torch import Tensor

from fastppo.kernels.act.drawn import Drawn
from fastppo.kernels.tools.numba_math import HALF, LOG_MIN, ZERO, exp, exp_of_negative, log
from fastppo.kernels.tools.numba_memory import address, dense, kernel, pointer
from fastppo.kernels.tools.numba_philox import ROWS, gumbel, load_envs, normals, uniforms
from fastppo.kernels.tools.philox import Counter

_NO_NUMBER = np.float32(-math.inf)
_HALF_LOG_2PI = np.float32(0.5 * math.log(2.0 * math.pi))


@kernel("void(" + ", ".join(["int64"] * 13) + ")")
def categorical_kernel(
    num_rows,
    width,
    num_heads,
    key,
    step,
    first_env,
    logits_at,  # [B, W] f32
    allowed_at,  # [B, W] bool, or 0 for all
    nvec_at,  # [H] i64, sums to W
    env_ids_at,  # [B] i64, or 0 to count from first_env
    actions_at,  # [B, H] i64, written
    log_probs_at,  # [B] f32, written
    entropy_at,  # [B] f32, written, or 0
):
    shape = (num_rows, width)
    logits = carray(pointer(logits_at), shape, np.float32)
    allowed = carray(pointer(allowed_at), shape if allowed_at else (0, width), np.bool_)
    nvec = carray(pointer(nvec_at), num_heads, np.int64)
    env_ids = carray(pointer(env_ids_at), num_rows if env_ids_at else 0, np.int64)
    actions = carray(pointer(actions_at), (num_rows, num_heads), np.int64)
    log_probs = carray(pointer(log_probs_at), num_rows, np.float32)
    entropies = carray(pointer(entropy_at), num_rows if entropy_at else 0, np.float32)
    z = np.empty((width, ROWS), np.float32)
    u = np.empty((4, ROWS), np.float32)
    envs = np.empty(ROWS, np.uint32)
    choice = np.empty(ROWS, np.int32)
    lane = np.empty((7, ROWS), np.float32)
    log_prob, entropy, best, chosen, top, total, weighted = lane
    for first in range(0, num_rows, ROWS):
        rows = min(ROWS, num_rows - first)
        load_envs(first, num_rows, first_env, env_ids, envs)
        for k in range(ROWS):
            row = first + min(k, rows - 1)
            for j in range(width):
                z[j, k] = logits[row, j]
            if allowed_at:
                for j in range(width):
                    z[j, k] = z[j, k] if allowed[row, j] else _NO_NUMBER
            log_prob[k] = ZERO
            entropy[k] = ZERO
        start = 0
        for h in range(num_heads):
            stop = start + nvec[h]
            for k in range(ROWS):
                best[k] = _NO_NUMBER
                choice[k] = 0
                chosen[k] = z[start, k]
                top[k] = z[start, k]
                total[k] = ZERO
                weighted[k] = ZERO
            for j in range(start, stop):
                if j == start or j & 3 == 0:
                    uniforms(envs, step, key, j >> 2, u)
                index = np.int32(j - start)
                number = u[j & 3]
                for k in range(ROWS):
                    logit = z[j, k]
                    perturbed = logit + gumbel(number[k])
                    better = perturbed > best[k]
                    best[k] = perturbed if better else best[k]
                    choice[k] = index if better else choice[k]
                    chosen[k] = logit if better else chosen[k]
                    top[k] = logit if logit > top[k] else top[k]
            for j in range(start, stop):
                for k in range(ROWS):
                    q = z[j, k] - top[k]
                    p = exp_of_negative(q)
                    total[k] += p
                    # 0 * -inf would be NaN
                    weighted[k] += p * (LOG_MIN if q < LOG_MIN else q)
            for k in range(ROWS):
                log_total = log(total[k])
                log_prob[k] = log_prob[k] + (chosen[k] - top[k]) - log_total
                entropy[k] += log_total - weighted[k] / total[k]
            for k in range(rows):
                actions[first + k, h] = choice[k]
            start = stop
        for k in range(rows):
            log_probs[first + k] = log_prob[k]
        if entropy_at:
            for k in range(rows):
                entropies[first + k] = entropy[k]


@kernel("void(" + ", ".join(["int64"] * 12) + ")")
def gaussian_kernel(
    num_rows,
    width,
    shared,  # whether all rows share one log_std
    key,
    step,
    first_env,
    mean_at,  # [B, D] f32
    log_std_at,  # [D] or [B, D] f32
    env_ids_at,  # [B] i64, or 0 to count from first_env
    actions_at,  # [B, D] f32, written
    log_probs_at,  # [B] f32, written
    entropy_at,  # [B] f32, written, or 0
):
    shape = (num_rows, width)
    means = carray(pointer(mean_at), shape, np.float32)
    log_stds = carray(pointer(log_std_at), (1 if shared else num_rows, width), np.float32)
    env_ids = carray(pointer(env_ids_at), num_rows if env_ids_at else 0, np.int64)
    actions = carray(pointer(actions_at), shape, np.float32)
    log_probs = carray(pointer(log_probs_at), num_rows, np.float32)
    entropies = carray(pointer(entropy_at), num_rows if entropy_at else 0, np.float32)
    pairs = (width + 1) >> 1
    blocks = (2 * pairs + 3) >> 2
    noise = np.empty((4 * blocks, ROWS), np.float32)  # uniform, then normal numbers
    mean = np.empty((width, ROWS), np.float32)
    log_std = np.empty((width, ROWS), np.float32)
    std = np.empty((width, ROWS), np.float32)
    inverse = np.empty((width, ROWS), np.float32)
    envs = np.empty(ROWS, np.uint32)
    squares = np.empty(ROWS, np.float32)
    total = np.empty(ROWS, np.float32)  # of the log_std
    constant = np.float32(width) * _HALF_LOG_2PI
    for first in range(0, num_rows, ROWS):
        rows = min(ROWS, num_rows - first)
        load_envs(first, num_rows, first_env, env_ids, envs)
        for k in range(ROWS):
            row = first + min(k, rows - 1)
            for j in range(width):
                mean[j, k] = means[row, j]
            squares[k] = ZERO
        if first == 0 or not shared:
            for k in range(ROWS):
                row = 0 if shared else first + min(k, rows - 1)
                for j in range(width):
                    log_std[j, k] = log_stds[row, j]
                total[k] = ZERO
            for j in range(width):
                for k in range(ROWS):
                    total[k] += log_std[j, k]
                    std[j, k] = exp(log_std[j, k])
                    inverse[j, k] = exp(-log_std[j, k])
        for block in range(blocks):
            uniforms(envs, step, key, block, noise[4 * block : 4 * block + 4])
        for j in range(pairs):
            for k in range(ROWS):
                noise[j, k], noise[pairs + j, k] = normals(noise[j, k], noise[pairs + j, k])
        for j in range(width):
            for k in range(ROWS):
                action = mean[j, k] + std[j, k] * noise[j, k]
                noise[j, k] = action
                scaled = (action - mean[j, k]) * inverse[j, k]
                squares[k] -= HALF * scaled * scaled
        for k in range(rows):
            for j in range(width):
                actions[first + k, j] = noise[j, k]
            log_probs[first + k] = squares[k] - (total[k] + constant)
        if entropy_at:
            for k in range(rows):
                entropies[first + k] = total[k] + (np.float32(width) * HALF + constant)


@cache
def _head_sizes(nvec: tuple[int, ...]) -> Tensor:
    return torch.tensor(nvec, dtype=torch.int64, device="cpu")


def categorical(
    logits: Tensor,
    counter: Counter,
    nvec: Sequence[int],
    action_mask: Tensor | None,
    out: Drawn,
) -> None:
    """As `spec.categorical`, for float32 and bfloat16 on the CPU."""
    logits = dense(logits.float())
    allowed = None if action_mask is None else dense(action_mask)
    env_ids = None if counter.env_ids is None else dense(counter.env_ids)
    categorical_kernel(
        *logits.shape,
        len(nvec),
        counter.key,
        int(counter.step),
        counter.first_env,
        address(logits),
        address(allowed),
        address(_head_sizes(tuple(nvec))),
        address(env_ids),
        address(out.actions),
        address(out.log_probs),
        address(out.entropy),
    )


def gaussian(
    mean: Tensor,
    log_std: Tensor,
    counter: Counter,
    out: Drawn,
) -> None:
    """As `spec.gaussian`, for float32 and bfloat16 on the CPU."""
    mean, log_std = dense(mean.float()), dense(log_std.float())
    env_ids = None if counter.env_ids is None else dense(counter.env_ids)
    gaussian_kernel(
        *mean.shape,
        int(log_std.ndim == 1),
        counter.key,
        int(counter.step),
        counter.first_env,
        address(mean),
        address(log_std),
        address(env_ids),
        address(out.actions),
        address(out.log_probs),
        address(out.entropy),
    )
