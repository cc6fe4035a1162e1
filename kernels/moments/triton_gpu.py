"""Running moments and normalisation on the GPU: tiles of rows by columns.

`partial_moments_kernel` gives each program a block of columns and a share of the rows. A tile's
mean and squares are taken from registers in float32, about that mean, so that no large mean
cancels; tiles are merged in float64, a few operations a column. `finish_moments_kernel` merges the
programs' results in a fixed order, and those into the running moments: the same input gives the
same bits.
The first launch copies the count, which the second advances while other programs read it.
`normalize_kernel` is one pass, and the third launch where an update also normalises.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastppo.kernels.loss.triton_moments import load_ok
from fastppo.kernels.tools.triton_options import OPTIONS

MAX_PARTS = 64


@triton.jit
def _merge(count, mean, squares, new_count, new_mean, new_squares):
    """Chan et al.: the moments of both; where neither has rows, the first."""
    total = count + new_count
    safe = tl.where(total > 0.0, total, 1.0)
    delta = new_mean - mean
    mean = mean + delta * (new_count / safe)
    squares = squares + new_squares + delta * delta * (count * new_count / safe)
    return total, mean, squares


@triton.jit
def partial_moments_kernel(
    rows_ptr,  # [B, D] of any number type
    valid_ptr,  # [B] bool, or None for all
    count_ptr,  # [] f64
    partials_ptr,  # [P, 3, D] f64, written: count, mean, sum of squares about it
    old_count_ptr,  # [] f64, written
    num_rows,
    num_columns,
    BLOCK_R: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    part = tl.program_id(0)
    column = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    within = column < num_columns
    lane = tl.arange(0, BLOCK_R).to(tl.int64)
    count = tl.zeros([BLOCK_D], tl.float64)
    mean = tl.zeros([BLOCK_D], tl.float64)
    squares = tl.zeros([BLOCK_D], tl.float64)
    stride = tl.num_programs(0).to(tl.int64) * BLOCK_R
    for start in range(part.to(tl.int64) * BLOCK_R, num_rows, stride):
        row = start + lane
        ok = load_ok(valid_ptr, row, row < num_rows)
        mask = ok[:, None] & within[None, :]
        at = row[:, None] * num_columns + column[None, :]
        x = tl.load(rows_ptr + at, mask, other=0).to(tl.float32)
        ones = tl.where(mask, 1.0, 0.0)
        tile_count = tl.sum(ones, 0)
        safe = tl.where(tile_count > 0.0, tile_count, 1.0)
        tile_mean = tl.sum(x, 0) / safe
        centred = tl.where(mask, x - tile_mean[None, :], 0.0)
        # what rounding took from the tile's mean
        low = tl.sum(centred, 0) / safe
        tile_squares = tl.sum(centred * centred, 0) - tile_count * low * low
        count, mean, squares = _merge(
            count,
            mean,
            squares,
            tile_count.to(tl.float64),
            tile_mean.to(tl.float64) + low.to(tl.float64),
            tile_squares.to(tl.float64),
        )
    at = partials_ptr + part.to(tl.int64) * 3 * num_columns + column
    tl.store(at, count, within)
    tl.store(at + num_columns, mean, within)
    tl.store(at + 2 * num_columns, squares, within)
    if part + tl.program_id(1) == 0:
        tl.store(old_count_ptr, tl.load(count_ptr))


@triton.jit
def finish_moments_kernel(
    mean_ptr,  # [D] f64, updated
    var_ptr,  # [D] f64, updated
    count_ptr,  # [] f64, updated
    partials_ptr,  # [P, 3, D] f64, from partial_moments_kernel
    old_count_ptr,  # [] f64, from partial_moments_kernel
    num_parts,
    num_columns,
    BLOCK_P: tl.constexpr,  # >= num_parts
    BLOCK_D: tl.constexpr,
):
    column = tl.program_id(0) * BLOCK_D + tl.arange(0, BLOCK_D)
    within = column < num_columns
    part = tl.arange(0, BLOCK_P).to(tl.int64)[:, None]
    at = partials_ptr + part * 3 * num_columns + column[None, :]
    mask = (part < num_parts) & within[None, :]
    counts = tl.load(at, mask, other=0.0)
    means = tl.load(at + num_columns, mask, other=0.0)
    # All parts at once: merged one by one, 64 of them took 40 us on an H200.
    new_count = tl.sum(counts, 0)
    new_mean = tl.sum(counts * means, 0) / tl.where(new_count > 0.0, new_count, 1.0)
    away = tl.where(counts > 0.0, means - new_mean[None, :], 0.0)
    parts_squares = tl.load(at + 2 * num_columns, mask, other=0.0)
    new_squares = tl.sum(parts_squares + counts * away * away, 0)
    old = tl.zeros([BLOCK_D], tl.float64) + tl.load(old_count_ptr)
    mean = tl.load(mean_ptr + column, within, other=0.0)
    squares = tl.load(var_ptr + column, within, other=0.0) * old
    total, mean, squares = _merge(old, mean, squares, new_count, new_mean, new_squares)
    # a tile's squares are float32: rows beyond 1e19 leave their column as it was
    seen = within & (new_count > 0.0) & (squares < float("inf"))
    squares = tl.where(squares < 0.0, 0.0, squares)
    tl.store(mean_ptr + column, mean, seen)
    tl.store(var_ptr + column, squares / tl.where(total > 0.0, total, 1.0), seen)
    # every column counts the same rows
    tl.store(count_ptr + column, total, within & (new_count > 0.0) & (column == 0))


@triton.jit
def normalize_kernel(
    out_ptr,  # [B, D] f32, written
    rows_ptr,  # [B, D] of any number type
    mean_ptr,  # [D] f64 or f32
    var_ptr,  # [D] f64 or f32
    num_rows,
    num_columns,
    clip,
    epsilon,
    BLOCK_R: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    clip = tl.cast(clip, tl.float32)
    row = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R).to(tl.int64)
    column = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    within = column < num_columns
    exact = tl.load(mean_ptr + column, within, other=0.0).to(tl.float64)
    var = tl.load(var_ptr + column, within, other=1.0).to(tl.float64)
    mean = exact.to(tl.float32)
    low = (exact - mean.to(tl.float64)).to(tl.float32)
    scale = (1.0 / tl.sqrt(var + epsilon)).to(tl.float32)
    mask = (row < num_rows)[:, None] & within[None, :]
    at = row[:, None] * num_columns + column[None, :]
    x = tl.load(rows_ptr + at, mask, other=0).to(tl.float32)
    y = (x - mean[None, :] - low[None, :]) * scale[None, :]
    # Comparisons, because minimum and maximum drop NaN on the device.
    y = tl.where(y < -clip, -clip, tl.where(y > clip, clip, y))
    tl.store(out_ptr + at, y, mask)


def blocks(num_columns: int) -> dict[str, int]:
    """Tile of either kernel: 2048 elements, 16 to 64 columns. Not measured on a GPU."""
    block_d = min(max(triton.next_power_of_2(num_columns), 16), 64)
    return {"BLOCK_R": 2048 // block_d, "BLOCK_D": block_d}


def finish_blocks(parts: int) -> dict[str, int]:
    """Tile of the merge: all parts, and 16 columns of them."""
    return {"BLOCK_P": triton.next_power_of_2(parts), "BLOCK_D": 16}


def update_moments(
    mean: Tensor, var: Tensor, count: Tensor, rows: Tensor, valid: Tensor | None
) -> None:
    """As `spec.update_moments`, on CUDA."""
    if rows.is_floating_point():
        # three launches of torch's: a row spans programs, none of which could tell alone
        finite = torch.linalg.vector_norm(rows.reshape(len(rows), -1), math.inf, 1) < math.inf
        valid = finite if valid is None else valid & finite
    num_rows, width = len(rows), mean.numel()
    tile = blocks(width)
    parts = min(triton.cdiv(num_rows, tile["BLOCK_R"]), MAX_PARTS)
    column_blocks = triton.cdiv(width, tile["BLOCK_D"])
    partials = torch.empty((parts, 3, width), dtype=torch.float64, device=rows.device)
    old_count = torch.empty((), dtype=torch.float64, device=rows.device)
    with torch.cuda.device_of(rows):
        partial_moments_kernel[(parts, column_blocks)](
            rows.contiguous(),
            None if valid is None else valid.contiguous(),
            count,
            partials,
            old_count,
            num_rows,
            width,
            **tile,
            **OPTIONS,
        )
        finish = finish_blocks(parts)
        finish_moments_kernel[(triton.cdiv(width, finish["BLOCK_D"]),)](
            mean,
            var,
            count,
            partials,
            old_count,
            parts,
            width,
            **finish,
            **OPTIONS,
        )


def normalize(
    out: Tensor, rows: Tensor, mean: Tensor, var: Tensor, clip: float, epsilon: float
) -> None:
    """As `spec.normalize`, on CUDA."""
    width = mean.numel()
    num_rows = rows.numel() // width
    tile = blocks(width)
    grid = (triton.cdiv(num_rows, tile["BLOCK_R"]), triton.cdiv(width, tile["BLOCK_D"]))
    with torch.cuda.device_of(rows):
        normalize_kernel[grid](
            out,
            rows.contiguous(),
            mean.contiguous(),
            var.contiguous(),
            num_rows,
            width,
            float(clip),
            float(epsilon),
            **tile,
            **OPTIONS,
        )
