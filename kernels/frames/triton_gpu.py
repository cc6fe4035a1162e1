"""Frame stacks from single frames on the GPU: bytes in, scaled images out, in one pass.

A program owns BLOCK pixels of one stack in all its frames. A thread reads neighbouring pixels of
each frame with one load and writes them with 128-bit stores: BLOCK and the number of warps are such
that one layout serves both, because a change of layout would go through shared memory.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastppo.kernels.tools.triton_options import OPTIONS


@triton.jit
def _load(frames_ptr, newest, back, age, num_envs, pixels, known, NUM_PIXELS: tl.constexpr):
    frame = newest - tl.minimum(back, age) * num_envs
    return tl.load(frames_ptr + frame * NUM_PIXELS + pixels, known & (pixels < NUM_PIXELS), other=0)


@triton.jit
def frames_kernel(
    frames_ptr,  # [T + S - 1, N, NUM_PIXELS] u8
    age_ptr,  # [T, N] u8
    index_ptr,  # [B] i64
    out_ptr,  # [B, S, NUM_PIXELS], or [B, NUM_PIXELS, S] if CHANNELS_LAST, written
    num_rows,  # T * N
    num_envs,
    scale,
    NUM_PIXELS: tl.constexpr,
    NUM_STACK: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    BLOCK: tl.constexpr,
):
    scale = tl.cast(scale, tl.float32)
    # int64: an element offset past 2**31 wraps silently
    b = tl.program_id(0).to(tl.int64)
    first = tl.program_id(1) * BLOCK
    pixels = first + tl.arange(0, BLOCK)
    row = tl.load(index_ptr + b)
    # a row out of range reads nothing: NaN, where an error would need the host to wait
    known = (row >= 0) & (row < num_rows)
    age = tl.load(age_ptr + row, known, other=0).to(tl.int64)
    newest = row + (NUM_STACK - 1) * tl.cast(num_envs, tl.int64)
    factor = tl.where(known, scale, float("nan"))
    out_ptr += b * (NUM_STACK * NUM_PIXELS)
    if CHANNELS_LAST and NUM_STACK == 4:
        f0 = _load(frames_ptr, newest, 3, age, num_envs, pixels, known, NUM_PIXELS)
        f1 = _load(frames_ptr, newest, 2, age, num_envs, pixels, known, NUM_PIXELS)
        f2 = _load(frames_ptr, newest, 1, age, num_envs, pixels, known, NUM_PIXELS)
        f3 = _load(frames_ptr, newest, 0, age, num_envs, pixels, known, NUM_PIXELS)
        # [BLOCK, 2, 2]: the last axis is that of the outer join
        stack = tl.reshape(tl.join(tl.join(f0, f2), tl.join(f1, f3)), (BLOCK * 4,))
        at = first * 4 + tl.arange(0, BLOCK * 4)
        image = (stack.to(tl.float32) * factor).to(out_ptr.dtype.element_ty)
        tl.store(out_ptr + at, image, at < NUM_PIXELS * 4)
    else:
        for s in tl.static_range(NUM_STACK):
            frame = _load(
                frames_ptr, newest, NUM_STACK - 1 - s, age, num_envs, pixels, known, NUM_PIXELS
            )
            image = (frame.to(tl.float32) * factor).to(out_ptr.dtype.element_ty)
            at = pixels * NUM_STACK + s if CHANNELS_LAST else s * NUM_PIXELS + pixels
            tl.store(out_ptr + at, image, pixels < NUM_PIXELS)


def tiling(element_size: int, channels_last: bool) -> dict[str, int]:
    """Pixels of a program and its warps: what a thread writes fills 128-bit stores.

    Not measured on a GPU yet: of the sizes tried these have no barrier (docs/performance.md).
    """
    return {"BLOCK": 256 if channels_last else 1024, "num_warps": 8 if element_size == 4 else 4}


def gather_frames(
    frames: Tensor,
    age: Tensor,
    index: Tensor,
    num_stack: int,
    dtype: torch.dtype,
    channels_last: bool,
    scale: float,
    out: Tensor | None,
) -> Tensor:
    """As `spec.gather_frames`, on CUDA."""
    batch_size, num_pixels = index.shape[0], frames.shape[2] * frames.shape[3]
    if out is None:
        out = torch.empty(
            (batch_size, num_stack, *frames.shape[2:]),
            dtype=dtype,
            device=frames.device,
            memory_format=torch.channels_last if channels_last else torch.contiguous_format,
        )
    if out.numel() > 0:
        constants = tiling(out.element_size(), channels_last)
        with torch.cuda.device_of(frames):
            frames_kernel[(batch_size, triton.cdiv(num_pixels, constants["BLOCK"]))](
                frames.contiguous(),
                age.contiguous(),
                index.contiguous(),
                out,
                age.numel(),
                age.shape[1],
                scale,
                NUM_PIXELS=num_pixels,
                NUM_STACK=num_stack,
                CHANNELS_LAST=channels_last,
                **constants,
                **OPTIONS,
            )
    return out
