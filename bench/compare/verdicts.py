"""Verdicts on the results of two files: speeds by `drift`, returns by the seeds alone."""

import math
import zlib
from dataclasses import dataclass, replace
from statistics import median

import numpy as np

from fastppo.bench.compare import drift
from fastppo.bench.compare.drift import INCONCLUSIVE, Side
from fastppo.bench.report.data import Entry
from fastppo.bench.results import statistics
from fastppo.bench.results.intervals import COVERS, Array, Interval

CONTROL, NOT_MEASURED = "control", "NOT MEASURED"


@dataclass(frozen=True, slots=True)
class ComparedRow:
    """One result of either file."""

    id: str
    impl: str
    clock: str
    verdict: str
    a: Entry | None = None
    b: Entry | None = None
    ratio: Interval | None = None
    """How many times better B is, above 1 in either direction of "better"; over `control`."""
    few: bool = False
    """Whether there are too few launches or seeds for an interval that is known to cover."""
    control: float | None = None
    """How many times faster the machine alone was in B."""
    remark: str = ""
    """Why it was not measured, or cannot be judged."""


def judge(a: Entry, b: Entry, tolerance: float, controls: tuple[Side, Side] | None) -> ComparedRow:
    """The row of one result of both files.

    Args:
        controls: what the two files measured of the machine alone, on the same task.
    """
    if not b.samples:
        return row_of(a, b, NOT_MEASURED, remark="no sample was kept in B")
    if a.kind == "learn":
        return _of_returns(a, b, tolerance)
    ours, theirs = side_of(a), side_of(b)
    if ours is None:
        return row_of(a, b, INCONCLUSIVE, remark="in A a launch is not above 0: there is no ratio")
    if theirs is None:
        return row_of(a, b, NOT_MEASURED, remark="in B a launch is not above 0")
    found = drift.change(ours, theirs, controls)
    ends = (math.nan, math.nan) if found.few else (found.low, found.high)
    value, low, high = (float(np.exp(x)) for x in (found.value, *ends))
    ratio = Interval(value, low, high)
    verdict, remark, control = str(drift.verdicts(found, tolerance)), "", None
    if is_control(a):
        verdict = CONTROL
    elif controls is not None:
        log_control = drift.moved(*controls)
        control = float(np.exp(log_control))
        if abs(log_control) > drift.LARGEST:
            verdict = INCONCLUSIVE
            remark = f"the machine alone was {control:.2f} times as fast in B"
    return row_of(a, b, verdict, ratio=ratio, few=found.few, control=control, remark=remark)


def row_of(
    a: Entry | None,
    b: Entry | None,
    verdict: str,
    *,
    ratio: Interval | None = None,
    few: bool = False,
    control: float | None = None,
    remark: str = "",
) -> ComparedRow:
    """A row under the name of the one or two entries that there are."""
    named = a or b
    assert named is not None
    return ComparedRow(
        named.id, named.impl, named.clock, verdict, a, b, ratio, few, control, remark
    )


def is_control(entry: Entry) -> bool:
    """Whether it runs none of the code under test."""
    return entry.kind == "kernel" and entry.impl == "copy"


def side_of(entry: Entry) -> Side | None:
    """Logarithms of the speed in every launch: the middle of its rounds.

    Rounds of one process share its memory layout and its moment: they are no independent values.

    Returns:
        None where one is not above 0.
    """
    launches = [[x for x in one["samples"] if x is not None] for one in entry.launches]
    launches = [one for one in launches if one]
    if not launches or any(median(one) <= 0 for one in launches):
        return None
    sign = 1.0 if entry.raw["better"] == "higher" else -1.0
    logs = [np.log([x for x in one if x > 0]) for one in launches]
    noise = [one.var(ddof=1) / one.size for one in logs if one.size > 1]
    middles = [sign * math.log(median(one)) for one in launches]
    return Side(np.array(middles), np.array(np.mean(noise) if noise else 0.0))


def control_of(entry: Entry, copies: dict[tuple[str, str], Entry]) -> Side | None:
    """What the same file measured of the machine alone, on this entry's task.

    Args:
        copies: plain copies of kernel benchmarks, by id and clock.
    """
    if entry.kind == "kernel":
        copy = copies.get((entry.id, entry.clock))
        return None if copy is None or copy is entry else side_of(copy)
    if entry.kind != "train":
        return None
    launches = entry.detail.get("ceiling_launches", {}).get("envpool")
    # older files keep one number, whose noise nobody knows: as if it were of one launch
    rates = launches or [entry.detail.get("ceilings", {}).get("envpool", 0.0)]
    return Side(np.log(rates), np.zeros(())) if min(rates) > 0 else None


def _of_returns(a: Entry, b: Entry, tolerance: float) -> ComparedRow:
    """By a seeded bootstrap of the ratio of medians over seeds: no machine's speed is in it."""
    ours, theirs = np.array(a.samples), np.array(b.samples)
    if not ours.size:
        return row_of(a, b, INCONCLUSIVE, remark="no sample was kept in A")

    def statistic(before: list[Array], after: list[Array]) -> Array:
        return times_better(np.median(before[0], -1), np.median(after[0], -1))

    seed = zlib.crc32("\n".join((a.id, a.impl, a.clock)).encode())
    found = statistics.interval(statistic, [ours], [theirs], rng=np.random.default_rng(seed))
    few = found.label != COVERS
    if few or math.isnan(found.low) or math.isnan(found.high):
        none = replace(found, low=math.nan, high=math.nan)
        return row_of(a, b, INCONCLUSIVE, ratio=none, few=few)
    with np.errstate(divide="ignore"):
        ends = np.log(np.maximum([found.value, found.low, found.high], 0.0))
    change = drift.Change(ends[0], ends[1], ends[2], few=False)
    return row_of(a, b, str(drift.verdicts(change, tolerance)), ratio=found)


def times_better(before: Array, after: Array) -> Array:
    """after / before; of negative returns 1 + gain / |before|. NaN for a median of 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        times: Array = 1.0 + (after - before) / np.abs(before)
    return np.where(np.isfinite(times), times, np.nan)
