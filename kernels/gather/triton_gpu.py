"""Rows of many fields on the GPU in one launch.

A program owns BLOCK_B rows of the minibatch: it reads their indices once and copies chunk number
program_id(1) of every field, so narrow fields ride along with chunk 0 of a wide one. The fields
come as tuples of pointers, and the loop over them unrolls: each keeps its own dtype and width.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastppo.kernels.tools.triton_options import OPTIONS

TILE = 1024  # elements that a program copies at a time


@triton.jit
def _copy(
    source_ptr, target_ptr, row, b, chunk, known, inside, WIDTH: tl.constexpr, BLOCK_W: tl.constexpr
):
    """Chunk number `chunk` of the rows of one field."""
    nothing: tl.constexpr = float("nan") if source_ptr.dtype.element_ty.is_floating() else 0
    if WIDTH == 1:
        value = tl.load(source_ptr + row, known & (chunk == 0), other=nothing)
        tl.store(target_ptr + b, value, inside & (chunk == 0))
    else:
        column = (chunk * BLOCK_W + tl.arange(0, BLOCK_W))[None, :]
        taken = known[:, None] & (column < WIDTH)
        value = tl.load(source_ptr + row[:, None] * WIDTH + column, taken, other=nothing)
        given = inside[:, None] & (column < WIDTH)
        tl.store(target_ptr + b[:, None] * WIDTH + column, value, given)


# a minibatch's part of a shuffle begins at any row
@triton.jit(do_not_specialize_on_alignment=["index_ptr"])
def gather_kernel(
    sources,  # tuple of [R, width]
    targets,  # tuple of [B, width], written
    index_ptr,  # [B] i64
    batch_size,
    num_rows,
    WIDTHS: tl.constexpr,
    BLOCKS_W: tl.constexpr,
    BLOCK_B: tl.constexpr,
):
    # int64: an element offset past 2**31 wraps silently
    b = tl.program_id(0).to(tl.int64) * BLOCK_B + tl.arange(0, BLOCK_B)
    chunk = tl.program_id(1).to(tl.int64)
    inside = b < batch_size
    row = tl.load(index_ptr + b, inside, other=-1)
    # a row out of range reads nothing: NaN or zero, where an error would need the host to wait
    known = (row >= 0) & (row < num_rows)
    for f in tl.static_range(len(WIDTHS)):
        _copy(sources[f], targets[f], row, b, chunk, known, inside, WIDTHS[f], BLOCKS_W[f])


def tiling(widths: tuple[int, ...]) -> dict[str, object]:
    """Constants of the kernel for fields of these widths (elements per row).

    Not measured on a GPU yet: a tile gives each of 128 threads 8 elements.
    """
    widest = max(widths)
    block_b = max(1, min(128, TILE // triton.next_power_of_2(widest)))
    blocks_w = tuple(min(triton.next_power_of_2(w), TILE // block_b) for w in widths)
    return {"WIDTHS": widths, "BLOCKS_W": blocks_w, "BLOCK_B": block_b, "num_warps": 4}


def _plain(tensor: Tensor) -> Tensor:
    """As the kernel takes it: dense, and bool viewed as uint8."""
    tensor = tensor.contiguous()
    return tensor.view(torch.uint8) if tensor.dtype == torch.bool else tensor


def gather_rows(
    fields: Sequence[Tensor], index: Tensor, out: Sequence[Tensor] | None
) -> tuple[Tensor, ...]:
    """As `spec.gather_rows`, on CUDA."""
    batch_size, num_rows = index.shape[0], fields[0].shape[0]
    if out is None:
        out = [
            torch.empty((batch_size, *f.shape[1:]), dtype=f.dtype, device=f.device) for f in fields
        ]
    targets = [target.contiguous() for target in out]
    pairs = [(s, t) for s, t in zip(fields, targets, strict=True) if t.numel() > 0]
    if pairs:
        widths = tuple(target.numel() // batch_size for _, target in pairs)
        constants = tiling(widths)
        chunks = max(
            triton.cdiv(w, block)
            for w, block in zip(widths, constants["BLOCKS_W"], strict=True)  # type: ignore[call-overload]
        )
        with torch.cuda.device_of(index):
            gather_kernel[(triton.cdiv(batch_size, constants["BLOCK_B"]), chunks)](
                tuple(_plain(source) for source, _ in pairs),
                tuple(_plain(target) for _, target in pairs),
                index.contiguous(),
                batch_size,
                num_rows,
                **constants,
                **OPTIONS,
            )
    for target, given in zip(targets, out, strict=True):
        if target is not given:
            given.copy_(target)
    return tuple(out)
