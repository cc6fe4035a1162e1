"""When an implementation has warmed up: found in its own update times, not assumed."""

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import median, quantiles

SHORTEST = 4
"""Updates that a steady tail must have: two halves of two."""
TOLERANCE = 0.05
"""Halves whose medians differ by less are equal on any machine."""


def steady_index(durations: Sequence[float]) -> int | None:
    """How many leading updates are warm-up; None if there is no steady state.

    The earliest start whose update is not an outlier among those after it, and from which the first
    half of the updates takes as long as the second: their medians differ by less than TOLERANCE,
    or by less than twice the standard error of that difference. After pyperf's calibration
    (V. Stinner), which compares the same things.

    Args:
        durations: seconds of successive updates.
    """
    for start in range(len(durations) - SHORTEST + 1):
        tail = durations[start:]
        middle = len(tail) // 2
        if not _outlier(tail[0], tail[1:]) and _alike(tail[:middle], tail[middle:], _noise(tail)):
            return start
    return None


def _outlier(value: float, others: Sequence[float]) -> bool:
    """Tukey's rule, but nothing within TOLERANCE of the median is one."""
    low, middle, high = quantiles(others, n=4, method="inclusive")
    return bool(value > max(high + 1.5 * (high - low), middle * (1.0 + TOLERANCE)))


def _alike(first: Sequence[float], second: Sequence[float], noise: float) -> bool:
    a, b = median(first), median(second)
    # 1.2533 sd / sqrt(n) is the standard error of a median
    error = 1.2533 * noise * math.sqrt(1.0 / len(first) + 1.0 / len(second))
    return abs(a - b) <= max(TOLERANCE * min(a, b), 2.0 * error)


def _noise(values: Sequence[float]) -> float:
    """Standard deviation from one update to the next: a trend is not noise.

    From the median absolute deviation (times 1.4826) of successive differences (over root two).
    """
    steps = [after - before for before, after in pairwise(values)]
    usual = median(steps)
    return 1.4826 * median(abs(step - usual) for step in steps) / math.sqrt(2.0)
