"""The loop on real environments: same seed same bits, exact resume, resets count nowhere."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fastppo import presets
from fastppo import trainer as module
from fastppo.config import Config
from fastppo.envs import StepResult
from fastppo.errors import Diverged
from fastppo.run import loop
from fastppo.tasks import describe
from fastppo.trainer import Trainer

TASKS = ["CartPole-v1", "Pendulum-v1", "Hopper-v4"]


def small(env_id: str, **changes: Any) -> Config:
    preset = presets.PRESETS[presets.preset_for(describe(env_id))]
    sizes = dict(num_envs=4, num_steps=64, num_minibatches=4, update_epochs=2)
    return Config(env_id=env_id, **(preset | sizes | changes))


@contextmanager
def trainer(config: Config, state: dict[str, Any] | None = None) -> Iterator[Trainer]:
    made = Trainer(config, state=state)
    try:
        yield made
    finally:
        made.close()


def through_a_file(state: dict[str, Any]) -> Any:
    """The state as it comes back from a checkpoint."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def without_times(metrics: dict[str, Any]) -> dict[str, Any]:
    timed = ("time/", "wall_time", "env_steps_per_s", "frames_per_s")
    return {key: value for key, value in metrics.items() if not key.startswith(timed)}


@pytest.mark.parametrize("env_id", [*TASKS, "Pong-v5"])
def test_same_seed_gives_the_same_bits(env_id: str) -> None:
    sizes = dict(num_steps=16, num_envs=2) if env_id == "Pong-v5" else {}
    runs = []
    for _ in range(2):
        with trainer(small(env_id, **sizes)) as run:
            metrics = [without_times(run.run_update()) for _ in range(3)]
            runs.append((metrics, run.engine.optimizer.parameter.detach().clone()))

    assert runs[0][0] == runs[1][0]
    assert torch.equal(runs[0][1], runs[1][1])


def test_a_gpu_named_by_number_becomes_the_current_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Events and streams are made on the current device; the timer's must be on the run's own."""

    class Chosen(Exception):
        pass

    def choose(device: torch.device) -> None:
        raise Chosen(device.index)

    monkeypatch.setattr(module, "resolve_device", torch.device)
    monkeypatch.setattr(torch.cuda, "set_device", choose)

    with pytest.raises(Chosen, match=r"^1$"):
        Trainer(small("CartPole-v1", device="cuda:1"))


def test_another_seed_gives_another_run() -> None:
    returns = []
    for seed in (1, 2):
        with trainer(small("CartPole-v1", seed=seed)) as run:
            returns.append(run.run_update()["episode/return"])

    assert returns[0] != returns[1]


@pytest.mark.parametrize("env_id", TASKS)
def test_resumed_run_updates_exactly_as_the_uninterrupted_one(env_id: str) -> None:
    """Two updates, a checkpoint, and a third on the same batch: every parameter, moment and
    statistic is equal to the last bit."""
    with trainer(small(env_id)) as first:
        for _ in range(2):
            first.run_update()
        state = through_a_file(first.state())
        with trainer(small(env_id), state) as second:
            first.collect()
            for name in ("actions", "log_probs", "values", "rewards", "terminated", "truncated",
                         "valid", "advantages", "returns"):  # fmt: skip
                getattr(second.rollout, name).copy_(getattr(first.rollout, name))
            for name in ("obs", "inputs"):
                getattr(second.rollout.store, name).copy_(getattr(first.rollout.store, name))
            if first.reward_scaler is not None and second.reward_scaler is not None:
                # collecting moved the reward statistics on; the batch carries that with it
                second.reward_scaler.load_state_dict(first.reward_scaler.state_dict())
            for run in (first, second):
                run.engine.update(run.rollout, run.update)
                run.rollout.update_obs_statistics()
                run.update += 1
            ours, theirs = first.state(), second.state()

    assert second.update == 3
    assert ours["global_step"] == theirs["global_step"] > 0
    flattened = zip(_leaves(ours), _leaves(theirs), strict=True)
    for (name, mine), (other_name, other) in flattened:
        if name == ".wall_time":
            continue

        assert name == other_name
        assert torch.equal(mine, other) if isinstance(mine, torch.Tensor) else mine == other, name


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, f"{name}.{key}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _leaves(item, f"{name}[{index}]")
    else:
        yield name, value


def test_a_resumed_run_sees_new_episodes() -> None:
    with trainer(small("CartPole-v1")) as first:
        opening = first.rollout.store.row(-1).clone()
        first.run_update()
        state = through_a_file(first.state())
    with trainer(small("CartPole-v1"), state) as second:
        assert not torch.equal(second.rollout.store.row(-1), opening)


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Hopper-v4"])
def test_poisoned_reset_rows_change_no_metric(env_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """End to end: rewards and actions of reset rows are set to NaN and garbage as they arrive."""
    runs = []
    for poison in (False, True):
        with trainer(small(env_id)) as run:
            if poison:
                _poison(run, monkeypatch)
            metrics = [without_times(run.run_update()) for _ in range(3)]
            runs.append((metrics, through_a_file(run.state())))
    clean, poisoned = runs

    assert sum(row["env_steps"] for row in clean[0]) < 3 * 256  # there were reset rows
    assert clean[0] == poisoned[0]
    for (name, mine), (_, other) in zip(_leaves(clean[1]), _leaves(poisoned[1]), strict=True):
        if isinstance(mine, torch.Tensor):
            assert torch.equal(mine, other), name


def _poison(run: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = run.rollout.stage

    def poisoned(t: int, step: StepResult) -> None:
        reset = torch.from_numpy(~step.valid)
        garbage = float("nan") if run.rollout.actions.is_floating_point() else -12345
        run.rollout.actions[t][reset] = garbage
        run.rollout.log_probs[t][reset] = float("nan")
        stage(t, step._replace(rewards=np.where(step.valid, step.rewards, np.nan)))

    monkeypatch.setattr(run.rollout, "stage", poisoned)


def test_steps_are_counted_by_valid_rows() -> None:
    """An independent count from the environment's own flags."""
    with trainer(small("CartPole-v1", engine="eager")) as run:
        counted = 0
        step = run.env.step

        def counting(actions: Any) -> StepResult:
            nonlocal counted
            result = step(actions)
            counted += int(result.valid.sum())
            return result

        run.env.step = counting  # type: ignore[method-assign]
        metrics = [run.run_update() for _ in range(3)]

    assert sum(row["env_steps"] for row in metrics) == counted < 3 * 256
    assert metrics[-1]["global_step"] == counted
    assert metrics[-1]["env_steps_per_s"] == pytest.approx(
        metrics[-1]["env_steps"] / metrics[-1]["time/total"]
    )


def test_phases_sum_to_the_total() -> None:
    with trainer(small("Pendulum-v1")) as run:
        run.run_update()
        metrics = run.run_update()
    phases = [
        metrics[f"time/{name}"] for name in ("env", "policy", "copy", "gae", "update", "other")
    ]

    assert min(phases) >= 0
    assert sum(phases) == pytest.approx(metrics["time/total"])
    assert metrics["time/other"] < 0.2 * metrics["time/total"]


def test_too_many_skipped_steps_stop_the_run_with_good_parameters() -> None:
    with trainer(small("CartPole-v1", engine="eager", max_skipped_steps=5)) as run:
        before = run.engine.optimizer.parameter.detach().clone()
        step = run.env.step
        run.env.step = lambda actions: step(actions)._replace(  # type: ignore[method-assign]
            rewards=np.full(4, np.nan, np.float32)
        )

        assert run.run_update()["skipped_steps"] == 8
        with pytest.raises(Diverged, match=r"max_skipped_steps: 8 optimizer steps"):
            loop.check_diverged(run.skipped_steps, run.config)

        assert torch.equal(run.engine.optimizer.parameter, before)
        assert run.update == 1


def test_first_ratio_is_one() -> None:
    """Log-probs stored while acting equal those of the first minibatch: old_approx_kl is 0."""
    for env_id in TASKS:
        config = small(env_id, num_minibatches=1, update_epochs=1)
        with trainer(config) as run:
            metrics = run.run_update()

        assert abs(metrics["loss/old_approx_kl"]) < 1e-6
        assert metrics["loss/clip_frac"] == 0.0


class CountSyncs(TorchDispatchMode):
    """Counts operations that would make a GPU's host wait."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.syncs = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.syncs += any(name in str(func) for name in ("_local_scalar_dense", "nonzero"))
        return func(*args, **(kwargs or {}))


def test_collecting_and_updating_read_no_value_back() -> None:
    """DESIGN 4, rule 1: metrics cross to the host once per update."""
    with trainer(small("Hopper-v4", backend="torch")) as run, CountSyncs() as counter:
        run.collect()
        run.engine.update(run.rollout, 0)
        run.rollout.update_obs_statistics()
    with CountSyncs() as control:
        torch.ones(()).item()

    assert counter.syncs == 0
    assert control.syncs == 1
