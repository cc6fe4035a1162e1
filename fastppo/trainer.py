"""The training loop: collect a rollout, learn from it, report; nothing else happens here."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from fastppo import checkpoint, limits, memory, randomness, threads
from fastppo.config import Config
from fastppo.devices import check_backend, resolve_device, set_precision
from fastppo.engines import choose, make_engine, operations
from fastppo.envs import VecEnv
from fastppo.kernels import api
from fastppo.normalize import ObsNormalizer, RewardScaler
from fastppo.own_envs import OwnEnvs
from fastppo.policy import ActorCritic, reads_images
from fastppo.rollout import Rollout
from fastppo.tasks import EnvSpec, spec_of
from fastppo.timing import PhaseTimer


def build_policy(config: Config, spec: EnvSpec, device: torch.device) -> ActorCritic:
    """A policy with the run's initial weights, the same on every device."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(randomness.init_seed(config.seed))
        return ActorCritic(spec, config).to(device)


def build_obs_normalizer(
    config: Config, spec: EnvSpec, device: torch.device
) -> ObsNormalizer | None:
    """The observation normaliser, where the run uses one."""
    if not config.norm_obs:
        return None
    return ObsNormalizer(spec.obs_shape, config.obs_clip, config.backend).to(device)


class Trainer:
    """Everything that one training run holds in memory.

    Args:
        config: the checked settings.
        state: a checkpoint to go on from; environments start new episodes, because EnvPool
            cannot restore them.
        own: trains on these in place of EnvPool's.
        check_stop: called before every environment step; raises to abandon the update.
        clock: host seconds for the times that are reported.

    Raises:
        UserError: the environment, device or backend cannot be had.
        MachineError: there is not the memory, or not the threads.
    """

    def __init__(
        self,
        config: Config,
        *,
        state: dict[str, Any] | None = None,
        own: OwnEnvs | None = None,
        check_stop: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        if own is not None:
            own.check(config)
        spec = spec_of(config) if own is None else own.spec
        self.config = config
        self.spec = spec
        self.device = resolve_device(config.device)
        if self.device.index is not None:  # where events and streams are made by default
            torch.cuda.set_device(self.device)
        self.backend = check_backend(config, self.device)
        self.engine_choice = choose(config, spec, self.backend, self.device)
        images = reads_images(spec, config)
        self.precision = set_precision(config, self.device, images=images)
        self.thread_plan = threads.plan(config, spec)
        torch.set_num_threads(self.thread_plan.torch_threads)
        memory.check(config, spec, self.device)
        self.policy = build_policy(config, spec, self.device)
        self.obs_normalizer = build_obs_normalizer(config, spec, self.device)
        self.reward_scaler: RewardScaler | None = None
        if config.norm_reward:
            self.reward_scaler = RewardScaler(config.num_envs, config.gamma, config.reward_clip)
            self.reward_scaler.to(self.device)
        self.rollout = Rollout(config, spec, self.device, self.obs_normalizer)
        self.update = 0 if state is None else int(state["update"])
        self.global_step = 0
        self.wall_time = 0.0
        self.skipped_steps = 0
        env_ids = range(config.num_envs)
        seeds = randomness.env_seeds(config.seed, env_ids, start_update=self.update)
        self.env = VecEnv(config, seeds, num_threads=self.thread_plan.env_threads, own=own)
        limits.check_threads(self.thread_plan.torch_threads + 2, "torch_threads")
        # only now: a mistake in the config is reported before the seconds that compiling takes
        begin = clock()
        on_gpu = self.device.type == "cuda"
        needed = operations(config, spec, self.engine_choice, on_gpu=on_gpu)
        api.warmup(self.device, config.backend, needed)
        self.engine = make_engine(self.policy, config, self.engine_choice)
        self.compile_s = clock() - begin
        if state is not None:
            self._restore(state)
        self.rollout.begin(self.env.reset())
        self.timer = PhaseTimer(self.device, clock)
        self._check_stop = check_stop

    def run_update(self) -> dict[str, Any]:
        """Collects one rollout and learns from it.

        Returns:
            Metrics of this update, plain numbers.
        """
        self.timer.drain()
        self.collect()
        with self.timer.phase("update"):
            stats = self.engine.update(self.rollout, self.update)
            self.rollout.update_obs_statistics()
            host_stats = stats.to_host()
        return self._metrics(host_stats)

    def collect(self) -> None:
        """Fills the rollout: T steps of N environments, advantages and returns."""
        timer, rollout = self.timer, self.rollout
        with timer.phase("policy"):
            rollout.open()
        first_step = self.update * self.config.num_steps
        t = 0
        while t < self.config.num_steps:
            self._check_stop()
            t += self.engine.play(self.env, rollout, t, first_step + t, timer)
        with timer.phase("copy"):
            rollout.upload()
        with timer.phase("policy"):
            self.engine.bootstrap(rollout)
        with timer.phase("gae"):
            self.engine.finish(rollout, self.reward_scaler)

    def _metrics(self, stats: dict[str, float]) -> dict[str, Any]:
        # of an episode without one valid step no return is known
        episodes = [episode for episode in self.env.episodes.drain() if episode[2] > 0]
        seconds = self.timer.drain()
        env_steps = int(stats.pop("valid_rows"))
        skipped = int(stats.pop("skipped_steps"))
        learning_rate = self.config.learning_rate_at(self.update)
        self.update += 1
        self.global_step += env_steps
        self.wall_time += seconds["total"]
        self.skipped_steps += skipped
        rate = env_steps / seconds["total"]
        metrics: dict[str, Any] = {
            "update": self.update,
            "global_step": self.global_step,
            "frames": self.global_step * self.spec.frame_skip,
            "wall_time": self.wall_time,
            "env_steps": env_steps,
            "env_steps_per_s": rate,
            "frames_per_s": rate * self.spec.frame_skip,
            "learning_rate": learning_rate,
            "skipped_steps": self.skipped_steps,
            "env/non_finite_rows": int(self.env.gate.rows.sum()),
            "episode/count": len(episodes),
        }
        if episodes:
            metrics["episode/return"] = float(np.mean([total for _, total, _ in episodes]))
            metrics["episode/length"] = float(np.mean([length for _, _, length in episodes]))
        metrics |= {f"loss/{name}": value for name, value in stats.items()}
        metrics |= {f"time/{name}": value for name, value in seconds.items()}
        return metrics

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds: tensors and plain values.

        Randomness is keyed, so there is no generator to save. The count of skipped steps starts
        again, so that a run that diverged can be resumed.
        """
        return {
            "config": self.config.to_dict(),
            "update": self.update,
            "global_step": self.global_step,
            "wall_time": self.wall_time,
            "policy": self.policy.state_dict(),
            "optimizer": self.engine.optimizer.adam.state_dict(),
            "obs_normalizer": self.obs_normalizer and self.obs_normalizer.state_dict(),
            "reward_scaler": self.reward_scaler and self.reward_scaler.state_dict(),
        }

    def _restore(self, state: dict[str, Any]) -> None:
        self.global_step = state["global_step"]
        self.wall_time = state["wall_time"]
        with checkpoint.fitting():
            self.policy.load_state_dict(state["policy"])
            self.engine.optimizer.adam.load_state_dict(state["optimizer"])
            if self.obs_normalizer is not None:
                self.obs_normalizer.load_state_dict(state["obs_normalizer"])
            if self.reward_scaler is not None:
                self.reward_scaler.load_state_dict(state["reward_scaler"])

    def close(self) -> None:
        """Stops the environments that are EnvPool's."""
        self.env.close()
