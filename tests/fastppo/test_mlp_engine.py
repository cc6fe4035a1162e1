"""The engine for small MLPs does what the eager one does."""

import re
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastppo.config import Config, Network
from fastppo.engines import Engine, choose, make_engine
from fastppo.errors import Interrupted, UserError
from fastppo.kernels.mlp import numba_update
from fastppo.mlp_engine import MlpEngine
from fastppo.normalize import ObsNormalizer
from fastppo.observations import PlainStore
from fastppo.policy import ACTIVATIONS, ActorCritic
from fastppo.ppo import EagerEngine
from fastppo.rollout import Rollout
from fastppo.second_thread import SecondThread
from fastppo.tasks import EnvSpec, spec_of

CPU = torch.device("cpu")
CLOSE: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-5}


def make_spec(nvec: tuple[int, ...] | None, obs_shape: tuple[int, ...] = (5,)) -> EnvSpec:
    heads = 3 if nvec is None else len(nvec)
    floats = np.dtype(np.float32)
    return EnvSpec("CartPole-v1", "classic_control", obs_shape, floats, heads, nvec, 1)


def make_config(**changes: Any) -> Config:
    sizes: dict[str, Any] = {"num_steps": 16, "num_envs": 4, "num_minibatches": 4}
    return Config(env_id="CartPole-v1", **(sizes | changes))


def make_pair(config: Config, spec: EnvSpec) -> tuple[Engine, Engine]:
    """The engine under test and the eager one, with the same weights, none of them zero."""
    engines = []
    for name in ("mlp", "eager"):
        torch.manual_seed(0)
        policy = ActorCritic(spec, config)
        chosen = Config(**(config.to_dict() | {"engine": name}))
        engine = make_engine(policy, chosen, choose(chosen, spec, "numba", CPU))
        with torch.no_grad():
            parameter = engine.optimizer.parameter
            parameter.add_(0.1 * torch.randn(parameter.shape))
        engines.append(engine)
    assert not isinstance(engines[0], EagerEngine)
    assert isinstance(engines[1], EagerEngine)
    return engines[0], engines[1]


def make_rollout(config: Config, spec: EnvSpec, engine: Engine) -> Rollout:
    """Random numbers, acted on by the engine, with ends and reset rows."""
    generator = torch.Generator().manual_seed(1)
    rollout = Rollout(config, spec, CPU)
    rows = (config.num_steps, config.num_envs)
    assert isinstance(rollout.store, PlainStore)
    rollout.store.obs.copy_(torch.randn(rollout.store.obs.shape, generator=generator))
    ended = torch.rand(rows, generator=generator) < 0.2
    for t in range(config.num_steps):
        engine.act(rollout, t, t)
        if t:
            rollout.valid[t] = ~(ended[t - 1] & rollout.valid[t - 1])
    # ratios away from 1, so that clipping has something to do
    rollout.log_probs += 0.2 * torch.randn(rows, generator=generator)
    rollout.terminated.copy_(ended & rollout.valid)
    rollout.rewards.copy_(torch.randn(rows, generator=generator))
    engine.bootstrap(rollout)
    rollout.finish(None)
    return rollout


def acted(engine: Engine, config: Config, spec: EnvSpec, norm_obs: bool = False) -> Rollout:
    """A rollout of random observations with the engine's decisions on them."""
    generator = torch.Generator().manual_seed(2)
    normalizer = ObsNormalizer(spec.obs_shape, clip=1.5) if norm_obs else None
    rollout = Rollout(config, spec, CPU, normalizer)
    assert isinstance(rollout.store, PlainStore)
    rollout.store.obs.copy_(torch.randn(rollout.store.obs.shape, generator=generator))
    rollout.update_obs_statistics()
    for t in range(config.num_steps):
        returned = engine.act(rollout, t, 7 + t)
        assert np.array_equal(returned, rollout.actions[t].numpy())
    engine.bootstrap(rollout)
    return rollout


@settings(max_examples=40, deadline=None)
@given(
    nvec=st.sampled_from([(2,), (6,), (3, 2), None]),
    hidden_sizes=st.lists(st.integers(1, 20), min_size=1, max_size=3).map(tuple),
    activation=st.sampled_from(list(ACTIVATIONS)),
    shared_trunk=st.booleans(),
    clip_vloss=st.booleans(),
    dual_clip=st.sampled_from([None, 2.0]),
    norm_adv=st.booleans(),
    max_grad_norm=st.sampled_from([0.0, 0.1, 0.5]),
    target_kl=st.sampled_from([None, 1e-3, 10.0]),
    num_minibatches=st.sampled_from([1, 2, 4, 64]),  # 64: one row each, some of them invalid
)
def test_an_update_equals_the_eager_one(nvec: tuple[int, ...] | None, **changes: Any) -> None:
    config = make_config(ent_coef=0.01, **changes)
    spec = make_spec(nvec)
    mlp, eager = make_pair(config, spec)
    rollout = make_rollout(config, spec, eager)
    for update in range(2):
        expected = eager.update(rollout, update).to_host()
        actual = mlp.update(rollout, update).to_host()
        assert actual == pytest.approx(expected, rel=1e-3, abs=1e-4)
        torch.testing.assert_close(mlp.optimizer.parameter, eager.optimizer.parameter, **CLOSE)
        gradient = mlp.optimizer.parameter.grad
        assert gradient is not None
        assert not gradient.any()


@pytest.mark.parametrize("nvec", [(2,), (3, 2), None])
@pytest.mark.parametrize("shared_trunk", [False, True])
@pytest.mark.parametrize("obs_shape", [(5,), (2, 3)])
@pytest.mark.parametrize("norm_obs", [False, True])
def test_it_acts_as_the_eager_one(
    nvec: tuple[int, ...] | None, shared_trunk: bool, obs_shape: tuple[int, ...], norm_obs: bool
) -> None:
    config, spec = make_config(shared_trunk=shared_trunk), make_spec(nvec, obs_shape)
    ours, theirs = (acted(engine, config, spec, norm_obs) for engine in make_pair(config, spec))
    for name in ("actions", "log_probs", "values"):
        actual, expected = getattr(ours, name), getattr(theirs, name)
        torch.testing.assert_close(actual, expected, **CLOSE)
    assert torch.equal(ours.store.row(3), theirs.store.row(3))


@pytest.mark.parametrize("rows", [1, 8, 64])
def test_it_draws_from_the_logits_of_fresh_weights(rows: int) -> None:
    """Logits near 0, which a buffer freed too early and written again is not."""
    spec = make_spec((2,), (4,))
    config = make_config(num_envs=rows)
    acts = []
    for name in ("mlp", "eager"):
        torch.manual_seed(0)
        chosen = Config(**(config.to_dict() | {"engine": name}))
        choice = choose(chosen, spec, "numba", CPU)
        engine = make_engine(ActorCritic(spec, chosen), chosen, choice)
        acts.append(acted(engine, config, spec).log_probs)
    torch.testing.assert_close(*acts, rtol=0.0, atol=1e-7)


def test_it_goes_on_from_the_other_ones_checkpoint() -> None:
    config, spec = make_config(), make_spec((3,))
    mlp, eager = make_pair(config, spec)
    rollout = make_rollout(config, spec, eager)
    eager.update(rollout, 0)
    mlp.policy.load_state_dict(eager.policy.state_dict())
    # copied, as a file would: torch takes over the tensors themselves
    mlp.optimizer.adam.load_state_dict(deepcopy(eager.optimizer.adam.state_dict()))
    for engine in (mlp, eager):
        engine.update(rollout, 1)
    torch.testing.assert_close(mlp.optimizer.parameter, eager.optimizer.parameter, **CLOSE)


def test_a_step_that_is_not_finite_is_skipped() -> None:
    config, spec = make_config(), make_spec((3,))
    mlp, eager = make_pair(config, spec)
    rollout = make_rollout(config, spec, eager)
    rollout.returns[2, 1] = float("nan")
    rollout.valid[2, 1] = True
    ours, theirs = (engine.update(rollout, 0).to_host() for engine in (mlp, eager))
    assert ours["skipped_steps"] == theirs["skipped_steps"] == config.update_epochs
    torch.testing.assert_close(mlp.optimizer.parameter, eager.optimizer.parameter, **CLOSE)


@pytest.mark.parametrize("nvec", [(3,), None])
@pytest.mark.parametrize("engine", ["mlp", "eager", "eager, torch"])
def test_a_minibatch_without_a_valid_row_takes_no_step(
    nvec: tuple[int, ...] | None, engine: str
) -> None:
    """Adam's momentum would move the weights without a gradient."""
    backend = "torch" if "torch" in engine else "auto"
    config, spec = make_config(backend=backend, update_epochs=1), make_spec(nvec)
    chosen = make_pair(config, spec)[engine != "mlp"]
    rollout = make_rollout(config, spec, chosen)
    chosen.update(rollout, 0)  # momentum
    state = chosen.optimizer.adam.state[chosen.optimizer.parameter]
    kept = [chosen.optimizer.parameter, *state.values()]
    before = deepcopy(kept)
    rollout.valid.fill_(False)
    for field in (rollout.rewards, rollout.advantages, rollout.returns, rollout.log_probs):
        field.fill_(float("nan"))

    stats = chosen.update(rollout, 1).to_host()

    assert all(torch.equal(a, b) for a, b in zip(kept, before, strict=True))
    assert stats["optimizer_steps"] == 0
    assert stats["skipped_steps"] == 0
    assert np.isfinite(list(stats.values())).all()


@pytest.mark.parametrize("engine", ["mlp", "eager"])
def test_minibatches_without_a_valid_row_are_not_in_the_kl_that_stops(engine: str) -> None:
    """Half of the rows, one each: with the others as zeros the mean would be half of it."""
    spec, steps = make_spec((3,)), []
    target_kl: float | None = None
    for _ in range(2):
        config = make_config(
            num_minibatches=64, update_epochs=2, learning_rate=1e-12, target_kl=target_kl
        )
        chosen = make_pair(config, spec)[engine != "mlp"]
        rollout = make_rollout(config, spec, chosen)
        rollout.valid.copy_((torch.arange(64) % 2 == 0).view_as(rollout.valid))
        stats = chosen.update(rollout, 0).to_host()
        steps.append(stats["optimizer_steps"])
        target_kl = 0.75 * stats["approx_kl"]
    assert steps == [64, 32]


def test_the_same_rollout_gives_the_same_bits() -> None:
    config, spec = make_config(), make_spec(None)
    results = []
    for _ in range(2):
        mlp, eager = make_pair(config, spec)
        mlp.update(make_rollout(config, spec, eager), 0)
        results.append(mlp.optimizer.parameter.detach())
    assert torch.equal(*results)


@pytest.mark.parametrize("nvec", [(2,), (3, 2), None])
def test_two_threads_compute_the_bits_of_one(nvec: tuple[int, ...] | None) -> None:
    config, spec = make_config(target_kl=0.02, num_steps=64), make_spec(nvec)
    results = []
    for second in (False, True):
        mlp, eager = make_pair(config, spec)
        assert isinstance(mlp, MlpEngine)
        mlp._second._choice = second
        rollout = make_rollout(config, spec, eager)
        rollout.valid[: config.num_steps // 2] = False  # minibatches without a valid row, too
        rollout.returns[-1, 0] = float("nan")
        stats = [mlp.update(rollout, update).to_host() for update in range(3)]
        results.append((stats, mlp.optimizer.parameter.detach()))
    (ours, parameter), (theirs, other) = results
    assert ours == theirs
    assert torch.equal(parameter, other)
    assert ours[0]["skipped_steps"] > 0


def test_an_update_that_is_given_up_ends_the_second_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config, spec = make_config(), make_spec(None)
    mlp, eager = make_pair(config, spec)
    assert isinstance(mlp, MlpEngine)
    mlp._second._choice = True
    rollout = make_rollout(config, spec, eager)
    started = []
    start = mlp._second.start

    def watched(*arguments: Any) -> Any:
        started.append(start(*arguments))
        return started[-1]

    monkeypatch.setattr(mlp._second, "start", watched)

    def interrupted(*_: Any) -> None:
        raise Interrupted(15)

    with monkeypatch.context() as patch:
        patch.setattr(numba_update, "update_kernel", interrupted)
        with pytest.raises(Interrupted):
            mlp.update(rollout, 0)

    started[0].result(timeout=30)
    assert mlp.update(rollout, 0).to_host()["optimizer_steps"] > 0


def test_a_shared_trunk_has_no_second_thread() -> None:
    config, spec = make_config(shared_trunk=True), make_spec(None)
    mlp, eager = make_pair(config, spec)
    assert isinstance(mlp, MlpEngine)
    assert mlp._second._choice is False
    mlp.update(make_rollout(config, spec, eager), 0)


@pytest.mark.parametrize(("pays", "choice"), [(0.5, True), (0.99, False), (2.0, False)])
def test_the_second_thread_is_kept_where_it_pays(
    pays: float, choice: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("fastppo.second_thread.time.perf_counter", lambda: now)
    thread = SecondThread(allowed=True)
    seen = []
    for turn in range(12):
        with thread.turn() as second:
            seen.append(second)
            # a disturbance, and cold first turns
            now += (pays if second else 1.0) + (5.0 if turn in (0, 1, 4, 5) else 0.0)

    assert seen[:8] == [False, True] * 4
    assert seen[8:] == [choice] * 4


@pytest.mark.parametrize(
    ("backend", "nvec", "reason"),
    [("torch", (2,), "the backend is torch"), ("numba", (200,), "up to 128 logits, not 200")],
)
def test_what_it_cannot_run_is_refused(backend: str, nvec: tuple[int, ...], reason: str) -> None:
    spec = make_spec(nvec)
    with pytest.raises(UserError, match=reason):
        choose(make_config(engine="mlp"), spec, backend, CPU)

    chosen = choose(make_config(), spec, backend, CPU)
    assert chosen.name == "eager"
    assert re.search(reason, chosen.reason)


def test_images_are_refused() -> None:
    refused: dict[Network, str] = {"auto": "reads images by a CNN", "mlp": "are stacks of frames"}
    for network, reason in refused.items():
        config = Config(env_id="Pong-v5", engine="mlp", network=network)
        with pytest.raises(UserError, match=f"{reason}; use eager or auto"):
            choose(config, spec_of(config), "numba", CPU)


def test_auto_takes_it_for_an_mlp_on_a_cpu() -> None:
    assert make_config().engine == "auto"
    assert choose(make_config(), make_spec(None), "numba", CPU).name == "mlp"
    assert choose(make_config(engine="eager"), make_spec(None), "numba", CPU).name == "eager"
    assert choose(make_config(), make_spec(None), "triton", CPU).name == "eager"


@pytest.mark.parametrize("norm_obs", [False, True])
def test_bytes_are_read_as_floats(norm_obs: bool) -> None:
    """Observations of uint8 that are no image."""
    config = make_config()
    spec = replace(make_spec((3,)), obs_dtype=np.dtype(np.uint8))
    rollouts = []
    for engine in make_pair(config, spec):
        normalizer = ObsNormalizer((5,), clip=2.0) if norm_obs else None
        rollout = Rollout(config, spec, CPU, normalizer)
        rng = np.random.default_rng(4)
        for t in range(config.num_steps + 1):
            obs = rng.integers(0, 9, (config.num_envs, 5), np.uint8)
            rollout.store.stage(t, obs, np.ones(config.num_envs, np.bool_))
            if t < config.num_steps:
                engine.act(rollout, t, t)
        engine.bootstrap(rollout)
        rollout.finish(None)
        stats = engine.update(rollout, 0).to_host()
        rollouts.append((rollout, stats))
    (ours, stats), (theirs, expected) = rollouts
    torch.testing.assert_close(ours.values, theirs.values, **CLOSE)
    assert torch.equal(ours.actions, theirs.actions)
    assert stats == pytest.approx(expected, rel=1e-3, abs=1e-4)
