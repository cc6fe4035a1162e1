"""The ratio of two results that were measured at different times, and how sure it can be.

Everything is a logarithm of a speed (of a rate, or of one over a time), so that ratios are
differences. A launch of the code and one of its control (EnvPool alone, a plain copy) are

    code = speed + machine + launch,    control = machine + launch,

and `machine` is another one in each file. Where the control was measured in both, its difference
takes the machine out of the code's. What it leaves, because code and control do not slow down
alike, no sample of the two files shows: it is taken to have the standard deviation DRIFT, and
that is added to the noise of the launches. So no interval is narrower than +-11%, however much was
measured. `fastppo bench compare` simulates how often the verdicts are wrong.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastppo.bench.results.intervals import Array, Bounds, quantile

IMPROVED, PASS, REGRESSION = "IMPROVED", "PASS", "REGRESSION"
INCONCLUSIVE = "INCONCLUSIVE"

DRIFT = 0.055
"""Standard deviation, between two sessions, of what dividing by the control leaves of the machine:
a guess for code that is bound by a CPU, not a measurement."""
ALONE = 0.08
"""The same without a control to divide by."""
LARGEST = 0.15
"""Log-ratio of one task's control beyond which that task is not judged, though others may be."""
FEWEST = 3
"""Launches of each side below which their own spread says nothing. They are then taken to differ by
LAUNCH, and only what lies outside even so gets a verdict."""
LAUNCH = 0.05


@dataclass(frozen=True, slots=True)
class Side:
    """One result in one file; for simulations, in many."""

    launches: Array
    """[..., n] of each launch, n >= 1."""
    error: Array
    """[...] variance of one of these by the noise of its rounds; only used below FEWEST."""

    @property
    def few(self) -> bool:
        return bool(self.launches.shape[-1] < FEWEST)

    def variance(self) -> tuple[Array, Array]:
        """Of the mean over launches, [...], and its degrees of freedom over the inverse: [...].

        Returns:
            The variance, and its square over the degrees of freedom: 0 where it is not estimated.
        """
        n = self.launches.shape[-1]
        if not self.few:
            found = self.launches.var(axis=-1, ddof=1) / n
            return found, found**2 / (n - 1)
        seen = self.launches.var(axis=-1, ddof=1) if n > 1 else np.zeros_like(self.error)
        assumed = (np.maximum(LAUNCH**2, seen) + self.error) / n
        return assumed, np.zeros_like(assumed)


@dataclass(frozen=True, slots=True)
class Change(Bounds):
    """Log-ratio of B over A, above 0 for a faster B, and its 95% interval."""

    few: bool
    """Whether either side has fewer launches than FEWEST: the interval is then a guess."""


def change(a: Side, b: Side, controls: tuple[Side, Side] | None) -> Change:
    """How much faster B is than A, over how much faster the control was.

    A t-interval with the degrees of freedom of Satterthwaite (1946), in which the variance between
    sessions counts as known.

    Args:
        controls: of A and of B, where both have one.
    """
    value = b.launches.mean(axis=-1) - a.launches.mean(axis=-1)
    sides = [a, b]
    if controls is not None:
        value = value - moved(*controls)
        sides += controls
    known = (DRIFT if controls is not None else ALONE) ** 2
    variances, squares = zip(*(side.variance() for side in sides), strict=True)
    variance = known + sum(variances)
    # a normal's tail is that of so many degrees of freedom to nine digits
    freedom = variance**2 / np.maximum(sum(squares), 1e-9 * variance**2)
    half = quantile(freedom) * np.sqrt(variance)
    return Change(value, value - half, value + half, a.few or b.few)


def moved(a: Side, b: Side) -> Array:
    """[...] log-ratio of the controls: how much faster the machine alone was in B."""
    found: Array = b.launches.mean(axis=-1) - a.launches.mean(axis=-1)
    return found


def void(log_ratio: ArrayLike, tolerance: float) -> NDArray[np.bool_]:
    """[...] whether the controls moved beyond the tolerance: then nothing is judged by them.

    A tolerance below DRIFT would be beyond reach.
    """
    far: NDArray[np.bool_] = np.abs(np.asarray(log_ratio)) > max(math.log1p(tolerance), DRIFT)
    return far


def verdicts(found: Change, tolerance: float) -> NDArray[np.str_]:
    """[...] by the interval alone: outside of the tolerance, inside, or neither.

    With few launches nothing passes: their interval rests on what is assumed of them.
    """
    margin = math.log1p(tolerance)
    passed = INCONCLUSIVE if found.few else PASS
    said: NDArray[np.str_] = np.select(
        [found.high < -margin, found.low > margin, found.low >= -margin],
        [REGRESSION, IMPROVED, passed],
        INCONCLUSIVE,
    )
    return said
