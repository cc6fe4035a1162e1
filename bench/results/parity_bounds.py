"""How far off a few runs may be, in closed form, for one study or for thousands at once.

Every limit is one-sided and misses in TAIL of studies, nominally. A limit of two things together
comes from theirs (the "method of variance estimates recovery"): the distances from value to limit
add up in squares. For differences that is Newcombe (1998), for ratios Donner and Zou (2012). How
often the rule of `parity` is wrong with them is for `parity_simulate` to say.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from fastppo.bench.results.intervals import TAIL, Array, Bounds, quantile
from fastppo.bench.results.statistics import interquartile_mean


def share(successes: ArrayLike, n: int) -> Bounds:
    """Part of all seeds that would succeed: Clopper and Pearson (1934), which is exact.

    Args:
        successes: [...] of `n` seeds, n >= 1.
    """
    k = np.asarray(successes, np.float64)
    # the distribution needs parameters above 0: at the ends the limit is the end itself
    low = np.where(k > 0, special.betaincinv(np.maximum(k, 1), n - k + 1, TAIL), 0.0)
    high = np.where(k < n, special.betaincinv(k + 1, np.maximum(n - k, 1), 1 - TAIL), 1.0)
    return Bounds(k / n, low, high)


def iqm(values: ArrayLike) -> Bounds:
    """Interquartile mean: Tukey and McLaughlin's t (1963), by the winsorised variance.

    Args:
        values: [..., n], n >= 1.
    """
    ordered = np.sort(np.asarray(values, np.float64), axis=-1)
    n = ordered.shape[-1]
    cut = n // 4
    kept = n - 2 * cut
    middle = interquartile_mean(ordered)
    held = np.clip(ordered, ordered[..., cut, None], ordered[..., n - 1 - cut, None])
    squares = np.square(held - held.mean(axis=-1, keepdims=True)).sum(axis=-1)
    off = _student(np.asarray(kept - 1), squares / (kept * max(kept - 1, 1)))
    return Bounds(middle, middle - off, middle + off)


def mean_steps(steps: ArrayLike, reached: ArrayLike) -> Bounds:
    """Mean of the runs that got there alone: Student's t. No run at all gives 0, -inf and inf.

    Args:
        steps: [..., n] until the run got there.
        reached: [..., n] whether it did.
    """
    when, there = np.asarray(steps, np.float64), np.asarray(reached, np.bool_)
    count = there.sum(axis=-1)
    mean = np.where(there, when, 0.0).sum(axis=-1) / np.maximum(count, 1)
    squares = np.square(np.where(there, when - mean[..., None], 0.0)).sum(axis=-1)
    off = _student(count - 1, squares / np.maximum(count * (count - 1), 1))
    return Bounds(mean, mean - off, mean + off)


def restricted_mean(steps: ArrayLike, reached: ArrayLike, horizon: ArrayLike) -> Bounds:
    """Mean of all runs, where one that never got there counts with the horizon.

    It is m + p (horizon - m), with m the mean of those that got there and p the share of those that
    did not. That share is bounded exactly: a failure too rare to be among so few runs costs the
    more, the longer the horizon, and no resampling of runs without it would tell.

    Args:
        steps: [..., n] until the run got there.
        reached: [..., n] whether it did.
        horizon: [...] env steps with which who never got there counts.
    """
    there, horizon = np.asarray(reached, np.bool_), np.asarray(horizon, np.float64)
    arrived = mean_steps(np.minimum(steps, horizon[..., None]), there)
    m, p = arrived.value, share((~there).sum(axis=-1), there.shape[-1])
    mean = m + p.value * (horizon - m)
    most, least = np.minimum(arrived.high, horizon), np.maximum(arrived.low, 0.0)
    up = np.hypot((1 - p.value) * (most - m), (p.high - p.value) * (horizon - m))
    down = np.hypot((1 - p.value) * (m - least), (p.value - p.low) * (horizon - m))
    return Bounds(mean, np.maximum(mean - down, 0.0), np.minimum(mean + up, horizon))


def difference(ours: Bounds, base: Bounds) -> Bounds:
    """Ours less the base's, which are independent."""
    value = ours.value - base.value
    down = np.hypot(ours.value - ours.low, base.high - base.value)
    up = np.hypot(ours.high - ours.value, base.value - base.low)
    return Bounds(value, value - down, value + up)


def ratio(ours: Bounds, base: Bounds) -> Bounds:
    """Ours over the base's, which are independent and positive, with limits of 0 and above.

    A limit is the factor t at which ours - t * base has its limit at 0.
    """
    a, b = ours.value, base.value
    below, above = ours.low * (2 * a - ours.low), base.high * (2 * b - base.high)
    low = below / (a * b + np.sqrt(np.maximum(np.square(a * b) - below * above, 0.0)))
    above, below = ours.high * (2 * a - ours.high), base.low * (2 * b - base.low)
    top = a * b + np.sqrt(np.maximum(np.square(a * b) - above * below, 0.0))
    high = np.where(below > 0, top / np.where(below > 0, below, 1.0), np.inf)
    # rounding may put a limit that equals the estimate on its other side
    return Bounds(a / b, np.minimum(low, a / b), np.maximum(high, a / b))


def _student(freedom: NDArray[np.int64], squared_error: Array) -> Array:
    """How far a limit lies from a mean with this squared standard error; inf without freedom."""
    reach = quantile(np.maximum(freedom, 1)) * np.sqrt(squared_error)
    off: Array = np.where(freedom > 0, reach, np.inf)
    return off
