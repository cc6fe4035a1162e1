"""Advantage statistics on the GPU: one program per minibatch, all of an epoch in one launch.

A minibatch that fits one block is gathered once and summed twice from registers. A larger one is
gathered twice, which the L2 cache absorbs; a block then holds 16 rows per thread, so that many
gathers are in flight. The two sums are the mean and the deviations from it: one sum of squares
would cancel where the mean is large.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastppo.kernels.loss.triton_moments import load_ok, store_moments
from fastppo.kernels.tools.triton_options import OPTIONS

MAX_BLOCK = 8192


@triton.jit
def _gather(advantages_ptr, valid_ptr, index_ptr, first, start, lane, num_rows, batch_size):
    """Rows start .. of the minibatch that begins at `first`, 0 where not ok; and which are ok."""
    within = start + lane < batch_size
    row = first + start + lane
    exists = within
    if index_ptr is not None:
        row = tl.load(index_ptr + row, within, other=0)
        exists = within & (row >= 0) & (row < num_rows)
    ok = load_ok(valid_ptr, row, exists)
    # NaN, not a fault, for a row number out of range
    advantage = tl.load(advantages_ptr + row, ok, other=0.0)
    advantage = tl.where(within & (exists == 0), float("nan"), advantage)
    return advantage, ok | (within & (exists == 0))


@triton.jit(do_not_specialize=["num_rows"])
def advantage_stats_kernel(
    advantages_ptr,  # [R] f32
    valid_ptr,  # [R] bool, or None for all
    index_ptr,  # [M, B] i64, or None for one minibatch of all rows in order
    stats_ptr,  # [M, 4] f32, written: mean, mean_low, 1 / (std + 1e-8), count
    num_rows,
    batch_size,
    BLOCK_B: tl.constexpr,
    ONE_BLOCK: tl.constexpr,  # whether a minibatch fits one block
):
    first = tl.program_id(0).to(tl.int64) * batch_size
    lane = tl.arange(0, BLOCK_B).to(tl.int64)
    counts = tl.zeros([BLOCK_B], tl.int32)
    totals = tl.zeros([BLOCK_B], tl.float32)
    advantage = totals
    ok = lane < 0
    if ONE_BLOCK:
        advantage, ok = _gather(
            advantages_ptr, valid_ptr, index_ptr, first, 0, lane, num_rows, batch_size
        )
        counts += tl.where(ok, 1, 0)
        totals += advantage
    else:
        for start in range(0, batch_size, BLOCK_B):
            block, block_ok = _gather(
                advantages_ptr, valid_ptr, index_ptr, first, start, lane, num_rows, batch_size
            )
            counts += tl.where(block_ok, 1, 0)
            totals += block
    count = tl.sum(counts, 0).to(tl.float32)
    at_least_one = tl.where(count > 0, count, 1.0)
    mean = tl.sum(totals, 0) / at_least_one

    # Centred by the rounded mean, the second sum holds what rounding took from it.
    totals = tl.zeros([BLOCK_B], tl.float32)
    squares = tl.zeros([BLOCK_B], tl.float32)
    if ONE_BLOCK:
        totals = tl.where(ok, advantage - mean, 0.0)
        squares = totals * totals
    else:
        for start in range(0, batch_size, BLOCK_B):
            block, block_ok = _gather(
                advantages_ptr, valid_ptr, index_ptr, first, start, lane, num_rows, batch_size
            )
            centred = tl.where(block_ok, block - mean, 0.0)
            totals += centred
            squares += centred * centred
    at = stats_ptr + tl.program_id(0).to(tl.int64) * 4
    store_moments(at, count, mean, tl.sum(totals, 0), tl.sum(squares, 0), True)


def tiling(batch_size: int) -> dict[str, int]:
    """Constants of the kernel, and its warps; 16 rows per thread at most. Not measured on a GPU."""
    block = min(max(triton.next_power_of_2(batch_size), 128), MAX_BLOCK)
    return {
        "BLOCK_B": block,
        "ONE_BLOCK": batch_size <= block,
        "num_warps": min(max(block // 256, 1), 16),
    }


def advantage_stats(advantages: Tensor, valid: Tensor | None, index: Tensor | None) -> Tensor:
    """As `spec.advantage_stats`, for float32 on CUDA."""
    minibatches, batch_size = (1, advantages.numel()) if index is None else index.shape
    stats = torch.empty((minibatches, 4), dtype=torch.float32, device=advantages.device)
    with torch.cuda.device_of(advantages):
        advantage_stats_kernel[(minibatches,)](
            advantages.contiguous(),
            None if valid is None else valid.contiguous(),
            None if index is None else index.contiguous(),
            stats,
            advantages.numel(),
            batch_size,
            **tiling(batch_size),
            **OPTIONS,
        )
    return stats
