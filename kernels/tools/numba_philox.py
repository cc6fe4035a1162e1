"""Philox-4x32-10 and the noise made of it, for ROWS rows at once.

Rows run side by side in SIMD registers: a counter's rounds depend on one another, its neighbours'
do not. sin, cos and log are written out, because a call into libm would keep the loops scalar.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

import math

import numpy as np
from numba import njit

from fastppo.kernels.tools import philox
from fastppo.kernels.tools.numba_math import HALF, ONE, log
from fastppo.kernels.tools.numba_memory import OPTIONS

ROWS = 16
UINT32 = np.uint64(philox.MASK)
_ROUND_A, _ROUND_B = np.uint64(philox.ROUND_A), np.uint64(philox.ROUND_B)
_WEYL_A, _WEYL_B = np.uint32(philox.WEYL_A), np.uint32(philox.WEYL_B)
_SHIFT, _LOW_BITS = np.uint64(32), np.uint32(9)
_TO_UNIT = np.float32(2.0**-23)
_TWO = np.float32(2.0)
_TWO_PI = np.float32(2.0 * math.pi)
_TWO_OVER_PI = np.float32(2.0 / math.pi)
# pi / 2 in three parts, the first two short enough for exact multiples (Cephes sinf)
_HALF_PI_HIGH = np.float32(1.5703125)
_HALF_PI_MIDDLE = np.float32(4.837512969970703125e-4)
_HALF_PI_LOW = np.float32(7.54978995489188216e-8)


@njit(inline="always", **OPTIONS)
def _unit(word):
    return (np.float32(np.int32(word >> _LOW_BITS)) + HALF) * _TO_UNIT


@njit(**OPTIONS)
def uniforms(envs, step, key, block, u):
    """Numbers 4 * block .. + 4 of each row, in (0, 1).

    Args:
        envs: [ROWS] uint32.
        step, key: 64 bits in an int64.
        block: int64.
        u: [4, ROWS] float32, written.
    """
    low = np.uint32(np.uint64(step) & UINT32)
    high = np.uint32(np.uint64(step) >> _SHIFT)
    key_low = np.uint32(np.uint64(key) & UINT32)
    key_high = np.uint32(np.uint64(key) >> _SHIFT)
    last = np.uint32(block)
    for k in range(ROWS):
        c0, c1, c2, c3 = envs[k], low, high, last
        k0, k1 = key_low, key_high
        for _ in range(10):
            a = np.uint64(c0) * _ROUND_A
            b = np.uint64(c2) * _ROUND_B
            c0 = np.uint32(np.uint32(b >> _SHIFT) ^ c1 ^ k0)
            c2 = np.uint32(np.uint32(a >> _SHIFT) ^ c3 ^ k1)
            c1 = np.uint32(b & UINT32)
            c3 = np.uint32(a & UINT32)
            k0 = np.uint32(k0 + _WEYL_A)
            k1 = np.uint32(k1 + _WEYL_B)
        u[0, k] = _unit(c0)
        u[1, k] = _unit(c1)
        u[2, k] = _unit(c2)
        u[3, k] = _unit(c3)


@njit(inline="always", **OPTIONS)
def gumbel(u):
    """A standard Gumbel number of a uniform one."""
    return -log(-log(u))


@njit(inline="always", **OPTIONS)
def normals(u, v):
    """Two standard normal numbers of two uniform ones (Box and Muller)."""
    radius = np.float32(math.sqrt(-_TWO * log(u)))
    angle = _TWO_PI * v
    quarter = np.int32(angle * _TWO_OVER_PI + HALF)  # 0 .. 4
    k = np.float32(quarter)
    x = angle - k * _HALF_PI_HIGH
    x = x - k * _HALF_PI_MIDDLE
    x = x - k * _HALF_PI_LOW
    z = x * x
    # Cephes sinf and cosf on [-pi / 4, pi / 4]
    s = np.float32(-1.9515295891e-4)
    s = s * z + np.float32(8.3321608736e-3)
    s = s * z + np.float32(-1.6666654611e-1)
    s = s * z * x + x
    c = np.float32(2.443315711809948e-5)
    c = c * z + np.float32(-1.388731625493765e-3)
    c = c * z + np.float32(4.166664568298827e-2)
    c = c * z * z - HALF * z + ONE
    swap = (quarter & np.int32(1)) != np.int32(0)
    cosine = s if swap else c
    sine = c if swap else s
    cosine = -cosine if ((quarter + np.int32(1)) & np.int32(2)) != np.int32(0) else cosine
    sine = -sine if (quarter & np.int32(2)) != np.int32(0) else sine
    return radius * cosine, radius * sine


@njit(**OPTIONS)
def load_envs(first, num_rows, first_env, env_ids, envs):
    """Environment ids of rows first .. first + ROWS; past the end, those of the last row."""
    for k in range(ROWS):
        row = min(first + k, num_rows - 1)
        env = env_ids[row] if env_ids.shape[0] > 0 else first_env + row
        envs[k] = np.uint32(np.uint64(env) & UINT32)
