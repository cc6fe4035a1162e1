"""Interleaved timing of several ways to do one thing, and what the pairs say.

A shared machine slows down and recovers within a second. So the ways take turns, each round in
a fresh order, and only ratios of one round are compared.
"""

import random
from collections.abc import Callable, Mapping, Sequence

from fastppo.bench.results.intervals import Interval, median_interval


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


def speedup(samples: Mapping[str, Sequence[float]], name: str, over: str) -> Interval:
    """How many times less time `name` takes than `over`, from the pairs."""
    return median_interval(
        [theirs / ours for ours, theirs in zip(samples[name], samples[over], strict=True)]
    )
