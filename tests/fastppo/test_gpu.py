"""The trainer on a GPU: no host sync between collection and metrics, and the CPU's numbers."""

import warnings
from typing import Any

import pytest
import torch

from fastppo import presets
from fastppo.config import Config, Engine
from fastppo.tasks import describe
from fastppo.trainer import Trainer

pytestmark = pytest.mark.gpu
TASKS = ["CartPole-v1", "Hopper-v4", "Pong-v5"]
FIELDS = ("actions", "log_probs", "values", "rewards", "terminated", "truncated",
          "valid", "advantages", "returns")  # fmt: skip


def small(env_id: str, device: str, **changes: Any) -> Config:
    preset = presets.PRESETS[presets.preset_for(describe(env_id))]
    sizes = dict(num_envs=4, num_steps=32, num_minibatches=1, update_epochs=1, device=device)
    return Config(env_id=env_id, **(preset | sizes | changes))


@pytest.mark.parametrize("engine", ["eager", "graph"])
@pytest.mark.parametrize("env_id", TASKS)
def test_the_update_never_waits_for_the_device(env_id: str, engine: Engine) -> None:
    """DESIGN 4, rule 1."""
    sizes: dict[str, Any] = {"num_minibatches": 4, "update_epochs": 2, "target_kl": 0.1}
    run = Trainer(small(env_id, "cuda", engine=engine, **sizes))
    run.run_update()  # compiles
    run.collect()
    torch.cuda.synchronize()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls the mode a prototype
        torch.cuda.set_sync_debug_mode("error")
    try:
        run.engine.bootstrap(run.rollout)
        run.engine.finish(run.rollout, run.reward_scaler)
        stats = run.engine.update(run.rollout, 1)
        run.rollout.update_obs_statistics()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    run.close()

    assert stats.to_host()["optimizer_steps"] > 0


@pytest.mark.parametrize("env_id", TASKS)
def test_one_update_equals_that_of_the_cpu(env_id: str) -> None:
    """The same rollout, one minibatch of all rows: float32 on either side, other sum orders."""
    cpu, gpu = (
        Trainer(small(env_id, device, precision=precision))
        for device, precision in (("cpu", "auto"), ("cuda", "float32"))
    )
    cpu.collect()
    for name in FIELDS:
        getattr(gpu.rollout, name).copy_(getattr(cpu.rollout, name))
    for name in ("obs", "inputs", "frames", "age"):
        if hasattr(cpu.rollout.store, name):
            getattr(gpu.rollout.store, name).copy_(getattr(cpu.rollout.store, name))
    stats = [run.engine.update(run.rollout, 0).to_host() for run in (cpu, gpu)]
    parameters = [run.engine.optimizer.parameter.detach().cpu() for run in (cpu, gpu)]
    for run in (cpu, gpu):
        run.close()

    assert gpu.backend == "triton"
    # Adam's first step is the gradient's sign: where it is nearly 0 the sign may differ
    differing = (parameters[0] - parameters[1]).abs() > 1e-5
    assert differing.float().mean() < 1e-3
    for name, value in stats[0].items():
        assert stats[1][name] == pytest.approx(value, rel=1e-3, abs=1e-5), name


@pytest.mark.parametrize("env_id", TASKS)
def test_replays_give_the_numbers_of_the_eager_engine(env_id: str) -> None:
    """Also behind the first update, from which on graphs are replayed."""
    sizes: dict[str, Any] = {"num_minibatches": 4, "update_epochs": 2, "precision": "float32"}
    engines: tuple[Engine, ...] = ("eager", "graph")
    runs = [Trainer(small(env_id, "cuda", engine=engine, **sizes)) for engine in engines]
    for _ in range(4):
        eager, graph = (run.run_update() for run in runs)
        for name, value in eager.items():
            if name.startswith(("loss/", "episode/")):
                assert graph[name] == pytest.approx(value, rel=2e-2, abs=1e-3), name
    parameters = [run.engine.optimizer.parameter.detach() for run in runs]
    same = [torch.equal(run.rollout.actions, runs[0].rollout.actions) for run in runs]
    for run in runs:
        run.close()

    assert all(same)
    torch.testing.assert_close(*parameters, rtol=0.0, atol=2e-3)


def test_phases_are_timed_by_the_device() -> None:
    run = Trainer(small("Pong-v5", "cuda", num_steps=16))
    run.run_update()
    metrics = run.run_update()
    run.close()
    phases = [metrics[f"time/{name}"] for name in ("env", "policy", "copy", "gae", "update")]

    assert min(phases) > 0
    assert sum(phases) < 1.05 * metrics["time/total"]
