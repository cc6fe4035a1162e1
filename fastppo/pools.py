"""EnvPool's pools: how one is made, driven, and held to a time limit.

EnvPool tells "ended" from "cut" by the step count alone: an end on the limit's step comes as cut.
So the two have sources of their own here: a flag of the game where EnvPool has one (Atari,
Playground), else `TimeLimit`.
"""

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastppo import limits
from fastppo.config import Config, Options
from fastppo.errors import UserError
from fastppo.kernels.mlp.records import Ends
from fastppo.tasks import describe, has_own_flag, quietly

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # as in `tasks`
    import envpool

Array = NDArray[Any]
Flags = NDArray[np.bool_]
Answer = tuple[Array, Array, Flags, Flags, dict[str, Any]]
"""Observations, rewards, terminated, truncated, info: as Gymnasium has them."""

ATARI_OPTIONS = {
    "episodic_life": "episodic_life",
    "noop_max": "noop_max",
    "fire_reset": "use_fire_reset",
    "frame_skip": "frame_skip",
    "frame_stack": "stack_num",
    "repeat_action_probability": "repeat_action_probability",
}
# Families that keep max_episode_steps; toy_text and highway ignore it (EnvPool 1.2.5).
TIME_LIMITED = ("atari", "box2d", "classic_control", "minigrid", "mujoco")
NO_LIMIT = 2**31 - 1  # what EnvPool gives tasks without a time limit
DRIVEN: tuple[str, ...] = ("1.2.5",)
"""Versions of EnvPool whose `_send` and `_recv` are known (tests/fastppo/test_pools.py)."""


def make_pool(
    config: Config,
    env_seeds: Sequence[int],
    *,
    num_threads: int = 0,
    batch_size: int | None = None,
    options: Mapping[str, Any] | None = None,
) -> Any:
    """An EnvPool in Gymnasium form, configured as the run asks.

    Args:
        batch_size: rows per answer; below the number of environments the pool is asynchronous.
        options: EnvPool's own, over those of the config.

    Raises:
        UserError: unknown or refused task, or an Atari option for another kind of environment.
        MachineError: the system refuses its threads.
    """
    spec = describe(config.env_id)
    settings: dict[str, Any] = {}
    defaults = Options()
    for name, envpool_name in ATARI_OPTIONS.items():
        if spec.family == "atari":
            settings[envpool_name] = getattr(config, name)
        elif getattr(config, name) != getattr(defaults, name):
            value = getattr(config, name)
            raise UserError(f"{name}: {value!r} is for Atari; {config.env_id} takes the default")
    if config.max_episode_steps is not None:
        if spec.family not in TIME_LIMITED:
            limit = config.max_episode_steps
            raise UserError(
                f"max_episode_steps: {limit} would not be kept: EnvPool's {spec.family} tasks have "
                "limits of their own; leave it out"
            )
        settings["max_episode_steps"] = config.max_episode_steps
    num_envs = len(env_seeds)
    cores = os.cpu_count() or 1
    workers = min(num_threads or cores, num_envs)
    # as many again build the environments, and others carry the rows; EnvPool aborts without
    limits.check_threads(workers + min(cores, num_envs) + 1 + cores // 64, "env_threads")
    pool = quietly(
        envpool.make,
        config.env_id,
        env_type="gymnasium",
        num_envs=num_envs,
        batch_size=batch_size or num_envs,
        num_threads=min(num_threads, num_envs),
        env_seed=list(env_seeds),
        **settings | dict(options or {}),
    )
    quietly(lambda: (pool.observation_space, pool.action_space))  # built here once, kept there
    return pool


def any_of(flags: Flags) -> bool:
    """Whether one is set. For a row of flags `flags.any()` takes seven times as long."""
    return 1 in flags.tobytes()


def obs_key(pool: Any) -> str:
    """EnvPool's name of the observation."""
    (key,) = [key for key in pool._state_keys if key.partition(":")[0] == "obs"]
    return str(key)


def is_known(pool: Any) -> bool:
    """Whether the private methods of this pool are known."""
    if envpool.__version__ not in DRIVEN or not hasattr(pool, "_state_keys"):
        return False
    keys = [key.partition(":")[0] for key in pool._state_keys]
    actions = ["env_id", "players.env_id", "action"]
    known = keys.count("obs") == 1 and {"reward", "done", "trunc"} <= set(keys)
    return known and list(pool._action_keys) == actions


def direct_step(pool: Any) -> Callable[[Array], Answer] | None:
    """A function that steps every environment of a synchronous pool as `pool.step`, in less time.

    `step` spends some 25 us of Python on a call, half as long as eight CartPoles take. Below it lie
    `_send` and `_recv`. They check nothing, so what they are given is checked here.

    Returns:
        It takes the actions in the pool's dtype and shape, [N, ...]. None for a version of EnvPool
        whose private methods are not known.
    """
    if not is_known(pool):
        return None
    keys = list(pool._state_keys)
    obs, reward, done, trunc = map(keys.index, (obs_key(pool), "reward", "done", "trunc"))
    own = keys.index("info:terminated") if "info:terminated" in keys else None
    env_ids = np.ascontiguousarray(pool.all_env_ids, np.int32)
    send, recv = pool._send, pool._recv
    spec = pool.spec.action_array_spec["action"]
    of_one = spec.shape[1:] if tuple(spec.shape[:1]) == (-1,) else spec.shape
    dtype, shape = np.dtype(spec.dtype), (len(env_ids), *of_one)

    def drive(actions: Array) -> Answer:
        if actions.dtype != dtype or actions.shape != shape or not actions.flags.c_contiguous:
            raise ValueError(f"actions: {actions.dtype} {actions.shape} must be {dtype} {shape}")
        send([env_ids, env_ids, actions])
        state = recv()
        terminated, truncated = state[done], state[trunc]
        if any_of(truncated):
            terminated = terminated & ~truncated
        info = {} if own is None else {"terminated": state[own]}
        return state[obs], state[reward], terminated, truncated, info

    return drive


class TimeLimit:
    """Cuts the episodes of a synchronous pool by a count of its own, and knows who is done.

    EnvPool's limit is one step further and never reached: on the step after the cut the environment
    is reset by force. That is the row in which EnvPool would have reset it, so a cut costs no more
    rows than before, and the environments go the same ways.

    Args:
        limit: steps of an episode; None where EnvPool's pool knows no limit, or its game tells.
    """

    def __init__(self, num_envs: int, limit: int | None) -> None:
        self.limit = limit
        self.done: Flags = np.zeros(num_envs, np.bool_)
        """[N] whose last row ended an episode: its next row is a reset."""
        self._steps: NDArray[np.int64] = np.zeros(num_envs, np.int64)
        self._cut: Flags = np.zeros(num_envs, np.bool_)
        self._none: Flags = np.zeros(num_envs, np.bool_)
        self._any_done = self._any_cut = False
        self._rows_left = 0  # until the first can reach the limit: rows before need no look

    @classmethod
    def of(cls, config: Config, num_envs: int) -> tuple["TimeLimit", dict[str, int]]:
        """The limit of a run's environments, and the options that move EnvPool's beyond it."""
        raw = quietly(envpool.make_spec, config.env_id)
        if has_own_flag(config.env_id):
            return cls(num_envs, None), {}
        if describe(config.env_id).family == "highway":  # in seconds; max_episode_steps is not read
            limit = max(1, raw.config.duration * raw.config.policy_frequency)
            return cls(num_envs, limit), {"duration": max(raw.config.duration, 0) + 1}
        limit = config.max_episode_steps or raw.config.max_episode_steps
        if limit >= NO_LIMIT:
            return cls(num_envs, None), {}
        return cls(num_envs, limit), {"max_episode_steps": limit + 1}

    def reset(self) -> None:
        """All episodes begin."""
        for array in self.done, self._steps, self._cut:
            array[:] = 0
        self._any_done = self._any_cut = False
        self._rows_left = 0

    def step(
        self,
        pool: Any,
        actions: Array,
        env_ids: NDArray[np.int32] | None = None,
        *,
        whole: Callable[[Array], Answer] | None = None,
    ) -> Answer:
        """As EnvPool's `step`, of all environments or some; ended and cut have flags of their own.

        Args:
            whole: steps all environments where none is reset by force; None for `pool.step`.
        """
        some = slice(None) if env_ids is None else env_ids
        if self._any_cut and any_of(cut := self._cut[some]):
            answer = self._step_some(pool, actions, pool.all_env_ids[some], cut)
        elif env_ids is not None:
            answer = pool.step(actions, env_ids)
        else:
            answer = (whole or pool.step)(actions)
        obs, rewards, terminated, truncated, info = answer
        if env_ids is None:
            truncated = self.mark(terminated, truncated)
        else:
            truncated = self._mark_some(terminated, truncated, env_ids)
        return obs, rewards, terminated, truncated, info

    @property
    def resets_by_force(self) -> bool:
        """Whether an environment was cut, so that its next row is not a plain step."""
        return self._any_cut

    def ends(self) -> Ends:
        """Copies of what is counted, for compiled code to go on with."""
        return Ends(self.done.copy(), self._steps.copy(), self.limit or 0)

    def go_on(self, ends: Ends, truncated: Flags) -> None:
        """Takes over what compiled code counted.

        Args:
            truncated: [N] which of them its last row cut.
        """
        self.done, self._steps = ends.done, ends.steps
        self._any_done = any_of(self.done)
        if self.limit is not None:
            self._cut = truncated
            self._any_cut = any_of(truncated)
            self._rows_left = 0

    def mark(self, terminated: Flags, truncated: Flags) -> Flags:
        """Counts one row of all environments; which of them are cut."""
        if self.limit is not None:
            self._steps += 1
            if self._any_done:
                self._steps[self.done] = 0  # a reset row
            self._rows_left -= 1
            self._any_cut = False
            truncated = self._none
            if self._rows_left <= 0:
                truncated = self._cut = (self._steps >= self.limit) & ~terminated
                self._any_cut = any_of(truncated)
                self._rows_left = self.limit - int(self._steps.max())
        self.done = terminated | truncated
        self._any_done = any_of(self.done)
        return truncated

    def _mark_some(self, terminated: Flags, truncated: Flags, env_ids: NDArray[np.int32]) -> Flags:
        """Like `_mark`, for a row of some environments."""
        if self.limit is not None:
            steps = (self._steps[env_ids] + 1) * ~self.done[env_ids]  # 0 in a reset row
            truncated = (steps >= self.limit) & ~terminated
            self._steps[env_ids] = steps
            self._cut = self._cut.copy()
            self._cut[env_ids] = truncated
            self._any_cut = any_of(self._cut)
            self._rows_left = 0
        self.done = self.done.copy()
        self.done[env_ids] = terminated | truncated
        self._any_done = any_of(self.done)
        return truncated

    @staticmethod
    def _step_some(pool: Any, actions: Array, env_ids: NDArray[np.int32], cut: Flags) -> Answer:
        """Resets the environments that were cut and steps the others."""
        first, info = pool.reset(env_ids[cut])
        obs = np.empty((len(env_ids), *first.shape[1:]), first.dtype)
        rewards = np.zeros(len(env_ids), np.float32)
        terminated, truncated = np.zeros((2, len(env_ids)), np.bool_)
        obs[cut] = first
        if not cut.all():
            rest = ~cut
            obs[rest], rewards[rest], terminated[rest], truncated[rest], info = pool.step(
                np.ascontiguousarray(actions[rest]), env_ids[rest]
            )
        return obs, rewards, terminated, truncated, info | {"env_id": env_ids}
