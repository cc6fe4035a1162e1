"""Philox-4x32-10, a counter-based generator, in plain torch integer arithmetic.

Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011). Words are 32 bits wide and
held in int64 tensors: torch has no unsigned arithmetic, but the low 64 bits of a product do not
depend on the sign.
"""

from torch import Tensor

MASK = 0xFFFFFFFF
ROUND_A, ROUND_B = 0xD2511F53, 0xCD9E8D57
WEYL_A, WEYL_B = 0x9E3779B9, 0xBB67AE85


def philox4x32(
    c0: Tensor, c1: Tensor, c2: Tensor, c3: Tensor, key: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Four 32-bit random words per counter (c0, c1, c2, c3), in the counters' broadcast shape.

    Args:
        c0, c1, c2, c3: int64 tensors with values below 2**32, broadcast against each other.
        key: 64 bits.
    """
    k0, k1 = key & MASK, (key >> 32) & MASK
    for _ in range(10):
        a, b = c0 * ROUND_A, c2 * ROUND_B
        c0, c1, c2, c3 = (
            ((b >> 32) & MASK) ^ c1 ^ k0,
            b & MASK,
            ((a >> 32) & MASK) ^ c3 ^ k1,
            a & MASK,
        )
        k0, k1 = (k0 + WEYL_A) & MASK, (k1 + WEYL_B) & MASK
    return c0, c1, c2, c3


def to_uniform(words: Tensor) -> Tensor:
    """Float32 in the open interval (0, 1) from the top 23 bits of each word.

    With 24 bits the largest value rounds to 1, whose logarithm breaks Gumbel and normal noise.
    """
    return ((words >> 9).float() + 0.5) * 2.0**-23
