"""CleanRL's PPO scripts on EnvPool: `python -m fastppo.bench.peers.cleanrl` in its own venv.

The scripts are run as they are, by their own command lines. What they reach for outside is put in
their way: gym's vector environment and `envpool.make` give our environments, the TensorBoard
writer tells when an update is done. ppo.py and ppo_continuous_action.py see environments that
begin their next episode at once, as they expect; ppo_atari_envpool.py sees EnvPool as it is, with
its reset rows.
"""

import contextlib
import os
import runpy
import sys
from collections.abc import Callable
from importlib import resources
from importlib.metadata import version
from types import ModuleType, SimpleNamespace
from typing import Any

import envpool
import gymnasium
import numpy as np
import torch

from fastppo import randomness
from fastppo.bench import contract
from fastppo.bench.peers.child import Task, report_update, serve
from fastppo.bench.peers.pool import AutoresetEnv, action_space, observation_space
from fastppo.envs import VecEnv
from fastppo.errors import UserError
from fastppo.pools import Array

NOTES = (
    "{script} of the published package, unchanged, on this Python and torch; normalisation by our "
    "adapter, per step; images are stored as float32, four times the bytes; a time-out counts as "
    "the end of the game"
)
FLAGS = ("env_id", "seed", "learning_rate", "num_envs", "num_steps", "gamma", "gae_lambda",
         "num_minibatches", "update_epochs", "clip_coef", "ent_coef", "vf_coef", "anneal_lr",
         "norm_adv", "clip_vloss")  # fmt: skip


class NextStepEnv:
    """EnvPool as it is: reset rows among the others, not counted."""

    def __init__(self, task: Task) -> None:
        config = task.config
        seeds = randomness.env_seeds(config.seed, range(config.num_envs))
        self._env = VecEnv(config, seeds, num_threads=task.env_threads)
        self.observation_space = observation_space(task.spec)
        self.action_space = action_space(task.spec, self._env.pool.action_space)
        self._env_steps = 0

    def reset(self) -> Array:
        """First observations, [N, ...]."""
        return self._env.reset()

    def step(self, actions: Array) -> tuple[Array, Array, Array, dict[str, Array]]:
        """Observations, rewards, dones and what the script's own statistics read."""
        row = self._env.step(actions)
        self._env_steps += int(row.valid.sum())
        nothing = np.zeros(len(row.rewards), np.int32)
        # the script prints a game's return where no lives are left
        info = {"reward": nothing, "terminated": nothing, "lives": nothing + 1}
        return row.obs, row.rewards, row.terminated | row.truncated, info

    def drain(self) -> tuple[int, list[float]]:
        """Env steps, and the raw returns of the games that ended, since the last call."""
        env_steps, self._env_steps = self._env_steps, 0
        return env_steps, [episode[1] for episode in self._env.episodes.drain()]

    def close(self) -> None:
        """Stops EnvPool's threads."""
        self._env.close()


class ScriptEnvs:
    """What a script calls `envs`; says that everything is built when it is reset.

    Args:
        gymnasium_api: five values per step, as ppo_continuous_action.py takes them, or four.
    """

    def __init__(self, env: Any, built: Callable[[], None], *, gymnasium_api: bool) -> None:
        self._env, self._built, self._gymnasium_api = env, built, gymnasium_api
        self.observation_space = self.single_observation_space = env.observation_space
        self.action_space = self.single_action_space = env.action_space

    def reset(self, **_: Any) -> Any:
        """First observations, [N, ...]."""
        self._built()
        obs = self._env.reset()
        return (obs, {}) if self._gymnasium_api else obs

    def step(self, actions: Array) -> tuple[Any, ...]:
        """One step in the script's own form, without infos: they are for its log."""
        if isinstance(self._env, NextStepEnv):
            return self._env.step(actions)
        row = self._env.step(actions)
        if self._gymnasium_api:
            return row.obs, row.rewards, row.terminated, row.truncated, {}
        return row.obs, row.rewards, row.terminated | row.truncated, ()

    def close(self) -> None:
        """Stops EnvPool's threads."""
        self._env.close()


class Wrapper:
    """gym.Wrapper as far as ppo_atari_envpool.py derives from it."""

    def __init__(self, env: Any) -> None:
        self.env = env

    def __getattr__(self, name: str) -> Any:
        return getattr(self.env, name)

    def reset(self, **options: Any) -> Any:
        """Passes on."""
        return self.env.reset(**options)

    def step(self, actions: Array) -> Any:
        """Passes on."""
        return self.env.step(actions)


class UpdateWriter:
    """The scripts' TensorBoard writer: the last scalar of an update is its report."""

    def __init__(self, done: Callable[[], None]) -> None:
        self._done = done

    def add_scalar(self, name: str, *_: Any) -> None:
        """Drops the number."""
        if name == "charts/SPS":
            self._done()

    def add_text(self, *_: Any) -> None:
        """Drops the text."""

    def close(self) -> None:
        """Nothing is open."""


def put_in_the_way(envs: ScriptEnvs, writer: UpdateWriter) -> None:
    """Gives the scripts our environments and writer where they import theirs."""
    gym = ModuleType("gym")
    vector = SimpleNamespace(SyncVectorEnv=lambda thunks: envs)
    vars(gym).update(spaces=gymnasium.spaces, vector=vector, Wrapper=Wrapper)
    tensorboard = ModuleType("torch.utils.tensorboard")
    vars(tensorboard)["SummaryWriter"] = lambda folder: writer
    sys.modules.update({"gym": gym, "torch.utils.tensorboard": tensorboard})
    vars(gymnasium.vector)["SyncVectorEnv"] = vector.SyncVectorEnv
    vars(envpool)["make"] = lambda *_, **__: envs
    # gone from Python 3.12
    distutils, util = ModuleType("distutils"), ModuleType("distutils.util")
    vars(util)["strtobool"] = lambda text: text == "True"
    sys.modules.update({"distutils": distutils, "distutils.util": util})


def script_of(task: Task) -> str:
    """The script that trains this kind of task.

    Raises:
        UserError: its constants are not what the config asks for.
    """
    config, spec = task.config, task.spec
    task.refuse("CleanRL", "dual_clip", "target_kl", "anneal_clip")
    fixed = {"adam_eps": 1e-5, "log_std_init": 0.0}
    for name, value in fixed.items():
        if (asked := getattr(config, name)) != value:
            raise UserError(f"{name}: {asked!r} is not to be had from CleanRL; it has {value}")
    if spec.family == "atari" and task.reads_images:
        return "ppo_atari_envpool.py"
    if (
        task.reads_images
        or len(spec.obs_shape) > 1
        or (spec.nvec is not None and len(spec.nvec) > 1)
    ):
        raise UserError(f"env_id: {config.env_id!r} is served by none of CleanRL's PPO scripts")
    return "ppo.py" if spec.is_discrete else "ppo_continuous_action.py"


def arguments(task: Task) -> list[str]:
    """The script's command line."""
    config = task.config
    values: dict[str, Any] = {name: getattr(config, name) for name in FLAGS}
    values |= {
        "total_timesteps": config.num_updates * config.batch_size,
        "max_grad_norm": config.max_grad_norm or float("inf"),
        "cuda": task.device != "cpu",
        "torch_deterministic": False,
    }
    return [
        word for key, value in values.items() for word in (f"--{key.replace('_', '-')}", str(value))
    ]


def work_of(task: Task, agent: Any) -> dict[str, Any]:
    """The manifest, from the script's own network."""
    images = task.reads_images
    device = next(agent.parameters()).device
    obs = torch.zeros(1, *task.spec.obs_shape, device=device)
    return task.work(
        parameters=sum(p.numel() for p in agent.parameters()),
        forward_flops=contract.forward_flops(agent.get_action_and_value, obs),
        trains_on_reset_rows=images,
        network="nature_cnn 512, one trunk" if images else "mlp 64-64 tanh, two trunks",
    )


def train(task: Task, report: contract.Reporter) -> None:
    """Trains to the config's total_timesteps."""
    script = script_of(task)
    env: AutoresetEnv | NextStepEnv = NextStepEnv(task) if task.reads_images else task.make_env()
    info = task.info(version("cleanrl"), NOTES.format(script=script))

    def built() -> None:
        # runpy has the running script under this name
        report.ready(work_of(task, vars(sys.modules["__main__"])["agent"]), info)

    envs = ScriptEnvs(env, built, gymnasium_api=script == "ppo_continuous_action.py")
    put_in_the_way(envs, UpdateWriter(lambda: report_update(report, env)))
    path = str(resources.files("cleanrl") / script)
    sys.argv = [path, *arguments(task)]
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        runpy.run_path(path, run_name="__main__")


if __name__ == "__main__":
    serve(train)
