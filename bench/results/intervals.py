"""What an interval says, and how often it covers: the one home of intervals over rounds.

Launches of one program differ (memory layout, placement on cores) by as much as rounds within one
do. So rounds of one launch are not independent samples of the program; only launches are: from
FEWEST_LAUNCHES on, the interval is Student's, over the launches' medians. How often each covers is
simulated by `coverage`; docs/benchmarking.md has the table.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, median, stdev

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

CONFIDENCE = 0.95
TAIL = (1.0 - CONFIDENCE) / 2
"""How often each end misses."""
COVERS = "95%"
"""Label of an interval that covers the true value of the program in 95% of measurements."""
ONE_LAUNCH = "95% within a launch"
"""Label of one that covers what this process would show in the long run; another may differ."""
OLDER = "95% of rounds, older rule"
"""Label of one in a file from before there were labels, over at least FEWEST_ROUNDS rounds."""
FEWEST_ROUNDS = 6
"""With fewer, even the whole range of the rounds covers their median in less than 95%."""
FEWEST_LAUNCHES = 3


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate, and two ends whose meaning is their label."""

    value: float
    low: float
    high: float
    label: str = COVERS
    """COVERS, ONE_LAUNCH, or "range of 3 rounds", which promises nothing."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """An estimate with two limits, each of which misses in TAIL; of one study or of many."""

    value: Array
    """[...], as are the others."""
    low: Array
    """-inf where so few runs bound nothing."""
    high: Array


def over_launches(launches: Sequence[Sequence[float]]) -> Interval:
    """Centre and interval of positive values: rates, times, or ratios of rounds.

    Args:
        launches: the values of each launch's rounds.

    Raises:
        ValueError: there is no value, or one is not above 0.
    """
    kept = [list(values) for values in launches if values]
    values = [value for rounds in kept for value in rounds]
    if not values or min(values) <= 0.0:
        raise ValueError("values must be above 0, and at least one")
    if len(values) < FEWEST_ROUNDS or len(kept) < FEWEST_LAUNCHES:
        return median_interval(values, launches=len(kept))
    logs = [median(map(math.log, rounds)) for rounds in kept]
    reach = float(quantile(len(logs) - 1)) * stdev(logs) / math.sqrt(len(logs))
    centre = fmean(logs)
    return Interval(math.exp(centre), math.exp(centre - reach), math.exp(centre + reach))


def quantile(freedom: ArrayLike) -> Array:
    """Of Student's distribution: how many standard errors an interval of CONFIDENCE reaches."""
    from scipy import special  # slow to import, and no --help needs it

    reach: Array = special.stdtrit(np.minimum(freedom, 1e9), 1.0 - TAIL)
    return reach


def median_interval(
    values: Sequence[float], confidence: float = CONFIDENCE, *, launches: int = 1
) -> Interval:
    """The median of rounds, and an interval that covers their true one with this confidence.

    By order statistics: the count of values below the median is binomial whatever the noise looks
    like. Where too few rounds make it the whole range, or launches cannot be told from rounds, the
    label says so.
    """
    if not values:
        raise ValueError("values is empty: a median needs at least one")
    ordered = sorted(values)
    n = len(ordered)
    cut = order_statistics(n, confidence)
    if not cut or launches > 1:
        return Interval(median(ordered), ordered[0], ordered[-1], spread(n))
    return Interval(median(ordered), ordered[cut - 1], ordered[n - cut], ONE_LAUNCH)


def order_statistics(count: int, confidence: float = CONFIDENCE) -> int:
    """Which value from either end bounds the median so surely; 0 where even the range does not."""
    cut, tail = 0, 0.0
    for k in range(count // 2):
        tail += math.comb(count, k) * 0.5**count
        if 2.0 * tail > 1.0 - confidence:
            break
        cut = k + 1
    return cut


def spread(count: int, of: str = "round") -> str:
    """The label of a whole range."""
    return f"range of {count} {of}{'s' * (count != 1)}"


def heading(labels: Iterable[str]) -> str:
    """One label for a column: the common one, or what the column holds."""
    found = list(dict.fromkeys(labels))
    if len(found) <= 1:
        return found[0] if found else COVERS
    ranges = [label for label in found if label.startswith("range")]
    return "range" if len(ranges) == len(found) else "interval or range"
