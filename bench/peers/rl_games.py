"""rl_games' PPO on EnvPool: `python -m fastppo.bench.peers.rl_games` in its own venv.

The agent is built without the library's Runner, which would turn TF32 on: that is other precision.
"""

import math
import tempfile
from importlib.metadata import version
from typing import Any

import torch
from rl_games.algos_torch.a2c_continuous import A2CAgent
from rl_games.algos_torch.a2c_discrete import DiscreteA2CAgent
from rl_games.common import a2c_common, env_configurations, vecenv
from rl_games.common.algo_observer import AlgoObserver
from rl_games.common.ivecenv import IVecEnv
from rl_games.common.tr_helpers import DefaultRewardsShaper
from torch import nn

from fastppo.bench import contract
from fastppo.bench.peers.child import Task, report_update, serve
from fastppo.bench.peers.pool import AutoresetEnv
from fastppo.config import Config
from fastppo.errors import UserError

NATURE_CNN = [(32, 8, 4), (64, 4, 2), (64, 3, 1)]
NOTES = (
    "normalisation by our adapter, per step; advantages are normalised over the rollout; "
    "minibatches are fixed blocks of the rollout, not shuffled; a time-out bootstraps from the "
    "value of its last observation but one"
)


class EnvPoolVecEnv(IVecEnv):
    """Our environments as the library's vector environment, in tensors, which it takes as is."""

    def __init__(self, env: AutoresetEnv, device: str) -> None:
        self._env, self._device = env, device

    def reset(self) -> torch.Tensor:
        """First observations, [N, ...]."""
        return torch.from_numpy(self._env.reset()).to(self._device)

    def step(self, actions: torch.Tensor) -> tuple[Any, ...]:
        """Observations to act on next, rewards, dones, and which of them were time-outs."""
        row = self._env.step(actions.cpu().numpy())
        arrays = row.obs, row.rewards, row.terminated | row.truncated, row.truncated
        obs, rewards, dones, time_outs = (torch.from_numpy(x).to(self._device) for x in arrays)
        return obs, rewards, dones, {"time_outs": time_outs}

    def get_env_info(self) -> dict[str, Any]:
        """The spaces."""
        env = self._env
        return {"observation_space": env.observation_space, "action_space": env.action_space}


class SilentWriter:
    """Takes the place of the TensorBoard writer: nothing is logged to disk."""

    def __init__(self, *_: Any) -> None:
        pass

    def add_scalar(self, *_: Any) -> None:
        """Drops the number."""


class UpdateReports(AlgoObserver):
    """A line per update, and the schedules as the config defines them."""

    def __init__(self, task: Task, report: contract.Reporter, env: AutoresetEnv) -> None:
        super().__init__()
        self._config, self._report, self._env = task.config, report, env
        self._reported = 0

    def after_init(self, algo: Any) -> None:
        """Keeps the agent, whose schedules are set after every update."""
        self._agent = algo

    def after_print_stats(self, frame: int, epoch_num: int, total_time: float) -> None:
        """Called when `epoch_num` updates are done: once by one agent, twice by the other."""
        if epoch_num == self._reported:
            return
        self._reported = epoch_num
        report_update(self._report, self._env)
        self._agent.last_lr = self._config.learning_rate_at(epoch_num)
        self._agent.e_clip = self._config.clip_coef_at(epoch_num)


def network_params(task: Task) -> dict[str, Any]:
    """The config's network in the library's terms."""
    config = task.config
    hidden = {"name": "orthogonal_initializer", "gain": math.sqrt(2)}
    params: dict[str, Any] = {
        "name": "actor_critic",
        "separate": not config.shared_trunk,
        "space": {"discrete": {}},
        "mlp": {
            "units": list(config.hidden_sizes),
            "activation": "swish" if config.activation == "silu" else config.activation,
            "initializer": hidden,
        },
    }
    if task.spec.nvec is None:
        continuous = {
            "mu_activation": "None",
            "sigma_activation": "None",
            "mu_init": {"name": "orthogonal_initializer", "gain": 0.01},
            "sigma_init": {"name": "const_initializer", "val": config.log_std_init},
            "fixed_sigma": True,
        }
        params["space"] = {"continuous": continuous}
    if task.reads_images:
        params["mlp"] |= {"units": [512], "activation": "relu"}
        params["cnn"] = {
            "type": "conv2d",
            "activation": "relu",
            "initializer": hidden,
            "permute_input": False,
            "convs": [
                {"filters": filters, "kernel_size": size, "strides": stride, "padding": 0}
                for filters, size, stride in NATURE_CNN
            ],
        }
    return params


def agent_params(task: Task, observer: AlgoObserver) -> dict[str, Any]:
    """The config in the library's terms."""
    model = "discrete_a2c" if task.spec.is_discrete else "continuous_a2c_logstd"
    plumbing = {
        "name": "fastppo",
        "env_name": "envpool",
        "features": {"observer": observer},
        "reward_shaper": DefaultRewardsShaper(),
        "device": task.device,
        "save_best_after": math.inf,
        "print_stats": False,
    }
    return {
        "model": {"name": model},
        "network": network_params(task),
        "config": plumbing | algorithm_params(task.config),
    }


def algorithm_params(config: Config) -> dict[str, Any]:
    """What is computed, in the library's terms."""
    return {
        "num_actors": config.num_envs,
        "horizon_length": config.num_steps,
        "minibatch_size": config.minibatch_size,
        "mini_epochs": config.update_epochs,
        "max_epochs": config.num_updates,
        "seq_length": 1,
        "learning_rate": config.learning_rate,
        "lr_schedule": None,  # the observer's
        "schedule_type": "standard",
        "e_clip": config.clip_coef,
        "clip_value": config.clip_vloss,
        "clip_actions": False,  # the adapter clips to the bounds
        "normalize_input": False,
        "normalize_value": False,
        "normalize_advantage": config.norm_adv,
        "critic_coef": config.vf_coef,
        "entropy_coef": config.ent_coef,
        "bound_loss_type": "none",
        "bounds_loss_coef": 0.0,
        "truncate_grads": config.max_grad_norm > 0,
        "grad_norm": config.max_grad_norm,
        "gamma": config.gamma,
        "tau": config.gae_lambda,
        "value_bootstrap": True,
    }


def make_agent(task: Task, env: AutoresetEnv, observer: AlgoObserver) -> Any:
    """The library's PPO agent on these environments, without logs, checkpoints or folders."""
    vecenv.register("ENVPOOL_AT_ONCE", lambda *_, **__: EnvPoolVecEnv(env, task.device))
    env_configurations.register("envpool", {"vecenv_type": "ENVPOOL_AT_ONCE"})
    a2c_common.SummaryWriter = SilentWriter
    params = agent_params(task, observer)
    agent_class = DiscreteA2CAgent if task.spec.is_discrete else A2CAgent
    with tempfile.TemporaryDirectory() as folder:  # it makes its folders, then they go
        params["config"]["train_dir"] = folder
        agent = agent_class("fastppo", params)
    agent.save = lambda path: None
    for group in agent.optimizer.param_groups:
        group["eps"] = task.config.adam_eps  # the library's is fixed at 1e-8
    net = agent.model.a2c_network
    if task.spec.is_discrete:
        nn.init.orthogonal_(net.logits.weight, 0.01)
    nn.init.orthogonal_(net.value.weight, 1.0)
    return agent


def train(task: Task, report: contract.Reporter) -> None:
    """Trains to the config's total_timesteps."""
    config, spec = task.config, task.spec
    task.refuse("rl_games", "dual_clip", "target_kl")
    if spec.nvec is not None and len(spec.nvec) > 1:
        raise UserError(f"env_id: {config.env_id!r} has several actions per step, served by others")
    if len(spec.obs_shape) > 1 and not task.reads_images:
        raise UserError(f"network: an mlp on observations {spec.obs_shape} is not to be had here")
    torch.manual_seed(config.seed)
    env = task.make_env()
    agent = make_agent(task, env, UpdateReports(task, report, env))
    network = agent.model.a2c_network
    obs = torch.zeros(1, *spec.obs_shape, device=task.device)
    work = task.work(
        parameters=sum(p.numel() for p in network.parameters()),
        forward_flops=contract.forward_flops(network, {"obs": obs}),
    )
    report.ready(work, task.info(version("rl-games"), NOTES))
    agent.train()


if __name__ == "__main__":
    serve(train)
