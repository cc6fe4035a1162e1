"""Transposition between rows in memory and a tile whose rows are their columns.

Of the loop `tile[j, k] = rows[k, j]` LLVM makes single loads, put together lane by lane. Here the
CPU's shuffles turn squares of 8 x 8 or 4 x 4 floats within SIMD registers.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from fastppo.kernels.tools.numba_memory import OPTIONS, SIZE, address_of


def _turned(builder: Any, rows: list[ir.Value]) -> list[ir.Value]:
    """The columns of n vectors of n lanes, in log2 n rounds of n shuffles."""
    n = len(rows)
    distance = 1
    while distance < n:
        # of two rows `distance` apart: swap what is off the diagonal of each 2 x 2 block of blocks
        turned = list(rows)
        for upper in (row for row in range(n) if not row & distance):
            lower = upper + distance
            lanes = range(n)
            masks = {
                upper: [n + lane - distance if lane & distance else lane for lane in lanes],
                lower: [n + lane if lane & distance else lane + distance for lane in lanes],
            }
            for row, mask in masks.items():
                constant = ir.Constant(ir.VectorType(ir.IntType(32), n), mask)
                turned[row] = builder.shuffle_vector(rows[upper], rows[lower], constant)
        rows = turned
        distance *= 2
    return rows


def _square(n: int) -> Any:
    @intrinsic
    def turn(_context: Any, source: Any, source_step: Any, target: Any, target_step: Any) -> Any:
        """target[j, k] = source[k, j] of n x n floats; int64 addresses, elements a row."""

        def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> ir.Value:
            vector = ir.VectorType(ir.FloatType(), n).as_pointer()

            def row(address: ir.Value, stride: ir.Value, k: int) -> ir.Value:
                offset = builder.mul(stride, ir.Constant(stride.type, k * SIZE))
                return builder.inttoptr(builder.add(address, offset), vector)

            source, source_stride, target, target_stride = arguments
            rows = [builder.load(row(source, source_stride, k), align=SIZE) for k in range(n)]
            for j, column in enumerate(_turned(builder, rows)):
                builder.store(column, row(target, target_stride, j), align=SIZE)
            return ir.Constant(ir.IntType(8).as_pointer(), None)

        return types.none(*[types.int64] * 4), generate

    return turn


_turn_4, _turn_8 = _square(4), _square(8)


@njit(**OPTIONS)
def _transpose(source, source_stride, target, target_stride, height, width):
    """target[j, k] = source[k, j] for k < height, j < width; both at least 4."""
    block = 8 if min(height, width) >= 8 else 4
    for first_k in range(0, height, block):
        # the last block may overlap the one before: it writes the same again
        k = min(first_k, height - block)
        for first_j in range(0, width, block):
            j = min(first_j, width - block)
            here = address_of(source) + (k * source_stride + j) * SIZE
            there = address_of(target) + (j * target_stride + k) * SIZE
            if block == 8:
                _turn_8(here, source_stride, there, target_stride)
            else:
                _turn_4(here, source_stride, there, target_stride)


def _few_columns(n: int) -> tuple[Any, Any]:
    """Both ways for n columns: of loads and stores n apart, n a constant, LLVM makes vectors."""

    @njit(**OPTIONS)
    def split(rows, columns, stride):
        for k in range(rows.shape[0] // n):
            for j in range(n):
                columns[j * stride + k] = rows[k * n + j]

    @njit(**OPTIONS)
    def join(columns, stride, rows):
        for k in range(rows.shape[0] // n):
            for j in range(n):
                rows[k * n + j] = columns[j * stride + k]

    return split, join


_split_2, _join_2 = _few_columns(2)
_split_3, _join_3 = _few_columns(3)


@njit(**OPTIONS)
def _split(rows, width, columns, stride):
    for k in range(rows.shape[0] // width):
        for j in range(width):
            columns[j * stride + k] = rows[k * width + j]


@njit(**OPTIONS)
def _join(columns, stride, width, rows):
    for k in range(rows.shape[0] // width):
        for j in range(width):
            rows[k * width + j] = columns[j * stride + k]


@njit(**OPTIONS)
def to_tile(rows, width, tile):
    """tile[j, k] = rows[k, j] for the rows that there are.

    Args:
        rows: [K * width] float32, dense.
        tile: [width, >= K] float32, dense.
    """
    height, stride = rows.shape[0] // width, tile.shape[1]
    if width >= 4 and height >= 4:
        _transpose(rows, width, tile, stride, height, width)
    elif width == 2:
        _split_2(rows, tile.reshape(-1), stride)
    elif width == 3:
        _split_3(rows, tile.reshape(-1), stride)
    else:
        _split(rows, width, tile.reshape(-1), stride)


@njit(**OPTIONS)
def from_tile(tile, width, rows):
    """The way back of `to_tile`."""
    height, stride = rows.shape[0] // width, tile.shape[1]
    if width >= 4 and height >= 4:
        _transpose(tile, stride, rows, width, width, height)
    elif width == 2:
        _join_2(tile.reshape(-1), stride, rows)
    elif width == 3:
        _join_3(tile.reshape(-1), stride, rows)
    else:
        _join(tile.reshape(-1), stride, width, rows)
