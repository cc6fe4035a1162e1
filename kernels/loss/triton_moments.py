"""Mean, spread and count of the advantages on the device, for the losses and `advantage_stats`.

By one program (`moments_kernel`), or, where rows are many, by `partial_kernel` for blocks of them
and `merge_kernel`, which adds up: one program took 40 us over 65,536 rows on an H200, ten times the
loss itself.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastppo.kernels.tools.triton_options import OPTIONS

MOMENTS = 4  # floats of `advantage_stats`: mean, mean_low, 1 / (std + 1e-8), count
MOMENTS_BLOCK = 2048  # rows of a program
MERGE_BLOCK = 256


@triton.jit
def load_ok(valid_ptr, row, in_range):
    """Which of the rows are valid rows of the batch."""
    ok = in_range
    if valid_ptr is not None:
        ok = ok & (tl.load(valid_ptr + row, in_range, other=0) != 0)
    return ok


@triton.jit
def store_moments(moments_ptr, count, rounded, total, squares, NORM_ADV: tl.constexpr):
    """Writes mean, mean_low, 1 / (std + 1e-8) and count.

    From sums of what is left, and of its squares, after the rounded mean was taken off.
    """
    several = (count > 1) & NORM_ADV
    at_least_one = tl.where(count > 0, count, 1.0)
    at_least_two = tl.where(count > 1, count, 2.0)
    variance = (squares - total * (total / at_least_one)) / (at_least_two - 1.0)
    variance = tl.where(variance < 0, 0.0, variance)
    tl.store(moments_ptr, tl.where(several, rounded, 0.0))
    tl.store(moments_ptr + 1, tl.where(several, total / at_least_one, 0.0))
    tl.store(moments_ptr + 2, tl.where(several, 1.0 / (tl.sqrt(variance) + 1e-8), 1.0))
    tl.store(moments_ptr + 3, count)


@triton.jit(do_not_specialize=["batch_size"])
def moments_kernel(
    advantages_ptr,  # [B] f32
    valid_ptr,  # [B] bool, or None for all
    moments_ptr,  # [MOMENTS] f32, written
    batch_size,
    NORM_ADV: tl.constexpr,
    BLOCK_B: tl.constexpr,
):
    row = tl.arange(0, BLOCK_B).to(tl.int64)
    ok = load_ok(valid_ptr, row, row < batch_size)
    advantage = tl.load(advantages_ptr + row, ok, other=0.0)
    count = tl.sum(tl.where(ok, 1.0, 0.0), 0)
    at_least_one = tl.where(count > 0, count, 1.0)
    rounded = tl.sum(advantage, 0) / at_least_one
    # Centred by the rounded mean, the second sum holds what rounding took from it.
    centred = tl.where(ok, advantage - rounded, 0.0)
    squares = tl.sum(centred * centred, 0)
    store_moments(moments_ptr, count, rounded, tl.sum(centred, 0), squares, NORM_ADV)


@triton.jit(do_not_specialize=["batch_size"])
def partial_kernel(
    advantages_ptr,  # [B] f32
    valid_ptr,  # [B] bool, or None for all
    partials_ptr,  # [programs, MOMENTS] f32, written: count, mean, mean_low, squares about both
    batch_size,
    BLOCK_B: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * BLOCK_B + tl.arange(0, BLOCK_B)
    ok = load_ok(valid_ptr, row, row < batch_size)
    advantage = tl.load(advantages_ptr + row, ok, other=0.0)
    count = tl.sum(tl.where(ok, 1.0, 0.0), 0)
    at_least_one = tl.where(count > 0, count, 1.0)
    mean = tl.sum(advantage, 0) / at_least_one
    centred = tl.where(ok, advantage - mean, 0.0)
    low = tl.sum(centred, 0) / at_least_one
    at = partials_ptr + tl.program_id(0).to(tl.int64) * 4
    tl.store(at, count)
    tl.store(at + 1, mean)
    tl.store(at + 2, low)
    tl.store(at + 3, tl.sum(centred * centred, 0) - count * low * low)


@triton.jit
def merge_kernel(
    partials_ptr,  # [P, MOMENTS] f32, from partial_kernel
    moments_ptr,  # [MOMENTS] f32, written as by moments_kernel
    num_partials,
    NORM_ADV: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    lane = tl.arange(0, BLOCK_P).to(tl.int64)
    counts = tl.zeros([BLOCK_P], tl.float32)
    totals = tl.zeros([BLOCK_P], tl.float32)
    for start in range(0, num_partials, BLOCK_P):
        inside = start + lane < num_partials
        at = partials_ptr + (start + lane) * 4
        part = tl.load(at, inside, other=0.0)
        counts += part
        totals += part * tl.load(at + 1, inside, other=0.0)
    count = tl.sum(counts, 0)
    at_least_one = tl.where(count > 0, count, 1.0)
    rounded = tl.sum(totals, 0) / at_least_one
    totals = tl.zeros([BLOCK_P], tl.float32)
    squares = tl.zeros([BLOCK_P], tl.float32)
    for start in range(0, num_partials, BLOCK_P):
        inside = start + lane < num_partials
        at = partials_ptr + (start + lane) * 4
        part = tl.load(at, inside, other=0.0)
        away = tl.load(at + 1, inside, other=0.0) - rounded
        away = tl.where(part > 0, away + tl.load(at + 2, inside, other=0.0), 0.0)
        totals += part * away
        squares += tl.load(at + 3, inside, other=0.0) + part * away * away
    total = tl.sum(totals, 0)
    store_moments(moments_ptr, count, rounded, total, tl.sum(squares, 0), NORM_ADV)


def advantage_moments(advantages: Tensor, valid: Tensor | None, *, norm_adv: bool) -> Tensor:
    """What the losses read of the advantages, [MOMENTS]."""
    device, batch_size = advantages.device, len(advantages)
    moments = torch.empty(MOMENTS, dtype=torch.float32, device=device)
    rows = (advantages, valid)
    programs = triton.cdiv(batch_size, MOMENTS_BLOCK)
    if programs == 1:
        moments_kernel[(1,)](
            *rows, moments, batch_size, NORM_ADV=norm_adv, BLOCK_B=MOMENTS_BLOCK, **OPTIONS
        )
        return moments
    partials = torch.empty(programs, MOMENTS, dtype=torch.float32, device=device)
    partial_kernel[(programs,)](*rows, partials, batch_size, BLOCK_B=MOMENTS_BLOCK, **OPTIONS)
    merge_kernel[(1,)](
        partials, moments, programs, NORM_ADV=norm_adv, BLOCK_P=MERGE_BLOCK, **OPTIONS
    )
    return moments
