"""Time to a threshold that some runs never reach: the median of Kaplan and Meier (1958).

A run that does not get there is kept, as one that was watched for so long and was not there yet:
an average over the others would praise whoever fails most.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastppo.bench.results.intervals import COVERS, Array, Interval, order_statistics, spread

_HALF = Fraction(1, 2)


@dataclass(frozen=True, slots=True)
class Survival:
    """Steps of a Kaplan-Meier curve: from `times[i]` on, `fractions[i]` have not got there."""

    times: Array
    fractions: Array


def survival(times: ArrayLike, reached: ArrayLike) -> Survival:
    """The Kaplan-Meier curve of one group; its first point is (0, 1).

    Args:
        times: [n] when the run got there, or when it was last watched.
        reached: [n] whether it got there; False is a censored run.
    """
    when, left = _exact(times, reached)
    return Survival(np.append(0.0, when), np.append(1.0, np.array(left, np.float64)))


def median_time(times: ArrayLike, reached: ArrayLike) -> float | None:
    """When half the runs had got there, by Kaplan-Meier; None where half never did.

    Args:
        times, reached: as for `survival`.
    """
    when, left = _exact(times, reached)
    # exactly one half counts: a product of rounded fractions is 1/2 + 1 ulp for 24 or 28 runs
    return next((at for at, part in zip(when, left, strict=True) if part <= _HALF), None)


def median_interval_of(times: ArrayLike, reached: ArrayLike) -> Interval:
    """`median_time` and an exact interval of it; infinity where it is not reached.

    By order statistics, as of any median. A run that was cut off may have been about to get there,
    or never: the lower end takes it for there at once, the upper one for never.

    Args:
        times, reached: as for `survival`.
    """
    when, there = _checked(times, reached)
    earliest, latest = np.sort(when), np.sort(np.where(there, when, math.inf))
    n = when.size
    cut = order_statistics(n)
    label = COVERS if cut else spread(n, "seed")
    outer = max(cut, 1)
    middle = median_time(times, reached)
    value = math.inf if middle is None else middle
    return Interval(value, float(earliest[outer - 1]), float(latest[n - outer]), label)


def to_threshold(curves: Sequence[Mapping[str, Any]], what: str) -> Interval | None:
    """Median `steps` or `seconds` to the threshold over the runs of a result file; None of none.

    Args:
        curves: with `WHAT_to_threshold`, null for a run that never got there, and `total_steps` and
            `total_s`.
    """
    if not curves:
        return None
    there = [curve[f"{what}_to_threshold"] for curve in curves]
    ends = [curve["total_steps" if what == "steps" else "total_s"] for curve in curves]
    times = [end if at is None else at for at, end in zip(there, ends, strict=True)]
    return median_interval_of(times, [at is not None for at in there])


def from_first_update(curves: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The same runs with a clock that starts when their first update is done: imports, compiling
    and the environments' start are left out.
    """
    found = []
    for curve in curves:
        begin = curve["wall_s"][0] if curve["wall_s"] else 0.0
        there = curve["seconds_to_threshold"]
        found.append(
            {
                **curve,
                "seconds_to_threshold": None if there is None else there - begin,
                "total_s": curve["total_s"] - begin,
            }
        )
    return found


def _exact(times: ArrayLike, reached: ArrayLike) -> tuple[list[float], list[Fraction]]:
    """Times at which runs got there, and the exact fraction that is left from then on."""
    when, there = _checked(times, reached)
    drops, arrived = np.unique(when[there], return_counts=True)
    # at a tie the censored run was still watched when the other got there
    at_risk = [int((when >= at).sum()) for at in drops]
    left, fraction = [], Fraction(1)
    for count, n in zip(arrived.tolist(), at_risk, strict=True):
        fraction *= Fraction(n - count, n)
        left.append(fraction)
    return drops.tolist(), left


def _checked(times: ArrayLike, reached: ArrayLike) -> tuple[Array, NDArray[np.bool_]]:
    when, there = np.asarray(times, np.float64), np.asarray(reached, np.bool_)
    if when.shape != there.shape or not when.shape[-1]:
        raise ValueError(f"times {when.shape}, reached {there.shape}: must be equal, with a run")
    return when, there
