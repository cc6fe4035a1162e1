"""Stable-Baselines3's PPO on EnvPool: `python -m fastppo.bench.peers.sb3` in its own venv."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import stable_baselines3
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, NatureCNN, create_mlp
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from fastppo.bench import contract
from fastppo.bench.peers.child import Task, report_update, serve
from fastppo.bench.peers.pool import AutoresetEnv
from fastppo.pools import Array

ACTIVATIONS = {
    "tanh": torch.nn.Tanh,
    "relu": torch.nn.ReLU,
    "elu": torch.nn.ELU,
    "silu": torch.nn.SiLU,
}
NOTES = (
    "VecNormalize moves its statistics per step; the clipped value loss is the clipped term alone, "
    "not the larger of both"
)


class EnvPoolVecEnv(VecEnv):
    """Our environments as Stable-Baselines3's vector environment."""

    def __init__(self, env: AutoresetEnv) -> None:
        self._env = env
        self._empty: list[dict[str, Any]] = [{} for _ in range(env.num_envs)]
        super().__init__(env.num_envs, env.observation_space, env.action_space)

    def reset(self) -> Array:
        """First observations, [N, ...]."""
        return self._env.reset()

    def step_async(self, actions: Array) -> None:
        """Keeps the actions for `step_wait`."""
        self._actions = actions

    def step_wait(self) -> tuple[Array, Array, Array, list[dict[str, Any]]]:
        """Observations to act on next, rewards, dones, and infos where an episode ended."""
        row = self._env.step(self._actions)
        infos = self._empty
        if len(row.ended):
            infos = infos.copy()
            for index, final_obs in zip(row.ended, row.final_obs, strict=True):
                infos[index] = {
                    "terminal_observation": final_obs,
                    "TimeLimit.truncated": bool(row.truncated[index]),
                }
        return row.obs, row.rewards, row.terminated | row.truncated, infos

    def close(self) -> None:
        """Stops EnvPool's threads."""
        self._env.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """Of every environment; there is only `render_mode`."""
        if attr_name != "render_mode":
            raise AttributeError(attr_name)
        return [None] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Not to be had: the environments live in C++."""
        raise NotImplementedError

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> Any:
        """Not to be had: the environments live in C++."""
        raise NotImplementedError

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """No environment has a Gymnasium wrapper."""
        return [False] * self.num_envs


def make_vec_env(task: Task, env: AutoresetEnv) -> VecEnv:
    """The environments, under the library's own normalisation where the config asks for any."""
    config = task.config
    vec_env = EnvPoolVecEnv(env)
    if not (config.norm_obs or config.norm_reward):
        return vec_env
    return VecNormalize(
        vec_env,
        norm_obs=config.norm_obs,
        norm_reward=config.norm_reward,
        clip_obs=config.obs_clip,
        clip_reward=config.reward_clip,
        gamma=config.gamma,
    )


class SharedMlp(BaseFeaturesExtractor):
    """One MLP under both heads: the library's policies share layers by a features extractor."""

    def __init__(self, space: Any, hidden_sizes: Sequence[int], activation: Any) -> None:
        super().__init__(space, hidden_sizes[-1])
        layers = create_mlp(int(np.prod(space.shape)), -1, list(hidden_sizes), activation)
        self.layers = torch.nn.Sequential(torch.nn.Flatten(), *layers)

    def forward(self, obs: torch.Tensor) -> Any:
        """[B, ...] to [B, hidden_sizes[-1]]."""
        return self.layers(obs)


def policy_kwargs(task: Task) -> dict[str, Any]:
    """The config's network in the library's terms."""
    config = task.config
    kwargs: dict[str, Any] = {
        "activation_fn": ACTIVATIONS[config.activation],
        "log_std_init": config.log_std_init,
        "optimizer_kwargs": {"eps": config.adam_eps},
    }
    if task.reads_images:
        shared = config.shared_trunk
        return kwargs | {
            "features_extractor_class": NatureCNN,
            "share_features_extractor": shared,
            "net_arch": [],
        }
    if config.shared_trunk:
        extractor = {
            "hidden_sizes": config.hidden_sizes,
            "activation": ACTIVATIONS[config.activation],
        }
        return kwargs | {
            "features_extractor_class": SharedMlp,
            "features_extractor_kwargs": extractor,
            "net_arch": [],
        }
    widths = list(config.hidden_sizes)
    return kwargs | {"net_arch": {"pi": widths, "vf": widths}}


def schedule(task: Task, start: float, *, anneal: bool) -> Any:
    """A value that falls linearly from `start`; the library asks after the first rollout."""
    if not anneal:
        return lambda progress_remaining: start
    behind = 1.0 / task.config.num_updates
    return lambda progress_remaining: start * min(1.0, progress_remaining + behind)


class UpdateReports(BaseCallback):
    """A line per update: when the next rollout begins, and at the end."""

    def __init__(self, report: contract.Reporter, env: AutoresetEnv) -> None:
        super().__init__()
        self._report, self._env = report, env
        self._begun = False

    def _on_rollout_start(self) -> None:
        if self._begun:
            report_update(self._report, self._env)
        self._begun = True

    def _on_training_end(self) -> None:
        report_update(self._report, self._env)

    def _on_step(self) -> bool:
        return True


def learn(model: Any, task: Task, report: contract.Reporter, env: AutoresetEnv) -> None:
    """Trains to the config's total_timesteps, a line per update."""
    steps = task.config.num_updates * task.config.batch_size
    model.learn(steps, callback=UpdateReports(report, env), log_interval=None)


def train(task: Task, report: contract.Reporter) -> None:
    """Trains to the config's total_timesteps."""
    config = task.config
    task.refuse("Stable-Baselines3", "dual_clip", "target_kl")
    env = task.make_env(norm_obs=False, norm_reward=False)
    clip = schedule(task, config.clip_coef, anneal=config.anneal_clip)
    model = PPO(
        "CnnPolicy" if task.reads_images else "MlpPolicy",
        make_vec_env(task, env),
        learning_rate=schedule(task, config.learning_rate, anneal=config.anneal_lr),
        n_steps=config.num_steps,
        batch_size=config.minibatch_size,
        n_epochs=config.update_epochs,
        gamma=config.gamma,
        gae_lambda=config.gae_lambda,
        clip_range=clip,
        clip_range_vf=clip if config.clip_vloss else None,
        normalize_advantage=config.norm_adv,
        ent_coef=config.ent_coef,
        vf_coef=config.vf_coef / 2,  # its value loss has no factor of one half
        max_grad_norm=config.max_grad_norm or float("inf"),
        policy_kwargs=policy_kwargs(task),
        seed=config.seed,
        device=task.device,
    )
    parameters = sum(p.numel() for p in model.policy.parameters())
    obs = torch.as_tensor(np.zeros((1, *task.spec.obs_shape), task.spec.obs_dtype))
    flops = contract.forward_flops(model.policy, obs.to(model.device))
    work = task.work(parameters=parameters, forward_flops=flops)
    report.ready(work, task.info(stable_baselines3.__version__, NOTES))
    learn(model, task, report, env)


if __name__ == "__main__":
    serve(train)
