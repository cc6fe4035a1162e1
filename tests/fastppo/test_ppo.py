"""The update: skips what is not finite, stops by KL, sees no invalid row."""

from typing import Any

import numpy as np
import pytest
import torch

from fastppo import flat
from fastppo.adam import FlatAdam
from fastppo.adam_state import AdamState
from fastppo.config import Config
from fastppo.kernels import api
from fastppo.observations import PlainStore
from fastppo.policy import ActorCritic
from fastppo.ppo import EagerEngine
from fastppo.rollout import Rollout
from fastppo.tasks import EnvSpec

CPU = torch.device("cpu")
NAN = float("nan")


def make_spec(nvec: tuple[int, ...] | None) -> EnvSpec:
    heads = 3 if nvec is None else len(nvec)
    return EnvSpec("CartPole-v1", "classic_control", (5,), np.dtype(np.float32), heads, nvec, 1)


def make_config(**changes: Any) -> Config:
    return Config(
        env_id="CartPole-v1", num_steps=16, num_envs=4, num_minibatches=4, hidden_sizes=(8,),
        **changes,
    )  # fmt: skip


def make_engine(config: Config, nvec: tuple[int, ...] | None) -> EagerEngine:
    torch.manual_seed(0)
    return EagerEngine(ActorCritic(make_spec(nvec), config), config)


def make_rollout(config: Config, engine: EagerEngine, nvec: tuple[int, ...] | None) -> Rollout:
    """A rollout of random numbers, acted on by the engine, with ends and reset rows."""
    generator = torch.Generator().manual_seed(1)
    rollout = Rollout(config, make_spec(nvec), CPU)
    rows = (config.num_steps, config.num_envs)
    assert isinstance(rollout.store, PlainStore)
    rollout.store.obs.copy_(torch.randn(rollout.store.obs.shape, generator=generator))
    ended = torch.rand(rows, generator=generator) < 0.2
    for t in range(config.num_steps):
        engine.act(rollout, t, t)
        if t:
            rollout.valid[t] = ~(ended[t - 1] & rollout.valid[t - 1])
    ended &= rollout.valid
    rollout.terminated.copy_(ended & (torch.rand(rows, generator=generator) < 0.5))
    rollout.truncated.copy_(ended & ~rollout.terminated)
    rollout.rewards.copy_(torch.randn(rows, generator=generator))
    assert not rollout.valid.all()
    return rollout


def parameters(engine: EagerEngine) -> torch.Tensor:
    return engine.optimizer.parameter.detach().clone()


@pytest.mark.parametrize("backend", ["torch", "numba"])
@pytest.mark.parametrize("nvec", [(4,), (2, 3), None])
def test_what_stands_in_invalid_rows_changes_nothing(
    nvec: tuple[int, ...] | None, backend: str
) -> None:
    """DESIGN 3.1: rewards, actions and log-probs of reset rows are poisoned; not one bit moves."""
    results = []
    for poison in (False, True):
        config = make_config(backend=backend, ent_coef=0.01, target_kl=0.5)
        engine = make_engine(config, nvec)
        rollout = make_rollout(config, engine, nvec)
        if poison:
            rollout.rewards[~rollout.valid] = NAN
            rollout.log_probs[~rollout.valid] = NAN
            rollout.actions[~rollout.valid] = -(10**6) if nvec else NAN
        engine.bootstrap(rollout)
        rollout.finish(None)
        stats = engine.update(rollout, 0).to_host()
        results.append((parameters(engine), stats))
    (clean, clean_stats), (poisoned, poisoned_stats) = results

    assert torch.equal(clean, poisoned)
    assert clean_stats == poisoned_stats
    assert clean_stats["valid_rows"] < 64
    assert clean_stats["optimizer_steps"] == 16


def test_a_loss_that_is_not_finite_skips_the_step_and_is_counted() -> None:
    config = make_config(update_epochs=1)
    engine = make_engine(config, (4,))
    rollout = make_rollout(config, engine, (4,))
    t, env = rollout.valid.nonzero()[20].tolist()
    engine.bootstrap(rollout)
    rollout.finish(None)
    rollout.advantages[t, env] = float("inf")
    rollout.returns[t, env] = float("inf")
    before = parameters(engine)

    stats = engine.update(rollout, 0).to_host()

    assert stats["skipped_steps"] == 1
    assert stats["optimizer_steps"] == 3
    assert np.isfinite(list(stats.values())).all()
    assert torch.isfinite(parameters(engine)).all()
    assert not torch.equal(parameters(engine), before)


@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_a_gradient_that_is_not_finite_skips_the_step_alone(backend: str) -> None:
    """The step, the moments and the step count stay; the next finite gradient is applied."""
    config = make_config(learning_rate=0.1, backend=backend)
    parameter = torch.nn.Parameter(torch.ones(4))
    parameter.grad = torch.tensor([1.0, NAN, 1.0, 1.0])
    optimizer = FlatAdam(parameter, config)
    go = torch.zeros((), dtype=torch.bool)

    _, stepped = optimizer.step(0.1, go)

    assert not bool(stepped)
    assert parameter.tolist() == [1.0] * 4
    assert parameter.grad.tolist() == [0.0] * 4  # or the NaN would stay in the sum

    parameter.grad.fill_(1.0)
    _, stepped = optimizer.step(0.1, go)

    assert bool(stepped)
    assert float(optimizer.adam.state[parameter]["step"]) == 1
    torch.testing.assert_close(parameter.detach(), torch.full((4,), 0.9), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("backend", ["auto", "torch"])
@pytest.mark.parametrize("max_grad_norm", [0.0, 0.5, 100.0])
def test_flat_clip_and_adam_equal_torch(max_grad_norm: float, backend: str) -> None:
    config = make_config(max_grad_norm=max_grad_norm, learning_rate=1e-2, backend=backend)
    torch.manual_seed(0)
    ours = ActorCritic(make_spec((4,)), config)
    torch.manual_seed(0)
    theirs = ActorCritic(make_spec((4,)), config)
    optimizer = FlatAdam(flat.flatten(ours), config)
    adam = torch.optim.Adam(theirs.parameters(), lr=1e-2, eps=config.adam_eps)
    for seed in range(5):
        obs = torch.randn(32, 5, generator=torch.Generator().manual_seed(seed))
        adam.zero_grad()
        for policy in (ours, theirs):
            logits, values = policy(obs)
            (logits.square().sum() + values.sum()).backward()
        optimizer.step(1e-2, torch.zeros((), dtype=torch.bool))
        if max_grad_norm > 0:
            torch.nn.utils.clip_grad_norm_(theirs.parameters(), max_grad_norm)
        adam.step()

    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-6, atol=1e-6)


def test_the_optimizer_goes_on_from_what_another_backend_has_saved() -> None:
    steps = []
    for first, second in (("auto", "auto"), ("auto", "torch"), ("torch", "auto")):
        parameter = torch.nn.Parameter(torch.ones(4))
        parameter.grad = torch.zeros(4)
        state = FlatAdam(parameter, make_config(backend=first)).adam.state_dict()
        for backend in (first, second):
            optimizer = FlatAdam(parameter, make_config(backend=backend))
            optimizer.adam.load_state_dict(state)
            flat.gradient(parameter).copy_(torch.tensor([1.0, -2.0, 3.0, 0.5]))
            optimizer.step(0.1, torch.zeros((), dtype=torch.bool))
            state = optimizer.adam.state_dict()
        assert float(optimizer.adam.state[parameter]["step"]) == 2
        steps.append(parameter.detach().clone())

    for step in steps[1:]:
        torch.testing.assert_close(step, steps[0], rtol=1e-6, atol=1e-6)


def test_parameters_and_gradients_are_views_of_one_buffer() -> None:
    engine = make_engine(make_config(), (4,))
    buffer, gradient = engine.optimizer.parameter, flat.gradient(engine.optimizer.parameter)
    logits, values = engine.policy(torch.ones(2, 5))
    (logits.sum() + values.sum()).backward()
    parameters = list(engine.policy.parameters())

    assert sum(64 * -(-p.numel() // 64) for p in parameters) == buffer.numel()
    assert all(p.data_ptr() % 16 == 0 for p in parameters)
    squares = sum(float(p.grad.square().sum()) for p in parameters if p.grad is not None)
    assert float(gradient.square().sum()) == pytest.approx(squares)
    assert squares > 0

    buffer.data.fill_(0.25)

    assert all((p == 0.25).all() for p in engine.policy.parameters())


def test_convolutions_lie_channels_last_in_the_buffer() -> None:
    """The same values in the same shape; only their order in memory is the images'."""
    convolution = torch.nn.Conv2d(4, 8, 3)
    weights = convolution.weight.detach().clone()
    buffer = flat.flatten(convolution)

    assert torch.equal(convolution.weight, weights)
    assert convolution.weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(buffer[: weights.numel()], weights.permute(0, 2, 3, 1).flatten())
    convolution(torch.ones(1, 4, 5, 5)).sum().backward()
    assert convolution.weight.grad is not None
    assert convolution.weight.grad.stride() == convolution.weight.stride()
    assert float(flat.gradient(buffer).sum()) == 8 * (4 * 9 * 9 + 9)


def test_a_known_one_changes_no_gradient() -> None:
    gradients = []
    for factor in (None, api.unit_gradient(CPU), torch.tensor(2.0)):
        logits, rows = torch.ones(4, 3).requires_grad_(), torch.arange(5 * 4.0).view(5, 4)
        actions = torch.tensor([0, 1, 2, 0])
        terms: dict[str, Any] = {"clip_coef": 0.2, "vf_coef": 0.5, "ent_coef": 0.01}
        loss, _ = api.categorical_ppo_loss(logits, rows[0], actions, *rows[1:], **terms)
        loss.backward(factor)
        assert logits.grad is not None
        gradients.append(logits.grad)

    assert torch.equal(gradients[0], gradients[1])
    assert torch.equal(2.0 * gradients[0], gradients[2])
    assert float(api.unit_gradient(CPU)) == 1.0


def test_the_kernels_state_is_torchs_own_in_name_and_format() -> None:
    """A checkpoint of one is a checkpoint of the other, with this version of torch."""
    config = make_config()
    parameter = torch.nn.Parameter(torch.randn(7))
    ours, theirs = (
        AdamState(parameter, config),
        torch.optim.Adam([parameter], lr=config.learning_rate, eps=config.adam_eps, fused=True),
    )
    assert ours.state_dict() == theirs.state_dict()

    parameter.grad = torch.ones(7)
    theirs.step()
    ours.load_state_dict(theirs.state_dict())
    again = torch.optim.Adam([parameter], lr=1.0, fused=True)
    again.load_state_dict(ours.state_dict())

    for made in (ours.state_dict(), again.state_dict()):
        assert made["param_groups"] == theirs.state_dict()["param_groups"]
        for name, tensor in theirs.state_dict()["state"][0].items():
            assert torch.equal(made["state"][0][name], tensor)
    damaged: list[dict[str, Any]] = [
        {"state": {1: {}}, "param_groups": theirs.state_dict()["param_groups"]},
        {"state": {}, "param_groups": []},
        {"state": {}, "param_groups": [{"params": [0, 1]}]},
    ]
    for broken in damaged:
        with pytest.raises((ValueError, KeyError)):
            AdamState(parameter, config).load_state_dict(broken)
    other = AdamState(torch.nn.Parameter(torch.zeros(3)), config)
    with pytest.raises(ValueError, match=r"exp_avg has shape \[7\]: expected \[3\]"):
        other.load_state_dict(theirs.state_dict())


def test_target_kl_stops_after_the_epoch_that_exceeds_it() -> None:
    results = {}
    for target_kl in (None, 1e9, 1e-12):
        config = make_config(target_kl=target_kl, update_epochs=3, learning_rate=1e-2)
        engine = make_engine(config, (4,))
        rollout = make_rollout(config, engine, (4,))
        engine.bootstrap(rollout)
        rollout.finish(None)
        stats = engine.update(rollout, 0).to_host()
        results[target_kl] = (stats, parameters(engine))
    one_epoch = make_config(update_epochs=1, learning_rate=1e-2)
    engine = make_engine(one_epoch, (4,))
    rollout = make_rollout(one_epoch, engine, (4,))
    engine.bootstrap(rollout)
    rollout.finish(None)
    engine.update(rollout, 0)

    assert results[None][0]["optimizer_steps"] == 12
    assert results[1e9][0]["optimizer_steps"] == 12
    assert results[1e-12][0]["optimizer_steps"] == 4
    assert results[1e-12][0]["skipped_steps"] == 0
    assert torch.equal(results[1e-12][1], parameters(engine))


def test_schedules_fall_linearly_to_zero_after_the_last_update() -> None:
    config = make_config(total_timesteps=640, learning_rate=1.0, clip_coef=0.2, anneal_clip=True)
    constant = make_config(total_timesteps=640, learning_rate=1.0, anneal_lr=False)

    assert config.num_updates == 10
    assert [config.learning_rate_at(u) for u in (0, 5, 9)] == pytest.approx([1.0, 0.5, 0.1])
    assert [config.clip_coef_at(u) for u in (0, 5, 10)] == pytest.approx([0.2, 0.1, 0.0])
    assert [constant.learning_rate_at(u) for u in (0, 9)] == [1.0, 1.0]


def test_learning_rate_and_clip_reach_the_update() -> None:
    """Where learning rate is annealed to nearly nothing, parameters hardly move."""
    moved = []
    for update in (0, 9):
        config = make_config(total_timesteps=640, learning_rate=1e-2)
        engine = make_engine(config, (4,))
        rollout = make_rollout(config, engine, (4,))
        engine.bootstrap(rollout)
        rollout.finish(None)
        before = parameters(engine)
        engine.update(rollout, update)
        moved.append(float((parameters(engine) - before).abs().max()))

    assert moved[1] < 0.2 * moved[0]


@pytest.mark.parametrize("nvec", [(4,), None], ids=["discrete", "continuous"])
def test_statistics_of_an_epoch_ahead_change_nothing(nvec: tuple[int, ...] | None) -> None:
    """As on a GPU, where one launch per epoch normalises the advantages of all minibatches."""
    config = make_config(learning_rate=1e-2)
    results = []
    for ahead in (False, True):
        engine = make_engine(config, nvec)
        rollout = make_rollout(config, engine, nvec)
        rollout.finish(None)
        rollout.stats_ahead = ahead
        mb = next(rollout.minibatches(next(rollout.orders(0))))
        assert (mb.advantage_stats is not None) == ahead
        stats = engine.update(rollout, 0).to_host()
        results.append((parameters(engine), stats))

    torch.testing.assert_close(results[1][0], results[0][0], rtol=1e-5, atol=1e-6)
    assert results[1][1] == pytest.approx(results[0][1], rel=1e-4, abs=1e-6)
