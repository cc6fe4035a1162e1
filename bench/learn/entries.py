"""From learning curves to the entries of a result file, and to the comparison of the pairs."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from fastppo.bench.contract import manifest
from fastppo.bench.learn.curves import FINAL_PART, Curve
from fastppo.bench.learn.runs import LearnTask
from fastppo.bench.results import parity_records, statistics
from fastppo.bench.results.intervals import Interval
from fastppo.bench.results.parity import Runs
from fastppo.bench.results.statistics import interquartile_mean
from fastppo.bench.results.survival import to_threshold
from fastppo.returns import WINDOW

TAUS = np.linspace(0.0, 1.5, 61)
"""Scores of the performance profile: 0 is the base untrained, 1 the threshold."""

Curves = Mapping[tuple[str, str], Sequence[Curve]]


def rng_for(*names: str) -> np.random.Generator:
    """A generator of its own for each interval, so that none depends on what else is measured."""
    digest = hashlib.sha256("\0".join(names).encode()).digest()
    return np.random.default_rng(list(digest[:16]))


def entries(
    tasks: Sequence[LearnTask], names: Sequence[str], curves: Curves, *, base: str, at_once: int
) -> list[dict[str, Any]]:
    """An entry (`fastppo.result/1`, kind learn) of every implementation with a run.

    Args:
        names: implementations.
        base: whose work the others' is compared with.
        at_once: processes that ran side by side.
    """
    found = []
    for task in tasks:
        base_work = next((one.work for one in curves.get((task.id, base), ()) if one.work), None)
        for name in names:
            if seen := curves.get((task.id, name)):
                entry = _entry(task, name, sorted(seen, key=lambda one: one.order))
                work = entry["learn"]["work"]
                odd = manifest.differences(work, base_work) if work and base_work else []
                entry["learn"] |= {"mismatch": odd, "jobs": at_once}
                found.append(entry)
    return found


def _entry(task: LearnTask, name: str, curves: list[Curve]) -> dict[str, Any]:
    finals = _finals(curves)
    final = None
    if finals:
        rng = rng_for(task.id, name, "final")
        final = statistics.interval(statistics.pooled_iqm, [finals], rng=rng)
    kept = [curve.to_dict(task.threshold) for curve in curves]
    return {
        "id": task.id,
        "impl": name,
        "unit": "return",
        "better": "higher",
        "clock": "wall",
        "launches": [
            {"order": one.order, "seed": one.seed, "samples": _finals([one])} for one in curves
        ],
        "learn": {
            "env_id": task.config.env_id,
            "config": task.config.to_dict(),
            "configuration": parity_records.configuration_key(task.config),
            "work": curves[0].work,
            "info": curves[0].info,
            "threshold": task.threshold,
            "threshold_source": task.threshold_source,
            "games": WINDOW,
            "final_part": FINAL_PART,
            "curves": kept,
            "final_iqm": _plain(final),
            "to_threshold": _to_threshold(task, kept),
        },
    }


def _to_threshold(task: LearnTask, kept: list[dict[str, Any]]) -> dict[str, Any] | None:
    """How many runs got there, and the median of their env steps and seconds; null: not reached."""
    if task.threshold is None:
        return None
    found: dict[str, Any] = {
        "reached": sum(one["steps_to_threshold"] is not None for one in kept),
        "runs": len(kept),
    }
    return found | {
        f"median_{what}_to_threshold": _plain(to_threshold(kept, what))
        for what in ("steps", "seconds")
    }


def comparison(
    tasks: Sequence[LearnTask],
    names: Sequence[str],
    curves: Curves,
    failures: Sequence[Mapping[str, Any]],
    base: str,
) -> dict[str, Any]:
    """The implementations compared with one another, over all tasks.

    Args:
        failures: with `id`, `impl` and `seed` of runs that are missing from `curves`.
        base: whom the others are compared with.
    """
    return {
        "base": base,
        "improvement": [
            found
            for name in names
            if name != base and (found := _improvement(tasks, name, curves, base)) is not None
        ],
        "profile": {
            "scale": "0: the base untrained, 1: the threshold, or the base's final return",
            "taus": TAUS.tolist(),
            "curves": [
                found
                for name in names
                if (found := _profile(tasks, name, curves, base)) is not None
            ],
        },
        "parity": [_judged(task, name, curves, failures, base) for task in tasks for name in names],
    }


def _improvement(
    tasks: Sequence[LearnTask], name: str, curves: Curves, base: str
) -> dict[str, Any] | None:
    """P(a run of `name` ends higher than one of the base), averaged over the tasks both did."""
    both = [
        (ours, theirs)
        for task in tasks
        if (ours := _finals(curves.get((task.id, name), ())))
        and (theirs := _finals(curves.get((task.id, base), ())))
    ]
    if not both:
        return None
    rng = rng_for(name, "improvement", *(task.id for task in tasks))
    groups = [[pair[which] for pair in both] for which in (0, 1)]
    found = statistics.interval(statistics.mean_improvement, *groups, rng=rng)
    return {"impl": name, "base": base, "tasks": len(both), **asdict(found)}


def _profile(
    tasks: Sequence[LearnTask], name: str, curves: Curves, base: str
) -> dict[str, Any] | None:
    """The performance profile of normalised final returns; None unless it did every task."""
    scores = []
    for task in tasks:
        scale = _scale(task, curves.get((task.id, base), ()))
        finals = _finals(curves.get((task.id, name), ()))
        if scale is None or not finals:
            return None
        scores.append((np.array(finals) - scale[0]) / (scale[1] - scale[0]))
    rng = rng_for(name, "profile", *(task.id for task in tasks))
    found = statistics.profile(scores, TAUS, rng=rng)
    return {
        "impl": name,
        "fractions": found.fractions.tolist(),
        "low": found.low.tolist(),
        "high": found.high.tolist(),
    }


def _scale(task: LearnTask, base: Sequence[Curve]) -> tuple[float, float] | None:
    firsts = [first for one in base if (first := one.first_return()) is not None]
    finals = _finals(base)
    if not firsts or not finals:
        return None
    zero = float(interquartile_mean(firsts))
    one = float(interquartile_mean(finals)) if task.threshold is None else task.threshold
    return (zero, one) if one > zero else None


def _judged(
    task: LearnTask,
    name: str,
    curves: Curves,
    failures: Sequence[Mapping[str, Any]],
    base: str,
) -> dict[str, Any]:
    ours, theirs = (_runs(task, who, curves, failures) for who in (name, base))
    horizon = float(task.config.total_timesteps)
    judged = parity_records.judged(ours, None if name == base else theirs, horizon)
    return {
        "id": task.id,
        "impl": name,
        "base": base,
        "env_id": task.config.env_id,
        "configuration": parity_records.configuration_key(task.config),
        "seeds": ours.seeds,
        **judged.to_dict(),
    }


def _runs(
    task: LearnTask, name: str, curves: Curves, failures: Sequence[Mapping[str, Any]]
) -> Runs:
    crashed = sum(one["id"] == task.id and one["impl"] == name for one in failures)
    kept = [one.to_dict(task.threshold) for one in curves.get((task.id, name), ())]
    return parity_records.runs_of(kept, task.threshold, crashed)


def _finals(curves: Sequence[Curve]) -> list[float]:
    return [final for one in curves if one.finished and (final := one.final_return()) is not None]


def _plain(found: Interval | None) -> dict[str, float | None]:
    return {"value": None, "low": None, "high": None} if found is None else asdict(found)
