"""Tianshou's PPO on EnvPool: `python -m fastppo.bench.peers.tianshou` in its own venv."""

import math
from typing import Any

import numpy as np
import tianshou
import torch
from tianshou.algorithm import PPO
from tianshou.algorithm.modelfree.reinforce import DiscreteActorPolicy, ProbabilisticActorPolicy
from tianshou.algorithm.optim import AdamOptimizerFactory, LRSchedulerFactoryLinear
from tianshou.data import Collector, VectorReplayBuffer
from tianshou.env.atari.atari_network import DQNet
from tianshou.trainer import OnPolicyTrainerParams
from tianshou.utils.net.common import ActorCritic, Net
from tianshou.utils.net.continuous import ContinuousActorProbabilistic, ContinuousCritic
from tianshou.utils.net.discrete import DiscreteActor, DiscreteCritic
from torch import nn

from fastppo.bench import contract
from fastppo.bench.peers.child import Task, report_update, serve
from fastppo.bench.peers.pool import AutoresetEnv, Row
from fastppo.errors import UserError
from fastppo.pools import Array

ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU, "elu": nn.ELU, "silu": nn.SiLU}
NOTES = (
    "normalisation by our adapter, per step; the collector acts without the critic: before the "
    "epochs, values of obs and of next obs and log-probs are computed for the whole rollout; "
    "actor and critic each run the shared trunk"
)


class EnvPoolVectorEnv:
    """Our environments as the collector sees EnvPool: it resets the finished ones itself."""

    is_async = False

    def __init__(self, env: AutoresetEnv) -> None:
        self._env = env
        self._row: Row | None = None
        self.action_space = env.action_space
        self.observation_space = env.observation_space

    def __len__(self) -> int:
        return self._env.num_envs

    def reset(self, env_id: Any = None, **_: Any) -> tuple[Array, Array]:
        """First observations of all, or of the environments that the last step finished."""
        if self._row is None:
            return self._env.reset(), self._infos(self._env.num_envs)
        ids = self._row.ended if env_id is None else np.asarray(env_id)
        assert np.array_equal(ids, self._row.ended)
        return self._row.obs[ids], self._infos(len(ids))

    def step(self, action: Array, id: Any = None) -> tuple[Array, Array, Array, Array, Array]:
        """True next observations, rewards, both flags, and infos."""
        row = self._env.step(action)
        self._row = row
        next_obs = row.obs
        if len(row.ended):
            next_obs = next_obs.copy()
            next_obs[row.ended] = row.final_obs
        return next_obs, row.rewards, row.terminated, row.truncated, self._infos(len(next_obs))

    def close(self) -> None:
        """Stops EnvPool's threads."""
        self._env.close()

    def _infos(self, count: int) -> Array:
        return np.array([{}] * count)


class Images(DQNet):
    """The library's Nature CNN with a layer of 512, on uint8 images scaled to [0, 1]."""

    def forward(self, obs: Any, state: Any = None, info: Any = None) -> tuple[Any, Any]:
        """[B, C, H, W] to [B, 512]."""
        device = next(self.parameters()).device
        return self.net(torch.as_tensor(obs, device=device).float() / 255.0), state


def initialise(module: nn.Module, heads: dict[nn.Module, float]) -> None:
    """Orthogonal weights and zero biases, gain sqrt 2 but for the heads', in place."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            nn.init.orthogonal_(layer.weight, heads.get(layer, math.sqrt(2)))
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)


def make_networks(task: Task) -> tuple[Any, Any]:
    """The library's actor and critic with the config's trunk or trunks."""
    config, spec = task.config, task.spec

    def trunk() -> Any:
        if task.reads_images:
            channels, height, width = spec.obs_shape
            size: dict[str, Any] = {"features_only": True, "output_dim_added_layer": 512}
            return Images(channels, height, width, spec.action_dim, **size)
        return Net(
            state_shape=spec.obs_shape,
            hidden_sizes=config.hidden_sizes,
            activation=ACTIVATIONS[config.activation],
        )

    actor_trunk = trunk()
    critic_trunk = actor_trunk if config.shared_trunk else trunk()
    actor: Any
    if spec.nvec is None:
        shape = (spec.action_dim,)
        actor = ContinuousActorProbabilistic(
            preprocess_net=actor_trunk, action_shape=shape, unbounded=True
        )
        critic = ContinuousCritic(preprocess_net=critic_trunk)
        nn.init.constant_(actor.sigma_param, config.log_std_init)
        head = actor.mu
    else:
        actor = DiscreteActor(
            preprocess_net=actor_trunk, action_shape=spec.nvec[0], softmax_output=False
        )
        critic = DiscreteCritic(preprocess_net=critic_trunk)
        head = actor.last
    heads = {layer: 0.01 for layer in head.modules()} | {x: 1.0 for x in critic.last.modules()}
    initialise(ActorCritic(actor, critic), heads)
    return actor.to(task.device), critic.to(task.device)


def normal(parameters: tuple[torch.Tensor, torch.Tensor]) -> torch.distributions.Distribution:
    """A Gaussian of independent components."""
    mean, std = parameters
    return torch.distributions.Independent(torch.distributions.Normal(mean, std), 1)


def make_algorithm(task: Task, actor: Any, critic: Any, env: EnvPoolVectorEnv) -> Any:
    """The library's PPO with the config's numbers."""
    config = task.config
    spaces = {"action_space": env.action_space, "observation_space": env.observation_space}
    if task.spec.nvec is None:  # the adapter clips to the bounds
        policy = ProbabilisticActorPolicy(
            actor=actor, dist_fn=normal, action_scaling=False, action_bound_method=None, **spaces
        )
    else:
        policy = DiscreteActorPolicy(actor=actor, **spaces)
    optim = AdamOptimizerFactory(lr=config.learning_rate, eps=config.adam_eps)
    if config.anneal_lr:
        steps = config.num_updates * config.batch_size
        linear = LRSchedulerFactoryLinear(1, steps, config.batch_size)
        optim = optim.with_lr_scheduler_factory(linear)
    return PPO(
        policy=policy,
        critic=critic,
        optim=optim,
        eps_clip=config.clip_coef,
        dual_clip=config.dual_clip,
        value_clip=config.clip_vloss,
        advantage_normalization=config.norm_adv,
        vf_coef=config.vf_coef / 2,  # its value loss has no factor of one half
        ent_coef=config.ent_coef,
        max_grad_norm=config.max_grad_norm or None,
        gae_lambda=config.gae_lambda,
        max_batchsize=max(256, config.minibatch_size),
        gamma=config.gamma,
    )


def work_of(task: Task, actor: Any, critic: Any) -> dict[str, Any]:
    """The manifest, from the library's networks; a shared trunk counts once, as in the config."""
    obs = np.zeros((1, *task.spec.obs_shape), task.spec.obs_dtype)
    flops = contract.forward_flops(actor, obs) + contract.forward_flops(critic, obs)
    if task.config.shared_trunk:
        flops -= contract.forward_flops(actor.preprocess, obs)
    parameters = sum(p.numel() for p in ActorCritic(actor, critic).parameters())
    return task.work(parameters=parameters, forward_flops=flops)


def train(task: Task, report: contract.Reporter) -> None:
    """Trains to the config's total_timesteps."""
    config = task.config
    task.refuse("Tianshou", "target_kl", "anneal_clip")
    if task.spec.nvec is not None and len(task.spec.nvec) > 1:
        raise UserError(f"env_id: {config.env_id!r} has several actions per step; Tianshou one")
    torch.manual_seed(config.seed)
    np.random.seed(config.seed)  # noqa: NPY002 - shuffles are drawn from it
    env = task.make_env()
    vector_env = EnvPoolVectorEnv(env)
    actor, critic = make_networks(task)
    algorithm = make_algorithm(task, actor, critic, vector_env)
    buffer = VectorReplayBuffer(config.batch_size, config.num_envs)
    collector = Collector(algorithm, vector_env, buffer)
    collector.reset()

    report.ready(work_of(task, actor, critic), task.info(tianshou.__version__, NOTES))

    def before_step(epoch: int, env_step: int) -> None:
        if env_step:
            report_update(report, env)

    algorithm.run_training(
        OnPolicyTrainerParams(
            training_collector=collector,
            max_epochs=1,
            epoch_num_steps=config.num_updates * config.batch_size,
            collection_step_num_env_steps=config.batch_size,
            update_step_num_repetitions=config.update_epochs,
            batch_size=config.minibatch_size,
            training_fn=before_step,
            verbose=False,
            show_progress=False,
        )
    )
    report_update(report, env)


if __name__ == "__main__":
    serve(train)
