"""Whether the head learns as much: final return and steps to a threshold, seed by seed.

A change that is faster and learns less is no progress. Of both sides the same seeds are trained; a
loss within the margin is none (non-inferiority). As for times, one run accuses nobody: who is
suspected is trained on as many new seeds.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fastppo.bench.gate import rule
from fastppo.bench.gate.pairs import Series
from fastppo.bench.gate.signed_rank import middle

ALPHA = 0.01
"""Of each bound; 10 seeds can reach it."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """A task that is learned within seconds."""

    env_id: str
    timesteps: int
    worst: float
    """Return of a policy that knows nothing."""
    best: float
    threshold: float


LESSONS = (
    Lesson("CartPole-v1", 150_000, 20.0, 500.0, 475.0),
    Lesson("Pendulum-v1", 150_000, -1300.0, -150.0, -300.0),
)
MARGINS = {"final": 0.05, "steps": 0.25}
"""What may be lost: of the span between worst and best return; of the steps."""
NAMES = [f"learning/{what}/{lesson.env_id}" for lesson in LESSONS for what in MARGINS]
Train = Callable[[str, dict[str, Any]], dict[str, Any]]
"""Side and request to the answer of `learn.run`."""


def learned(train: Train, seeds: Sequence[int], said: Callable[[str], None]) -> list[Series]:
    """Trains both sides on every seed of every lesson, and judges.

    Args:
        said: is given a line before each seed.
    """
    series = {
        f"{what}/{lesson.env_id}": Series(f"learning/{what}/{lesson.env_id}", MARGINS[what])
        for lesson in LESSONS
        for what in MARGINS
    }
    for number, seed in enumerate(seeds):
        said(f"learning: seed {number + 1} of {len(seeds)}")
        for lesson in LESSONS:
            request = {
                "env_id": lesson.env_id,
                "seed": seed,
                "timesteps": lesson.timesteps,
                "threshold": lesson.threshold,
            }
            order = ("base", "head") if number % 2 == 0 else ("head", "base")
            answers = {side: train(side, request) for side in order}
            for side in order:
                costs = costs_of(lesson, answers[side])
                for what, cost in costs.items():
                    one = series[f"{what}/{lesson.env_id}"]
                    (one.base if side == "base" else one.head).append(cost)
    for one in series.values():
        one.verdict = judge(one)
    return list(series.values())


def costs_of(lesson: Lesson, answer: dict[str, Any]) -> dict[str, float]:
    """Of the final return one plus the part of the span that is missing; the steps as they are."""
    missing = (lesson.best - answer["final"]) / (lesson.best - lesson.worst)
    return {"final": 1.0 + max(0.0, missing), "steps": float(answer["steps"])}


def judge(series: Series) -> str:
    """PASS where the loss is within the margin, SUSPECT where it is beyond, by the bounds."""
    found, margin = middle(series.differences, ALPHA), math.log1p(series.tolerance)
    if found.high <= margin:
        return rule.PASS
    return rule.SUSPECT if found.low > margin else rule.INCONCLUSIVE
