"""The child of `bench quick`: one implementation in a fresh process, run slice by slice on demand.

`python -m fastppo.bench.worker NAME` reads JSON requests from stdin and answers each with one JSON
line on stdout; at the end of stdin it stops. A request with a config opens a trainer in place of
the one before, the others run it:

    {"config": {...}, "env_threads": 0}   -> {"num_parameters": ..., "env_threads": ..., ...}
    {"seconds": 0.5, "torch_threads": 1}  -> {"env_steps": ..., "updates": ..., ...}

Between requests it blocks on stdin, so that only one worker computes at a time.
"""

import json
import os
import sys
import time
import warnings
from collections.abc import Iterable
from typing import IO, Any, Protocol

import numpy as np

from fastppo.bench.samples import PHASES
from fastppo.config import Config
from fastppo.envs import make_pool

IMPLEMENTATIONS = ("fastppo", "reference", "envpool")


class Runner(Protocol):
    """What a worker times."""

    def run_update(self) -> dict[str, Any]:
        """One rollout, learned from; metrics with `env_steps`."""
        ...

    def close(self) -> None: ...


class RandomActions:
    """EnvPool alone: the ceiling of any trainer that steps it with these threads."""

    def __init__(self, config: Config, env_threads: int) -> None:
        self.config = config
        self.pool = make_pool(config, range(config.num_envs), num_threads=env_threads)
        self._actions = self._draw(num_rows=64)
        self._done = np.zeros(config.num_envs, bool)
        self.pool.reset()

    def run_update(self) -> dict[str, Any]:
        """T steps of N environments; nothing is kept."""
        env_steps = 0
        for t in range(self.config.num_steps):
            _, _, terminated, truncated, _ = self.pool.step(self._actions[t % 64])
            env_steps += int((~self._done).sum())
            # a game over cut by the time limit is done either way: no need to tell them apart
            self._done = terminated | truncated
        return {"env_steps": env_steps}

    def close(self) -> None:
        self.pool.close()

    def _draw(self, num_rows: int) -> np.ndarray[Any, Any]:
        """Uniform actions, [num_rows, N, ...], drawn before the clock starts."""
        space = self.pool.action_space
        space.seed(self.config.seed)
        dtype = self.pool.spec.action_array_spec["action"].dtype
        rows = [[space.sample() for _ in range(self.config.num_envs)] for _ in range(num_rows)]
        return np.asarray(rows, dtype=dtype)


def open_runner(name: str, config: Config, env_threads: int) -> tuple[Runner, dict[str, Any]]:
    """Builds one implementation.

    Args:
        name: one of IMPLEMENTATIONS.
        env_threads: EnvPool's threads for `reference` and `envpool`; fastppo plans its own.

    Returns:
        The runner and a description of it; fields named in `quick.WORK` must agree between
        implementations.
    """
    if name == "envpool":
        return RandomActions(config, env_threads), {"env_threads": env_threads}
    # EnvPool alone needs no torch, and no threads of it
    import torch

    if name == "fastppo":
        from fastppo.train import Trainer

        trainer = Trainer(config)
        env_threads = trainer.thread_plan.env_threads
        return trainer, _describe(config, trainer.policy, env_threads, torch.get_num_threads())
    if name != "reference":
        raise ValueError(f"worker: {name!r} is none of {', '.join(IMPLEMENTATIONS)}")
    from fastppo.bench.reference import ReferenceTrainer

    reference = ReferenceTrainer(config, env_threads=env_threads)
    return reference, _describe(config, reference.agent, env_threads, torch.get_num_threads())


def _describe(config: Config, network: Any, env_threads: int, torch_threads: int) -> dict[str, Any]:
    return {
        "num_parameters": sum(p.numel() for p in network.parameters()),
        "batch_size": config.batch_size,
        "minibatch_size": config.minibatch_size,
        "update_epochs": config.update_epochs,
        "env_threads": env_threads,
        "torch_threads": torch_threads,
    }


def run_slice(runner: Runner, seconds: float) -> dict[str, Any]:
    """Whole updates, at least one, until `seconds` have passed.

    Returns:
        The fields of `samples.Sample`, and the optimizer steps taken.
    """
    env_steps = updates = optimizer_steps = 0
    phases: dict[str, float] = {}
    start = time.perf_counter()
    while updates == 0 or time.perf_counter() - start < seconds:
        metrics = runner.run_update()
        env_steps += metrics["env_steps"]
        optimizer_steps += int(metrics.get("loss/optimizer_steps", 0))
        updates += 1
        for phase in PHASES:
            if f"time/{phase}" in metrics:
                phases[phase] = phases.get(phase, 0.0) + metrics[f"time/{phase}"]
    return {
        "env_steps": env_steps,
        "updates": updates,
        "seconds": time.perf_counter() - start,
        "phases": phases,
        "optimizer_steps": optimizer_steps,
    }


def serve(name: str, requests: Iterable[str], answers: IO[str]) -> None:
    """Answers requests until there are no more."""
    runner: Runner | None = None
    for line in requests:
        request = json.loads(line)
        if "config" in request:
            if runner is not None:
                runner.close()
            config = Config.from_dict(request["config"])
            runner, answer = open_runner(name, config, request["env_threads"])
        else:
            assert runner is not None, "the first request opens"
            if "torch_threads" in request:
                import torch

                torch.set_num_threads(request["torch_threads"])
            answer = run_slice(runner, request["seconds"])
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    if runner is not None:
        runner.close()


def main() -> None:
    """Serves stdin; whatever a library prints goes to stderr and not among the answers."""
    warnings.simplefilter("ignore")  # gymnasium warns of float32 bounds, many lines a pool
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    serve(sys.argv[1], sys.stdin, answers)


if __name__ == "__main__":
    main()
