"""Running moments and normalisation on the CPU: every inner loop runs along a row.

Sums are taken about the first valid row, in float64: one pass over the rows, without the
cancellation of a sum of squares about zero. Four rows at a time, so that their sums are read and
written once for the four.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

import math

import numba
import numpy as np
import torch
from numba import njit
from torch import Tensor

from fastppo.kernels.tools.numba_memory import OPTIONS, dense, kernel, pointer


# Functions of their own, not inlined by hand: LLVM then proves once per call that the arrays do
# not overlap, and emits one vector loop.
@njit(**OPTIONS)
def _add_row(row, shift, sums, squares):
    for d in range(row.shape[0]):
        x = np.float64(row[d]) - shift[d]
        sums[d] += x
        squares[d] += x * x


@njit(**OPTIONS)
def _add_four_rows(row0, row1, row2, row3, shift, sums, squares):
    for d in range(row0.shape[0]):
        x0 = np.float64(row0[d]) - shift[d]
        x1 = np.float64(row1[d]) - shift[d]
        x2 = np.float64(row2[d]) - shift[d]
        x3 = np.float64(row3[d]) - shift[d]
        sums[d] += (x0 + x1) + (x2 + x3)
        squares[d] += (x0 * x0 + x1 * x1) + (x2 * x2 + x3 * x3)


@njit(**OPTIONS)
def _add_rows(rows, chosen, shift, sums, squares):
    """Sums about the first of the chosen rows."""
    new = chosen.shape[0]
    for d in range(rows.shape[1]):
        shift[d] = rows[chosen[0], d]
        sums[d] = 0.0
        squares[d] = 0.0
    fours = new // 4 * 4
    for i in range(0, fours, 4):
        _add_four_rows(
            rows[chosen[i]],
            rows[chosen[i + 1]],
            rows[chosen[i + 2]],
            rows[chosen[i + 3]],
            shift,
            sums,
            squares,
        )
    for i in range(fours, new):
        _add_row(rows[chosen[i]], shift, sums, squares)


@njit(**OPTIONS)
def _all_finite(numbers):
    for d in range(numbers.shape[0]):  # noqa: SIM110, numba compiles no generator
        if not math.isfinite(numbers[d]):
            return False
    return True


@kernel("void(int64, int64, int64, int64, int64, int64, int64)")
def update_moments_kernel(
    mean_at,  # [D] f64, updated, as are the next two
    var_at,  # [D] f64
    count_at,  # [] f64
    rows_at,  # [B, D] f32
    valid_at,  # [B] bool, or 0 for all
    num_rows,
    width,
):
    mean = numba.carray(pointer(mean_at), width, np.float64)
    var = numba.carray(pointer(var_at), width, np.float64)
    count = numba.carray(pointer(count_at), 1, np.float64)
    rows = numba.carray(pointer(rows_at), (num_rows, width), np.float32)
    valid = numba.carray(pointer(valid_at), 0 if valid_at == 0 else num_rows, np.bool_)
    chosen = np.empty(num_rows, np.int64)
    new = 0
    for i in range(num_rows):
        chosen[new] = i
        new += 1 if valid_at == 0 or valid[i] else 0
    shift = np.empty(width, np.float64)
    sums = np.empty(width, np.float64)
    squares = np.empty(width, np.float64)
    while new > 0:
        _add_rows(rows, chosen[:new], shift, sums, squares)
        # float64 has room for the squares of any float32: the sums tell of all their rows
        if _all_finite(squares):
            break
        seen = new
        new = 0
        for i in range(seen):
            chosen[new] = chosen[i]
            new += 1 if _all_finite(rows[chosen[i]]) else 0
    if new == 0:
        return
    old = count[0]
    total = old + new
    for d in range(width):
        new_squares = squares[d] - sums[d] * (sums[d] / new)
        new_squares = 0.0 if new_squares < 0.0 else new_squares
        delta = shift[d] + sums[d] / new - mean[d]
        var[d] = (var[d] * old + new_squares + delta * delta * (old * new / total)) / total
        mean[d] += delta * (new / total)
    count[0] = total


@njit(**OPTIONS)
def _normalize_row(row, mean, mean_low, scale, clip, out):
    for d in range(row.shape[0]):
        y = (row[d] - mean[d] - mean_low[d]) * scale[d]
        y = -clip if y < -clip else y
        out[d] = clip if y > clip else y


@kernel("void(int64, int64, int64, int64, int64, int64, float64, float64)")
def normalize_kernel(
    out_at,  # [B, D] f32, written
    rows_at,  # [B, D] f32
    mean_at,  # [D] f64
    var_at,  # [D] f64
    num_rows,
    width,
    clip,
    epsilon,
):
    out = numba.carray(pointer(out_at), (num_rows, width), np.float32)
    rows = numba.carray(pointer(rows_at), (num_rows, width), np.float32)
    mean = numba.carray(pointer(mean_at), width, np.float64)
    var = numba.carray(pointer(var_at), width, np.float64)
    high = np.empty(width, np.float32)
    low = np.empty(width, np.float32)
    scale = np.empty(width, np.float32)
    for d in range(width):
        high[d] = np.float32(mean[d])
        low[d] = np.float32(mean[d] - np.float64(high[d]))
        scale[d] = np.float32(1.0 / math.sqrt(var[d] + epsilon))
    for i in range(num_rows):
        _normalize_row(rows[i], high, low, scale, np.float32(clip), out[i])


def _floats(rows: Tensor) -> Tensor:
    return dense(rows if rows.dtype == torch.float32 else rows.float())


def update_moments(
    mean: Tensor, var: Tensor, count: Tensor, rows: Tensor, valid: Tensor | None
) -> None:
    """As `spec.update_moments`, on the CPU; rows are float32, or cast to it."""
    rows = _floats(rows)
    valid = None if valid is None else dense(valid)
    update_moments_kernel(
        mean.data_ptr(),
        var.data_ptr(),
        count.data_ptr(),
        rows.data_ptr(),
        0 if valid is None else valid.data_ptr(),
        len(rows),
        mean.numel(),
    )


def normalize(
    out: Tensor, rows: Tensor, mean: Tensor, var: Tensor, clip: float, epsilon: float
) -> None:
    """As `spec.normalize`, on the CPU; rows are float32, or cast to it."""
    rows, mean, var = _floats(rows), dense(mean.double()), dense(var.double())
    width = mean.numel()
    normalize_kernel(
        out.data_ptr(),
        rows.data_ptr(),
        mean.data_ptr(),
        var.data_ptr(),
        rows.numel() // width,
        width,
        clip,
        epsilon,
    )
