"""The rollout buffer: [T, N] rows on the training device, written once, read in place.

Row t holds the observation acted on, the action, and what the environment answered. Row T is the
observation (and value) after the last step; it opens the next rollout. `valid` marks the rows
that are transitions: nothing may learn from, or count, the others. Stacks of frames are stored as
single frames (`frames.py`); everything else as it is.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastppo import randomness
from fastppo.config import Config
from fastppo.envs import StepResult
from fastppo.kernels import api
from fastppo.normalize import ObsNormalizer, RewardScaler
from fastppo.observations import PlainStore, make_store
from fastppo.policy import Act
from fastppo.tasks import EnvSpec


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


class FlatRows(NamedTuple):
    """The fields of a rollout's T * N rows, in the order that `Minibatch` has them."""

    actions: Tensor
    log_probs: Tensor
    advantages: Tensor
    returns: Tensor
    values: Tensor
    valid: Tensor


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
        self.config = config
        self.device = device
        # one launch per epoch instead of one per minibatch; a CPU has no launches to save, and its
        # loss is faster on rows that are in the cache (docs/performance.md)
        self.stats_ahead = device.type == "cuda"
        self.store = make_store(config, spec, device, obs_normalizer)
        if spec.nvec is None:
            self.actions = torch.zeros(*rows, spec.action_dim, device=device)
        else:
            heads = () if len(spec.nvec) == 1 else (len(spec.nvec),)
            self.actions = torch.zeros(*rows, *heads, dtype=torch.int64, device=device)
        self.log_probs = torch.zeros(rows, device=device)
        self.values = torch.zeros(rows_and_last, device=device)
        self.advantages = torch.zeros(rows, device=device)
        self.returns = torch.zeros(rows, device=device)
        # what comes from the environments crosses once per rollout, from page-locked memory
        on_gpu = device.type == "cuda"
        self._host_rewards = torch.zeros(rows, pin_memory=on_gpu)
        self._host_flags = torch.zeros(3, *rows, dtype=torch.bool, pin_memory=on_gpu)
        self.rewards = torch.zeros(rows, device=device)
        self.terminated = torch.zeros(rows, dtype=torch.bool, device=device)
        self.truncated = torch.zeros(rows, dtype=torch.bool, device=device)
        self.valid = torch.ones(rows, dtype=torch.bool, device=device)

    def begin(self, obs: NDArray[Any]) -> None:
        """Writes the environments' first observations, [N, ...], as row T: `open` carries it on."""
        self.store.stage(self.config.num_steps, obs, np.ones(len(obs), np.bool_))
        self.store.send(self.config.num_steps)

    def open(self) -> None:
        """Carries the last observation of the previous rollout to row 0."""
        self.store.open()

    def write(self, t: int, step: StepResult) -> None:
        """Writes what the environments answered to row t, and the observation of row t + 1."""
        self.stage(t, step)
        self.store.send(t + 1)

    def stage(self, t: int, step: StepResult) -> None:
        """As `write`, but on a GPU the observation stays on the host until `store.send(t + 1)`.

        Rewards and flags stay there until `upload`.
        """
        rewards, terminated, truncated, valid = self.host_rows
        rewards[t] = step.rewards
        terminated[t] = step.terminated
        truncated[t] = step.truncated
        valid[t] = step.valid
        # EnvPool resets on the step after done, and that step is no transition
        self.store.stage(t + 1, step.obs, ~valid[t])

    @cached_property
    def host_rows(self) -> tuple[NDArray[Any], ...]:
        """Rewards, terminated, truncated and valid as numpy has them: an assignment costs less."""
        return self._host_rewards.numpy(), *self._host_flags.numpy()

    def act_row(self, t: int) -> Act:
        """Row t of actions, log-probs and values, for the decision on it to be written to."""
        return Act(self.actions[t], self.log_probs[t], self.values[t])

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

    def finish(self, reward_scaler: RewardScaler | None) -> None:
        """Scales rewards and computes advantages and returns.

        Row T of the values is the bootstrap. It is exact also where row T-1 ended an episode by a
        time limit, because EnvPool returns the true final observation.

        Args:
            reward_scaler: updates its statistics with this rollout, or None.
        """
        backend = self.config.backend
        if reward_scaler is not None:
            self.rewards.copy_(reward_scaler(self.rewards, self.valid, backend))
        api.gae(
            self.rewards,
            self.values,
            self.terminated,
            self.truncated,
            gamma=self.config.gamma,
            gae_lambda=self.config.gae_lambda,
            out=(self.advantages, self.returns),
            backend=backend,
        )

    def update_obs_statistics(self) -> None:
        """Merges this rollout into the observation statistics, for the next one."""
        store = self.store
        if isinstance(store, PlainStore) and store.normalizer is not None:
            store.normalizer.update(store.obs[:-1].flatten(0, 1), self.valid.flatten())

    def flat(self) -> FlatRows:
        """Views of the T * N rows."""
        fields = (self.log_probs, self.advantages, self.returns, self.values[:-1], self.valid)
        return FlatRows(self.actions.flatten(0, 1), *(field.flatten() for field in fields))

    def orders(self, update: int) -> Iterator[Tensor]:
        """The rows of each epoch's minibatches, [M, B], freshly shuffled."""
        config = self.config
        for epoch in range(config.update_epochs):
            order = randomness.shuffle(config.seed, update, epoch, config.batch_size, self.device)
            yield order.view(-1, config.minibatch_size)

    def minibatches(self, order: Tensor) -> Iterator[Minibatch]:
        """The minibatches of one epoch, invalid rows among them and marked.

        Args:
            order: [M, B] the rows of each.
        """
        config = self.config
        stats: Iterable[Tensor | None] = repeat(None)
        if self.stats_ahead and config.norm_adv:
            stats = api.advantage_stats(self.advantages, self.valid, order, backend=config.backend)
        rows = self.flat()
        any_valid = rows.valid[order].any(1)
        for index, has_rows, row_stats in zip(order, any_valid, stats, strict=False):
            obs, gathered = self.store.gather(index, rows, config.backend)
            tensors: list[Any] = [obs, *gathered, has_rows, row_stats]
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
