"""N environments behind a contract of our own.

EnvPool resets on the *next* step (measured on 1.2.5), as Gymnasium's vector environments do by
default: the step that returns done carries the true final observation; the step after it ignores
its action and returns the first observation of the new episode with reward 0. That row is not a
transition, so `StepResult.valid` is false there, and where a number is not finite (`finite.py`).
It cannot be read off EnvPool's `elapsed_step`: with `episodic_life` that counter does not start
again after a lost life.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastppo.config import Config
from fastppo.episodes import EpisodeTracker
from fastppo.errors import UserError
from fastppo.finite import FiniteGate
from fastppo.own_envs import OwnEnvs
from fastppo.pools import Answer, Array, Flags, TimeLimit, any_of, direct_step, make_pool
from fastppo.tasks import action_space_of, has_own_flag


class StepResult(NamedTuple):
    """One row of N environments, ordered by environment id."""

    obs: Array  # [N, ...] true final observation where the episode ended
    rewards: NDArray[np.float32]  # [N] what the policy learns from
    terminated: Flags  # [N] the episode ended in a state of value zero
    truncated: Flags  # [N] the episode was cut: the final state's value still counts
    valid: Flags  # [N] false where this row is no transition: a reset, or not finite


class VecEnv:
    """N environments stepped together, under the autoreset contract of this module.

    `episodes` gathers the raw returns of finished games: across lost lives, cut by time limits.
    `gate` counts the steps that were left out because a number was not finite.

    Args:
        own: steps these in place of EnvPool's.
        draws: whether `picture` will be asked for.
    """

    def __init__(
        self,
        config: Config,
        env_seeds: Sequence[int],
        *,
        num_threads: int = 0,
        own: OwnEnvs | None = None,
        draws: bool = False,
    ) -> None:
        self.num_envs = len(env_seeds)
        if own is None:
            self.time_limit, limit = TimeLimit.of(config, self.num_envs)
            options: dict[str, Any] = limit | ({"render_mode": "rgb_array"} if draws else {})
            self.pool = make_pool(config, env_seeds, num_threads=num_threads, options=options)
            self.actions = action_space_of(config.env_id)
        else:
            self.time_limit = TimeLimit(self.num_envs, None)
            self.pool = own.pool(env_seeds)
            self.actions = own.actions
        self._step = direct_step(self.pool)
        self.episodes = EpisodeTracker(self.num_envs)
        self.gate = FiniteGate(self.num_envs)
        self._sign_reward = config.sign_reward
        self.has_own_flag = own is None and has_own_flag(config.env_id)
        self._actions: Array = np.zeros((self.num_envs, *self.actions.shape), self.actions.dtype)
        self._all: Flags = np.ones(self.num_envs, np.bool_)
        self.none: Flags = np.zeros(self.num_envs, np.bool_)

    @property
    def stepping(self) -> str:
        """How the environments are stepped from Python."""
        return "step" if self._step is None else "send/recv"

    def reset(self) -> Array:
        """First observations, [N, ...]; call once."""
        obs, _ = self.pool.reset()
        self.time_limit.reset()
        return self.gate.reset(np.asarray(obs))

    def step(self, actions: Array) -> StepResult:
        """Acts in every environment.

        Args:
            actions: [N] or [N, heads] int choices from 0, or [N, D] floats, clipped to the bounds.
        """
        self.actions.fit(actions, self._actions)
        reset = self.time_limit.done
        answer = self.time_limit.step(self.pool, self._actions, whole=self._step)
        return self._conclude(answer, reset)

    def settle(self, answer: Answer) -> StepResult:
        """A row that somebody else stepped, as `step` would have returned it."""
        reset = self.time_limit.done
        obs, rewards, terminated, truncated, info = answer
        truncated = self.time_limit.mark(terminated, truncated)
        return self._conclude((obs, rewards, terminated, truncated, info), reset)

    def _conclude(self, answer: Answer, reset: Flags) -> StepResult:
        obs, raw_rewards, terminated, truncated, info = answer
        obs, raw_rewards, lost = self.gate.step(obs, raw_rewards, reset)
        valid = self._all
        if lost is not None:
            valid = ~(reset | lost)
        elif any_of(reset):
            valid = ~reset
        game_over = terminated
        if self.has_own_flag and any_of(self.time_limit.done):
            # it tells a lost life from a lost game, too
            game_over = info["terminated"].astype(np.bool_) & self.time_limit.done
            terminated = terminated | game_over
            truncated = truncated & ~game_over
        self.episodes.add(raw_rewards, valid, game_over | truncated, lost)
        rewards = np.sign(raw_rewards) if self._sign_reward else raw_rewards
        return StepResult(obs, rewards, terminated, truncated, valid)

    def picture(self) -> NDArray[np.uint8]:
        """What the first environment shows now, [H, W, 3].

        Raises:
            UserError: environments of one's own that draw nothing.
        """
        drawn = self.pool.render()
        if drawn is None or len(drawn) == 0 or drawn[0] is None:
            raise UserError("video: envs draw nothing; make them with render_mode='rgb_array'")
        return np.asarray(drawn[0], np.uint8)

    def close(self) -> None:
        """Stops EnvPool's threads."""
        self.pool.close()
