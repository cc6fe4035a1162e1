"""Frame stacks from single frames on the CPU: bytes in, scaled images out, in one pass.

Channels last, the frames of a stack interleave. That is done on bytes, a tile of pixels at a time,
four of them to a 32-bit word, before they widen to floats; the tile stays in the L1 cache. Both
loops then run over contiguous memory and fill whole SIMD registers. One thread keeps up with the
memory: a second one gained nothing (docs/performance.md).
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from functools import cache

import numpy as np
import torch
from numba import carray, njit
from torch import Tensor

from fastppo.kernels.tools.numba_memory import OPTIONS, dense, kernel, pointer

_TILE = 1024  # pixels


@kernel("boolean(int64, int64, int64)")
def out_of_range_kernel(index_address, batch_size, num_rows):
    index = carray(pointer(index_address), batch_size, np.int64)
    bad = 0
    for i in range(batch_size):
        bad += 1 if index[i] < 0 or index[i] >= num_rows else 0
    return bad > 0


@njit(**OPTIONS)
def _scale(source, target, factor):
    for i in range(target.shape[0]):
        target[i] = np.float32(source[i]) * factor


@njit(**OPTIONS)
def _look_up(source, target, table):
    for i in range(target.shape[0]):
        target[i] = table[source[i]]


@njit(**OPTIONS)
def _interleave_4(first, second, third, fourth, target):
    for i in range(first.shape[0]):
        low = np.uint32(first[i]) | np.uint32(np.uint32(second[i]) << np.uint32(8))
        high = np.uint32(third[i]) | np.uint32(np.uint32(fourth[i]) << np.uint32(8))
        target[i] = low | np.uint32(high << np.uint32(16))


@njit(**OPTIONS)
def _spread(source, target, stride):
    for i in range(source.shape[0]):
        target[i * stride] = source[i]


@kernel(
    "void(int64, int64, int64, int64, int64, int64, int64, int64, int64, int64, float32, int64,"
    " boolean)"
)
def frames_kernel(
    frames_address, age_address, index_address, out_address, batch_size, num_rows, num_envs,
    num_pixels, num_stack, element_size, factor, table_address, channels_last,
):  # fmt: skip
    """Every index is in range.

    element_size 4 writes float32, source times factor; 2 writes table[source], 16-bit words.
    """
    num_frames = (num_rows + num_stack - 1) * num_envs
    frames = carray(pointer(frames_address), (num_frames, num_pixels), np.uint8)
    age = carray(pointer(age_address), num_rows * num_envs, np.uint8)
    index = carray(pointer(index_address), batch_size, np.int64)
    size = num_stack * num_pixels
    floats = carray(
        pointer(out_address), (batch_size if element_size == 4 else 0, size), np.float32
    )
    words = carray(pointer(out_address), (batch_size if element_size == 2 else 0, size), np.uint16)
    table = carray(pointer(table_address), 256, np.uint16)
    packed = np.empty((_TILE * num_stack + 3) // 4, np.uint32)
    tile = packed.view(np.uint8)
    places = np.empty(num_stack, np.int64)
    for b in range(batch_size):
        newest = index[b] + (num_stack - 1) * num_envs
        for s in range(num_stack):
            places[s] = newest - min(num_stack - 1 - s, np.int64(age[index[b]])) * num_envs
        if not channels_last:
            for s in range(num_stack):
                begin, end = s * num_pixels, (s + 1) * num_pixels
                if element_size == 4:
                    _scale(frames[places[s]], floats[b, begin:end], factor)
                else:
                    _look_up(frames[places[s]], words[b, begin:end], table)
            continue
        for begin in range(0, num_pixels, _TILE):
            end = min(begin + _TILE, num_pixels)
            if num_stack == 4:
                _interleave_4(
                    frames[places[0], begin:end],
                    frames[places[1], begin:end],
                    frames[places[2], begin:end],
                    frames[places[3], begin:end],
                    packed,
                )
            else:
                for s in range(num_stack):
                    _spread(frames[places[s], begin:end], tile[s:], num_stack)
            if element_size == 4:
                _scale(tile, floats[b, begin * num_stack : end * num_stack], factor)
            else:
                _look_up(tile, words[b, begin * num_stack : end * num_stack], table)


@cache
def _table(scale: float, dtype: torch.dtype) -> Tensor:
    """What each byte becomes, [256]: numba computes with neither of the 16-bit floats."""
    return (torch.arange(256, device="cpu").float() * scale).to(dtype)


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
    """As `spec.gather_frames`, on the CPU."""
    frames, age, index = dense(frames), dense(age), dense(index)
    num_rows, num_envs = age.shape
    height, width = frames.shape[2:]
    if out_of_range_kernel(index.data_ptr(), index.shape[0], num_rows * num_envs):
        span = f"{int(index.min())} to {int(index.max())}"
        raise IndexError(f"index spans {span}: expected rows 0 to {num_rows * num_envs - 1}")
    if out is None:
        layout = torch.channels_last if channels_last else torch.contiguous_format
        shape = (index.shape[0], num_stack, height, width)
        out = torch.empty(shape, dtype=dtype, device="cpu", memory_format=layout)
    element_size = out.element_size()
    table = _table(scale, torch.bfloat16 if element_size == 4 else dtype)
    frames_kernel(
        frames.data_ptr(),
        age.data_ptr(),
        index.data_ptr(),
        out.data_ptr(),
        index.shape[0],
        num_rows,
        num_envs,
        height * width,
        num_stack,
        element_size,
        scale,
        table.data_ptr(),
        channels_last,
    )
    return out
