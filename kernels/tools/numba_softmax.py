"""Softmax along a row as wide as a vocabulary, on the CPU: log-probability, entropy, gradient.

What works on the same logits works here, so that a token that is scored twice gets the same bits.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

import numpy as np
from numba import njit

from fastppo.kernels.tools.numba_math import LOG_MIN, NO_CHANCE, ONE, ZERO, exp_of_negative
from fastppo.kernels.tools.numba_memory import OPTIONS, SUMMING

BLOCK = 1024
"""Columns that add up in float32 before they join a float64 sum."""


@njit(**OPTIONS)
def _widened(halves, out):
    """bfloat16 bits to float32."""
    for j in range(out.shape[0]):
        out[j] = np.int32(np.int32(halves[j]) << np.int32(16)).view(np.float32)


@njit(**OPTIONS)
def rounded(values, out):
    """float32 to bfloat16 bits, to nearest even; NaN stays NaN."""
    for j in range(out.shape[0]):
        bits = np.float32(values[j]).view(np.int32)
        odd = (bits >> np.int32(16)) & np.int32(1)
        near = np.int32(bits + np.int32(0x7FFF) + odd) >> np.int32(16)
        out[j] = np.uint16(0x7FC0 if values[j] != values[j] else near)


@njit(**OPTIONS)
def forbid(allowed, z):
    for j in range(z.shape[0]):
        z[j] = z[j] if allowed[j] else -np.inf


@njit(**OPTIONS)
def _ordered(bits):
    """float32 bits to integers in the same order, and back; NaN beyond the infinities."""
    return bits ^ ((bits >> np.int32(31)) & np.int32(0x7FFFFFFF))


@njit(**OPTIONS)
def maximum(z):
    """Largest of a row. A NaN wins, or is passed over and shows in the differences to the largest.

    By integers, because LLVM vectorises a float maximum only if it may assume that none is NaN.
    """
    bits = z.view(np.int32)
    largest = _ordered(bits[0])
    for j in range(1, bits.shape[0]):
        key = _ordered(bits[j])
        largest = key if key > largest else largest
    return np.int32(_ordered(largest)).view(np.float32)


@njit(**OPTIONS)
def _exponentials(z, top, e):
    """z to q = z - top, e to exp q."""
    for j in range(z.shape[0]):
        q = z[j] - top
        e[j] = exp_of_negative(q)
        # finite, so that 0 * q is no NaN
        z[j] = NO_CHANCE if q < LOG_MIN else q


# "reassoc" must not reach into an exponential, so the terms are stored before they are added
@njit(**SUMMING)
def _sum(e):
    total = ZERO
    for j in range(e.shape[0]):
        total += e[j]
    return np.float64(total)


@njit(**SUMMING)
def _weighted_sum(e, q):
    total = ZERO
    for j in range(e.shape[0]):
        total += e[j] * q[j]
    return np.float64(total)


@njit(**OPTIONS)
def softmax(z, top, e):
    """`_exponentials`, and the sums of e and e * q over the row."""
    total, weighted = 0.0, 0.0
    for first in range(0, z.shape[0], BLOCK):
        q, p = z[first : first + BLOCK], e[first : first + BLOCK]
        _exponentials(q, top, p)
        total += _sum(p)
        weighted += _weighted_sum(p, q)
    return np.float32(total), np.float32(weighted)


@njit(**OPTIONS)
def gradient(z, e, factor, entropy_scale, tail):
    for j in range(z.shape[0]):
        z[j] = factor * e[j] * (entropy_scale * z[j] + tail)


@njit(**OPTIONS)
def copy(values, out):
    for j in range(values.shape[0]):
        out[j] = values[j]


@njit(**OPTIONS)
def _scale(z, factor):
    for j in range(z.shape[0]):
        z[j] *= factor


@njit(**OPTIONS)
def load_row(wide, halves, i, bfloat16, cooled, z):
    """Row i of the logits, float32 or bfloat16, times `cooled` = 1 / temperature, to z."""
    if bfloat16:
        _widened(halves[i], z)
    else:
        copy(wide[i], z)
    if cooled != ONE:
        _scale(z, cooled)
