"""Time to a threshold that some runs never reach: Kaplan and Meier (1958).

A run that does not get there is kept, as one that was watched for so long and was not there yet:
an average over the others would praise whoever fails most.
"""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastppo.bench.results.statistics import Array

_HALF = Fraction(1, 2)


@dataclass(frozen=True, slots=True)
class Survival:
    """Steps of a Kaplan-Meier curve: from `times[i]` on, `fractions[i]` have not got there."""

    times: Array
    fractions: Array


def restricted_mean(times: ArrayLike, reached: ArrayLike, horizon: float) -> Array:
    """Area under the Kaplan-Meier curve up to `horizon`: the mean time spent below the threshold.

    A run that got nowhere counts with the whole horizon; one that was cut off counts as not yet
    there for as long as it was watched, and as the others from then on (if it was watched longest,
    as not there until the horizon).

    Args:
        times: [..., n] when the run got there, or when it was last watched.
        reached: [..., n] whether it got there.
        horizon: in the unit of `times`.

    Returns:
        [...], in the unit of `times`.
    """
    when, left = _kaplan_meier(times, reached)
    inside = np.minimum(when, horizon)
    edges = np.concatenate([np.zeros_like(inside[..., :1]), inside], axis=-1)
    area = (left[..., :-1] * np.diff(edges, axis=-1)).sum(axis=-1)
    mean: Array = area + left[..., -1] * (horizon - inside[..., -1])
    return mean


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


def _kaplan_meier(times: ArrayLike, reached: ArrayLike) -> tuple[Array, Array]:
    """Sorted times [..., n], and the fraction left before each and after the last, [..., n + 1].

    A censored run hands its weight on to those that are watched longer (Efron, 1967). So without
    one the fractions are counts over n, rounded once.
    """
    when, there = _checked(times, reached)
    order = np.lexsort((~there, when), axis=-1)
    when, there = np.take_along_axis(when, order, -1), np.take_along_axis(there, order, -1)
    n = when.shape[-1]
    after = np.arange(n - 1, -1, -1)
    # nobody is watched longer than the last: what it weighs stays
    handed = np.where(there, 1.0, (after + 1.0) / np.maximum(after, 1))
    left = after / n * np.cumprod(handed, axis=-1)
    left = np.concatenate([np.ones_like(left[..., :1]), left], axis=-1)
    left[..., -1] = np.where(there[..., -1], 0.0, left[..., -2])
    return when, left


def _checked(times: ArrayLike, reached: ArrayLike) -> tuple[Array, NDArray[np.bool_]]:
    when, there = np.asarray(times, np.float64), np.asarray(reached, np.bool_)
    if when.shape != there.shape or not when.shape[-1]:
        raise ValueError(f"times {when.shape}, reached {there.shape}: must be equal, with a run")
    return when, there
