from typing import Any

import numpy as np
import pytest

from fastppo import randomness
from fastppo.bench.peers.child import Task
from fastppo.bench.peers.pool import AutoresetEnv, ObsStats, RewardStats
from fastppo.config import Config
from fastppo.envs import VecEnv
from fastppo.errors import UserError
from fastppo.tasks import describe, spec_of

NUM_ENVS = 3
EPISODES: dict[str, dict[str, Any]] = {  # short ones, so that many end
    "CartPole-v1": {},
    "HalfCheetah-v4": {"max_episode_steps": 20},
    "Breakout-v5": {"episodic_life": True, "sign_reward": True},
}


def config_of(env_id: str, **settings: Any) -> Config:
    return Config(env_id=env_id, num_envs=NUM_ENVS, num_steps=4, num_minibatches=1, **settings)


def actions_of(env_id: str, num_steps: int) -> np.ndarray[Any, Any]:
    """[num_steps, NUM_ENVS, ...]: what environment e does in its step t."""
    spec = describe(env_id)
    rng = np.random.default_rng(3)
    if spec.nvec is not None:
        return rng.integers(spec.nvec[0], size=(num_steps, NUM_ENVS))
    return rng.uniform(-1, 1, (num_steps, NUM_ENVS, spec.action_dim)).astype(np.float32)


def transitions_with_reset_rows(config: Config, actions: Any) -> list[list[tuple[Any, ...]]]:
    """(obs, reward, terminated, truncated, next obs) by environment, from plain EnvPool."""
    env = VecEnv(config, randomness.env_seeds(config.seed, range(NUM_ENVS)))
    obs = env.reset()
    done = [0] * NUM_ENVS
    found: list[list[tuple[Any, ...]]] = [[] for _ in range(NUM_ENVS)]
    while min(done) < len(actions):
        turns = np.minimum(done, len(actions) - 1)
        row = env.step(actions[turns, np.arange(NUM_ENVS)])
        for e in np.flatnonzero(row.valid):
            flags = bool(row.terminated[e]), bool(row.truncated[e])
            found[e].append((obs[e], row.rewards[e], *flags, row.obs[e]))
            done[e] += 1
        obs = row.obs
    return [each[: len(actions)] for each in found]


@pytest.mark.parametrize("env_id", EPISODES)
def test_the_adapter_hands_over_the_transitions_of_the_pool_and_no_reset_row(env_id: str) -> None:
    config = config_of(env_id, **EPISODES[env_id])
    actions = actions_of(env_id, 120)
    spec = spec_of(config)
    env = AutoresetEnv(config, spec, env_threads=2)
    expected = transitions_with_reset_rows(config, actions)

    obs = env.reset()
    ends = 0
    for t, acts in enumerate(actions):
        row = env.step(acts)
        next_obs = row.obs.copy()
        next_obs[row.ended] = row.final_obs
        ends += len(row.ended)
        for e in range(NUM_ENVS):
            want = expected[e][t]
            np.testing.assert_array_equal(obs[e], want[0].astype(spec.obs_dtype))
            assert (row.rewards[e], row.terminated[e], row.truncated[e]) == want[1:4]
            np.testing.assert_array_equal(next_obs[e], want[4].astype(spec.obs_dtype))
        obs = row.obs

    assert ends >= 5


@pytest.mark.usefixtures("public_step")
def test_env_steps_and_returns_equal_a_count_by_the_environments_own_ids() -> None:
    config = config_of("CartPole-v1")
    env = AutoresetEnv(config, spec_of(config), env_threads=1)
    lengths: list[int] = []
    pool_step = env._env.pool.step

    def watched(*args: Any) -> Any:
        obs, rewards, terminated, truncated, info = pool_step(*args)
        done = terminated | truncated
        lengths.extend(info["elapsed_step"][done])
        running[info["env_id"]] = np.where(done, 0, info["elapsed_step"])
        return obs, rewards, terminated, truncated, info

    running = np.zeros(NUM_ENVS, int)
    env._env.pool.step = watched
    env.reset()
    for acts in actions_of("CartPole-v1", 200):
        env.step(acts)
    env_steps, returns = env.drain()

    assert env_steps == sum(lengths) + running.sum() == 200 * NUM_ENVS
    assert sorted(returns) == sorted(lengths)  # one point per step
    assert env.drain() == (0, [])


@pytest.mark.usefixtures("public_step")
def test_what_stands_in_a_reset_row_reaches_nothing() -> None:
    config = config_of("CartPole-v1")

    def rows(*, poison: bool) -> tuple[list[Any], Any]:
        env = AutoresetEnv(config, spec_of(config), env_threads=1, norm_obs=True, norm_reward=True)
        pool_step = env._env.pool.step

        def poisoned(actions: Any, ids: Any = None) -> Any:
            if ids is None:
                return pool_step(actions)
            obs, rewards, *rest = pool_step(np.ones_like(actions), ids)
            return obs, np.full_like(rewards, np.nan), *rest

        if poison:
            env._env.pool.step = poisoned
        env.reset()
        return [env.step(acts) for acts in actions_of("CartPole-v1", 100)], env.drain()

    clean, poisoned = rows(poison=False), rows(poison=True)

    assert clean[1] == poisoned[1]
    for one, other in zip(clean[0], poisoned[0], strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_normalisation_is_that_of_all_rows_so_far() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(3.0, 5.0, (50, NUM_ENVS, 2))
    rewards = rng.normal(size=(50, NUM_ENVS)).astype(np.float32)
    ended = rng.random((50, NUM_ENVS)) < 0.1
    obs_stats, reward_stats = ObsStats((2,), 1.5), RewardStats(NUM_ENVS, 0.9, 10.0)
    discounted = np.zeros(NUM_ENVS)
    seen: list[Any] = []

    for t in range(50):
        obs = obs_stats.update(rows[t])
        scaled = reward_stats.update(rewards[t], np.flatnonzero(ended[t]).astype(np.int32))
        discounted = discounted * 0.9 + rewards[t]
        seen.append(discounted.copy())
        discounted[ended[t]] = 0.0

    so_far = rows.reshape(-1, 2)
    expected = np.clip((rows[-1] - so_far.mean(0)) / so_far.std(0), -1.5, 1.5)
    np.testing.assert_allclose(obs, expected, atol=1e-3)
    np.testing.assert_allclose(scaled, rewards[-1] / np.std(seen), rtol=1e-3)


def test_a_setting_that_a_library_lacks_is_refused() -> None:
    config = config_of("CartPole-v1", dual_clip=3.0)
    task = Task.of({"config": config.to_dict(), "device": "cuda", "env_threads": 1,
                    "torch_threads": [1]})  # fmt: skip

    with pytest.raises(UserError, match=r"dual_clip: 3\.0 is not to be had from Lib"):
        task.refuse("Lib", "dual_clip")
    with pytest.raises(UserError, match="device: 'cuda' is not served by Lib here; use cpu"):
        task.refuse("Lib", device="cpu")


@pytest.mark.usefixtures("public_step")
def test_a_step_that_is_not_finite_reaches_no_library_and_is_not_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = config_of("CartPole-v1")
    env = AutoresetEnv(config, spec_of(config), env_threads=2, norm_obs=True, norm_reward=True)
    step, count = env._env.pool.step, 0

    def sick(*args: Any) -> Any:
        nonlocal count
        count += 1
        obs, rewards, *rest = step(*args)
        obs, rewards = obs.copy(), rewards.copy()
        if count == 3:
            obs[1, 2], rewards[2] = np.nan, np.inf
        return obs, rewards, *rest

    monkeypatch.setattr(env._env.pool, "step", sick)
    env.reset()
    rows = [env.step(np.zeros(NUM_ENVS, np.int64)) for _ in range(6)]
    env_steps, returns = env.drain()
    env.close()

    assert all(np.isfinite(row.obs).all() and np.isfinite(row.rewards).all() for row in rows)
    assert env_steps == 6 * NUM_ENVS - 3  # environment 1 is blind for a step more
    assert np.isfinite(returns).all()
