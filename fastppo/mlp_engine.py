"""The engine for small MLPs on a CPU: one call acts, one call is a whole update.

Tested equal to `ppo.EagerEngine`, which says what is computed. What it spares is the dispatch of
some twenty torch operators per env step: with a small network most of the time of a run.
"""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import cython_blas  # noqa: F401, the BLAS must be there to be limited
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from fastppo import flat, randomness
from fastppo.config import Config
from fastppo.kernels.mlp import numba_cpu as numba_mlp
from fastppo.kernels.mlp import numba_layers
from fastppo.policy import Act, ActorCritic, Mlp
from fastppo.ppo import STATS_NAMES, FlatAdam, UpdateStats, with_rollout_stats
from fastppo.rollout import Rollout

Table = NDArray[np.int64]


def refusal(policy: ActorCritic) -> str | None:
    """Why the engine cannot run this policy, or None."""
    if policy.uses_cnn:
        return "it runs MLPs, and this policy reads images by a CNN"
    if policy.nvec is not None and sum(policy.nvec) > numba_mlp.MAX_WIDTH:
        return f"it runs policies of up to {numba_mlp.MAX_WIDTH} logits, not {sum(policy.nvec)}"
    return None


class MlpEngine:
    """Acts and updates by `kernels.mlp`.

    Args:
        policy: an MLP on the CPU; its parameters are moved into one flat buffer.
    """

    name = "mlp"

    def __init__(self, policy: ActorCritic, config: Config) -> None:
        self.policy = policy
        self.config = config
        self.act_key = randomness.act_key(config.seed)
        self.optimizer = FlatAdam(flat.flatten(policy), config)
        # products of this size are over before a second thread has heard of them
        threadpool_limits(limits=1, user_api="blas")
        critic = policy.critic_trunk
        heads = [self._layer(policy.actor_head), self._layer(policy.critic_head)]
        self._network = (
            self.optimizer.parameter.detach().numpy(),
            self._layers(policy.actor_trunk),
            np.zeros((0, 4), np.int64) if critic is None else self._layers(critic),
            np.array(heads, np.int64),
            numba_layers.TANH if config.activation == "tanh" else numba_layers.RELU,
        )
        self._nvec = np.array(policy.nvec or (), np.int64)
        self._log_std_start = 0 if policy.nvec is not None else self._start(policy.log_std)

    def _start(self, parameter: Tensor) -> int:
        """Where a parameter begins in the flat buffer."""
        distance = parameter.data_ptr() - self.optimizer.parameter.data_ptr()
        return distance // parameter.element_size()

    def _layer(self, linear: nn.Linear) -> list[int]:
        starts = [self._start(linear.weight), self._start(linear.bias)]
        return [*starts, linear.in_features, linear.out_features]

    def _layers(self, trunk: nn.Module) -> Table:
        assert isinstance(trunk, Mlp)
        linears = [layer for layer in trunk if isinstance(layer, nn.Linear)]
        return np.array([self._layer(linear) for linear in linears], np.int64)

    def act(self, obs: Tensor, step: Tensor | int, out: Act | None = None) -> Act:
        """Actions, log-probs and values of one row of environments, into `out` if given."""
        if out is None:
            rows = len(obs)
            if self.policy.nvec is None:
                actions = torch.empty(rows, self.policy.actor_head.out_features)
            else:
                heads = () if len(self.policy.nvec) == 1 else (len(self.policy.nvec),)
                actions = torch.empty(rows, *heads, dtype=torch.int64)
            out = Act(actions, torch.empty(rows), torch.empty(rows))
        numba_mlp.act_kernel(
            *self._network,
            self._nvec,
            self._log_std_start,
            _rows(obs),
            self.act_key,
            int(step),
            0,
            *(tensor.data_ptr() for tensor in out),
        )
        return out

    def value(self, obs: Tensor) -> Tensor:
        """V(s) of one row of environments."""
        values = torch.empty(len(obs))
        numba_mlp.value_kernel(*self._network, _rows(obs), values.data_ptr())
        return values

    def update(self, rollout: Rollout, update: int) -> UpdateStats:
        """K epochs of minibatch steps on one rollout, as `EagerEngine.update`."""
        config = self.config
        clip_coef = config.clip_coef_at(update)
        learning_rate = config.learning_rate_at(update)
        moments = self.optimizer.begin(learning_rate)
        orders = [
            randomness.shuffle(config.seed, update, epoch, config.batch_size, rollout.device)
            for epoch in range(config.update_epochs)
        ]
        actions = rollout.actions.flatten(0, 1).reshape(config.batch_size, -1).numpy()
        none: NDArray[Any] = np.zeros((0, 0), actions.dtype)
        discrete = self.policy.nvec is not None
        totals = torch.zeros(len(STATS_NAMES) + 2)
        (beta1, beta2), eps = moments.betas, moments.eps
        numba_mlp.update_kernel(
            *self._network,
            self._nvec,
            self._log_std_start,
            flat.gradient(self.optimizer.parameter).numpy(),
            moments.exp_avg.numpy(),
            moments.exp_avg_sq.numpy(),
            moments.step.reshape(1).numpy(),
            _rows(rollout.inputs[:-1].flatten(0, 1)),
            actions if discrete else none.astype(np.int64),
            none.astype(np.float32) if discrete else actions,
            rollout.log_probs.flatten().numpy(),
            rollout.advantages.flatten().numpy(),
            rollout.returns.flatten().numpy(),
            rollout.values[:-1].flatten().numpy(),
            rollout.valid.flatten().numpy(),
            torch.stack(orders).numpy(),
            config.minibatch_size,
            config.norm_adv,
            clip_coef,
            config.vf_coef,
            config.ent_coef,
            clip_coef if config.clip_vloss else -1.0,
            math.inf if config.dual_clip is None else config.dual_clip,
            math.inf if config.target_kl is None else config.target_kl,
            learning_rate,
            beta1,
            beta2,
            eps,
            config.max_grad_norm or math.inf,
            totals.numpy(),
        )
        sums, taken, skipped = totals[:-2], totals[-2], totals[-1]
        return with_rollout_stats(sums / taken.clamp(min=1.0), taken, skipped, rollout)


def _rows(obs: Tensor) -> NDArray[np.float32]:
    """[B, ...] as [B, D] float32."""
    return obs.reshape(len(obs), -1).float().contiguous().numpy()
