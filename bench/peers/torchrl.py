"""TorchRL's PPO on EnvPool: `python -m fastppo.bench.peers.torchrl` in its own venv.

The library's parts put together as in its own sota-implementations/ppo.
"""

import math
from typing import Any

import torch
import torchrl
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import AddStateIndependentNormalScale, TensorDictModule
from torch import Tensor, nn
from torchrl.collectors import Collector
from torchrl.data import Categorical, Composite, LazyTensorStorage, Unbounded
from torchrl.data import TensorDictReplayBuffer as ReplayBuffer
from torchrl.data.replay_buffers.samplers import SamplerWithoutReplacement
from torchrl.envs import EnvBase, ExplorationType
from torchrl.modules import MLP, ConvNet, IndependentNormal, ProbabilisticActor, ValueOperator
from torchrl.objectives import ClipPPOLoss
from torchrl.objectives.value import GAE

from fastppo.bench import contract
from fastppo.bench.peers.child import Task, report_update, serve
from fastppo.bench.peers.pool import AutoresetEnv
from fastppo.errors import UserError

LOSSES = ("loss_objective", "loss_critic", "loss_entropy")
ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU, "elu": nn.ELU, "silu": nn.SiLU}
NOTES = (
    "normalisation by our adapter, per step; the collector acts without the critic, and GAE runs "
    "it over obs and next obs of the whole rollout; actor and critic each run the shared trunk; "
    "eager: torch.compile is not used"
)


class EnvPoolEnv(EnvBase):
    """Our environments as one batched environment: `next` holds the true final observations."""

    def __init__(self, task: Task, env: AutoresetEnv) -> None:
        count, spec = env.num_envs, task.spec
        super().__init__(device=task.device, batch_size=torch.Size([count]))
        self._env = env
        dtype = torch.uint8 if spec.obs_dtype == "uint8" else torch.float32
        obs = Unbounded((count, *spec.obs_shape), dtype=dtype, device=task.device)
        self.observation_spec = Composite(observation=obs, shape=(count,))
        self.action_spec = (
            Unbounded((count, spec.action_dim), device=task.device)  # the adapter clips to bounds
            if spec.nvec is None
            else Categorical(spec.nvec[0], shape=(count,), device=task.device)
        )
        self.reward_spec = Unbounded((count, 1), device=task.device)
        flag = Categorical(2, shape=(count, 1), dtype=torch.bool, device=task.device)
        self.done_spec = Composite(
            done=flag, terminated=flag.clone(), truncated=flag.clone(), shape=(count,)
        )

    def _reset(self, tensordict: TensorDictBase | None, **_: Any) -> TensorDict:
        """All environments, or those that the last step finished, whose next episodes run."""
        partly = tensordict is not None and tensordict.get("_reset", None) is not None
        obs = self._row.obs if partly else self._env.reset()
        no = torch.zeros(len(obs), 1, dtype=torch.bool)
        flags = {"done": no, "terminated": no, "truncated": no}
        return self._tensordict(observation=torch.from_numpy(obs), **flags)

    def _step(self, tensordict: TensorDictBase) -> TensorDict:
        """True next observations, rewards and flags."""
        row = self._row = self._env.step(tensordict["action"].cpu().numpy())
        next_obs = row.obs
        if len(row.ended):
            next_obs = next_obs.copy()
            next_obs[row.ended] = row.final_obs
        terminated = torch.from_numpy(row.terminated)[:, None]
        truncated = torch.from_numpy(row.truncated)[:, None]
        return self._tensordict(
            observation=torch.from_numpy(next_obs),
            reward=torch.from_numpy(row.rewards)[:, None],
            done=terminated | truncated,
            terminated=terminated,
            truncated=truncated,
        )

    def _set_seed(self, seed: int | None) -> None:
        """EnvPool took its seeds when it was made."""

    def _tensordict(self, **entries: Tensor) -> TensorDict:
        return TensorDict(entries, batch_size=self.batch_size, device=self.device)


class Images(nn.Module):
    """The library's convolutions and a layer of 512, on uint8 images scaled to [0, 1]."""

    def __init__(self, channels: int, pixels: tuple[int, int]) -> None:
        super().__init__()
        sizes: dict[str, Any] = {"num_cells": [32, 64, 64], "kernel_sizes": [8, 4, 3]}
        self.convs = ConvNet(
            in_features=channels, **sizes, strides=[4, 2, 1], activation_class=nn.ReLU
        )
        width = self.convs(torch.zeros(1, channels, *pixels)).shape[-1]
        self.hidden = nn.Sequential(nn.Linear(width, 512), nn.ReLU())

    def forward(self, obs: Tensor) -> Any:
        """[..., C, H, W] to [..., 512]."""
        return self.hidden(self.convs(obs.float() / 255.0))


class Vectors(nn.Module):
    """The library's MLP, on flattened observations."""

    def __init__(self, obs_dims: int, num_inputs: int, sizes: tuple[int, ...], act: Any) -> None:
        super().__init__()
        self._obs_dims = obs_dims
        self.mlp = MLP(
            in_features=num_inputs, out_features=sizes[-1], num_cells=list(sizes[:-1]),
            activation_class=act, activate_last_layer=True,
        )  # fmt: skip

    def forward(self, obs: Tensor) -> Any:
        """[..., *obs_shape] to [..., sizes[-1]]."""
        return self.mlp(obs.flatten(-self._obs_dims))


def initialise(module: nn.Module, head_gain: float) -> nn.Module:
    """Orthogonal weights and zero biases; the last layer gets the head's gain."""
    layers = [x for x in module.modules() if isinstance(x, nn.Linear | nn.Conv2d)]
    for layer in layers:
        nn.init.orthogonal_(layer.weight, head_gain if layer is layers[-1] else math.sqrt(2))
        assert layer.bias is not None
        nn.init.zeros_(layer.bias)
    return module


def make_networks(task: Task, env: EnvPoolEnv) -> tuple[Any, Any]:
    """The library's actor and critic with the config's trunk or trunks."""
    config, spec = task.config, task.spec

    def trunk() -> nn.Module:
        if task.reads_images:
            return Images(spec.obs_shape[0], (spec.obs_shape[1], spec.obs_shape[2]))
        act = ACTIVATIONS[config.activation]
        return Vectors(len(spec.obs_shape), math.prod(spec.obs_shape), config.hidden_sizes, act)

    width = 512 if task.reads_images else config.hidden_sizes[-1]
    actor_trunk = trunk()
    critic_trunk = actor_trunk if config.shared_trunk else trunk()
    outputs = spec.nvec[0] if spec.nvec is not None else spec.action_dim
    actor = initialise(nn.Sequential(actor_trunk, nn.Linear(width, outputs)), 0.01)
    critic = initialise(nn.Sequential(critic_trunk, nn.Linear(width, 1)), 1.0)
    keys, distribution = ["logits"], torch.distributions.Categorical
    if spec.nvec is None:
        scale = AddStateIndependentNormalScale(outputs, init_value=config.log_std_init)
        actor = nn.Sequential(actor, scale)
        keys, distribution = ["loc", "scale"], IndependentNormal
    policy = ProbabilisticActor(
        TensorDictModule(actor, in_keys=["observation"], out_keys=keys),
        in_keys=keys,
        spec=env.action_spec,
        distribution_class=distribution,
        return_log_prob=True,
        default_interaction_type=ExplorationType.RANDOM,
    )
    value = ValueOperator(critic, in_keys=["observation"])
    return policy.to(task.device), value.to(task.device)


class Learner:
    """The library's GAE, buffer, loss and the config's Adam."""

    def __init__(self, task: Task, policy: Any, value: Any) -> None:
        config = self._config = task.config
        self.gae = GAE(gamma=config.gamma, lmbda=config.gae_lambda, value_network=value)
        self.loss = ClipPPOLoss(
            actor_network=policy,
            critic_network=value,
            clip_epsilon=config.clip_coef,
            clip_value=config.clip_vloss,
            entropy_coeff=config.ent_coef,
            critic_coeff=config.vf_coef / 2,  # its l2 loss has no factor of one half
            loss_critic_type="l2",
            normalize_advantage=config.norm_adv,
            functional=False,
            log_explained_variance=False,
        )
        self.buffer = ReplayBuffer(
            storage=LazyTensorStorage(config.batch_size, device=task.device),
            sampler=SamplerWithoutReplacement(),
            batch_size=config.minibatch_size,
        )
        parameters = {id(p): p for net in (policy, value) for p in net.parameters()}
        self.parameters = list(parameters.values())
        self._adam = torch.optim.Adam(self.parameters, config.learning_rate, eps=config.adam_eps)

    def update(self, rollout: TensorDictBase, update_index: int) -> None:
        """The config's epochs on one rollout, [N, T]."""
        config = self._config
        self._adam.param_groups[0]["lr"] = config.learning_rate_at(update_index)
        with torch.no_grad():
            rollout = self.gae(rollout)
        self.buffer.extend(rollout.reshape(-1))
        for _ in range(config.update_epochs):
            for minibatch in self.buffer:
                losses = self.loss(minibatch)
                sum(losses[name] for name in LOSSES).backward()
                if config.max_grad_norm:
                    nn.utils.clip_grad_norm_(self.parameters, config.max_grad_norm)
                self._adam.step()
                self._adam.zero_grad(set_to_none=True)


def forward_flops(task: Task, policy: Any, value: Any) -> int:
    """Of one observation through actor and critic; a shared trunk counts once, as in the config."""
    dtype = torch.uint8 if task.spec.obs_dtype == "uint8" else torch.float32
    obs = torch.zeros(1, *task.spec.obs_shape, dtype=dtype, device=task.device)
    twice = contract.forward_flops(value.module[0], obs) if task.config.shared_trunk else 0
    both = (TensorDict({"observation": obs}, batch_size=1) for _ in range(2))
    nets = zip((policy, value), both, strict=True)
    return sum(contract.forward_flops(net, example) for net, example in nets) - twice


def train(task: Task, report: contract.Reporter) -> None:
    """Trains to the config's total_timesteps."""
    config = task.config
    task.refuse("TorchRL", "dual_clip", "target_kl", "anneal_clip")
    if task.spec.nvec is not None and len(task.spec.nvec) > 1:
        raise UserError(f"env_id: {config.env_id!r} has several actions per step, served by others")
    torch.manual_seed(config.seed)
    env = task.make_env()
    batched = EnvPoolEnv(task, env)
    policy, value = make_networks(task, batched)
    learner = Learner(task, policy, value)
    collector = Collector(
        batched,
        policy,
        frames_per_batch=config.batch_size,
        total_frames=config.num_updates * config.batch_size,
        device=task.device,
        track_traj_ids=False,
        auto_register_policy_transforms=False,  # a feed-forward policy needs none
    )
    parameters = sum(p.numel() for p in learner.parameters)
    work = task.work(parameters=parameters, forward_flops=forward_flops(task, policy, value))
    report.ready(work, task.info(torchrl.__version__, NOTES))
    for update_index, rollout in enumerate(collector):
        learner.update(rollout, update_index)
        report_update(report, env)
    collector.shutdown()


if __name__ == "__main__":
    serve(train)
