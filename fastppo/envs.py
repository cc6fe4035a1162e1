"""EnvPool behind a contract of our own; the only file that knows EnvPool.

EnvPool resets on the *next* step (measured on 1.2.5): the step that returns done carries the true
final observation; the step after it ignores its action and returns the first observation of the
new episode with reward 0. That row is no transition, so `StepResult.valid` is false there, and
where a number is not finite (`finite.py`). It cannot be read off EnvPool's `elapsed_step`: with
`episodic_life` that counter does not start again after a lost life.

EnvPool tells "ended" from "cut" by the step count alone: an end on the limit's step comes as cut.
So the two have sources of their own here: a flag of the game where EnvPool has one (Atari,
Playground), else `TimeLimit`.
"""

import difflib
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastppo import limits
from fastppo.config import Config, Options
from fastppo.episodes import EpisodeTracker
from fastppo.errors import UserError
from fastppo.finite import FiniteGate

with warnings.catch_warnings():
    # importing the dm_control tasks draws warnings about GL that no training run can act on
    warnings.simplefilter("ignore")
    import envpool
    from envpool.registration import registry
    from gymnasium import spaces

Array = NDArray[Any]
Flags = NDArray[np.bool_]

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
# A bound this large is a type's limit and no bound: VizDoom's actions span [2e-308, 1.8e308].
UNBOUNDED = 1e30
NO_LIMIT = 2**31 - 1  # what EnvPool gives tasks without a time limit


@dataclass(frozen=True, slots=True)
class EnvSpec:
    """Shapes and kinds of one EnvPool task, in our terms."""

    env_id: str
    family: str
    """EnvPool's module: atari, mujoco, classic_control, box2d, ..."""
    obs_shape: tuple[int, ...]
    obs_dtype: np.dtype[Any]
    """uint8 stays uint8, everything else becomes float32."""
    action_dim: int
    """Heads of a discrete action, or components of a continuous one."""
    nvec: tuple[int, ...] | None
    """Choices per head; None for a continuous action."""
    frame_skip: int

    @property
    def is_discrete(self) -> bool:
        return self.nvec is not None


class StepResult(NamedTuple):
    """One row of N environments, ordered by environment id."""

    obs: Array  # [N, ...] true final observation where the episode ended
    rewards: NDArray[np.float32]  # [N] what the policy learns from
    terminated: Flags  # [N] the episode ended in a state of value zero
    truncated: Flags  # [N] the episode was cut: the final state's value still counts
    valid: Flags  # [N] false where this row is no transition: a reset, or not finite


class Refusal(Exception):
    """Why an EnvPool task is not served."""


def all_env_ids() -> list[str]:
    """Every task id of the installed EnvPool."""
    return sorted(envpool.list_all_envs())


def describe(env_id: str) -> EnvSpec:
    """The shapes of an EnvPool task.

    Raises:
        UserError: unknown task (with near matches), or one that is refused (with the reason).
    """
    if env_id not in registry.specs:
        raise UserError(f"env_id: {env_id!r} is no EnvPool task{_near_matches(env_id)}")
    try:
        return classify(env_id)
    except Refusal as refusal:
        remedy = "see `fastppo doctor --envs` for the tasks that are served"
        raise UserError(f"env_id: {env_id!r} is refused: {refusal}; {remedy}") from None


def spec_of(config: Config) -> EnvSpec:
    """Like `describe`, with the Atari options of this run."""
    spec = describe(config.env_id)
    if spec.family != "atari":
        return spec
    obs_shape = (config.frame_stack, *spec.obs_shape[1:])
    return replace(spec, obs_shape=obs_shape, frame_skip=config.frame_skip)


@cache
def classify(env_id: str) -> EnvSpec:
    """Like `describe` for a known id; raises Refusal with every reason at once."""
    try:
        raw = _quietly(envpool.make_spec, env_id)
    except (ImportError, RuntimeError, OSError) as error:
        raise Refusal(f"EnvPool cannot build it here ({_first_line(error)})") from error
    obs, action = _quietly(lambda: (raw.observation_space, raw.action_space))
    config = raw.config
    reasons = []
    if (players := getattr(config, "max_num_players", 1)) > 1:
        reasons.append(f"{players} players; one policy per environment is served")
    if isinstance(obs, spaces.Dict):
        reasons.append(f"dict observation ({', '.join(obs)})")
    elif not isinstance(obs, spaces.Box):
        reasons.append(f"observation {_kind(obs)} is not a Box")
    if masks := [key for key in raw._state_keys if key.endswith("action_mask")]:
        reasons.append(f"joint action mask ({masks[0]})")
    nvec: tuple[int, ...] | None = None
    try:
        nvec = _action_choices(action)
    except Refusal as refusal:
        reasons.append(str(refusal))
    if reasons:
        raise Refusal("; ".join(reasons))
    return EnvSpec(
        env_id=env_id,
        family=registry.specs[env_id][0].split(".")[1],
        obs_shape=tuple(obs.shape),
        obs_dtype=np.dtype(np.uint8 if obs.dtype == np.uint8 else np.float32),
        action_dim=len(nvec) if nvec is not None else int(np.prod(action.shape)),
        nvec=nvec,
        frame_skip=int(getattr(config, "frame_skip", 1)),
    )


def _action_choices(action: spaces.Space[Any]) -> tuple[int, ...] | None:
    """Choices per head of a discrete action, None for a continuous one."""
    if isinstance(action, spaces.Discrete):
        return (int(action.n),)
    if isinstance(action, spaces.MultiDiscrete):
        return tuple(int(n) for n in action.nvec.reshape(-1))
    if not isinstance(action, spaces.Box):
        raise Refusal(f"action {_kind(action)} is not Discrete, MultiDiscrete or Box")
    low, high = (
        action.low.astype(np.float64).reshape(-1),
        action.high.astype(np.float64).reshape(-1),
    )
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise Refusal("unbounded action")
    if max(np.abs(low).max(), np.abs(high).max()) >= UNBOUNDED:
        raise Refusal(f"unbounded action ([{low.min():.1e}, {high.max():.1e}])")
    if np.issubdtype(action.dtype, np.integer):
        if (high < low).any() or (high - low >= 2**16).any():
            raise Refusal(f"integer action with bounds [{low.min():.0f}, {high.max():.0f}]")
        return tuple(int(n) for n in high - low + 1)
    if (high <= low).any():
        raise Refusal(f"inverted action bounds ({low.tolist()} to {high.tolist()})")
    return None


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
    pool = _quietly(
        envpool.make,
        config.env_id,
        env_type="gymnasium",
        num_envs=num_envs,
        batch_size=batch_size or num_envs,
        num_threads=min(num_threads, num_envs),
        env_seed=list(env_seeds),
        **settings | dict(options or {}),
    )
    _quietly(lambda: (pool.observation_space, pool.action_space))  # built here once, kept there
    return pool


class TimeLimit:
    """Cuts the episodes of a synchronous pool by a count of its own.

    EnvPool's limit is one step further and never reached: on the step after the cut the environment
    is reset by force. That is the row in which EnvPool would have reset it, so a cut costs no more
    rows than before, and the environments go the same ways.

    Args:
        limit: steps of an episode; None where EnvPool's pool knows no limit, or its game tells.
    """

    def __init__(self, num_envs: int, limit: int | None) -> None:
        self.limit = limit
        self._steps: NDArray[np.int64] = np.zeros(num_envs, np.int64)
        self._done: Flags = np.zeros(num_envs, np.bool_)
        self._cut: Flags = np.zeros(num_envs, np.bool_)

    @classmethod
    def of(cls, config: Config, num_envs: int) -> tuple["TimeLimit", dict[str, int]]:
        """The limit of a run's environments, and the options that move EnvPool's beyond it."""
        raw = _quietly(envpool.make_spec, config.env_id)
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
        """All episodes begin anew."""
        for array in self._steps, self._done, self._cut:
            array[:] = 0

    def step(self, pool: Any, actions: Array, env_ids: NDArray[np.int32] | None = None) -> Any:
        """As EnvPool's `step`, of all environments or of some, with flags that are told apart."""
        some = slice(None) if env_ids is None else env_ids
        if self._cut.any() and (cut := self._cut[some]).any():
            answer = self._step_some(pool, actions, pool.all_env_ids[some], cut)
        else:
            answer = pool.step(actions) if env_ids is None else pool.step(actions, env_ids)
        if self.limit is None:
            return answer
        obs, rewards, terminated, truncated, info = answer
        steps = (self._steps[some] + 1) * ~self._done[some]  # 0 in a reset row
        truncated = (steps >= self.limit) & ~terminated
        self._steps[some] = steps
        self._cut[some] = truncated
        self._done[some] = terminated | truncated
        return obs, rewards, terminated, truncated, info

    @staticmethod
    def _step_some(pool: Any, actions: Array, env_ids: NDArray[np.int32], cut: Flags) -> Any:
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


class VecEnv:
    """N environments stepped together, under the autoreset contract of this module.

    `episodes` gathers the raw returns of finished games: across lost lives, cut by time limits.
    `gate` counts the steps that were left out because a number was not finite.
    """

    def __init__(self, config: Config, env_seeds: Sequence[int], *, num_threads: int = 0) -> None:
        spec = describe(config.env_id)
        self.num_envs = len(env_seeds)
        self._time_limit, options = TimeLimit.of(config, self.num_envs)
        self.pool = make_pool(config, env_seeds, num_threads=num_threads, options=options)
        self.episodes = EpisodeTracker(self.num_envs)
        self.gate = FiniteGate(self.num_envs)
        self._sign_reward = config.sign_reward
        self._has_own_flag = has_own_flag(config.env_id)
        self._done: Flags = np.zeros(self.num_envs, np.bool_)
        action = self.pool.action_space
        self._action_dtype = self.pool.spec.action_array_spec["action"].dtype
        self._action_shape = (self.num_envs, *action.shape)
        self._is_box = isinstance(action, spaces.Box)
        self._is_discrete = spec.is_discrete
        if self._is_box:
            self._low, self._high = action.low, action.high
        if isinstance(action, spaces.Discrete):
            self._start = int(action.start)

    def reset(self) -> Array:
        """First observations, [N, ...]; call once."""
        obs, _ = self.pool.reset()
        self._time_limit.reset()
        self._done = np.zeros(self.num_envs, np.bool_)
        return self.gate.reset(np.asarray(obs))

    def step(self, actions: Array) -> StepResult:
        """Acts in every environment.

        Args:
            actions: [N] or [N, heads] int choices from 0, or [N, D] floats, clipped to the bounds.
        """
        obs, raw_rewards, terminated, truncated, info = self._time_limit.step(
            self.pool, self._to_env(actions)
        )
        obs, raw_rewards, lost = self.gate.step(obs, raw_rewards, self._done)
        valid = ~(self._done if lost is None else self._done | lost)
        game_over = terminated
        if self._has_own_flag:
            # it tells a lost life from a lost game, too
            game_over = info["terminated"].astype(np.bool_) & (terminated | truncated)
            terminated = terminated | game_over
            truncated = truncated & ~game_over
        if lost is not None:
            self.episodes.close(lost & (game_over | truncated))
        self.episodes.add(raw_rewards, valid, game_over | truncated)
        self._done = terminated | truncated
        rewards = np.sign(raw_rewards) if self._sign_reward else raw_rewards
        return StepResult(obs, rewards, terminated, truncated, valid)

    def close(self) -> None:
        """Stops EnvPool's threads."""
        self.pool.close()

    def _to_env(self, actions: Array) -> Array:
        if not self._is_discrete:
            actions = np.clip(actions.reshape(self._action_shape), self._low, self._high)
        elif self._is_box:
            actions = actions.reshape(self._action_shape) + self._low
        else:
            actions = actions.reshape(self._action_shape) + getattr(self, "_start", 0)
        return np.ascontiguousarray(actions, dtype=self._action_dtype)


@cache
def has_own_flag(env_id: str) -> bool:
    """Whether the game itself tells that it has ended, whatever the time limit says."""
    return "info:terminated" in _quietly(envpool.make_spec, env_id)._state_keys


def _near_matches(env_id: str) -> str:
    by_lower = {known.lower(): known for known in registry.specs}
    near = difflib.get_close_matches(env_id.lower(), by_lower, n=3, cutoff=0.6)
    if not near:
        return "; `fastppo doctor --envs` lists them"
    return f"; did you mean {', '.join(by_lower[name] for name in near)}?"


def _kind(space: object) -> str:
    return type(space).__name__


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:120]


def _quietly(call: Any, *args: Any, **kwargs: Any) -> Any:
    """Gymnasium warns that float64 bounds lose precision in float32: nothing a user can change."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return call(*args, **kwargs)
