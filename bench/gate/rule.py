"""The rule of the gate: when it looks at the pairs, and what it says of them.

A pair's difference is log(cost of the head / cost of the base), above 0 for a slower head. The rule
is fixed before anything is measured, and `fastppo gate simulate` publishes its error rates.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastppo.bench.gate.signed_rank import middle

PASS, IMPROVED, SUSPECT = "PASS", "IMPROVED", "SUSPECT"
INCONCLUSIVE, REGRESSION, FLAKY, VOID = "INCONCLUSIVE", "REGRESSION", "FLAKY", "VOID"
ACCEPTED = "ACCEPTED"
"""A regression that the user means."""
OPEN = ""
"""More pairs are needed."""

FIRST_LOOK, SECOND_LOOK, ROUNDS = 6, 12, 20
FALSE_ALARM = 0.005
"""Chance that a head exactly `tolerance` slower is suspected, over all looks of one run. It bounds
the chance for an equal head, which is far smaller."""
CONFIRMED = 0.05
"""The same chance for the second run alone. Both together are wrong in one of 4,000 at most, and a
second run as strict as the first would let go of half of what the first was right about."""
FIRST_ALPHA = 0.02
"""At the first look a pass is all there can be; the smallest exact probability of six pairs is
1 / 64, so that none of them may show more than the tolerance."""
DROPPED = 0.25
"""Part of the pairs that may be dropped for what the machine did during them."""

FUTILE = 0.45
"""Part that an interval may shrink to by the last look; the square root of 12 / 20 is 0.77."""

Verdicts = NDArray[np.str_]


@dataclass(frozen=True, slots=True)
class Look:
    """One point at which the pairs so far are judged."""

    pairs: int
    alpha: float
    """Error probability of each bound."""
    only_pass: bool
    last: bool
    patient: bool = False
    """Whether to go on where no verdict is to be expected."""


def looks(rounds: int = ROUNDS, *, patient: bool = False) -> tuple[Look, ...]:
    """At 6 pairs, where only PASS is said, at 12 and at `rounds`, which share FALSE_ALARM.

    Args:
        patient: for the second run of a suspect, which goes on where the first would give up, and
            whose looks share CONFIRMED.

    Raises:
        ValueError: so few rounds that no slow-down could ever be shown.
    """
    if rounds < SECOND_LOOK:
        raise ValueError(f"rounds: {rounds} pairs show nothing; take {SECOND_LOOK} or more")
    later = sorted({SECOND_LOOK, min(ROUNDS, rounds), rounds})
    alpha = (CONFIRMED if patient else FALSE_ALARM) / len(later)
    first = Look(FIRST_LOOK, FIRST_ALPHA, only_pass=True, last=False)
    return first, *(Look(n, alpha, False, n == rounds, patient) for n in later)


def judge(differences: ArrayLike, tolerance: float, look: Look) -> Verdicts:
    """The verdict of one look at the first `look.pairs` pairs.

    Args:
        differences: [..., n], n >= look.pairs.
        tolerance: a slow-down by up to this part is none.

    Returns:
        [...] of PASS, IMPROVED, SUSPECT, INCONCLUSIVE (at the last look, or where so wide an
        interval promises none of the others) or OPEN.
    """
    seen = np.asarray(differences, np.float64)[..., : look.pairs]
    if seen.shape[-1] < look.pairs:
        raise ValueError(f"differences: {seen.shape[-1]} pairs, the look needs {look.pairs}")
    found, margin = middle(seen, look.alpha), math.log1p(tolerance)
    # what no further pair can settle is not measured further
    up = found.value + FUTILE * (found.high - found.value)
    down = found.value - FUTILE * (found.value - found.low)
    hopeless = (up > margin) & (down <= margin) & (not look.only_pass and not look.patient)
    # an improvement would pass at the first look, and then never be called one
    improved = OPEN if look.only_pass else IMPROVED
    suspect = OPEN if look.only_pass else SUSPECT
    said: Verdicts = np.select(
        [found.high < -margin, found.high <= margin, found.low > margin, hopeless],
        [improved, PASS, suspect, INCONCLUSIVE],
        INCONCLUSIVE if look.last else OPEN,
    )
    return said


def decide(
    differences: ArrayLike, tolerance: float, plan: Sequence[Look]
) -> tuple[Verdicts, NDArray[np.int64]]:
    """The verdict of the first look that gives one, and how many pairs it took.

    Args:
        differences: [..., n], n at least the pairs of the last look.

    Returns:
        Each [...].
    """
    values = np.asarray(differences, np.float64)
    verdict: Verdicts = np.full(values.shape[:-1], OPEN, dtype="<U12")
    pairs = np.zeros(values.shape[:-1], np.int64)
    for look in plan:
        still = verdict == OPEN
        verdict = np.where(still, judge(values, tolerance, look), verdict)
        pairs = np.where(still, look.pairs, pairs)
    return verdict, pairs


def confirm(first: str, second: str) -> str:
    """What a suspicion becomes after a second run in fresh processes; other verdicts stand."""
    if first != SUSPECT:
        return first
    return REGRESSION if second == SUSPECT else FLAKY


def detectable(differences: ArrayLike, tolerance: float, alpha: float) -> float:
    """Smallest slow-down that this run would have suspected, as a part: 0.12 for 12%.

    A suspicion needs the lower bound beyond the tolerance. The noise of the pairs fixes how far
    below the estimate that bound lies, so an estimate this much above it is the least that shows.

    Args:
        differences: [n]

    Returns:
        inf where so few pairs bound nothing.
    """
    found = middle(differences, alpha)
    return float(np.expm1(math.log1p(tolerance) + found.value - found.low))


def moved(controls: ArrayLike, tolerance: float) -> bool:
    """Whether the controls, the same artefact on both sides, were shown to differ after all.

    Their median in each pair is judged: where a single one happens to lie in memory moves it by a
    few percent, what the machine does to one side moves them all. By the interval: on a noisy
    machine every estimate is off by half the tolerance, and the gate would always be void.

    Args:
        controls: [controls, n] differences, at least one of each.
        tolerance: of the tests that they control; half of it is allowed, either way.
    """
    together = np.median(np.asarray(controls, np.float64), axis=0)
    found, margin = middle(together, FALSE_ALARM / 2), math.log1p(tolerance / 2)
    return bool(found.low > margin or found.high < -margin)


def void(controls: ArrayLike, tolerance: float, *, measured: int, dropped: int) -> str | None:
    """Why a whole run says nothing; None for one that is valid.

    Args:
        controls: [controls, n] differences; empty where there is none.
        measured: pairs in all, the dropped ones among them.
    """
    if dropped > DROPPED * measured:
        return (
            f"{dropped} of {measured} pairs were dropped for what the machine did during them, "
            f"more than {DROPPED:.0%}"
        )
    if np.size(controls) and moved(controls, tolerance):
        return "the controls, which run the same on both sides, did not take the same time"
    return None
