"""A trained policy as a function: observations to actions, with its statistics frozen."""

from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastppo import checkpoint, randomness
from fastppo.actions import ActionSpace
from fastppo.config import Config
from fastppo.policy import ActorCritic
from fastppo.tasks import EnvSpec
from fastppo.trainer import build_obs_normalizer, build_policy

Obs = TypeVar("Obs", NDArray[Any], Tensor)


class SavedPolicy:
    """The policy of one checkpoint.

    Args:
        config: of the run.
        state: a checkpoint of it.
        spec: shapes of the task.
        actions: what the environments take.
        seed: of the draws.

    Raises:
        UserError: the checkpoint does not fit the config.
    """

    def __init__(
        self,
        config: Config,
        state: dict[str, Any],
        spec: EnvSpec,
        actions: ActionSpace,
        device: torch.device,
        *,
        seed: int = 1,
    ) -> None:
        self.config = config
        self.spec = spec
        self.action_space = actions
        self.update: int = state["update"]
        self.global_step: int = state["global_step"]
        self.device = device
        self.network: ActorCritic = build_policy(config, spec, device).eval().requires_grad_(False)
        self.normalizer = build_obs_normalizer(config, spec, device)
        with checkpoint.fitting():
            self.network.load_state_dict(state["policy"])
            if self.normalizer is not None:
                self.normalizer.load_state_dict(state["obs_normalizer"])
        self._key = randomness.act_key(seed)
        self._step = 0

    def __call__(self, obs: Obs, *, deterministic: bool = True) -> Obs:
        """Actions that the environment's `step` takes, normalisation and bounds included.

        Args:
            obs: raw, of one environment or of N: `spec.obs_shape` or [N, *spec.obs_shape].
            deterministic: the most likely action rather than a draw.

        Returns:
            An action, or N: of numpy for numpy, else a tensor on the device of `obs`.

        Raises:
            ValueError: observations of another shape.
        """
        batch = _as_batch(obs, self.spec.obs_shape)
        chosen = self.choose(batch, self._step, deterministic=deterministic).cpu().numpy()
        self._step += 1
        actions = self.action_space.fit(chosen)
        if batch.ndim > np.ndim(obs):
            actions = actions[0]
        if isinstance(obs, Tensor):
            return torch.as_tensor(actions).to(obs.device)
        return actions

    def values(self, obs: Obs) -> Obs:
        """V(s) of N observations or one, [N] or a scalar, in units of the rewards learned from."""
        batch = _as_batch(obs, self.spec.obs_shape)
        found = self.network.value(self._inputs(batch))
        found = found if batch.ndim == np.ndim(obs) else found[0]
        return found.to(obs.device) if isinstance(obs, Tensor) else found.cpu().numpy()

    def choose(self, obs: Any, step: int, *, deterministic: bool) -> Tensor:
        """Choices from 0, or floats, of one row of observations [N, ...], after `step` others."""
        inputs = self._inputs(obs)
        if deterministic:
            return self.network.mode(inputs)
        return self.network.act(inputs, step, key=self._key).actions

    def export(self, path: str | Path) -> Path:
        """Writes the policy as ONNX: `obs` [N, ...] to `action` [N, ...] and `value` [N].

        The action is the most likely one, as `__call__` gives it; `obs` is raw, of the dtype of
        the environment's.

        Raises:
            UserError: a package for it is missing.
            MachineError: the file cannot be written.
        """
        from fastppo import onnx_export

        target = Path(path)
        onnx_export.write(
            target, self.network, self.normalizer, self.action_space, self.spec, self.device
        )
        return target

    def _inputs(self, obs: Any) -> Tensor:
        inputs = torch.as_tensor(obs).to(self.device)
        return inputs if self.normalizer is None else self.normalizer(inputs)


def _as_batch(obs: Any, shape: tuple[int, ...]) -> Any:
    """[N, *shape] of one observation or of N."""
    found = tuple(np.shape(obs))
    if found == shape:
        return obs[None]
    if found[1:] == shape:
        return obs
    raise ValueError(f"obs: shape {found} must be {shape} or (N, {', '.join(map(str, shape))})")
