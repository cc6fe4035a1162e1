"""Environments of one's own: any Gymnasium vector environment, driven as an EnvPool pool is.

Gymnasium's vector environments reset on the next step by default, as EnvPool's do, so nothing of
the contract in `envs` changes. Other modes of reset are refused: with SAME_STEP the final
observation is in `info`, and what stands in its place belongs to another episode.
"""

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray

from fastppo.actions import ActionSpace
from fastppo.config import Config, Options
from fastppo.errors import UserError
from fastppo.tasks import OWN, EnvSpec, Refusal, spec_of_spaces

Array = NDArray[Any]
FOR_ENVPOOL = (
    "max_episode_steps", "episodic_life", "noop_max", "fire_reset", "frame_skip", "frame_stack",
    "repeat_action_probability", "env_threads",
)  # fmt: skip
"""Settings that EnvPool serves; an environment of one's own has such things in itself."""


class OwnEnvs:
    """A vector environment of the caller's, who closes it.

    Args:
        envs: resets on the next step; Box observations, and Discrete, MultiDiscrete or bounded Box
            actions.
        name: what the run is called; None takes the name that Gymnasium knows it by.

    Raises:
        UserError: it is of another kind; the message says what is served.
    """

    def __init__(self, envs: Any, name: str | None = None) -> None:
        self._envs = envs
        if not isinstance(envs, VectorEnv):
            raise UserError(
                f"envs: {type(envs).__name__} is no gymnasium.vector.VectorEnv; make one with "
                "gymnasium.make_vec, or put functions that make environments into SyncVectorEnv"
            )
        mode = (envs.metadata or {}).get("autoreset_mode", AutoresetMode.NEXT_STEP)
        if AutoresetMode(mode) != AutoresetMode.NEXT_STEP:
            raise UserError(
                f"envs: resets by {AutoresetMode(mode).name}; make them with "
                "autoreset_mode=gymnasium.vector.AutoresetMode.NEXT_STEP, Gymnasium's default"
            )
        registered = getattr(envs.spec, "id", None)
        self.env_id = OWN + (name or registered or type(envs.unwrapped).__name__)
        action = envs.single_action_space
        try:
            self.spec: EnvSpec = spec_of_spaces(
                self.env_id, "own", envs.single_observation_space, action
            )
        except Refusal as refusal:
            raise UserError(f"envs: {self.env_id!r} is refused: {refusal}") from None
        self.actions = ActionSpace.of(action, action.dtype, is_discrete=self.spec.is_discrete)
        self.num_envs = int(envs.num_envs)

    def check(self, config: Config) -> None:
        """Refuses settings that these environments cannot follow.

        Raises:
            UserError: with the setting.
        """
        if config.num_envs != self.num_envs:
            raise UserError(
                f"num_envs: {config.num_envs} is not the {self.num_envs} of envs; leave it out"
            )
        defaults = Options()
        for name in FOR_ENVPOOL:
            if getattr(config, name) != getattr(defaults, name):
                raise UserError(
                    f"{name}: {getattr(config, name)!r} is for EnvPool's tasks; leave it out, and "
                    "wrap your environments in what does it"
                )

    def pool(self, seeds: Sequence[int]) -> "OwnPool":
        """The environments as `envs.VecEnv` drives a pool."""
        return OwnPool(self._envs, seeds)


class OwnPool:
    """What `envs.VecEnv` and `pools.TimeLimit` ask of a pool."""

    def __init__(self, envs: Any, seeds: Sequence[int]) -> None:
        self._envs = envs
        self._seeds = list(seeds)

    def reset(self) -> tuple[Array, dict[str, Any]]:
        """First observations, from the seeds; an environment that is one batch takes the first."""
        try:
            obs, info = self._envs.reset(seed=self._seeds)
        except (TypeError, gymnasium.error.Error):
            obs, info = self._envs.reset(seed=self._seeds[0])
        return np.asarray(obs), info

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """As Gymnasium has it; rewards and flags are copies, which the caller may keep."""
        obs, rewards, terminated, truncated, info = self._envs.step(actions)
        flags = (np.array(flag, np.bool_) for flag in (terminated, truncated))
        return np.asarray(obs), np.array(rewards, np.float32), *flags, info

    def render(self) -> Any:
        """Pictures of the environments, where they were made to draw."""
        return None if self._envs.render_mode is None else self._envs.render()

    def close(self) -> None:
        """Leaves them open: they are the caller's."""
