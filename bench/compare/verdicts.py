"""Verdicts on two results that were measured at different times: an interval, then a rule."""

import math
import zlib
from dataclasses import dataclass
from statistics import median

import numpy as np
from numpy.typing import NDArray

from fastppo.bench.report.data import Entry
from fastppo.bench.results import statistics

IMPROVED, PASS, REGRESSION = "IMPROVED", "PASS", "REGRESSION"
INCONCLUSIVE, CONTROL = "INCONCLUSIVE", "control"
FEWEST = 3
"""Samples of each side below which no verdict is given."""

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Row:
    """One result of both files."""

    a: Entry
    b: Entry
    ratio: statistics.Interval | None
    """How many times better B is, above 1 in either direction of "better"."""
    verdict: str


def judge(a: Entry, b: Entry, tolerance: float) -> Row:
    """Interval of the ratio of medians by a seeded bootstrap, and what follows from it."""
    control = a.kind == "kernel" and a.impl == "copy"
    ours, theirs = independent(a, b)
    if not ours.size or not theirs.size:
        return Row(a, b, None, INCONCLUSIVE)
    higher = a.raw["better"] == "higher"

    def statistic(before: list[Array], after: list[Array]) -> Array:
        return times_better(np.median(before[0], -1), np.median(after[0], -1), higher)

    seed = zlib.crc32("\n".join((a.id, a.impl, a.clock)).encode())
    found = statistics.interval(statistic, [ours], [theirs], rng=np.random.default_rng(seed))
    few = min(ours.size, theirs.size) < FEWEST
    if few:
        found = statistics.Interval(found.value, math.nan, math.nan)
    return Row(a, b, found, CONTROL if control else verdict(found, tolerance))


def independent(a: Entry, b: Entry) -> tuple[Array, Array]:
    """What is drawn anew: medians of launches, where each side has FEWEST; else the samples.

    Slices of one process share its memory layout and its moment: as independent samples they give
    too narrow an interval, but with one or two launches there is nothing better.
    """
    launches = [
        [median(kept) for x in e.launches if (kept := [s for s in x["samples"] if s is not None])]
        for e in (a, b)
    ]
    if min(map(len, launches)) >= FEWEST:
        return np.array(launches[0]), np.array(launches[1])
    return np.array(a.samples), np.array(b.samples)


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


def verdict(ratio: statistics.Interval, tolerance: float) -> str:
    """By the interval alone: outside of the tolerance, inside, or neither."""
    worst = 1.0 / (1.0 + tolerance)
    if math.isnan(ratio.low) or math.isnan(ratio.high):
        return INCONCLUSIVE
    if ratio.high < worst:
        return REGRESSION
    if ratio.low > 1.0 + tolerance:
        return IMPROVED
    return PASS if ratio.low >= worst else INCONCLUSIVE
