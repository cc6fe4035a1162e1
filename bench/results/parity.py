"""Whether an implementation learns as well as the base: speed counts only if it does.

Non-inferiority in three things, after the convergence points of MLPerf, which compare the runs of a
submission with published ones and look at convergence that is too fast as well:

- success share: the share of seeds that get there and stay (they reach the threshold, and end with
  more than half of what the base learned) may be SHARE_MARGIN below the base's at most;
- final return: the interquartile mean may lie below the base's by at most RETURN_MARGIN of what the
  base learned (its own interquartile mean of final returns less that of its first games);
- env steps to the threshold: the restricted mean may be at most STEPS_MARGIN times the base's. Who
  never gets there, or takes more than LATE times what those seeds of the base take that do, counts
  with that; where runs are shorter, with a whole run. Without such a limit a rare failure would
  cost the more, the longer the runs, and no affordable number of seeds would pass.

The second trims failures away, and the third cannot see one that is too rare to be among the runs.
So failures are bounded exactly in the first and in the third (`parity_bounds`): even if every seed
of both gets there, it takes MIN_SEEDS to pass.

Each check passes if all of its 95% interval lies within the margin, fails if none of it does, and
cannot tell otherwise. To pass takes all three. `fastppo bench parity` simulates how often that is
wrong; docs/benchmarking.md has the table and what it assumes. A learner on a margin passes in
at most 2% of studies, of 5 seeds as of 40; an equal one fails in at most 0.1%. Where all seeds get
there, 20 of them let an equal one pass in 98% of studies if its env steps vary by 20% between seeds
and in 81% if by 30%, however long the runs; the others cannot tell.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fastppo.bench.results import parity_bounds as bounds
from fastppo.bench.results.intervals import TAIL, Array, Bounds, Interval
from fastppo.bench.results.statistics import interquartile_mean

Verdict = Literal["passed", "failed", "cannot tell"]
PASSED: Verdict = "passed"
FAILED: Verdict = "failed"
CANNOT_TELL: Verdict = "cannot tell"
Flags = NDArray[np.bool_]
Values = Sequence[float] | Array

MIN_SEEDS = 17
"""Fewer cannot pass: 16 without a failure leave it open whether one in five fails."""
FEWEST_TO_FAIL = 5
SHARE_MARGIN = 0.2
RETURN_MARGIN = 0.1
STEPS_MARGIN = 1.5
LATE = 3.0


@dataclass(frozen=True, slots=True)
class Runs:
    """The finished runs of one implementation on one task; for simulations, of many studies."""

    first: Values
    """[..., seeds] returns of the first games."""
    final: Values
    """[..., seeds] returns of the last games."""
    steps: Values
    """[..., seeds] env steps to the threshold, or in all for a run that never got there; [] where
    there is no threshold."""
    reached: Sequence[bool] | Flags
    """[..., seeds] whether it got there; [] where there is no threshold."""
    lost: int = 0
    """Seeds that crashed, were cut short, or ended no game in their last part."""

    @property
    def seeds(self) -> int:
        """That finished, in each study."""
        return int(np.shape(self.final)[-1])


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check comes to, in one study or in many."""

    found: Bounds
    limit: Array
    """[...] where the margin ends, in the unit of the estimate."""
    passed: Flags
    failed: Flags
    """[...]; neither: cannot tell."""
    too_fast: Flags
    """Better than the margin's mirror image: look whether it really does the same work."""


@dataclass(frozen=True, slots=True)
class Check:
    """One of the three comparisons, in words."""

    verdict: Verdict
    estimate: Interval | None
    """Difference of shares or returns, or ratio of env steps; None with nothing to compare."""
    limit: float | None
    reason: str
    too_fast: bool = False


@dataclass(frozen=True, slots=True)
class Parity:
    """What the comparison of one implementation with the base comes to."""

    verdict: Verdict
    reasons: list[str]
    success_share: Check
    final_return: Check
    steps_to_threshold: Check

    @property
    def too_fast(self) -> bool:
        return self.final_return.too_fast or self.steps_to_threshold.too_fast

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for the result file."""
        return asdict(self) | {"too_fast": self.too_fast}


def judge(runs: Runs, base: Runs, horizon: float) -> Parity:
    """Compares an implementation with the base on one task.

    Args:
        horizon: env steps of a whole run.
    """
    checks = (
        _success_share(runs, base, horizon),
        _final_return(runs, base),
        _steps(runs, base, horizon),
    )
    fewest = min(runs.seeds, base.seeds)
    passed = all(check.verdict == PASSED for check in checks)
    failed = any(check.verdict == FAILED for check in checks)
    verdict = _verdict(*combined(np.array(passed), np.array(failed), fewest, runs.lost))
    reasons = [check.reason for check in checks]
    if fewest < MIN_SEEDS:
        text = f"{fewest} seeds cannot pass, {MIN_SEEDS} without a failure are the fewest that can"
        reasons.insert(0, f"{text}; give --seeds 20 or more")
    if runs.lost:
        # the seeds that are left may be the lucky ones
        of = runs.lost + runs.seeds
        reasons.insert(0, f"{runs.lost} of {of} runs did not finish, or ended no game at their end")
    return Parity(verdict, reasons, *checks)


def judge_base(base: Runs) -> Parity:
    """The base is the yardstick, if it learns at all: in half of its seeds, by the lower limit."""
    reason, verdict = "the base has no finished run, or the task no --threshold", CANNOT_TELL
    if _comparable(base, base):
        there = int(_succeeded(base, base).sum())
        least = float(bounds.share(there, base.seeds).low)
        text = f"the base got there and stayed in {there} of {base.seeds} runs"
        reason = f"{text}, so in {least:.0%} of its seeds or more; it takes 50%"
        if base.seeds < MIN_SEEDS:
            reason += f" and {MIN_SEEDS} seeds"
        elif not base.lost and least >= 0.5:
            verdict = PASSED
    check = Check(verdict, None, None, reason)
    return Parity(verdict, [reason], check, check, check)


def combined(passed: Flags, failed: Flags, fewest: int, lost: int = 0) -> tuple[Flags, Flags]:
    """Whether studies pass and fail as a whole; neither is "cannot tell".

    Args:
        passed: [...] whether all checks did.
        failed: [...] whether any did.
        fewest: seeds that finished, of the side that has fewer.
        lost: seeds that did not.
    """
    return passed & (fewest >= MIN_SEEDS and not lost), failed & (fewest >= FEWEST_TO_FAIL)


def weigh(runs: Runs, base: Runs, horizon: float) -> tuple[Finding, Finding, Finding]:
    """Success share, final return and env steps of one study or many, each with a threshold."""
    return shares(runs, base, horizon), returns(runs, base), steps(runs, base, horizon)


def shares(runs: Runs, base: Runs, horizon: float) -> Finding:
    """The difference of the shares of seeds that succeed."""
    ours, theirs = (
        bounds.share(_succeeded(one, base).sum(axis=-1), one.seeds) for one in (runs, base)
    )
    found, limit = bounds.difference(ours, theirs), np.asarray(-SHARE_MARGIN)
    # in too short a run who is slower within the margin does not get there either
    seen = ~_too_short(base, horizon)
    never = np.zeros_like(seen)
    return Finding(found, limit, found.low >= limit, (found.high < limit) & seen, never)


def returns(runs: Runs, base: Runs) -> Finding:
    """The difference of the final returns; a base that learned nothing compares with nobody."""
    found = bounds.difference(bounds.iqm(runs.final), bounds.iqm(base.final))
    learned = _learned(base)
    limit, known = -RETURN_MARGIN * learned, learned > 0.0
    passed, failed = (found.low >= limit) & known, (found.high < limit) & known
    return Finding(found, limit, passed, failed, (found.low > -limit) & known)


def steps(runs: Runs, base: Runs, horizon: float) -> Finding:
    """The ratio of the env steps; a base that mostly fails compares with nobody."""
    limit = _restriction(base, horizon)
    ours, theirs = (_restricted_mean(one, limit) for one in (runs, base))
    found = bounds.ratio(ours, theirs)
    known = 2 * np.sum(base.reached, axis=-1) >= base.seeds
    # who never gets there counts with the limit: too little, if that is near the base's mean
    seen = ~_too_short(base, limit) | np.all(_in_time(runs, limit), axis=-1)
    passed = (found.high <= STEPS_MARGIN) & known & seen
    speed = bounds.ratio(*(_of_those_that_arrived(one, limit) for one in (runs, base)))
    # that the base may have failures, too, which nobody saw, excuses no slow learner
    slow = (found.low > STEPS_MARGIN) | (speed.low > STEPS_MARGIN)
    failed = (found.value > STEPS_MARGIN) & slow & known
    fast = (speed.high < 1 / STEPS_MARGIN) & known
    return Finding(found, np.asarray(STEPS_MARGIN), passed, failed, fast)


def _restriction(base: Runs, horizon: float) -> Array:
    """[...] env steps with which who is late, or never gets there, counts."""
    mean = bounds.mean_steps(base.steps, base.reached).value
    # of a base that never gets there nothing is known
    known = np.any(base.reached, axis=-1)
    found: Array = np.where(known, np.minimum(horizon, LATE * mean), horizon)
    return found


def _in_time(runs: Runs, horizon: Array) -> Flags:
    """[..., seeds] who got there before `horizon`."""
    there: Flags = np.asarray(runs.reached, np.bool_) & (
        np.asarray(runs.steps, np.float64) <= np.asarray(horizon)[..., None]
    )
    return there


def _restricted_mean(runs: Runs, horizon: Array) -> Bounds:
    return bounds.restricted_mean(runs.steps, _in_time(runs, horizon), horizon)


def _of_those_that_arrived(runs: Runs, horizon: Array) -> Bounds:
    """Mean env steps without failures, and so without the bound of those that were not seen."""
    found = bounds.mean_steps(runs.steps, _in_time(runs, horizon))
    low, high = (np.clip(end, 0.0, horizon) for end in (found.low, found.high))
    return Bounds(np.maximum(found.value, 1.0), low, high)


def _too_short(base: Runs, horizon: float | Array) -> Flags:
    """[...] whether who is slower within the margin would not get there in such a run."""
    mean = _restricted_mean(base, np.asarray(horizon)).value
    short: Flags = horizon < STEPS_MARGIN * mean
    return short


def _learned(base: Runs) -> Array:
    """[...] what the base's return gained."""
    gained: Array = interquartile_mean(base.final) - interquartile_mean(base.first)
    return gained


def _succeeded(runs: Runs, base: Runs) -> Flags:
    """[..., seeds] who got there and stayed: ended above half of what the base learned."""
    half = interquartile_mean(base.first) + _learned(base) / 2
    kept: Flags = np.asarray(runs.reached, np.bool_) & (np.asarray(runs.final) > half[..., None])
    return kept


def _success_share(runs: Runs, base: Runs, horizon: float) -> Check:
    if not _comparable(runs, base):
        return _nothing("seeds that got there: nothing to compare; has the task a --threshold?")
    finding = shares(runs, base, horizon)
    counts = [f"{int(_succeeded(one, base).sum())} of {one.seeds}" for one in (runs, base)]
    points = _told(finding.found, "{:+.0f}", 100)
    text = f"got there and stayed: {counts[0]} seeds, the base's {counts[1]}: {points} points"
    return _check(finding, f"{text}; {-100 * SHARE_MARGIN:+.0f} allowed")


def _final_return(runs: Runs, base: Runs) -> Check:
    if not (runs.seeds and base.seeds):
        return _nothing("final return: no finished run to compare")
    if _learned(base) <= 0.0:
        return _nothing("final return: the base itself learned nothing")
    finding = returns(runs, base)
    text = f"return {_told(finding.found, '{:+.4g}')} over the base's"
    return _check(finding, f"{text}; {float(finding.limit):+.4g} allowed")


def _steps(runs: Runs, base: Runs, horizon: float) -> Check:
    if not _comparable(runs, base):
        return _nothing("steps to threshold: nothing to compare; has the task a --threshold?")
    there = int(np.sum(base.reached))
    if 2 * there < base.seeds:
        text = f"the base reached it in {there} of {base.seeds} runs"
        return _nothing(f"steps to threshold: {text}; raise --total-timesteps or lower --threshold")
    finding = steps(runs, base, horizon)
    text = f"env steps {_told(finding.found, '{:.3g}')} times the base's; {STEPS_MARGIN} allowed"
    return _check(finding, text + _remedy(runs, base, horizon, finding))


def _remedy(runs: Runs, base: Runs, horizon: float, finding: Finding) -> str:
    """What would settle the ratio of env steps, where the runs at hand cannot; else nothing."""
    if finding.passed or finding.failed:
        return ""
    restriction = _restriction(base, horizon)
    late = float(restriction)
    ours, theirs = (_restricted_mean(one, restriction).value for one in (runs, base))
    limit = STEPS_MARGIN * float(theirs)
    if late <= limit or math.isclose(late, limit):
        longer = f"; --total-timesteps {math.ceil(limit)} or more would show it"
        return longer if late == horizon else ""  # else half of the base's own seeds fail
    if not np.all(_in_time(runs, restriction)) or ours >= limit:
        return ""
    # seeds after which the failures that were not seen are too few to reach the margin
    enough = math.log(TAIL) / math.log1p(-(limit - float(ours)) / (late - float(ours)))
    if enough <= runs.seeds:
        return ""
    unseen = float(bounds.share(0, runs.seeds).high)
    return (
        f"; {unseen:.0%} of seeds may yet fail, for {late / float(theirs):.2g} times the base's "
        f"steps each: --seeds {math.ceil(enough)} or more would show it"
    )


def _comparable(runs: Runs, base: Runs) -> bool:
    return all(one.seeds and np.size(one.reached) for one in (runs, base))


def _nothing(reason: str) -> Check:
    return Check(CANNOT_TELL, None, None, reason)


def _check(finding: Finding, reason: str) -> Check:
    said = _verdict(finding.passed, finding.failed)
    found, limit = _interval(finding.found), float(finding.limit)
    return Check(said, found, limit, reason, bool(finding.too_fast))


def _verdict(passed: Flags, failed: Flags) -> Verdict:
    return PASSED if passed else FAILED if failed else CANNOT_TELL


def _interval(found: Bounds) -> Interval:
    return Interval(float(found.value), float(found.low), float(found.high))


def _told(found: Bounds, style: str, scale: float = 1.0) -> str:
    ends = (style.format(scale * float(one)) for one in (found.value, found.low, found.high))
    value, low, high = ends
    return f"{value} ({low}..{high})"
