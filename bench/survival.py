"""Time to a threshold that some runs never reach: Kaplan and Meier (1958).

A run that does not get there is kept, as one that was watched for so long and was not there yet:
an average over the others would praise whoever fails most.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from fastppo.bench.statistics import Array


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
    when, left = _kaplan_meier(times, reached)
    drops = np.unique(np.asarray(times, np.float64)[np.asarray(reached, np.bool_)])
    fractions = left[np.searchsorted(when, drops, side="right")]
    return Survival(np.append(0.0, drops), np.append(1.0, fractions))


def median_time(times: ArrayLike, reached: ArrayLike) -> float | None:
    """When half the runs had got there, by Kaplan-Meier; None where half never did.

    Args:
        times, reached: as for `survival`.
    """
    curve = survival(times, reached)
    below = curve.times[curve.fractions <= 0.5]
    return float(below[0]) if below.size else None


def _kaplan_meier(times: ArrayLike, reached: ArrayLike) -> tuple[Array, Array]:
    """Sorted times [..., n], and the fraction left before each and after the last, [..., n + 1]."""
    when, there = np.asarray(times, np.float64), np.asarray(reached, np.bool_)
    if when.shape != there.shape or not when.shape[-1]:
        raise ValueError(f"times {when.shape}, reached {there.shape}: must be equal, with a run")
    # at a tie the censored run was still watched when the other got there
    order = np.lexsort((~there, when), axis=-1)
    when, there = np.take_along_axis(when, order, -1), np.take_along_axis(there, order, -1)
    at_risk = np.arange(when.shape[-1], 0, -1)
    left = np.cumprod(1.0 - there / at_risk, axis=-1)
    return when, np.concatenate([np.ones_like(left[..., :1]), left], axis=-1)
