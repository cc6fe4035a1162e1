"""Whether an implementation learns as well as the base: speed counts only if it does.

Non-inferiority in two things, after the reference convergence points of MLPerf, which compare a
submission's runs with the reference's and look at convergence that is too fast as well:

- final return: the interquartile mean may lie below the base's by at most RETURN_MARGIN of what the
  base learned (its own interquartile mean of final returns less that of its first games);
- env steps to the threshold: the mean, runs that never got there included (`survival`), may be at
  most STEPS_MARGIN times the base's.

Each is decided by a 95% bootstrap interval (`statistics`): passed if all of it lies within the
margin, failed if none of it does, "cannot tell" otherwise or with fewer than MIN_SEEDS seeds.
Simulated, 200 studies each: a learner that lies on a margin passed in 5% at most (2.5% is nominal),
an equal one was failed in none. That one passed in 80% of studies of 5 seeds and 99% of 10 where
steps to the threshold vary by 20% between seeds; by 30%, in 24% and 67%, and the rest cannot tell.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from fastppo.bench.results.statistics import Array, Interval, interquartile_mean, interval
from fastppo.bench.results.survival import restricted_mean
from fastppo.config import Config

Verdict = Literal["passed", "failed", "cannot tell"]

MIN_SEEDS = 5
RETURN_MARGIN = 0.1
STEPS_MARGIN = 1.5
# They say how, where and in whose name a run is done, or how long, but not what is learned.
NOT_LEARNED = (
    "preset", "seed", "total_timesteps", "device", "backend", "engine",
    "env_threads", "torch_threads", "checkpoint_interval", "keep_checkpoints", "max_skipped_steps",
)  # fmt: skip
TRACKING = ("wandb", "tensorboard", "track")
"""Beginnings of the names of fields that only send copies of the metrics somewhere."""


@dataclass(frozen=True, slots=True)
class Runs:
    """The finished runs of one implementation on one task."""

    first: list[float]
    """[seeds] returns of the first games."""
    final: list[float]
    """[seeds] returns of the last games."""
    steps: list[float]
    """[seeds] env steps to the threshold, or in all for a run that never got there."""
    reached: list[bool]
    """[seeds] whether it got there."""
    lost: int = 0
    """Seeds that crashed or were cut short."""


@dataclass(frozen=True, slots=True)
class Check:
    """One of the two comparisons."""

    verdict: Verdict
    estimate: Interval | None
    """Difference of returns, or ratio of env steps; None where there is nothing to compare."""
    limit: float | None
    """Where the margin ends, in the unit of the estimate."""
    reason: str
    too_fast: bool = False
    """Better than the margin's mirror image: look whether it really does the same work."""


@dataclass(frozen=True, slots=True)
class Parity:
    """What the comparison of one implementation with the base comes to."""

    verdict: Verdict
    reasons: list[str]
    final_return: Check
    steps_to_threshold: Check

    @property
    def too_fast(self) -> bool:
        return self.final_return.too_fast or self.steps_to_threshold.too_fast

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for the result file."""
        return asdict(self) | {"too_fast": self.too_fast}


def judge(runs: Runs, base: Runs, horizon: float, *, rng: np.random.Generator) -> Parity:
    """Compares an implementation with the base on one task.

    Args:
        horizon: env steps of a whole run.
    """
    checks = (_final_return(runs, base, rng), _steps(runs, base, horizon, rng))
    verdicts = {check.verdict for check in checks}
    reasons = [check.reason for check in checks]
    verdict: Verdict = "passed" if verdicts == {"passed"} else "cannot tell"
    few = min(len(runs.final), len(base.final))
    if few < MIN_SEEDS:
        reasons.insert(0, f"{few} seeds of {MIN_SEEDS} at least; give --seeds {MIN_SEEDS} or more")
    elif "failed" in verdicts:
        verdict = "failed"
    if few < MIN_SEEDS or (verdict == "passed" and runs.lost):
        verdict = "cannot tell"
    if runs.lost:
        # the seeds that are left may be the lucky ones
        reasons.insert(0, f"{runs.lost} of {runs.lost + len(runs.final)} runs did not finish")
    return Parity(verdict, reasons, *checks)


def judge_base(base: Runs) -> Parity:
    """The base is the yardstick, if it learns at all: half its seeds must reach the threshold."""
    there, seeds = sum(base.reached), len(base.final)
    reason = f"the base reached the threshold in {there} of {seeds} runs"
    learns = seeds >= MIN_SEEDS and not base.lost and 2 * there >= seeds
    verdict: Verdict = "passed" if learns else "cannot tell"
    check = Check(verdict, None, None, reason)
    return Parity(verdict, [reason], check, check)


def _final_return(runs: Runs, base: Runs, rng: np.random.Generator) -> Check:
    if not runs.final or not base.final:
        return Check("cannot tell", None, None, "final return: no finished run to compare")
    learned = float(interquartile_mean(base.final) - interquartile_mean(base.first))
    if learned <= 0.0:
        return Check("cannot tell", None, None, "final return: the base itself learned nothing")
    limit = -RETURN_MARGIN * learned

    def difference(ours: list[Array], theirs: list[Array]) -> Array:
        return interquartile_mean(ours[0]) - interquartile_mean(theirs[0])

    found = interval(difference, [runs.final], [base.final], rng=rng)
    told = f"return {_interval(found, '{:+.4g}')} over the base's; {limit:+.4g} allowed"
    verdict: Verdict = "passed" if found.low >= limit else "cannot tell"
    if found.high < limit:
        verdict = "failed"
    return Check(verdict, found, limit, told, too_fast=found.low > -limit)


def _steps(runs: Runs, base: Runs, horizon: float, rng: np.random.Generator) -> Check:
    if not runs.steps or not base.steps:
        reason = "steps to threshold: nothing to compare; has the task a --threshold?"
        return Check("cannot tell", None, None, reason)
    if 2 * sum(base.reached) < len(base.reached):
        told = f"the base reached it in {sum(base.reached)} of {len(base.reached)} runs"
        reason = f"steps to threshold: {told}; raise --total-timesteps or lower --threshold"
        return Check("cannot tell", None, None, reason)

    def ratio(ours: list[Array], theirs: list[Array]) -> Array:
        means = [
            restricted_mean(group[0][..., 0], group[0][..., 1] > 0, horizon)
            for group in (ours, theirs)
        ]
        quotient: Array = means[0] / means[1]
        return quotient

    found = interval(ratio, [_pairs(runs)], [_pairs(base)], rng=rng)
    told = f"env steps {_interval(found, '{:.3g}')} times the base's; {STEPS_MARGIN} allowed"
    verdict: Verdict = "passed" if found.high <= STEPS_MARGIN else "cannot tell"
    if found.low > STEPS_MARGIN:
        verdict = "failed"
    elif verdict == "passed" and not all(runs.reached):
        # who never gets there counts with the horizon: too little, if that is near the base's mean
        mean = float(restricted_mean(base.steps, base.reached, horizon))
        if horizon < STEPS_MARGIN * mean:
            verdict = "cannot tell"
            told += f"; --total-timesteps {math.ceil(STEPS_MARGIN * mean)} or more would show it"
    return Check(verdict, found, STEPS_MARGIN, told, too_fast=found.high < 1 / STEPS_MARGIN)


def _pairs(runs: Runs) -> Array:
    return np.stack([runs.steps, np.asarray(runs.reached, np.float64)], axis=-1)


def _interval(found: Interval, style: str) -> str:
    value, low, high = (style.format(one) for one in (found.value, found.low, found.high))
    return f"{value} ({low}..{high})"


def configuration_key(config: Config | Mapping[str, Any]) -> str:
    """Names what is learned: a hash of a config's fields but for NOT_LEARNED and TRACKING.

    Args:
        config: also as a dict, and as that is read back from JSON.
    """
    values = config.to_dict() if isinstance(config, Config) else config
    learned = {
        name: value
        for name, value in values.items()
        if name not in NOT_LEARNED and not name.startswith(TRACKING)
    }
    text = json.dumps(learned, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def verified(
    records: Iterable[Mapping[str, Any]], impl: str, config: Config | Mapping[str, Any]
) -> bool:
    """Whether learn records say that an implementation learns this configuration.

    The study with the most seeds decides, so that a small one cannot be picked for its luck; and
    one that failed is not outvoted.

    Args:
        records: of kind learn, as `result.read` returns them; others are passed over.
        impl: its name in the tables.
        config: of what is measured.
    """
    key = configuration_key(config)
    found = [
        entry
        for record in records
        if record.get("kind") == "learn"
        for entry in _entries(record)
        if entry.get("impl") == impl and entry.get("configuration") == key
    ]
    most = max((entry["seeds"] for entry in found), default=0)
    largest = {entry["verdict"] for entry in found if entry["seeds"] == most}
    return largest == {"passed"} and all(entry["verdict"] != "failed" for entry in found)


def _entries(record: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    found: Sequence[Mapping[str, Any]] = record.get("comparison", {}).get("parity", [])
    return found
