"""The rollout buffer: [T, N] rows on the training device, written once, read in place.

Row t holds the observation acted on, the action, and what the environment answered. Row T is the
observation (and value) after the last step; it opens the next rollout. `valid` marks the rows
that are transitions: nothing may learn from, or count, the others. Stacks of frames are stored as
single frames (`frames.py`); everything else as it is.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastppo import randomness
from fastppo.config import Config
from fastppo.envs import EnvSpec, StepResult
from fastppo.frames import IMAGE_SCALE, FrameStore, stacks_frames
from fastppo.kernels import api
from fastppo.normalize import ObsNormalizer, RewardScaler
from fastppo.policy import Act, reads_images


@dataclass(frozen=True, slots=True)
class Minibatch:
    """B rows of a rollout, gathered."""

    obs: Tensor  # [B, ...] normalised where the run normalises
    actions: Tensor  # [B], [B, heads] or [B, D]
    old_log_probs: Tensor  # [B]
    advantages: Tensor  # [B]
    returns: Tensor  # [B]
    old_values: Tensor  # [B]
    valid: Tensor  # [B] bool
    any_valid: Tensor  # 0-d bool
    advantage_stats: Tensor | None = None  # [4], or None for the loss to compute them


class Rollout:
    """T steps of N environments.

    Args:
        config: sizes, discount and lambda.
        spec: shapes of observations and actions.
        device: where the tensors live.
        obs_normalizer: normalises a row as it is written, or None.
    """

    def __init__(
        self,
        config: Config,
        spec: EnvSpec,
        device: torch.device,
        obs_normalizer: ObsNormalizer | None = None,
    ) -> None:
        rows = (config.num_steps, config.num_envs)
        rows_and_last = (config.num_steps + 1, config.num_envs)
        obs_dtype = torch.uint8 if spec.obs_dtype == np.uint8 else torch.float32
        self.config = config
        self.device = device
        # one launch per epoch instead of one per minibatch; without launches to save, the loss is
        # quicker with rows that it has in its cache (docs/kernels.md)
        self.stats_ahead = device.type == "cuda"
        self.obs_normalizer = obs_normalizer
        self.frames: FrameStore | None = None
        if stacks_frames(spec) and obs_normalizer is None:
            self.frames = FrameStore(
                *rows,
                spec,
                device,
                scale=IMAGE_SCALE if reads_images(spec, config) else 1.0,
                backend=config.backend,
            )
            self.obs = self.frames.frames  # [T + S, N, H, W]
        else:
            self.obs = torch.zeros(*rows_and_last, *spec.obs_shape, dtype=obs_dtype, device=device)
        # what the policy reads: a second buffer only where normalising makes it differ
        self.inputs = self.obs if obs_normalizer is None else torch.zeros_like(self.obs).float()
        if spec.nvec is None:
            self.actions = torch.zeros(*rows, spec.action_dim, device=device)
        else:
            heads = () if len(spec.nvec) == 1 else (len(spec.nvec),)
            self.actions = torch.zeros(*rows, *heads, dtype=torch.int64, device=device)
        self.log_probs = torch.zeros(rows, device=device)
        self.values = torch.zeros(rows_and_last, device=device)
        self.rewards = torch.zeros(rows, device=device)
        self.terminated = torch.zeros(rows, dtype=torch.bool, device=device)
        self.truncated = torch.zeros(rows, dtype=torch.bool, device=device)
        self.valid = torch.ones(rows, dtype=torch.bool, device=device)
        self.advantages = torch.zeros(rows, device=device)
        self.returns = torch.zeros(rows, device=device)
        on_gpu = device.type == "cuda"
        # what comes from the environments crosses once per rollout, from page-locked memory
        self._host_rewards = torch.zeros(rows, pin_memory=on_gpu)
        self._host_flags = torch.zeros(3, *rows, dtype=torch.bool, pin_memory=on_gpu)
        self._host_obs = torch.zeros(
            self.obs.shape[1:] if on_gpu and self.frames is None else 0,
            dtype=obs_dtype,
            pin_memory=on_gpu,
        )

    def write_obs(self, t: int, obs: NDArray[np.generic]) -> Tensor:
        """Writes row t of the observations, the one copy to the device.

        Returns:
            The row as the policy reads it, [N, ...].
        """
        if self.frames is not None:
            # EnvPool resets on the step after done, and that step is no transition
            return self.frames.write(t, obs, ~self._host_flags[2, t - 1].numpy())
        source = torch.from_numpy(obs)
        if self.device.type == "cuda":
            # The slot is free again: reading back the previous row's actions waited for it.
            source = self._host_obs.copy_(source)
        self.obs[t].copy_(source, non_blocking=True)
        if self.obs_normalizer is not None:
            self.obs_normalizer(self.obs[t], out=self.inputs[t])
        return self.inputs[t]

    def open(self) -> Tensor:
        """Carries the last observation of the previous rollout to row 0 and returns it as input.

        The row is normalised again: the statistics have moved since it was written.
        """
        if self.frames is not None:
            return self.frames.open()
        self.obs[0].copy_(self.obs[-1])
        if self.obs_normalizer is not None:
            self.obs_normalizer(self.obs[0], out=self.inputs[0])
        return self.inputs[0]

    def row(self, t: int) -> Tensor:
        """Row t as the policy reads it, [N, ...]."""
        return self.inputs[t] if self.frames is None else self.frames.row(t)

    def act_row(self, t: int) -> Act:
        """Row t of actions, log-probs and values, for the decision on it to be written to."""
        return Act(self.actions[t], self.log_probs[t], self.values[t])

    def write_step(self, t: int, step: StepResult) -> None:
        """Keeps what the environments answered to row t, on the host until `finish`."""
        self._host_rewards[t] = torch.from_numpy(step.rewards)
        self._host_flags[0, t] = torch.from_numpy(step.terminated)
        self._host_flags[1, t] = torch.from_numpy(step.truncated)
        self._host_flags[2, t] = torch.from_numpy(step.valid)

    def upload(self) -> None:
        """Copies rewards and flags to the device."""
        # Nothing is known beyond a step that was lost in the middle of an episode, so the steps
        # before it bootstrap from its observation. Before a reset row the flag changes nothing.
        self._host_flags[1, :-1] |= ~self._host_flags[2, 1:]
        self.rewards.copy_(self._host_rewards, non_blocking=True)
        for target, flags in zip(
            (self.terminated, self.truncated, self.valid), self._host_flags, strict=True
        ):
            target.copy_(flags, non_blocking=True)

    def finish(self, last_values: Tensor, reward_scaler: RewardScaler | None) -> None:
        """Scales rewards and computes advantages and returns.

        Args:
            last_values: [N] V of the observation in row T; exact also where row T-1 ended an
                episode by a time limit, because EnvPool returns the true final observation.
            reward_scaler: updates its statistics with this rollout, or None.
        """
        self.values[-1].copy_(last_values)
        backend = self.config.backend
        if reward_scaler is not None:
            self.rewards.copy_(reward_scaler(self.rewards, self.valid, backend))
        self.advantages, self.returns = api.gae(
            self.rewards,
            self.values,
            self.terminated,
            self.truncated,
            gamma=self.config.gamma,
            gae_lambda=self.config.gae_lambda,
            backend=backend,
        )

    def update_obs_statistics(self) -> None:
        """Merges this rollout into the observation statistics, for the next one."""
        if self.obs_normalizer is not None:
            self.obs_normalizer.update(self.obs[:-1].flatten(0, 1), self.valid.flatten())

    def minibatches(self, update: int, epoch: int) -> Iterator[Minibatch]:
        """Freshly shuffled minibatches of one epoch, invalid rows among them and marked."""
        config = self.config
        order = randomness.shuffle(config.seed, update, epoch, config.batch_size, self.device)
        fields = [
            self.actions.flatten(0, 1),
            *(x.flatten() for x in (self.log_probs, self.advantages, self.returns)),
            self.values[:-1].flatten(),
            self.valid.flatten(),
        ]
        if self.frames is None:
            fields.insert(0, self.inputs[:-1].flatten(0, 1))
        minibatches = order.view(-1, config.minibatch_size)
        stats: Iterable[Tensor | None] = repeat(None)
        if self.stats_ahead and config.norm_adv:
            stats = api.advantage_stats(
                self.advantages, self.valid, minibatches, backend=config.backend
            )
        any_valid = self.valid.flatten()[minibatches].any(1)
        for rows, has_rows, row_stats in zip(minibatches, any_valid, stats, strict=False):
            gathered = api.gather_rows(fields, rows, backend=config.backend)
            images = [] if self.frames is None else [self.frames.gather(rows)]
            tensors: list[Any] = [*images, *gathered, has_rows, row_stats]
            yield Minibatch(*tensors)

    def explained_variance(self) -> Tensor:
        """1 - Var[returns - values] / Var[returns] over valid rows; 0 if returns are constant."""
        count = self.valid.sum().clamp(min=1)

        def variance(x: Tensor) -> Tensor:
            mean = torch.where(self.valid, x, 0.0).sum() / count
            return torch.where(self.valid, x - mean, 0.0).square().sum() / count

        total = variance(self.returns)
        left = variance(self.returns - self.values[:-1])
        return torch.where(total > 0, 1.0 - left / total.clamp(min=1e-30), 0.0)
