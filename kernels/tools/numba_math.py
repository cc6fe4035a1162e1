"""exp and log as arithmetic, because a call into libm keeps the loop around it scalar."""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

import numpy as np
from numba import njit

from fastppo.kernels.tools.numba_memory import OPTIONS

ZERO, HALF, ONE = np.float32(0.0), np.float32(0.5), np.float32(1.0)
LOG_MIN = np.float32(-87.0)
"""e**x is a normal float32 from here on."""
NO_CHANCE = np.float32(-120.0)
"""Stands for log 0: its exponential is 0, but 0 * NO_CHANCE is no NaN."""

_LOG2_E = np.float32(1.4426950408889634)
_LN2_HIGH, _LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
_MAGIC = np.float32(12582912.0)  # 1.5 * 2**23: adding it rounds to an integer, kept in the low bits
_MAGIC_BITS = np.int32(0x4B400000)
_EXP_MAX = np.float32(90.0)
_TANH_BOUND = np.float32(7.90531110763549805)
_SQRT_HALF = np.float32(0.70710678)


@njit(inline="always", **OPTIONS)
def exp(x):
    """e**x within 2 ulp; 0 below -104, inf above 88.73, NaN for NaN (Cephes expf)."""
    x = NO_CHANCE if x < NO_CHANCE else x
    x = _EXP_MAX if x > _EXP_MAX else x
    shifted = x * _LOG2_E + _MAGIC
    k = shifted - _MAGIC
    x = x - k * _LN2_HIGH
    x = x - k * _LN2_LOW
    y = np.float32(1.9875691500e-4)
    y = y * x + np.float32(1.3981999507e-3)
    y = y * x + np.float32(8.3334519073e-3)
    y = y * x + np.float32(4.1665795894e-2)
    y = y * x + np.float32(1.6666665459e-1)
    y = y * x + np.float32(5.0000001201e-1)
    y = y * x * x + x + ONE
    # 2**k in two factors: one alone cannot reach k = 128 (overflow) or k < -126 (denormals).
    n = np.int32(np.float32(shifted).view(np.int32) - _MAGIC_BITS)
    low = np.int32(n >> np.int32(1))
    high = np.int32(n - low)
    y = y * np.int32((low + np.int32(127)) << np.int32(23)).view(np.float32)
    return y * np.int32((high + np.int32(127)) << np.int32(23)).view(np.float32)


@njit(inline="always", **OPTIONS)
def exp_of_negative(x):
    """e**x within 2 ulp for x <= 0, and 0 below LOG_MIN; NaN for NaN. Half the work of `exp`."""
    clamped = LOG_MIN if x < LOG_MIN else x
    shifted = clamped * _LOG2_E + _MAGIC
    k = shifted - _MAGIC
    r = clamped - k * _LN2_HIGH
    r = r - k * _LN2_LOW
    y = np.float32(1.9875691500e-4)
    y = y * r + np.float32(1.3981999507e-3)
    y = y * r + np.float32(8.3334519073e-3)
    y = y * r + np.float32(4.1665795894e-2)
    y = y * r + np.float32(1.6666665459e-1)
    y = y * r + np.float32(5.0000001201e-1)
    y = y * r * r + r + ONE
    # adds k to the exponent: the low bits of `shifted` hold it, the shift drops the others
    bits = np.int32(np.float32(shifted).view(np.int32) << np.int32(23))
    y = np.int32(np.float32(y).view(np.int32) + bits).view(np.float32)
    return ZERO if x < LOG_MIN else y


@njit(inline="always", **OPTIONS)
def tanh(x):
    """tanh x within 5e-7; NaN for NaN. The rational approximation of Eigen's and XLA's float tanh.

    Beyond the bound it is 1 to the last bit.
    """
    x = -_TANH_BOUND if x < -_TANH_BOUND else x
    x = _TANH_BOUND if x > _TANH_BOUND else x
    y = x * x
    p = np.float32(-2.76076847742355e-16)
    p = p * y + np.float32(2.00018790482477e-13)
    p = p * y + np.float32(-8.60467152213735e-11)
    p = p * y + np.float32(5.12229709037114e-08)
    p = p * y + np.float32(1.48572235717979e-05)
    p = p * y + np.float32(6.37261928875436e-04)
    p = p * y + np.float32(4.89352455891786e-03)
    q = np.float32(1.19825839466702e-06)
    q = q * y + np.float32(1.18534705686654e-04)
    q = q * y + np.float32(2.26843463243900e-03)
    q = q * y + np.float32(4.89352518554385e-03)
    return x * p / q


@njit(inline="always", **OPTIONS)
def log(x):
    """ln x within 2 ulp for normal x > 0; NaN for NaN (Cephes logf)."""
    bits = np.float32(x).view(np.int32)
    e = np.int32(((bits >> np.int32(23)) & np.int32(255)) - np.int32(126))
    m = np.int32((bits & np.int32(0x7FFFFF)) | np.int32(0x3F000000)).view(np.float32)
    small = m < _SQRT_HALF
    e = np.int32(e - np.int32(1)) if small else e
    m = (m + m if small else m) - ONE
    z = m * m
    y = np.float32(7.0376836292e-2)
    y = y * m + np.float32(-1.1514610310e-1)
    y = y * m + np.float32(1.1676998740e-1)
    y = y * m + np.float32(-1.2420140846e-1)
    y = y * m + np.float32(1.4249322787e-1)
    y = y * m + np.float32(-1.6668057665e-1)
    y = y * m + np.float32(2.0000714765e-1)
    y = y * m + np.float32(-2.4999993993e-1)
    y = y * m + np.float32(3.3333331174e-1)
    y = y * m * z
    k = np.float32(e)
    y = y + k * _LN2_LOW
    y = y - HALF * z
    y = m + y + k * _LN2_HIGH
    return y if x < np.float32(np.inf) else x
