"""Proximal policy optimisation, written down once (Schulman et al., arXiv 1707.06347).

`EagerEngine` executes the two hot functions, `act` and `update`, op by op. Every other engine is
tested equal to it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from fastppo import flat, randomness
from fastppo.adam import FlatAdam
from fastppo.config import Config
from fastppo.envs import VecEnv
from fastppo.kernels import api
from fastppo.normalize import RewardScaler
from fastppo.playing import play_one
from fastppo.policy import ActorCritic
from fastppo.rollout import Minibatch, Rollout
from fastppo.timing import PhaseTimer

LOSS_STATS = ("policy_loss", "value_loss", "entropy", "approx_kl", "old_approx_kl", "clip_frac")
STATS_NAMES = ("loss", "grad_norm", *LOSS_STATS)
"""What is averaged over the optimizer steps of an update."""


@dataclass(frozen=True, slots=True)
class UpdateStats:
    """What one update reports, on the device until `to_host`."""

    names: tuple[str, ...]
    values: Tensor  # [len(names)]

    def to_host(self) -> dict[str, float]:
        """The one crossing to the host."""
        return dict(zip(self.names, self.values.tolist(), strict=True))


def with_rollout_stats(
    means: Tensor, taken: Tensor, skipped: Tensor, rollout: Rollout
) -> UpdateStats:
    """The means of STATS_NAMES and two counts of steps, 0-d, and the numbers of the rollout."""
    counts = [taken, skipped, rollout.explained_variance(), rollout.valid.sum().float()]
    names = ("optimizer_steps", "skipped_steps", "explained_variance", "valid_rows")
    return UpdateStats((*STATS_NAMES, *names), torch.cat([means, torch.stack(counts)]))


class EagerEngine:
    """Acts and updates with eager torch and the kernels of `kernels.api`.

    Args:
        policy: on the training device; its parameters are moved into one flat buffer.
    """

    name = "eager"
    stops_early = True
    """Whether a CPU, where looking is free, spares the epochs behind a stop by target_kl."""

    def __init__(self, policy: ActorCritic, config: Config) -> None:
        self.policy = policy
        self.config = config
        self.act_key = randomness.act_key(config.seed)
        self.optimizer = FlatAdam(flat.flatten(policy), config)

    def act(self, rollout: Rollout, t: int, step: int) -> NDArray[Any]:
        """Decides on row t of the rollout and writes actions, log-probs and values there.

        Args:
            step: decisions so far: with the environment it keys the noise.

        Returns:
            The actions on the host, [N, ...], for the environments.
        """
        self.decide(rollout, t, step)
        actions: NDArray[Any] = rollout.actions[t].cpu().numpy()
        return actions

    def decide(self, rollout: Rollout, t: int, step: int | Tensor) -> None:
        """The device's part of `act`: the staged row crosses, and the policy decides on it."""
        if t > 0:  # row 0 was carried over from the last rollout
            rollout.store.send(t)
        out, backend = rollout.act_row(t), self.config.backend
        obs = rollout.store.row(t)
        self.policy.act(obs, step, key=self.act_key, out=out, backend=backend)

    def play(self, env: VecEnv, rollout: Rollout, t: int, step: int, timer: PhaseTimer) -> int:
        """Fills row t of the rollout."""
        return play_one(self, env, rollout, t, step, timer)

    def stepping(self, env: VecEnv) -> str:
        """How these environments are stepped, for the record of a run."""
        return env.stepping

    def bootstrap(self, rollout: Rollout) -> None:
        """Writes the values that acting left out: those of row T."""
        rollout.store.send(self.config.num_steps)
        rollout.values[-1].copy_(self.policy.value(rollout.store.row(self.config.num_steps)))

    def finish(self, rollout: Rollout, reward_scaler: RewardScaler | None) -> None:
        """Scales rewards and computes advantages and returns."""
        rollout.finish(reward_scaler)

    def loss(self, mb: Minibatch, clip_coef: float) -> tuple[Tensor, dict[str, Tensor]]:
        """The PPO loss of one minibatch and its statistics."""
        config = self.config
        outputs, new_values = self.policy(mb.obs)
        terms: dict[str, Any] = {
            "clip_coef": clip_coef,
            "vf_coef": config.vf_coef,
            "ent_coef": config.ent_coef,
            "clip_vloss": clip_coef if config.clip_vloss else None,
            "dual_clip": config.dual_clip,
            "norm_adv": config.norm_adv,
            "advantage_stats": mb.advantage_stats,
            "backend": config.backend,
        }
        rows = (new_values, mb.actions, mb.old_log_probs, mb.advantages, mb.returns, mb.old_values)
        if self.policy.nvec is None:
            return api.gaussian_ppo_loss(outputs, self.policy.log_std, *rows, mb.valid, **terms)
        nvec = self.policy.nvec if len(self.policy.nvec) > 1 else None
        return api.categorical_ppo_loss(outputs, *rows, mb.valid, nvec=nvec, **terms)

    def update(self, rollout: Rollout, update: int) -> UpdateStats:
        """K epochs of minibatch steps on one rollout."""
        rate, clip_coef = self.config.learning_rate_at(update), self.config.clip_coef_at(update)
        return self.learn(rollout, rollout.orders(update), rate, clip_coef)

    def learn(
        self,
        rollout: Rollout,
        orders: Iterable[Tensor],
        learning_rate: float | Tensor,
        clip_coef: float,
    ) -> UpdateStats:
        """The steps of an update. Nothing here waits for the device, but see `stops_early`.

        Args:
            orders: [M, B] for each epoch, the rows of its minibatches.
            learning_rate: a number, or 0-d float32 on the device.
        """
        config = self.config
        device = rollout.device
        sums = torch.zeros(len(STATS_NAMES), device=device)
        taken = torch.zeros((), device=device)
        skipped = torch.zeros((), device=device)
        stopped = torch.zeros((), dtype=torch.bool, device=device)
        for order in orders:
            epoch_kl = torch.zeros((), device=device)
            before = taken + skipped
            for mb in rollout.minibatches(order):
                loss, stats = self.loss(mb, clip_coef)
                loss.backward(api.unit_gradient(device))
                # without a valid row the gradient is zero, but Adam's momentum would step
                forbidden = stopped | ~mb.any_valid
                skip = forbidden | ~torch.isfinite(loss.detach())
                norm, stepped = self.optimizer.step(learning_rate, skip)
                row = torch.stack([loss.detach(), norm, *(stats[name] for name in LOSS_STATS)])
                sums += torch.where(stepped, row, 0.0)
                taken += stepped
                skipped += ~(stepped | forbidden)
                epoch_kl += stats["approx_kl"]
            if config.target_kl is not None:
                with_rows = (taken + skipped - before).clamp(min=1.0)
                stopped = stopped | (epoch_kl / with_rows > config.target_kl)
                if self.stops_early and device.type == "cpu" and bool(stopped):
                    break
        return with_rollout_stats(sums / taken.clamp(min=1.0), taken, skipped, rollout)
