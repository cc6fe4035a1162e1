"""Where a series changes: binary segmentation by `ruptures`, each change tried by permutation.

Of the best split of a part, the share of random orders of the same values that split as well is the
probability of a change where there is none (Good, Permutation Tests, 2005). Values are taken as
exchangeable: a slow drift of the machine counts as a change, so normalise by a control.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastppo.errors import MachineError

FEWEST = 3
"""Values on each side of a change."""


@dataclass(frozen=True, slots=True)
class ChangePoint:
    """The values from `index` on differ from those before it."""

    index: int
    before: float
    """Median of the part before, up to the change in front of it."""
    after: float
    """Median of the part from it on, up to the next change."""
    p: float
    """Of so good a split in random order."""


def changes(
    values: Sequence[float] | NDArray[np.float64],
    *,
    alpha: float = 0.01,
    permutations: int = 399,
    seed: int = 0,
) -> list[ChangePoint]:
    """Every change of a series, in its order.

    Args:
        values: logarithms, where relative changes are meant.
        alpha: the largest p of a change; at least 1 / (permutations + 1).

    Raises:
        MachineError: ruptures is not installed.
    """
    series = np.asarray(values, np.float64)
    rng = np.random.default_rng(seed)
    found: dict[int, float] = {}
    waiting = [(0, len(series))]
    while waiting:
        start, stop = waiting.pop()
        part = series[start:stop]
        index, p = _split(part, alpha, permutations, rng)
        if p <= alpha:
            found[start + index] = p
            waiting += [(start, start + index), (start + index, stop)]
    edges = [0, *sorted(found), len(series)]
    medians = [float(np.median(series[a:b])) for a, b in pairwise(edges) if b > a]
    return [
        ChangePoint(index, medians[i], medians[i + 1], found[index])
        for i, index in enumerate(sorted(found))
    ]


def _split(
    part: NDArray[np.float64], alpha: float, permutations: int, rng: np.random.Generator
) -> tuple[int, float]:
    """The best split, and how often a random order has one as good; 1 where it is clear early."""
    if len(part) < 2 * FEWEST or np.ptp(part) == 0.0:
        return 0, 1.0
    index, gain = _best(part)
    allowed = alpha * (permutations + 1) - 1
    as_good = 0
    for _ in range(permutations):
        as_good += _best(rng.permutation(part))[1] >= gain
        if as_good > allowed:
            return index, 1.0
    return index, (as_good + 1) / (permutations + 1)


def _best(part: NDArray[np.float64]) -> tuple[int, float]:
    """Where two means explain most, and how much of the squares they take away."""
    algorithm = _ruptures().Binseg(model="l2", min_size=FEWEST, jump=1).fit(part)
    index = int(algorithm.predict(n_bkps=1)[0])
    cost = algorithm.cost
    left = cost.sum_of_costs([index, len(part)])
    return index, float(cost.sum_of_costs([len(part)]) - left)


def _ruptures() -> Any:
    try:
        import ruptures
    except ImportError:
        raise MachineError("ruptures is not installed; pip install 'fastppo[history]'") from None
    return ruptures
