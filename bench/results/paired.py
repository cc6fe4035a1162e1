"""Interleaved timing of several ways to do one thing, and what the pairs say.

A shared machine slows down and recovers within a second. So the ways take turns, each round in
a fresh order, and only ratios of one round are compared.
"""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class Ratio:
    """Median of paired ratios with a 95% interval for it."""

    value: float
    low: float
    high: float


def median_interval(values: Sequence[float], confidence: float = 0.95) -> Ratio:
    """The median, and an interval that covers the true one with at least this confidence.

    By order statistics: the count of values below the median is binomial whatever the noise looks
    like. With fewer than six values the interval is the whole range, and covers less.
    """
    if not values:
        raise ValueError("values is empty: a median needs at least one")
    ordered = sorted(values)
    n = len(ordered)
    cut, tail = 0, 0.0
    for k in range(n // 2):
        tail += math.comb(n, k) * 0.5**n
        if 2.0 * tail > 1.0 - confidence:
            break
        cut = k + 1
    low, high = (ordered[cut - 1], ordered[n - cut]) if cut else (ordered[0], ordered[-1])
    return Ratio(median(ordered), low, high)


def interleave(
    measures: Mapping[str, Callable[[], float]], rounds: int, seed: int = 0
) -> dict[str, list[float]]:
    """Calls every measure once per round, in an order drawn afresh each time.

    Args:
        measures: each returns the seconds that one slice of its work took.

    Returns:
        The samples by name, `rounds` each; samples of one position belong together.
    """
    order = random.Random(seed)
    names = list(measures)
    samples: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        order.shuffle(names)
        for name in names:
            samples[name].append(measures[name]())
    return samples


def speedup(samples: Mapping[str, Sequence[float]], name: str, over: str) -> Ratio:
    """How many times less time `name` takes than `over`, from the pairs."""
    return median_interval(
        [theirs / ours for ours, theirs in zip(samples[name], samples[over], strict=True)]
    )
