"""Raw returns and lengths, counted over valid rows until the game ends."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fastppo.episodes import EpisodeTracker


def flags(*values: int) -> NDArray[np.bool_]:
    return np.array(values, np.bool_)


def test_return_and_length_close_where_the_game_ends() -> None:
    tracker = EpisodeTracker(2)

    tracker.add(np.array([1.0, 10.0]), flags(1, 1), flags(0, 0))
    tracker.add(np.array([2.0, 20.0]), flags(1, 1), flags(0, 1))
    tracker.add(np.array([4.0, 40.0]), flags(1, 0), flags(1, 0))  # environment 1 resets
    tracker.add(np.array([8.0, 80.0]), flags(0, 1), flags(0, 1))

    assert tracker.drain() == [(1, 30.0, 2), (0, 7.0, 3), (1, 80.0, 1)]


def test_draining_forgets_finished_episodes_and_keeps_running_ones() -> None:
    tracker = EpisodeTracker(1)
    tracker.add(np.array([1.0]), flags(1), flags(1))
    tracker.add(np.array([2.0]), flags(1), flags(0))

    assert tracker.drain() == [(0, 1.0, 1)]
    assert tracker.drain() == []
    tracker.add(np.array([3.0]), flags(1), flags(1))
    assert tracker.drain() == [(0, 5.0, 2)]


def test_whatever_stands_in_an_invalid_row_is_ignored() -> None:
    tracker = EpisodeTracker(1)
    tracker.add(np.array([1.0]), flags(1), flags(0))
    tracker.add(np.array([np.nan]), flags(0), flags(1))
    tracker.add(np.array([2.0]), flags(1), flags(1))

    assert tracker.drain() == [(0, 3.0, 2)]


def test_many_small_rewards_do_not_lose_their_sum_in_float32() -> None:
    tracker = EpisodeTracker(1)
    for step in range(20_000):
        tracker.add(np.array([0.1], np.float32), flags(1), flags(step == 19_999))

    [(_, total, length)] = tracker.drain()

    assert length == 20_000
    assert abs(total - 20_000 * float(np.float32(0.1))) < 1e-6


@given(steps=st.integers(1, 30), num_envs=st.integers(1, 5), seed=st.integers(0, 10_000))
def test_every_valid_reward_is_counted_once(steps: int, num_envs: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rewards = rng.integers(-5, 6, (steps, num_envs)).astype(np.float32)
    valid = rng.random((steps, num_envs)) < 0.8
    ended = rng.random((steps, num_envs)) < 0.3
    ended[-1], valid[-1] = True, True
    tracker = EpisodeTracker(num_envs)
    for row in zip(rewards, valid, ended, strict=True):
        tracker.add(*row)

    finished = tracker.drain()

    assert len(finished) == (ended & valid).sum()
    for env in range(num_envs):
        own = [(total, length) for index, total, length in finished if index == env]
        assert sum(total for total, _ in own) == rewards[valid[:, env], env].sum()
        assert sum(length for _, length in own) == valid[:, env].sum()
