"""One window behind every return, and one table of thresholds that says whose each is."""

import gymnasium
import pytest

from fastppo.errors import UserError
from fastppo.returns import GYMNASIUM, OURS, THRESHOLDS, WINDOW, ReturnWindow, threshold_of
from fastppo.tasks import all_env_ids, describe


def test_the_window_is_a_hundred_games_in_whole_updates() -> None:
    window = ReturnWindow()
    assert window.mean is None
    for games, mean in [(500, 0.0), (60, 1.0), (0, None), (50, 2.0)]:
        window.add(games, mean)

    assert WINDOW == 100
    # without the 60 there would be 50
    assert window.mean == pytest.approx((60 * 1 + 50 * 2) / 110)
    assert window.is_at(1.4)
    assert not window.is_at(1.5)


def test_too_few_games_reach_nothing() -> None:
    window = ReturnWindow()
    window.add(99, 1000.0)
    assert not window.is_at(1.0)
    # a count without a mean says nothing
    window.add(50, None)
    assert not window.is_at(1.0)
    window.add(1, 1000.0)
    assert window.is_at(1.0)


def is_served(env_id: str) -> bool:
    try:
        return describe(env_id).env_id == env_id
    except UserError:
        return False


def test_where_gymnasium_names_a_threshold_it_is_that() -> None:
    for env_id in all_env_ids():
        spec = gymnasium.registry.get(env_id)
        registered = None if spec is None else spec.reward_threshold
        if registered is not None and not is_served(env_id):
            continue
        known = threshold_of(env_id)
        if registered is not None:
            assert known is not None, env_id
            assert (known.value, known.source) == (registered, GYMNASIUM)
        elif known is not None and env_id.startswith("LunarLander"):
            # its second version left the registry with Gymnasium 1.0
            assert (known.value, known.source) == (200.0, GYMNASIUM)
        elif known is not None:
            assert known.source == OURS, env_id


def test_every_threshold_is_of_an_environment_that_exists() -> None:
    assert [env_id for env_id in THRESHOLDS if not is_served(env_id)] == []
