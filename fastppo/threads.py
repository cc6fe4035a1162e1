"""How a run divides the cores between EnvPool and torch."""

from dataclasses import dataclass

from fastppo import cgroups
from fastppo.config import Config
from fastppo.devices import is_gpu
from fastppo.policy import is_image
from fastppo.tasks import EnvSpec


@dataclass(frozen=True, slots=True)
class ThreadPlan:
    """Threads of each pool; they run in turn, so each may have every core."""

    env_threads: int
    torch_threads: int


def plan(config: Config, spec: EnvSpec) -> ThreadPlan:
    """The configured numbers, or a choice by the kind of work.

    A small MLP is fastest on one torch thread: its products take microseconds, and handing them
    out costs more (measured on two cores: acting on 8 rows 75 us on one thread, 600 us on two
    passively waiting ones). The step of classic control is as short, so one EnvPool thread does.
    """
    cores = cgroups.available_cores()
    on_gpu = is_gpu(config.device)
    image = is_image(spec.obs_shape) and config.network != "mlp"
    short_step = spec.family in ("classic_control", "toy_text")
    # beside a GPU torch's other threads have little to do, and spin where EnvPool needs the core
    env_threads = config.env_threads or (1 if short_step else min(cores, config.num_envs))
    return ThreadPlan(env_threads, config.torch_threads or (cores if image and not on_gpu else 1))
