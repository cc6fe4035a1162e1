"""The learning gate: a head that learns less, or later, is red; equal ones and faster ones pass."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fastppo.bench.gate import learning, rule
from fastppo.bench.gate.learning import Lesson, costs_of, learned

Answer = Callable[[str, dict[str, Any]], dict[str, Any]]
SEEDS = range(1, 11)


def trainer(final: float = 0.0, steps: float = 1.0) -> Answer:
    """Both near the best at a third of the steps; the head loses `final` of the span."""

    def train(side: str, request: dict[str, Any]) -> dict[str, Any]:
        (lesson,) = [one for one in learning.LESSONS if one.env_id == request["env_id"]]
        rng = np.random.default_rng([request["seed"], len(side), ord(side[0])])
        span = lesson.best - lesson.worst
        lost = 0.02 * rng.random() + (final if side == "head" else 0.0)
        late = (1 + 0.1 * rng.normal()) * (steps if side == "head" else 1.0)
        return {
            "final": lesson.best - span * lost,
            "steps": min(request["timesteps"], request["timesteps"] / 3 * late),
        }

    return train


def verdicts(train: Answer) -> dict[str, str]:
    return {one.name: one.verdict for one in learned(train, SEEDS, lambda _: None)}


def test_equal_sides_pass() -> None:
    assert verdicts(trainer()) == dict.fromkeys(learning.NAMES, rule.PASS)


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
def test_who_learns_less_is_suspected(env_id: str) -> None:
    said = verdicts(trainer(final=0.2))
    assert said[f"learning/final/{env_id}"] == rule.SUSPECT
    assert said[f"learning/steps/{env_id}"] == rule.PASS


def test_who_learns_later_is_suspected() -> None:
    said = verdicts(trainer(steps=2.0))
    assert said["learning/steps/CartPole-v1"] == rule.SUSPECT
    assert said["learning/final/CartPole-v1"] == rule.PASS


def test_who_learns_more_and_sooner_passes() -> None:
    assert set(verdicts(trainer(final=-0.01, steps=0.5)).values()) == {rule.PASS}


def test_costs_by_hand() -> None:
    lesson = Lesson("X", 1000, worst=0.0, best=100.0, threshold=90.0)
    assert costs_of(lesson, {"final": 75.0, "steps": 500}) == {"final": 1.25, "steps": 500.0}
    assert costs_of(lesson, {"final": 110.0, "steps": 1000})["final"] == 1.0
