"""What no trainer can exceed here: EnvPool alone, the rollout alone, the update alone."""

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np

from fastppo.bench.contract import CEILINGS, Reporter, manifest
from fastppo.bench.launch.pools import draw_actions
from fastppo.bench.launch.request import Request, config_of
from fastppo.config import Config
from fastppo.pools import direct_step, make_pool

STRETCH_S = 0.25
"""Of one ceiling before the next has its turn: back to back, as in a run that did nothing else."""
PROBES = 5
"""Rollouts of each way to step EnvPool, before one is chosen."""


class RandomActions:
    """EnvPool with actions drawn before the clock starts: the ceiling of every trainer that steps
    these environments with these threads.

    There are two ways to step it, the public `step` and what lies below it; the faster of the two
    here is the ceiling. `path` names it.
    """

    def __init__(self, config: Config, env_threads: int) -> None:
        self.config = config
        self.pool = make_pool(config, range(config.num_envs), num_threads=env_threads)
        self._actions = draw_actions(self.pool, config.num_envs, config.seed)
        self._done = np.zeros(config.num_envs, bool)
        self.pool.reset()
        ways = {"step": self.pool.step, "send/recv": direct_step(self.pool)}
        self.path, self._step = self._faster({name: way for name, way in ways.items() if way})

    def _faster(self, ways: dict[str, Callable[..., Any]]) -> tuple[str, Callable[..., Any]]:
        """The way with the lower median over PROBES rollouts, taken in turns."""
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(PROBES):
            for name, self._step in ways.items():
                begin = time.perf_counter()
                self.run()
                seconds[name].append(time.perf_counter() - begin)
        name = min(ways, key=lambda one: median(seconds[one]))
        return name, ways[name]

    def run(self) -> int:
        """T steps of N environments; nothing is kept.

        Returns:
            Transitions; reset rows do not count.
        """
        env_steps = 0
        for t in range(self.config.num_steps):
            actions = self._actions[t % len(self._actions)]
            _, _, terminated, truncated, _ = self._step(actions)
            env_steps += int((~self._done).sum())
            # a game over cut by the time limit is done either way: no need to tell them apart
            self._done = terminated | truncated
        return env_steps


def run(request: Request, report: Reporter) -> None:
    """Serves the three in turn, one line per rollout's worth, named in the line."""
    import torch

    from fastppo.trainer import Trainer

    config = config_of(request)
    alone = RandomActions(config, config.env_threads)
    trainer = Trainer(config, clock=report.clock)

    def rollout() -> int:
        trainer.collect()
        return int(trainer.rollout.valid.sum())

    def update() -> int:
        trainer.engine.update(trainer.rollout, 0).to_host()
        return int(trainer.rollout.valid.sum())

    rollout()
    work = manifest.of_trainer(config, trainer.spec, trainer.policy, trainer.policy)
    report.ready(work, {"torch_threads": torch.get_num_threads(), "envpool_path": alone.path})
    ways: dict[str, Callable[[], int]] = dict(
        zip(CEILINGS, (alone.run, rollout, update), strict=True)
    )
    while True:
        for name in CEILINGS:
            begin = report.clock()
            while True:
                report.update(env_steps=ways[name](), ceiling=name)
                if report.clock() - begin >= STRETCH_S:
                    break
