"""The graph engine on a CPU: what a GPU captures, run op by op, is what the eager engine runs."""

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fastppo import presets
from fastppo.config import Config, Engine
from fastppo.engines import choose
from fastppo.errors import UserError
from fastppo.graph_engine import GraphEngine
from fastppo.tasks import describe, spec_of
from fastppo.trainer import Trainer

TASKS: dict[str, dict[str, Any]] = {
    "CartPole-v1": {"norm_obs": True, "norm_reward": True},
    "Hopper-v4": {"target_kl": 1e-3},
    "Pong-v5": {},
}
CPU = torch.device("cpu")


def small(env_id: str, engine: Engine, **changes: Any) -> Config:
    preset = presets.PRESETS[presets.preset_for(describe(env_id))]
    sizes = dict(num_envs=3, num_steps=8, num_minibatches=2, update_epochs=2, device="cpu")
    return Config(env_id=env_id, engine=engine, **(preset | sizes | TASKS[env_id] | changes))


@pytest.mark.parametrize("env_id", TASKS)
def test_training_gives_the_numbers_of_the_eager_engine(env_id: str) -> None:
    """But for the step size, which is float32 on the device."""
    eager, graph = Trainer(small(env_id, "eager")), Trainer(small(env_id, "graph"))
    assert isinstance(graph.engine, GraphEngine)
    for _ in range(3):
        metrics = [run.run_update() for run in (eager, graph)]
        for name, value in metrics[0].items():
            if not name.startswith("time/") and not name.endswith(("per_s", "wall_time")):
                assert metrics[1][name] == pytest.approx(value, rel=1e-4, abs=1e-6), name
    for one in (eager, graph):
        one.close()

    parameters = [run.engine.optimizer.parameter for run in (eager, graph)]
    torch.testing.assert_close(*parameters, rtol=0.0, atol=1e-6)
    advantages = [run.rollout.advantages for run in (eager, graph)]
    torch.testing.assert_close(*advantages, rtol=1e-4, atol=1e-5)


class Recorder(TorchDispatchMode):
    """What each operator is called with: tensors from outside by address, others by order."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self._made: dict[int, int] = {}
        self._kept: list[Any] = []  # or an address would be given out twice

    def _name(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            storage = value.untyped_storage()
            where = self._made.get(storage._cdata, ("outside", storage.data_ptr()))
            return where, value.storage_offset(), tuple(value.shape), tuple(value.stride())
        if isinstance(value, list | tuple):
            return tuple(self._name(one) for one in value)
        return repr(value)

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        del types
        if str(function).startswith("profiler."):  # torch's Adam marks its steps
            return function(*args, **(kwargs or {}))
        named = self._name(args), self._name(sorted((kwargs or {}).items()))
        result = function(*args, **(kwargs or {}))
        for one in result if isinstance(result, list | tuple) else [result]:
            known = {a.untyped_storage()._cdata for a in args if isinstance(a, torch.Tensor)}
            if isinstance(one, torch.Tensor) and one.untyped_storage()._cdata not in known:
                self._made.setdefault(one.untyped_storage()._cdata, len(self._made))
                self._kept.append(one)
        self.calls.append((str(function), named))
        return result


def recorded(trainer: Trainer) -> list[Any]:
    """The calls of everything that a GPU captures, in order; each program is on its own."""
    engine = trainer.engine
    assert isinstance(engine, GraphEngine)
    calls = []
    for program in engine.programs():
        with Recorder() as recorder:
            program.work()
        calls.append(recorder.calls)
    return calls


@pytest.mark.parametrize("env_id", TASKS)
def test_a_second_run_calls_the_same_operators_on_the_same_memory(env_id: str) -> None:
    """What capture needs: else a replay would compute something else than the program."""
    run = Trainer(small(env_id, "graph", backend="torch"))
    run.run_update()
    first = recorded(run)
    run.run_update()
    second = recorded(run)
    run.close()

    assert len(first) == 8 + 3
    for before, after in zip(first, second, strict=True):
        assert before == after
    names = {name for calls in first for name, _ in calls}
    assert any("convolution" in name or "addmm" in name for name in names)
    assert not {name for name in names if "_local_scalar_dense" in name or "nonzero" in name}


def test_a_program_whose_memory_moves_is_found_out() -> None:
    """The recorder itself: a rebound result, as `finish` once had, turns it red."""
    run = Trainer(small("Hopper-v4", "graph", backend="torch"))
    run.run_update()
    first = recorded(run)
    run.rollout.values = run.rollout.values.clone()
    second = recorded(run)
    run.close()

    assert first != second


def test_what_it_cannot_run_is_refused() -> None:
    spec = spec_of(small("Hopper-v4", "graph"))
    with pytest.raises(UserError, match="backend is torch; use eager or auto"):
        choose(small("Hopper-v4", "graph"), spec, "torch", torch.device("cuda"))
    with pytest.raises(UserError, match="anneal_clip"):
        choose(small("Hopper-v4", "graph", anneal_clip=True), spec, "triton", torch.device("cuda"))


def test_auto_takes_it_on_a_gpu() -> None:
    config = small("Hopper-v4", "auto")
    assert choose(config, spec_of(config), "triton", torch.device("cuda")).name == "graph"
    assert choose(config, spec_of(config), "triton", CPU).name == "eager"
