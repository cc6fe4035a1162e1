"""Learning curves: thresholds, final returns, and runs that say nothing."""

from collections.abc import Sequence

import pytest

from fastppo.bench.launch.process import Event
from fastppo.bench.learn.curves import Curve
from fastppo.bench.learn.runs import shortfall


def curve_of(returns: Sequence[float | None], games: int = 10, finished: bool = True) -> Curve:
    """One update of 100 env steps and one second per return."""
    curve = Curve(seed=1, order=0, finished=finished)
    for i, mean in enumerate(returns):
        values = {"env_steps": 100, "episodes": 0 if mean is None else games, "return_mean": mean}
        curve.add(Event("update", i + 1.0, values))
    return curve


def test_a_threshold_is_reached_by_the_mean_of_the_last_games() -> None:
    """Two updates of 50 games are the window: 0 and 80 average 40, 80 and 60 average 70."""
    curve = curve_of([0.0, 80.0, None, 60.0, 0.0], games=50)

    assert curve.reached(40.0) == 1
    # the update without a game neither adds nor ends the window
    assert curve.reached(41.0) == 3
    assert curve.reached(71.0) is None
    # the first 50 games alone are too few
    assert curve_of([100.0, 0.0, 0.0], games=50).reached(60.0) is None


def test_the_final_return_is_that_of_the_last_tenth_weighted_by_games() -> None:
    curve = curve_of([0.0] * 18 + [40.0])
    curve.add(Event("update", 20.0, {"env_steps": 100, "episodes": 30, "return_mean": 80.0}))

    assert curve.final_return() == pytest.approx(70.0)
    assert curve.first_return() == 0.0
    assert shortfall(curve, 2100) is None


def test_runs_that_say_nothing_about_learning_are_left_out_with_a_reason() -> None:
    assert "finished no game" in str(shortfall(curve_of([9.0] * 9 + [None]), 1000))
    assert "after 300 of 1,000" in str(shortfall(curve_of([9.0] * 3), 1000))


def test_a_count_of_games_without_their_mean_counts_nothing() -> None:
    curve = curve_of([5.0, 5.0])
    curve.add(Event("update", 3.0, {"env_steps": 100, "episodes": 50, "return_mean": None}))

    assert curve.games == [10, 10, 0]
    assert curve.returns[-1] is None
