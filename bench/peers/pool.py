"""EnvPool for libraries that expect a finished environment to begin its next episode at once.

EnvPool resets on the step after (`fastppo.envs`). Here the environments that finished are stepped
once more, alone and right away: a synchronous pool takes a step of some of its environments. The
action of that step is ignored and it is not a transition, so the library sees T * N transitions per
rollout and never a reset row. `pool.reset(ids)` would not do: after a lost life it starts the
whole game again (checked on EnvPool 1.2.5; tests/bench/peers/test_peers.py).
"""

from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from fastppo import randomness
from fastppo.config import Config
from fastppo.envs import VecEnv
from fastppo.pools import Array, Flags
from fastppo.tasks import EnvSpec


class Row(NamedTuple):
    """One step of N environments: N transitions."""

    obs: Array  # [N, ...] to act on next: of a finished environment, its next episode's first
    rewards: NDArray[np.float32]  # [N] what the policy learns from
    terminated: Flags  # [N]
    truncated: Flags  # [N]
    ended: NDArray[np.int32]  # [E] the environments whose episode ended
    final_obs: Array  # [E, ...] the true last observations of those


class AutoresetEnv:
    """N environments that never show a reset row; counts transitions and games.

    Normalisation follows Gymnasium's and Stable-Baselines3's wrappers: the statistics move on at
    every step, before they are used.

    Args:
        norm_obs, norm_reward: normalise here; False where the library has its own way, or the
            config asks for none.
    """

    def __init__(
        self,
        config: Config,
        spec: EnvSpec,
        *,
        env_threads: int,
        norm_obs: bool = False,
        norm_reward: bool = False,
    ) -> None:
        self.spec = spec
        self.num_envs = config.num_envs
        seeds = randomness.env_seeds(config.seed, range(config.num_envs))
        self._env = _PartlySteppedEnv(config, seeds, num_threads=env_threads)
        self.observation_space = observation_space(spec)
        self.action_space = action_space(spec, self._env.pool.action_space)
        self._obs_stats = ObsStats(spec.obs_shape, config.obs_clip) if norm_obs else None
        self._reward_stats = (
            RewardStats(config.num_envs, config.gamma, config.reward_clip) if norm_reward else None
        )
        self._env_steps = 0

    def reset(self) -> Array:
        """First observations, [N, ...]; call once."""
        obs = self._env.reset().astype(self.spec.obs_dtype, copy=False)
        return obs if self._obs_stats is None else self._obs_stats.update(obs)

    def step(self, actions: Array) -> Row:
        """Acts in every environment, and opens the next episode where one ended.

        Args:
            actions: [N] or [N, heads] int choices from 0, or [N, D] floats, clipped to the bounds.
        """
        result = self._env.step(actions)
        # never a reset row here; a step that is not finite is handed on as 0, and not counted
        self._env_steps += int(result.valid.sum())
        obs = result.obs.astype(self.spec.obs_dtype)
        ended = np.flatnonzero(result.terminated | result.truncated).astype(np.int32)
        final_obs = obs[ended]
        if len(ended):
            obs[ended] = self._env.begin_episodes(ended)
        rewards = result.rewards.astype(np.float32, copy=False)
        if self._obs_stats is not None:
            obs = self._obs_stats.update(obs)
            final_obs = self._obs_stats.normalize(final_obs)
        if self._reward_stats is not None:
            rewards = self._reward_stats.update(rewards, ended)
        return Row(obs, rewards, result.terminated, result.truncated, ended, final_obs)

    def drain(self) -> tuple[int, list[float]]:
        """Env steps, and the raw returns of the games that ended, since the last call."""
        env_steps, self._env_steps = self._env_steps, 0
        return env_steps, [episode[1] for episode in self._env.episodes.drain()]

    def close(self) -> None:
        """Stops EnvPool's threads."""
        self._env.close()


class _PartlySteppedEnv(VecEnv):
    """`VecEnv` whose finished environments can be carried over the reset row by themselves."""

    def begin_episodes(self, ended: NDArray[np.int32]) -> Array:
        """First observations, [E, ...], of the environments whose last step ended an episode."""
        ignored = np.zeros((len(ended), *self._actions.shape[1:]), self._actions.dtype)
        obs, _, terminated, truncated, info = self.time_limit.step(self.pool, ignored, ended)
        assert (info["env_id"] == ended).all()
        assert not (terminated | truncated).any()
        return self.gate.reset(np.asarray(obs), ended)


def observation_space(spec: EnvSpec) -> spaces.Box:
    """The observations as the adapter hands them over: uint8, or float32 without bounds."""
    if spec.obs_dtype == np.uint8:
        return spaces.Box(0, 255, spec.obs_shape, np.uint8)
    return spaces.Box(-np.inf, np.inf, spec.obs_shape, np.float32)


def action_space(spec: EnvSpec, raw: spaces.Space[Any]) -> spaces.Space[Any]:
    """The actions as the adapter takes them: choices from 0, or float32 within the bounds."""
    if spec.nvec is None:
        assert isinstance(raw, spaces.Box)
        low, high = (bound.astype(np.float32).reshape(-1) for bound in (raw.low, raw.high))
        return spaces.Box(low, high, dtype=np.float32)
    nvec = list(spec.nvec)
    return spaces.Discrete(nvec[0]) if len(nvec) == 1 else spaces.MultiDiscrete(nvec)


class RunningMoments:
    """Mean and population variance of all rows seen (Chan et al., 1979), in float64."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.mean: NDArray[np.float64] = np.zeros(shape)
        self.var: NDArray[np.float64] = np.ones(shape)
        self._count = 1e-4  # as Gymnasium and Stable-Baselines3 begin

    def update(self, rows: Array) -> None:
        """Merges [B, *shape] rows."""
        mean, var, count = rows.mean(0, dtype=np.float64), rows.var(0, dtype=np.float64), len(rows)
        delta, total = mean - self.mean, self._count + count
        spread = self.var * self._count + var * count
        self.var = (spread + delta**2 * (self._count * count / total)) / total
        self.mean = self.mean + delta * (count / total)
        self._count = total


class ObsStats:
    """(obs - mean) / sqrt(var + 1e-8), clipped."""

    def __init__(self, shape: tuple[int, ...], clip: float) -> None:
        self._moments = RunningMoments(shape)
        self._clip = clip

    def update(self, obs: Array) -> Array:
        """Merges [B, ...] and returns it normalised, float32."""
        self._moments.update(obs)
        return self.normalize(obs)

    def normalize(self, obs: Array) -> Array:
        """[B, ...] normalised, float32, by what has been seen so far."""
        scaled = (obs - self._moments.mean) / np.sqrt(self._moments.var + 1e-8)
        return np.clip(scaled, -self._clip, self._clip).astype(np.float32)


class RewardStats:
    """Rewards over the running standard deviation of the discounted return, clipped."""

    def __init__(self, num_envs: int, gamma: float, clip: float) -> None:
        self._moments = RunningMoments(())
        self._returns: NDArray[np.float64] = np.zeros(num_envs)
        self._gamma = gamma
        self._clip = clip

    def update(self, rewards: NDArray[np.float32], ended: NDArray[np.int32]) -> Array:
        """Merges one row of rewards [N] and returns it scaled, float32."""
        self._returns = self._returns * self._gamma + rewards
        self._moments.update(self._returns)
        self._returns[ended] = 0.0
        scaled = rewards / np.sqrt(self._moments.var + 1e-8)
        return np.clip(scaled, -self._clip, self._clip).astype(np.float32)
