"""The fused PPO losses on the CPU: forward, statistics and gradients in one pass over the rows.

ROWS rows at a time are transposed into a tile [width, ROWS], so that every inner loop runs over
rows and fills whole SIMD registers whatever the number of actions. Invalid rows, and the rows that
pad the last tile, enter as zeros of weight zero. Statistics add up in float64, one lane per row of
a tile. exp and log are written out, because a call into libm would keep the loops scalar.

Every jitted function of the losses is in this file: numba's cache watches the file of the function
that it compiles, so a helper from elsewhere could change and leave stale machine code behind.
"""

import math
from typing import Any

import numpy as np
from numba import njit

ROWS = 16

# Contraction to FMA only. "nnan" and "ninf" would hide a diverged policy, and "reassoc" would merge
# the two-part ln 2 of `_exp` and the `+ MAGIC - MAGIC` that rounds.
_OPTIONS: dict[str, Any] = {"fastmath": {"contract"}, "error_model": "numpy", "nogil": True}

_ZERO, _HALF, _ONE = np.float32(0.0), np.float32(0.5), np.float32(1.0)
_LOG2_E = np.float32(1.4426950408889634)
_LN2_HIGH, _LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
_MAGIC = np.float32(12582912.0)  # 1.5 * 2**23: adding it rounds to an integer, kept in the low bits
_MAGIC_BITS = np.int32(0x4B400000)
_EXP_MIN, _EXP_MAX = np.float32(-120.0), np.float32(90.0)
_SQRT_HALF = np.float32(0.70710678)
_LOG_MIN = np.float32(-87.0)
_HALF_LOG_2PI = np.float32(0.5 * math.log(2.0 * math.pi))


@njit(inline="always", **_OPTIONS)
def _exp(x):
    """e**x within 2 ulp; 0 below -104, inf above 88.73, NaN for NaN (Cephes expf)."""
    x = _EXP_MIN if x < _EXP_MIN else x
    x = _EXP_MAX if x > _EXP_MAX else x
    shifted = x * _LOG2_E + _MAGIC
    k = shifted - _MAGIC
    x = x - k * _LN2_HIGH
    x = x - k * _LN2_LOW
    y = np.float32(1.9875691500e-4)
    y = y * x + np.float32(1.3981999507e-3)
    y = y * x + np.float32(8.3334519073e-3)
    y = y * x + np.float32(4.1665795894e-2)
    y = y * x + np.float32(1.6666665459e-1)
    y = y * x + np.float32(5.0000001201e-1)
    y = y * x * x + x + _ONE
    # 2**k in two factors: one alone cannot reach k = 128 (overflow) or k < -126 (denormals).
    n = np.int32(np.float32(shifted).view(np.int32) - _MAGIC_BITS)
    low = np.int32(n >> np.int32(1))
    high = np.int32(n - low)
    y = y * np.int32((low + np.int32(127)) << np.int32(23)).view(np.float32)
    return y * np.int32((high + np.int32(127)) << np.int32(23)).view(np.float32)


@njit(inline="always", **_OPTIONS)
def _log(x):
    """ln x within 2 ulp for normal x > 0; NaN for NaN (Cephes logf)."""
    bits = np.float32(x).view(np.int32)
    e = np.int32(((bits >> np.int32(23)) & np.int32(255)) - np.int32(126))
    m = np.int32((bits & np.int32(0x7FFFFF)) | np.int32(0x3F000000)).view(np.float32)
    small = m < _SQRT_HALF
    e = np.int32(e - np.int32(1)) if small else e
    m = (m + m if small else m) - _ONE
    z = m * m
    y = np.float32(7.0376836292e-2)
    y = y * m + np.float32(-1.1514610310e-1)
    y = y * m + np.float32(1.1676998740e-1)
    y = y * m + np.float32(-1.2420140846e-1)
    y = y * m + np.float32(1.4249322787e-1)
    y = y * m + np.float32(-1.6668057665e-1)
    y = y * m + np.float32(2.0000714765e-1)
    y = y * m + np.float32(-2.4999993993e-1)
    y = y * m + np.float32(3.3333331174e-1)
    y = y * m * z
    k = np.float32(e)
    y = y + k * _LN2_LOW
    y = y - _HALF * z
    y = m + y + k * _LN2_HIGH
    return y if x < np.float32(np.inf) else x


# "reassoc" lets these sums run on all SIMD lanes; the order is still fixed at compile time.
@njit(fastmath={"contract", "reassoc"}, error_model="numpy", nogil=True)
def _scales(advantages, valid, norm_adv, normalizer):
    """Number of valid rows, mean and 1 / (std + 1e-8) of their advantages, 1 / divisor."""
    batch_size = advantages.shape[0]
    everywhere = valid.shape[0] == 0
    count = batch_size
    if not everywhere:
        count = 0
        for i in range(batch_size):
            count += 1 if valid[i] else 0
    if count == 0:
        return 0.0, 1.0, 0.0
    mean, rstd = 0.0, 1.0
    if norm_adv and count > 1:
        total = 0.0
        for i in range(batch_size):
            total += np.float64(advantages[i]) if everywhere or valid[i] else 0.0
        mean = total / count
        squares = 0.0
        for i in range(batch_size):
            centred = np.float64(advantages[i]) - mean
            squares += centred * centred if everywhere or valid[i] else 0.0
        rstd = 1.0 / (math.sqrt(squares / (count - 1)) + 1e-8)
    return mean, rstd, 1.0 / (count if normalizer < 0.0 else normalizer)


# Rows of the tile `lane` [LANES, ROWS]: what a row's loss needs, then what it yields.
_WEIGHT, _OLD_LOG_PROB, _ADVANTAGE, _RETURN, _OLD_VALUE, _NEW_VALUE = range(6)
_LOG_PROB, _ENTROPY, _POLICY_GRAD, _VALUE_GRAD = range(6, 10)
LANES = 10


@njit(inline="always", **_OPTIONS)
def _load_rows(
    first, old_log_probs, advantages, returns, old_values, new_values, valid, mean, rstd, lane
):
    """Fills `lane` with rows first .. first + ROWS; zeros where there is no valid row."""
    for k in range(ROWS):
        i = first + k
        ok = i < advantages.shape[0] and (valid.shape[0] == 0 or valid[i])
        lane[_WEIGHT, k] = _ONE if ok else _ZERO
        lane[_OLD_LOG_PROB, k] = old_log_probs[i] if ok else _ZERO
        lane[_ADVANTAGE, k] = np.float32((advantages[i] - mean) * rstd) if ok else _ZERO
        lane[_RETURN, k] = returns[i] if ok else _ZERO
        lane[_OLD_VALUE, k] = old_values[i] if ok else _ZERO
        lane[_NEW_VALUE, k] = new_values[i] if ok else _ZERO


@njit(inline="always", **_OPTIONS)
def _row_losses(lane, clip_coef, clip_vloss, dual_clip, sums):
    """Adds the rows' terms to `sums` [6, ROWS]; writes d/d log_prob and d/d value to `lane`.

    Comparisons are written so that NaN takes the branch that keeps it.
    """
    low, high, width = (
        np.float32(1.0 - clip_coef),
        np.float32(1.0 + clip_coef),
        np.float32(clip_coef),
    )
    near, bound = np.float32(clip_vloss), np.float32(dual_clip)
    clip_values = clip_vloss >= 0.0
    for k in range(ROWS):
        weight = lane[_WEIGHT, k]
        advantage = lane[_ADVANTAGE, k]
        log_ratio = (lane[_LOG_PROB, k] - lane[_OLD_LOG_PROB, k]) if weight > _ZERO else _ZERO
        ratio = _exp(log_ratio)
        outside = ratio < low or ratio > high
        clipped = low if ratio < low else (high if ratio > high else ratio)
        unclipped_loss = -advantage * ratio
        clipped_loss = -advantage * clipped
        policy = clipped_loss if clipped_loss > unclipped_loss else unclipped_loss
        # At a tie torch.maximum and minimum send half of the gradient to either side.
        grad = unclipped_loss
        if outside and not unclipped_loss > clipped_loss:
            grad = _HALF * unclipped_loss if unclipped_loss == clipped_loss else _ZERO
        worst = -bound * advantage
        if advantage < _ZERO and policy >= worst:
            grad = _HALF * grad if policy == worst else _ZERO
            policy = worst
        lane[_POLICY_GRAD, k] = grad

        error = lane[_NEW_VALUE, k] - lane[_RETURN, k]
        value, value_grad = error * error, error
        if clip_values:
            step = lane[_NEW_VALUE, k] - lane[_OLD_VALUE, k]
            far = step < -near or step > near
            step = -near if step < -near else (near if step > near else step)
            near_error = lane[_OLD_VALUE, k] + step - lane[_RETURN, k]
            near_value = near_error * near_error
            near_grad = _ZERO if far else near_error
            if near_value == value:
                value_grad = _HALF * (value_grad + near_grad)
            if near_value > value:
                value, value_grad = near_value, near_grad
        lane[_VALUE_GRAD, k] = value_grad

        deviation = abs(ratio - _ONE)
        sums[0, k] += weight * policy
        sums[1, k] += weight * _HALF * value
        sums[2, k] += weight * lane[_ENTROPY, k]
        sums[3, k] += (ratio - _ONE) - log_ratio
        sums[4, k] -= log_ratio
        sums[5, k] += weight if deviation > width else _ZERO


@njit(inline="always", **_OPTIONS)
def _finish(sums, scale, vf_coef, ent_coef, loss, stats):
    for s in range(6):
        stats[s] = np.float32(sums[s].sum() * scale)
    loss[0] = np.float32(
        (sums[0].sum() + vf_coef * sums[1].sum() - ent_coef * sums[2].sum()) * scale
    )


_ROW = "float32[::1]"
_ROWS_IN = f"{_ROW}, {_ROW}, {_ROW}, {_ROW}, {_ROW}, boolean[::1]"
_NUMBERS = ", ".join(["float64"] * 5 + ["boolean", "float64"])
_TABLE = "float32[:, ::1]"


# Explicit signatures: a call that does not fit raises instead of compiling in the middle of a run.
@njit(
    f"void({_TABLE}, int64[:, ::1], boolean[:, ::1], int64[::1], {_ROWS_IN}, {_NUMBERS}, "
    f"{_TABLE}, {_ROW}, {_ROW}, {_ROW})",
    cache=True,
    **_OPTIONS,
)
def categorical_kernel(
    logits,  # [B, W]
    actions,  # [B, H]
    allowed,  # [B, W], or [0, W] for all
    nvec,  # [H], sums to W
    old_log_probs,  # this and the next four: [B]
    advantages,
    returns,
    old_values,
    new_values,
    valid,  # [B], or [0] for all
    clip_coef,
    vf_coef,
    ent_coef,
    clip_vloss,  # below 0: off
    dual_clip,  # inf: off
    norm_adv,
    normalizer,  # below 0: the number of valid rows
    d_logits,  # [B, W], written
    d_values,  # [B], written
    loss,  # [1], written
    stats,  # [6], written
):
    batch_size, width = logits.shape
    num_heads = nvec.shape[0]
    masked = allowed.shape[0] > 0
    mean, rstd, scale = _scales(advantages, valid, norm_adv, normalizer)
    policy_scale, value_scale = np.float32(scale), np.float32(vf_coef * scale)
    entropy_scale = np.float32(ent_coef * scale)
    z = np.empty((width, ROWS), np.float32)  # logits, then logits - their maximum
    e = np.empty((width, ROWS), np.float32)
    chosen = np.empty((num_heads, ROWS), np.int64)  # column of the tile
    top, total, weighted = (
        np.empty(ROWS, np.float32),
        np.empty(ROWS, np.float32),
        np.empty(ROWS, np.float32),
    )
    log_total = np.empty((num_heads, ROWS), np.float32)
    inverse = np.empty((num_heads, ROWS), np.float32)
    entropy = np.empty((num_heads, ROWS), np.float32)
    lane = np.empty((LANES, ROWS), np.float32)
    sums = np.zeros((6, ROWS), np.float64)

    for first in range(0, batch_size, ROWS):
        _load_rows(
            first,
            old_log_probs,
            advantages,
            returns,
            old_values,
            new_values,
            valid,
            mean,
            rstd,
            lane,
        )
        for k in range(ROWS):
            i = first + k
            lane[_LOG_PROB, k] = _ZERO
            lane[_ENTROPY, k] = _ZERO
            if lane[_WEIGHT, k] == _ZERO:
                for j in range(width):
                    z[j, k] = _ZERO
                for h in range(num_heads):
                    chosen[h, k] = 0
                continue
            for j in range(width):
                z[j, k] = logits[i, j]
            if masked:
                for j in range(width):
                    z[j, k] = z[j, k] if allowed[i, j] else -np.inf
            start = 0
            for h in range(num_heads):
                in_range = actions[i, h] >= 0 and actions[i, h] < nvec[h]
                chosen[h, k] = start + actions[i, h] if in_range else start
                if not in_range:
                    lane[_LOG_PROB, k] = np.nan
                start += nvec[h]
        start = 0
        for h in range(num_heads):
            stop = start + nvec[h]
            for k in range(ROWS):
                top[k] = z[start, k]
                total[k] = _ZERO
                weighted[k] = _ZERO
            for j in range(start + 1, stop):
                for k in range(ROWS):
                    top[k] = z[j, k] if z[j, k] > top[k] else top[k]
            for k in range(ROWS):
                lane[_LOG_PROB, k] += z[chosen[h, k], k] - top[k]
            for j in range(start, stop):
                for k in range(ROWS):
                    q = z[j, k] - top[k]
                    # e**q is 0 from here on; a finite q keeps 0 * q from being NaN
                    q = _EXP_MIN if q < _LOG_MIN else q
                    p = _exp(q)
                    z[j, k] = q
                    e[j, k] = p
                    total[k] += p
                    weighted[k] += p * q
            for k in range(ROWS):
                log_total[h, k] = _log(total[k])
                inverse[h, k] = _ONE / total[k]
                entropy[h, k] = log_total[h, k] - weighted[k] * inverse[h, k]
                lane[_LOG_PROB, k] -= log_total[h, k]
                lane[_ENTROPY, k] += entropy[h, k]
            start = stop

        _row_losses(lane, clip_coef, clip_vloss, dual_clip, sums)

        start = 0
        for h in range(num_heads):
            stop = start + nvec[h]
            for j in range(start, stop):
                for k in range(ROWS):
                    p = e[j, k] * inverse[h, k]
                    picked = _ONE if chosen[h, k] == j else _ZERO
                    surprise = p * (z[j, k] - log_total[h, k] + entropy[h, k])
                    grad = policy_scale * lane[_POLICY_GRAD, k] * (picked - p)
                    z[j, k] = lane[_WEIGHT, k] * (grad + entropy_scale * surprise)
            start = stop
        for k in range(min(ROWS, batch_size - first)):
            d_values[first + k] = value_scale * lane[_VALUE_GRAD, k]
            for j in range(width):
                d_logits[first + k, j] = z[j, k]
    _finish(sums, scale, vf_coef, ent_coef, loss, stats)


@njit(
    f"void({_TABLE}, {_TABLE}, {_TABLE}, {_ROWS_IN}, {_NUMBERS}, "
    f"{_TABLE}, {_TABLE}, {_ROW}, {_ROW}, {_ROW})",
    cache=True,
    **_OPTIONS,
)
def gaussian_kernel(
    mean,  # [B, D]
    log_std,  # [1, D] or [B, D]
    actions,  # [B, D]
    old_log_probs,  # from here to `normalizer` as for `categorical_kernel`
    advantages,
    returns,
    old_values,
    new_values,
    valid,
    clip_coef,
    vf_coef,
    ent_coef,
    clip_vloss,
    dual_clip,
    norm_adv,
    normalizer,
    d_mean,  # [B, D], written
    d_log_std,  # as log_std, written
    d_values,  # [B], written
    loss,  # [1], written
    stats,  # [6], written
):
    batch_size, width = mean.shape
    shared = log_std.shape[0] == 1
    adv_mean, adv_rstd, scale = _scales(advantages, valid, norm_adv, normalizer)
    policy_scale, value_scale = np.float32(scale), np.float32(vf_coef * scale)
    entropy_scale = np.float32(ent_coef * scale)
    inverse = np.empty((width, ROWS), np.float32)  # 1 / std
    u = np.empty((width, ROWS), np.float32)  # (action - mean) / std
    log_stds = np.empty(ROWS, np.float32)  # their sum
    lane = np.empty((LANES, ROWS), np.float32)
    sums = np.zeros((6, ROWS), np.float64)
    d_shared = np.zeros((width, ROWS), np.float64)

    for first in range(0, batch_size, ROWS):
        rows = min(ROWS, batch_size - first)
        _load_rows(
            first,
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
        if first == 0 or not shared:
            for k in range(ROWS):
                i = 0 if shared else first + k
                ok = shared or lane[_WEIGHT, k] > _ZERO
                for j in range(width):
                    inverse[j, k] = log_std[i, j] if ok else _ZERO
                log_stds[k] = _ZERO
            for j in range(width):
                for k in range(ROWS):
                    log_stds[k] += inverse[j, k]
                    inverse[j, k] = _exp(-inverse[j, k])
        for k in range(ROWS):
            lane[_LOG_PROB, k] = _ZERO
            ok = lane[_WEIGHT, k] > _ZERO
            for j in range(width):
                u[j, k] = actions[first + k, j] - mean[first + k, j] if ok else _ZERO
        for j in range(width):
            for k in range(ROWS):
                u[j, k] *= inverse[j, k]
                lane[_LOG_PROB, k] -= _HALF * u[j, k] * u[j, k]
        for k in range(ROWS):
            lane[_LOG_PROB, k] -= log_stds[k] + np.float32(width) * _HALF_LOG_2PI
            lane[_ENTROPY, k] = log_stds[k] + np.float32(width) * (_HALF + _HALF_LOG_2PI)

        _row_losses(lane, clip_coef, clip_vloss, dual_clip, sums)

        for j in range(width):
            for k in range(ROWS):
                grad = policy_scale * lane[_POLICY_GRAD, k]
                d_scale = grad * (u[j, k] * u[j, k] - _ONE) - entropy_scale
                u[j, k] = lane[_WEIGHT, k] * grad * u[j, k] * inverse[j, k]
                inverse_or_grad = lane[_WEIGHT, k] * d_scale
                if shared:
                    d_shared[j, k] += inverse_or_grad
                else:
                    inverse[j, k] = inverse_or_grad
        for k in range(rows):
            d_values[first + k] = value_scale * lane[_VALUE_GRAD, k]
            for j in range(width):
                d_mean[first + k, j] = u[j, k]
                if not shared:
                    d_log_std[first + k, j] = inverse[j, k]
    if shared:
        for j in range(width):
            d_log_std[0, j] = np.float32(d_shared[j].sum())
    _finish(sums, scale, vf_coef, ent_coef, loss, stats)
