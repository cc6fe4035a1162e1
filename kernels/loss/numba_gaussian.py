"""The fused PPO loss for a diagonal Gaussian policy on the CPU, one pass over the rows.

ROWS rows of D components are a flat run of memory, so the elementwise loops ignore where a row
ends; only two sums per row, and the spread of the row's gradient over its components, do not.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

import math

import numpy as np
from numba import carray, njit
from torch import Tensor

from fastppo.kernels.loss.numba_rows import (
    ENTROPY,
    LANES,
    LOG_PROB,
    POLICY_GRAD,
    ROWS,
    VALUE_GRAD,
    WEIGHT,
    LossRows,
    RowArguments,
    compute_scales,
    copy,
    finish,
    load_rows,
    row_arrays,
    row_losses,
    scaled,
)
from fastppo.kernels.loss.terms import Rows, Terms
from fastppo.kernels.tools.numba_math import HALF, ZERO, exp
from fastppo.kernels.tools.numba_memory import (
    OPTIONS,
    SIZE,
    SUMMING,
    dense,
    empty,
    fetch,
    kernel_of_records,
    pointer,
)

STEP = 256
"""Components between two prefetches."""
_HALF_LOG_2PI = np.float32(0.5 * math.log(2.0 * math.pi))


# Functions that get slices, for the reason given in numba_rows.
@njit(**OPTIONS)
def _standardize(actions, mean, inverse, u):
    for x in range(u.shape[0]):
        u[x] = (actions[x] - mean[x]) * inverse[x]


# "reassoc": a row's sum may run on several SIMD lanes; its order is still fixed
@njit(**SUMMING)
def _row_sums(values, width, out):
    for k in range(out.shape[0]):
        total = ZERO
        for j in range(width):
            total += values[k * width + j]
        out[k] = total


@njit(**SUMMING)
def _row_squares(values, width, out):
    for k in range(out.shape[0]):
        total = ZERO
        for j in range(width):
            total += values[k * width + j] * values[k * width + j]
        out[k] = total


@njit(**OPTIONS)
def _invert(log_std, inverse):
    for x in range(log_std.shape[0]):
        inverse[x] = exp(-log_std[x])


@njit(**OPTIONS)
def _spread(values, width, out):
    """Each row's value to all of its components."""
    for k in range(values.shape[0]):
        for j in range(width):
            out[k * width + j] = values[k]


@njit(**OPTIONS)
def _log_probs(lane, squares, log_stds, width):
    for k in range(ROWS):
        ok = lane[WEIGHT, k] > ZERO
        log_prob = -HALF * squares[k] - log_stds[k] - width * _HALF_LOG_2PI
        entropy = log_stds[k] + width * (HALF + _HALF_LOG_2PI)
        lane[LOG_PROB, k] = log_prob if ok else ZERO
        lane[ENTROPY, k] = entropy if ok else ZERO


@njit(**OPTIONS)
def _gradients(grad, u, inverse, entropy_scale, d_mean, d_scale):
    for x in range(u.shape[0]):
        d_mean[x] = grad[x] * u[x] * inverse[x]
        # not of u * u: far out it is inf, where the gradient is 0
        d_scale[x] = grad[x] * u[x] * u[x] - grad[x] - entropy_scale


@njit(**OPTIONS)
def _add(total, values):
    for x in range(total.shape[0]):
        total[x] += np.float64(values[x])


@njit(**OPTIONS)
def _forget_invalid(weight, width, d_mean, d_scale):
    for k in range(d_mean.shape[0] // width):
        if weight[k] == ZERO:
            for j in range(width):
                d_mean[k * width + j] = ZERO
                d_scale[k * width + j] = ZERO


@kernel_of_records
def gaussian_kernel(
    batch_size: int,
    width: int,  # D
    mean_address: int,  # [B, D] f32
    log_std_address: int,  # [D] f32 if shared, else [B, D]
    shared: bool,
    actions_address: int,  # [B, D] f32
    d_mean_address: int,  # [B, D] f32, written
    d_log_std_address: int,  # as log_std, written
    given: LossRows,
):
    mean = carray(pointer(mean_address), (batch_size * width,), np.float32)
    log_std = carray(
        pointer(log_std_address), (width if shared else batch_size * width,), np.float32
    )
    actions = carray(pointer(actions_address), (batch_size * width,), np.float32)
    arrays = row_arrays(batch_size, given)
    d_mean = carray(pointer(d_mean_address), (batch_size * width,), np.float32)
    d_log_std = carray(
        pointer(d_log_std_address), (width if shared else batch_size * width,), np.float32
    )
    d_values = carray(pointer(given.d_values), (batch_size,), np.float32)
    adv_mean, adv_rstd, scale = compute_scales(arrays, given)
    policy_scale, value_scale = np.float32(scale), np.float32(given.vf_coef * scale)
    entropy_scale = np.float32(given.ent_coef * scale)

    size = ROWS * width
    inverse = np.empty(size, np.float32)  # 1 / std
    u = np.empty(size, np.float32)  # (action - mean) / std
    spread = np.empty(size, np.float32)  # d loss / d log_prob of the component's row
    d_scale = np.empty(size, np.float32)  # d loss / d log_std
    d_total = np.zeros(size, np.float64)  # its sum over the tiles
    row_grad = np.empty(ROWS, np.float32)
    squares = np.zeros(ROWS, np.float32)
    log_stds = np.zeros(ROWS, np.float32)  # their sum over a row
    lane = np.empty((LANES, ROWS), np.float32)
    sums = np.zeros(6, np.float64)

    if shared:
        for k in range(ROWS):
            copy(log_std, inverse[k * width : (k + 1) * width])
        _row_sums(inverse, width, log_stds)
        _invert(inverse, inverse)
    for first in range(0, batch_size, ROWS):
        rows = min(ROWS, batch_size - first)
        load_rows(arrays, first, rows, adv_mean, adv_rstd, lane)
        start, stop, here = first * width, (first + rows) * width, rows * width
        if not shared:
            _row_sums(log_std[start:stop], width, log_stds[:rows])
            _invert(log_std[start:stop], inverse[:here])
        for at in range(0, here, STEP):
            end = min(at + STEP, here)
            there = slice(start + at, start + end)
            fetch(mean_address + (stop + at) * SIZE, STEP * SIZE)
            fetch(actions_address + (stop + at) * SIZE, STEP * SIZE)
            _standardize(actions[there], mean[there], inverse[at:end], u[at:end])
        _row_squares(u[:here], width, squares[:rows])
        _log_probs(lane, squares, log_stds, np.float32(width))

        row_losses(lane, given, sums)

        scaled(lane[VALUE_GRAD], value_scale, d_values[first : first + rows])
        scaled(lane[POLICY_GRAD], policy_scale, row_grad)
        _spread(row_grad[:rows], width, spread[:here])
        d_here = d_mean[start:stop]
        for at in range(0, here, STEP):
            end = min(at + STEP, here)
            fetch(d_mean_address + (stop + at) * SIZE, STEP * SIZE)
            _gradients(
                spread[at:end],
                u[at:end],
                inverse[at:end],
                entropy_scale,
                d_here[at:end],
                d_scale[at:end],
            )
        if given.valid:
            _forget_invalid(lane[WEIGHT], width, d_here, d_scale[:here])
        if shared:
            _add(d_total[:here], d_scale[:here])
        else:
            copy(d_scale[:here], d_log_std[start:stop])
    if shared:
        for j in range(width):
            d_log_std[j] = np.float32(d_total[j::width].sum())
    finish(sums, scale, given)


def gaussian(
    mean: Tensor,
    log_std: Tensor,
    new_values: Tensor,
    actions: Tensor,
    rows: Rows,
    terms: Terms,
) -> tuple[Tensor, ...]:
    """Loss, STATS [6] and the gradients of mean, log_std and values, as `spec`."""
    batch_size, width = mean.shape
    mean, log_std, actions = dense(mean), dense(log_std), dense(actions)
    arguments = RowArguments(rows, new_values, terms)
    d_mean, d_log_std = empty(*mean.shape), empty(*log_std.shape)
    gaussian_kernel(
        batch_size,
        width,
        mean.data_ptr(),
        log_std.data_ptr(),
        log_std.ndim == 1,
        actions.data_ptr(),
        d_mean.data_ptr(),
        d_log_std.data_ptr(),
        arguments.for_kernel,
    )
    return arguments.loss, arguments.stats, d_mean, d_log_std, arguments.d_values
