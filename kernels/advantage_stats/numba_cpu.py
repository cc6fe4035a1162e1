"""Advantage statistics on the CPU: gather and pack the valid rows once, then stream them twice.

A minibatch is some hundreds to thousands of rows out of a rollout of a few hundred kilobytes. The
gather is scalar; packed, its rows stay in the cache, and both sums run over them without a mask on
all SIMD lanes, in float64. One thread: a second one did not pay at half a million rows.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# mypy: no-check-untyped-defs

import math

import numba
import numpy as np
import torch
from numba import njit
from torch import Tensor

from fastppo.kernels.tools.numba_memory import OPTIONS, SUMMING, dense, kernel, pointer


@njit(**SUMMING)
def _total(rows, count):
    total = 0.0
    for i in range(count):
        total += np.float64(rows[i])
    return total


@njit(**SUMMING)
def _squares(rows, count, mean):
    squares = 0.0
    for i in range(count):
        centred = np.float64(rows[i]) - mean
        squares += centred * centred
    return squares


@njit(**OPTIONS)
def _gather(advantages, valid, index, rows):
    """Packs the valid rows of a minibatch to the front of `rows`; their number."""
    num_rows = advantages.shape[0]
    everywhere = valid.shape[0] == 0
    count = 0
    for i in range(index.shape[0]):
        row = index[i]
        exists = 0 <= row < num_rows
        rows[count] = advantages[row] if exists else np.float32(np.nan)
        # added, not branched on: a random 5% of invalid rows would mispredict 5% of the branches
        count += np.int64(everywhere or not exists or valid[row])
    return count


@njit(**OPTIONS)
def _pack(advantages, valid, rows):
    """As `_gather`, of all rows in order."""
    count = 0
    for i in range(advantages.shape[0]):
        rows[count] = advantages[i]
        count += np.int64(valid[i])
    return count


@kernel("void(int64, int64, int64, int64, int64, int64, int64)")
def advantage_stats_kernel(
    advantages_at,  # [R] f32
    valid_at,  # [R] bool, or 0 for all
    index_at,  # [M, B] i64, or 0 for one minibatch of all rows in order
    num_rows,
    minibatches,
    batch_size,
    stats_at,  # [M, 4] f32, written
):
    advantages = numba.carray(pointer(advantages_at), num_rows, np.float32)
    valid = numba.carray(pointer(valid_at), 0 if valid_at == 0 else num_rows, np.bool_)
    stats = numba.carray(pointer(stats_at), (minibatches, 4), np.float32)
    # Nothing to pack: the rows are summed where they are.
    in_place = index_at == 0 and valid_at == 0
    rows = advantages if in_place else np.empty(batch_size, np.float32)
    for m in range(minibatches):
        count = batch_size
        if index_at != 0:
            at = index_at + m * batch_size * 8
            index = numba.carray(pointer(at), batch_size, np.int64)
            count = _gather(advantages, valid, index, rows)
        elif not in_place:
            count = _pack(advantages, valid, rows)
        mean, rstd = 0.0, 1.0
        if count > 1:
            mean = _total(rows, count) / count
            rstd = 1.0 / (math.sqrt(_squares(rows, count, mean) / (count - 1)) + 1e-8)
        rounded = np.float32(mean)
        stats[m, 0] = rounded
        stats[m, 1] = np.float32(mean - np.float64(rounded))
        stats[m, 2] = np.float32(rstd)
        stats[m, 3] = np.float32(count)


def advantage_stats(advantages: Tensor, valid: Tensor | None, index: Tensor | None) -> Tensor:
    """As `spec.advantage_stats`, for float32 on the CPU."""
    advantages = dense(advantages)
    valid = None if valid is None else dense(valid)
    index = None if index is None else dense(index)
    minibatches, batch_size = (1, advantages.numel()) if index is None else index.shape
    stats = torch.empty((minibatches, 4), dtype=torch.float32, device="cpu")
    advantage_stats_kernel(
        advantages.data_ptr(),
        0 if valid is None else valid.data_ptr(),
        0 if index is None else index.data_ptr(),
        advantages.numel(),
        minibatches,
        batch_size,
        stats.data_ptr(),
    )
    return stats
