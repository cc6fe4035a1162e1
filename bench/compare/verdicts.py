"""Verdicts on two results that were measured at different times: an interval, then a rule.

`simulate` says how often the rule is wrong; docs/benchmarking.md has the table.
"""

import math
import zlib
from dataclasses import dataclass
from statistics import fmean, median, stdev
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastppo.bench.report.data import Entry
from fastppo.bench.results import statistics
from fastppo.bench.results.intervals import Interval, quantile

IMPROVED, PASS, REGRESSION = "IMPROVED", "PASS", "REGRESSION"
INCONCLUSIVE, CONTROL = "INCONCLUSIVE", "control"
NOT_MEASURED = "NOT MEASURED"
FEWEST = 3
"""Samples of each side below which no verdict is given, and launches that show how they differ."""
DRIFT = 0.05
"""Standard deviation of what is left between two sessions once the controls are divided out."""
LAUNCH = 0.03
"""Assumed of launches where fewer than FEWEST show it."""

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Row:
    """One result of both files."""

    a: Entry
    b: Entry | None
    """None: not measured."""
    ratio: Interval | None
    """How many times better B is, above 1 in either direction of "better"."""
    verdict: str


def judge(a: Entry, b: Entry, tolerance: float, machine: float = 1.0) -> Row:
    """Interval of the ratio, and what follows from it.

    Args:
        machine: how many times as fast the machine alone was in B; that is divided out.
    """
    control = a.kind == "kernel" and a.impl == "copy"
    found = _returns(a, b) if a.kind == "learn" else _speed(a, b, 1.0 if control else machine)
    if found is None:
        return Row(a, b, None, INCONCLUSIVE)
    return Row(a, b, found, CONTROL if control else verdict(found, tolerance))


def _speed(a: Entry, b: Entry, machine: float) -> Interval | None:
    """By the means of launches on the log scale; None where there is no ratio.

    The variance is that of either side's launches and of two sessions (DRIFT), which no sample of
    two files shows; its degrees of freedom are Welch's and Satterthwaite's.
    """
    if not a.samples or not b.samples or min(*a.samples, *b.samples) <= 0.0:
        return None
    sign = 1.0 if a.raw["better"] == "higher" else -1.0
    before, after = _middle(a), _middle(b)
    centre = sign * (after.mean - before.mean) - math.log(machine)
    value = math.exp(centre)
    if min(len(a.samples), len(b.samples)) < FEWEST:
        return Interval(value, math.nan, math.nan)
    variance = before.variance + after.variance + DRIFT**2
    parts = sum(side.variance**2 / side.freedom for side in (before, after))
    reach = quantile(variance**2 / parts if parts else math.inf) * math.sqrt(variance)
    return Interval(value, math.exp(centre - reach), math.exp(centre + reach))


class _Middle(NamedTuple):
    mean: float
    """Of the launches' log medians."""
    variance: float
    freedom: int
    """Degrees of freedom of the variance."""


def _middle(entry: Entry) -> _Middle:
    launches = [[math.log(s) for s in one["samples"] if s is not None] for one in entry.launches]
    launches = [logs for logs in launches if logs]
    middles, count = [median(logs) for logs in launches], len(launches)
    if count >= FEWEST:
        return _Middle(fmean(middles), stdev(middles) ** 2 / count, count - 1)
    # how launches differ cannot be seen: LAUNCH is assumed, and the rounds add what they show
    rounds = [log - fmean(logs) for logs in launches for log in logs]
    freedom = max(1, len(rounds) - count)
    noise = sum(left**2 for left in rounds) / freedom
    return _Middle(fmean(middles), LAUNCH**2 / count + noise / len(rounds), freedom)


def _returns(a: Entry, b: Entry) -> Interval | None:
    """Of learning runs, whose returns depend on no machine: a seeded bootstrap of the medians."""
    ours, theirs = np.array(a.samples), np.array(b.samples)
    if not ours.size or not theirs.size:
        return None
    higher = a.raw["better"] == "higher"

    def statistic(before: list[Array], after: list[Array]) -> Array:
        return times_better(np.median(before[0], -1), np.median(after[0], -1), higher)

    seed = zlib.crc32("\n".join((a.id, a.impl, a.clock)).encode())
    found = statistics.interval(statistic, [ours], [theirs], rng=np.random.default_rng(seed))
    few = min(ours.size, theirs.size) < FEWEST
    return Interval(found.value, math.nan, math.nan, found.label) if few else found


def times_better(before: Array, after: Array, higher: bool) -> Array:
    """after / before for rates, before / after for times; of negative returns 1 + gain / |before|.

    NaN where there is no ratio: a median of 0.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        if higher:
            times: Array = 1.0 + (after - before) / np.abs(before)
        else:
            times = before / after
    return np.where(np.isfinite(times), times, np.nan)


def verdict(ratio: Interval, tolerance: float) -> str:
    """By the interval alone: outside of the tolerance, inside, or neither."""
    worst = 1.0 / (1.0 + tolerance)
    if math.isnan(ratio.low) or math.isnan(ratio.high):
        return INCONCLUSIVE
    if ratio.high < worst:
        return REGRESSION
    if ratio.low > 1.0 + tolerance:
        return IMPROVED
    return PASS if ratio.low >= worst else INCONCLUSIVE
