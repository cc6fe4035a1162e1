"""Implementations for tests/bench/train/test_train.py, given to `--impl name=module:function`."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np


class CountedPool:
    """An EnvPool that counts transitions by itself, from the ids and counters EnvPool hands out.

    `elapsed_step` is 0 on the row that a reset returns, in games that lose no lives.
    """

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self.by_id: dict[int, int] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def step(self, *args: Any) -> Any:
        answer = self._pool.step(*args)
        info = answer[4]
        for env_id in np.asarray(info["env_id"])[np.asarray(info["elapsed_step"]) > 0]:
            self.by_id[int(env_id)] = self.by_id.get(int(env_id), 0) + 1
        return answer


def fastppo(request: dict[str, Any], report: Any) -> None:
    """fastppo that also writes a line per update: the clock and the transitions by environment."""
    from fastppo import pools
    from fastppo.bench.contract import manifest
    from fastppo.bench.launch.request import config_of
    from fastppo.trainer import Trainer

    pools.DRIVEN = ()  # by the public step, which is watched
    trainer = Trainer(config_of(request), clock=report.clock)
    counted = CountedPool(trainer.env.pool)
    trainer.env.pool = counted
    report.ready(manifest.of_trainer(trainer.config, trainer.spec, trainer.policy, trainer.policy))
    log = Path(os.environ["FASTPPO_TEST_LOG"])
    while True:
        metrics = trainer.run_update()
        with log.open("a") as file:
            file.write(json.dumps([report.clock(), sum(counted.by_id.values())]) + "\n")
        report.update(env_steps=metrics["env_steps"])


def slower(request: dict[str, Any], report: Any) -> None:
    """fastppo with 20% more work on purpose: after each update, as long again as a fifth of it."""
    from fastppo.bench.contract import manifest
    from fastppo.bench.launch.request import config_of
    from fastppo.trainer import Trainer

    trainer = Trainer(config_of(request), clock=report.clock)
    report.ready(manifest.of_trainer(trainer.config, trainer.spec, trainer.policy, trainer.policy))
    while True:
        begin = report.clock()
        metrics = trainer.run_update()
        end = report.clock()
        while report.clock() - end < 0.2 * (end - begin):
            pass
        report.update(env_steps=metrics["env_steps"])
