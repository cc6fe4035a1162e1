"""EnvPool driven by `_send` and `_recv` answers as by `step`."""

from typing import Any

import envpool
import numpy as np
import pytest

from fastppo import pools
from fastppo.bench.launch.pools import draw_actions
from fastppo.config import Config
from fastppo.envs import StepResult, VecEnv
from fastppo.pools import TimeLimit, direct_step, make_pool
from fastppo.tasks import spec_of

SEEDS = [3, 1, 4, 1592]
TASKS: dict[str, dict[str, Any]] = {
    "CartPole-v1": {"max_episode_steps": 20},
    "Pendulum-v1": {},
    "HalfCheetah-v4": {"max_episode_steps": 15},
    "Breakout-v5": {"episodic_life": True},
    "BipedalWalker-v3": {},
    "Blackjack-v1": {},
    "Exit-v0": {},
}


def config_of(env_id: str) -> Config:
    return Config(env_id=env_id, num_envs=len(SEEDS), **TASKS[env_id])


def test_the_installed_envpool_is_one_that_is_driven_directly() -> None:
    """Where this fails, see that the tests below hold for that version and add it to DRIVEN."""
    assert envpool.__version__ in pools.DRIVEN


@pytest.mark.parametrize("env_id", TASKS)
def test_a_pool_answers_the_same_both_ways(env_id: str) -> None:
    config = config_of(env_id)
    direct, public = (make_pool(config, SEEDS, num_threads=2) for _ in range(2))
    drive = direct_step(direct)
    assert drive is not None
    actions = draw_actions(public, len(SEEDS), seed=5)
    np.testing.assert_array_equal(direct.reset()[0], public.reset()[0])

    for turn in range(150):
        ours, theirs = drive(actions[turn % 64]), public.step(actions[turn % 64])
        for mine, other in zip(ours[:4], theirs[:4], strict=True):
            np.testing.assert_array_equal(mine, other)
            assert mine.dtype == other.dtype
        for name, value in ours[4].items():
            np.testing.assert_array_equal(value, theirs[4][name])


@pytest.mark.parametrize("env_id", TASKS)
def test_environments_go_the_same_way_both_ways(
    env_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(env_id)
    runs: list[tuple[list[StepResult], list[tuple[int, float, int]]]] = []
    for versions in (pools.DRIVEN, ()):
        monkeypatch.setattr(pools, "DRIVEN", versions)
        env = VecEnv(config, SEEDS, num_threads=1)
        rng = np.random.default_rng(0)
        env.reset()
        rows = [env.step(random_actions(env, config, rng)) for _ in range(120)]
        runs.append((rows, env.episodes.drain()))
        env.close()
    (ours, games), (theirs, other_games) = runs

    for mine, other in zip(ours, theirs, strict=True):
        for name in StepResult._fields:
            np.testing.assert_array_equal(getattr(mine, name), getattr(other, name))
    assert games == other_games


def random_actions(env: VecEnv, config: Config, rng: np.random.Generator) -> Any:
    spec = spec_of(config)
    if spec.nvec is None:
        return rng.normal(size=(len(SEEDS), spec.action_dim)).astype(np.float32)
    heads = [rng.integers(0, choices, len(SEEDS)) for choices in spec.nvec]
    return heads[0] if len(heads) == 1 else np.stack(heads, -1)


@pytest.mark.parametrize(
    "actions",
    [np.zeros(4, np.int64), np.zeros((4, 1), np.int32), np.zeros(3, np.int32),
     np.zeros(8, np.int32)[::2]],
)  # fmt: skip
def test_what_envpool_would_take_unchecked_is_refused(actions: Any) -> None:
    pool = make_pool(config_of("CartPole-v1"), SEEDS)
    drive = direct_step(pool)
    assert drive is not None
    pool.reset()

    with pytest.raises(ValueError, match="must be int32"):
        drive(actions)


def test_rows_without_a_cut_are_not_looked_at_and_none_is_missed() -> None:
    """A limit of 7 steps, counted row by row, with ends in between and rows of some."""
    limit = TimeLimit(3, 7)
    rng = np.random.default_rng(2)
    steps = np.zeros(3, int)
    done = np.zeros(3, bool)

    class Pool:
        all_env_ids = np.arange(3, dtype=np.int32)

        def step(self, actions: Any, env_ids: Any = None) -> Any:
            count = 3 if env_ids is None else len(env_ids)
            self.ended = rng.random(count) < 0.08
            nothing = np.zeros(count, bool)
            return np.zeros((count, 1)), np.zeros(count), self.ended, nothing, {}

        def reset(self, env_ids: Any) -> Any:
            return np.zeros((len(env_ids), 1)), {}

    pool: Any = Pool()
    for row in range(400):
        some = np.arange(3, dtype=np.int32)
        if row % 11 == 5:
            some = some[rng.random(3) < 0.6]
        if not len(some):
            continue
        whole = len(some) == 3
        _, _, ended, cut, _ = limit.step(pool, np.zeros(len(some)), None if whole else some)
        for position, env in enumerate(some):
            steps[env] = 0 if done[env] else steps[env] + 1
            assert cut[position] == (steps[env] >= 7 and not ended[position])
            done[env] = ended[position] or cut[position]
        assert (limit.done == done).all()
