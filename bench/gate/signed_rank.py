"""Where the middle of paired differences lies: Hodges and Lehmann's estimate, Wilcoxon's bounds.

Hodges and Lehmann (1963): the median of the Walsh averages (x_i + x_j) / 2, i <= j. Tukey's bounds:
the k-th average from either end, by the exact distribution of Wilcoxon's signed-rank statistic
(1945). All of it asks is that the differences are independent and symmetric about that middle.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Middle:
    """An estimate and two one-sided bounds, each wrong with probability `alpha` at most."""

    value: Array
    """[...]"""
    low: Array
    """[...]; -inf where so few differences bound nothing at this alpha."""
    high: Array
    """[...]"""


@cache
def critical(n: int, alpha: float) -> int:
    """The largest k with P(T <= k) <= alpha, T the signed-rank statistic of n; -1 without any.

    T is a sum over the ranks 1 to n, each in it with probability one half.
    """
    counts = np.zeros(n * (n + 1) // 2 + 1)
    counts[0] = 1.0
    for rank in range(1, n + 1):
        counts[rank:] += counts[:-rank].copy()
    below = np.cumsum(counts) * 0.5**n
    return int(np.searchsorted(below, alpha, side="right")) - 1


def middle(differences: ArrayLike, alpha: float) -> Middle:
    """The middle of symmetric differences, and its bounds.

    Args:
        differences: [..., n], n >= 1.
        alpha: error probability of each bound by itself, in (0, 1 / 2).

    Raises:
        ValueError: there is no difference, or one is not finite.
    """
    values = np.asarray(differences, np.float64)
    n = values.shape[-1]
    if n == 0 or not np.isfinite(values).all():
        raise ValueError("differences: need at least one, and every one finite")
    i, j = np.triu_indices(n)
    averages = np.sort((values[..., i] + values[..., j]) / 2, axis=-1)
    value = np.median(averages, axis=-1)
    k = critical(n, alpha)
    if k < 0:
        endless = np.full(value.shape, np.inf)
        return Middle(value, -endless, endless)
    return Middle(value, averages[..., k], averages[..., -1 - k])
