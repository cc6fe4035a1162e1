"""The engine for small MLPs on a CPU: one call acts, one call is a whole update.

Tested equal to `ppo.EagerEngine`, which defines what is computed. It saves the dispatch of some
twenty torch operators per env step: with a small network, most of the time of a run.
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
from fastppo.adam import FlatAdam
from fastppo.calls import c_function
from fastppo.cgroups import available_cores
from fastppo.config import Config
from fastppo.envs import VecEnv
from fastppo.kernels.mlp import numba_cpu as numba_mlp
from fastppo.kernels.mlp import numba_layers, numba_update
from fastppo.kernels.mlp.records import Adam, Loss, Network, Normal, Rows, Scratch, empty
from fastppo.mlp_player import Player, can_play
from fastppo.normalize import EPSILON, RewardScaler
from fastppo.observations import PlainStore
from fastppo.playing import play_one
from fastppo.policy import ActorCritic, Mlp
from fastppo.ppo import STATS_NAMES, UpdateStats, with_rollout_stats
from fastppo.rollout import Rollout
from fastppo.second_thread import SecondThread
from fastppo.timing import PhaseTimer

Table = NDArray[np.int64]
NOT_NORMALISED = Normal(np.zeros(0), np.zeros(0), 0.0, 0.0)


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
        # products this small finish before a second thread can start
        threadpool_limits(limits=1, user_api="blas")
        critic = policy.critic_trunk
        heads = [self._layer(policy.actor_head), self._layer(policy.critic_head)]
        self._network = Network(
            self.optimizer.parameter.detach().numpy(),
            self._layers(policy.actor_trunk),
            np.zeros((0, 4), np.int64) if critic is None else self._layers(critic),
            np.array(heads, np.int64),
            numba_layers.ACTIVATIONS.index(config.activation),
            np.array(policy.nvec or (), np.int64),
            0 if policy.nvec is not None else self._start(policy.log_std),
        )
        self._scratch = self._make_scratch()
        # actor and critic side by side; with one trunk for both there is nothing to share out
        self._second = SecondThread(allowed=critic is not None and available_cores() > 1)
        self._bound: Rollout | None = None
        self._played: VecEnv | None = None
        self._player: Player | None = None  # of these environments; None: Python steps them

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

    def _make_scratch(self) -> Scratch:
        rows, actor = self.config.minibatch_size, self._network.actor
        widths = actor[:, numba_layers.OUTPUTS]
        per_row = numba_layers.outputs_per_row(actor, self._network.activation)
        sides = (2, rows * int(widths.max()))
        return Scratch(
            np.zeros((rows, int(actor[0, numba_layers.INPUTS])), np.float32),
            np.zeros((2, rows * int(per_row)), np.float32),
            np.zeros(sides, np.float32),
            np.zeros(sides, np.float32),
            np.zeros((rows, 1), np.float32),
            np.zeros((rows, 1), np.float32),
            np.zeros(24, np.int64),
            False,
            c_function("sched_yield"),
        )

    def act(self, rollout: Rollout, t: int, step: int) -> NDArray[Any]:
        """Draws the actions of row t, [N, ...] for the environments, and their log-probs."""
        if t == 0 or self._bound is not rollout:
            self._bind(rollout)
        if self._cast is not None:
            self._rows.obs[t] = self._cast[t]
        numba_mlp.act_kernel(self._network, self._rows, self._normal, t, self.act_key, step, 0)
        actions: NDArray[Any] = self._acted[t]
        return actions

    def play(self, env: VecEnv, rollout: Rollout, t: int, step: int, timer: PhaseTimer) -> int:
        """Fills rows of the rollout from t on, in compiled code where the environments allow it."""
        if t == 0 or self._bound is not rollout:
            self._bind(rollout)
        if self._played is not env:
            self._played, self._player = env, Player(env) if can_play(env) else None
        if self._player is None or self._cast is not None or not self._player.is_ready:
            return play_one(self, env, rollout, t, step, timer)
        views = (self._network, self._rows, self._normal)
        return self._player.play(*views, self.act_key, rollout, t, step, timer)

    def stepping(self, env: VecEnv) -> str:
        """How these environments are stepped, for the record of a run."""
        return "compiled" if can_play(env) else env.stepping

    def bootstrap(self, rollout: Rollout) -> None:
        """Writes the values of all rows, row T among them: one product for all instead of T + 1."""
        if self._bound is not rollout:
            self._bind(rollout)
        if self._cast is not None:
            self._rows.obs[-1] = self._cast[-1]
        numba_mlp.value_kernel(self._network, self._rows, self._normal)

    def finish(self, rollout: Rollout, reward_scaler: RewardScaler | None) -> None:
        """Scales rewards and computes advantages and returns."""
        rollout.finish(reward_scaler)

    def update(self, rollout: Rollout, update: int) -> UpdateStats:
        """K epochs of minibatch steps on one rollout, as `EagerEngine.update`."""
        self._bind(rollout)
        config = self.config
        clip_coef = config.clip_coef_at(update)
        learning_rate = config.learning_rate_at(update)
        self.optimizer.note(learning_rate)
        moments = self.optimizer.begin()
        orders = torch.stack([order.view(-1) for order in rollout.orders(update)])
        totals = torch.zeros(len(STATS_NAMES) + 2)
        adam = Adam(
            flat.gradient(self.optimizer.parameter).numpy(),
            moments.exp_avg.numpy(),
            moments.exp_avg_sq.numpy(),
            moments.step.reshape(1).numpy(),
            learning_rate,
            *moments.betas,
            moments.eps,
            config.max_grad_norm or math.inf,
        )
        loss = Loss(
            config.norm_adv,
            clip_coef,
            config.vf_coef,
            config.ent_coef,
            clip_coef if config.clip_vloss else -1.0,
            math.inf if config.dual_clip is None else config.dual_clip,
            math.inf if config.target_kl is None else config.target_kl,
        )
        self._run(adam, loss, orders.numpy(), totals.numpy())
        sums, taken, skipped = totals[:-2], totals[-2], totals[-1]
        return with_rollout_stats(sums / taken.clamp(min=1.0), taken, skipped, rollout)

    def _run(self, adam: Adam, loss: Loss, orders: Table, totals: NDArray[np.float32]) -> None:
        """The update, on one thread or two: the bits are the same."""
        network, rows = self._network, self._rows
        with self._second.turn() as second:
            scratch = self._scratch._replace(second=second)
            if not second:
                numba_update.update_kernel(network, adam, rows, loss, orders, scratch, totals)
                return
            scratch.mail[:] = 0
            other = self._second.start(numba_update.second_kernel, network, adam.grad, scratch)
            try:
                numba_update.update_kernel(network, adam, rows, loss, orders, scratch, totals)
            except BaseException:  # a signal came first: nobody else would end the other thread
                numba_update.dismiss(scratch.mail)
                raise
            other.result()

    def _bind(self, rollout: Rollout) -> None:
        """Takes the views of a rollout that the kernels read and write."""
        store = rollout.store
        assert isinstance(store, PlainStore)
        steps, envs = rollout.log_probs.shape
        obs = store.obs.numpy().reshape(steps + 1, envs, -1)
        self._cast = None
        if obs.dtype != np.float32:
            self._cast, obs = obs, obs.astype(np.float32)
        inputs, self._normal = obs, NOT_NORMALISED
        if store.normalizer is not None:
            inputs = store.inputs.numpy().reshape(obs.shape)
            moments = store.normalizer.moments
            mean, var = (x.numpy().reshape(-1) for x in (moments.mean, moments.var))
            self._normal = Normal(mean, var, store.normalizer.clip, EPSILON)
        self._acted: NDArray[Any] = rollout.actions.numpy()
        acted = self._acted.reshape(steps, envs, -1)
        discrete = self.policy.nvec is not None
        self._rows = Rows(
            obs,
            inputs,
            acted if discrete else empty(3, np.int64),
            empty(3, np.float32) if discrete else acted,
            rollout.log_probs.numpy(),
            rollout.values.numpy(),
            rollout.advantages.numpy(),
            rollout.returns.numpy(),
            rollout.valid.numpy(),
        )
        self._bound = rollout
