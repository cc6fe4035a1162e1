"""The reference trainer is an oracle: it computes what fastppo computes, with other code."""

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from fastppo import randomness
from fastppo.bench.reference import Agent, Batch, ReferenceTrainer, compute_gae, update
from fastppo.config import Config
from fastppo.observations import PlainStore
from fastppo.policy import ActorCritic
from fastppo.ppo import EagerEngine
from fastppo.presets import PRESETS
from fastppo.rollout import Rollout
from fastppo.tasks import EnvSpec
from fastppo.trainer import Trainer

TOLERANCE = 1e-5  # float32; what one update may differ by, in any parameter
CPU = torch.device("cpu")
ACTIONS: dict[str, tuple[int, ...] | None] = {
    "discrete": (4,),
    "multi-discrete": (3, 2, 4),
    "continuous": None,
}


@pytest.fixture(autouse=True)
def one_torch_thread() -> Iterator[None]:
    """Sums in another order differ in the last bits; a Trainer changes the setting for all."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def spec_of(kind: str) -> EnvSpec:
    nvec = ACTIONS[kind]
    return EnvSpec(
        env_id="Synthetic-v0",
        family="synthetic",
        obs_shape=(5,),
        obs_dtype=torch.zeros(0).numpy().dtype,
        action_dim=3 if nvec is None else len(nvec),
        nvec=nvec,
        frame_skip=1,
    )


def config_of(**settings: Any) -> Config:
    defaults: dict[str, Any] = {
        "num_envs": 4,
        "num_steps": 32,
        "num_minibatches": 4,
        "update_epochs": 3,
        "learning_rate": 1e-3,
        "ent_coef": 0.01,
        "hidden_sizes": (16, 16),
    }
    return Config(env_id="Synthetic-v0", **(defaults | settings))


def random_rollout(config: Config, spec: EnvSpec, policy: ActorCritic) -> Rollout:
    """Off-policy enough that clipping bites, with episode ends of both kinds and reset rows."""
    generator = torch.Generator().manual_seed(7)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    rollout = Rollout(config, spec, CPU)
    rows = (config.num_steps, config.num_envs)
    assert isinstance(rollout.store, PlainStore)
    rollout.store.obs.copy_(normal(*rollout.store.obs.shape))
    act = policy.act(rollout.store.obs[:-1].flatten(0, 1), 0, key=randomness.act_key(config.seed))
    rollout.actions.copy_(act.actions.view_as(rollout.actions))
    rollout.log_probs.copy_(act.log_probs.view(rows) + 0.2 * normal(*rows))
    rollout.values.copy_(normal(*rollout.values.shape))
    rollout.rewards.copy_(normal(*rows))
    ends = torch.rand(rows, generator=generator)
    done = torch.zeros(config.num_envs, dtype=torch.bool)
    for t in range(config.num_steps):
        rollout.valid[t] = ~done
        rollout.terminated[t] = (ends[t] < 0.1) & ~done
        rollout.truncated[t] = (ends[t] > 0.9) & ~done
        done = rollout.terminated[t] | rollout.truncated[t]
    rollout.finish(None)
    assert not rollout.valid.all()
    assert rollout.terminated.any()
    assert rollout.truncated.any()
    return rollout


def batch_of(rollout: Rollout) -> Batch:
    """The same rows, with advantages by the reference's own recursion."""
    config = rollout.config
    assert isinstance(rollout.store, PlainStore)
    advantages, returns = compute_gae(
        rollout.rewards,
        rollout.values,
        rollout.terminated,
        rollout.truncated,
        config.gamma,
        config.gae_lambda,
    )
    return Batch(
        obs=rollout.store.inputs[:-1].flatten(0, 1),
        actions=rollout.actions.flatten(0, 1),
        log_probs=rollout.log_probs.flatten(),
        values=rollout.values[:-1].flatten(),
        advantages=advantages.flatten(),
        returns=returns.flatten(),
        valid=rollout.valid.flatten(),
    )


def agent_like(policy: ActorCritic, spec: EnvSpec, config: Config) -> tuple[Agent, Any]:
    agent = Agent(spec, config)
    agent.load_state_dict(policy.state_dict())
    adam = torch.optim.Adam(agent.parameters(), lr=config.learning_rate, eps=config.adam_eps)
    return agent, adam


def assert_same_weights(policy: ActorCritic, agent: Agent, tolerance: float = TOLERANCE) -> None:
    ours, theirs = policy.state_dict(), agent.state_dict()
    assert list(ours) == list(theirs)
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=0.0, atol=tolerance, msg=name)


VARIANTS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "clip_vloss": {"clip_vloss": True, "clip_coef": 0.1},
    "no value clip": {"clip_vloss": False},
    "dual_clip": {"dual_clip": 1.2, "clip_coef": 0.1},
    "raw advantages": {"norm_adv": False},
    "target_kl": {"target_kl": 1e-4},
    "no gradient clip": {"max_grad_norm": 0.0},
    "annealed": {"anneal_lr": True, "anneal_clip": True, "total_timesteps": 128 * 10},
    "one trunk, relu": {"shared_trunk": True, "activation": "relu", "hidden_sizes": (16, 8)},
}


@pytest.mark.parametrize("kind", ACTIONS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_one_update_gives_the_weights_that_fastppo_gives(kind: str, variant: str) -> None:
    spec, config = spec_of(kind), config_of(**VARIANTS[variant])
    torch.manual_seed(3)
    policy = ActorCritic(spec, config)
    agent, adam = agent_like(policy, spec, config)
    rollout = random_rollout(config, spec, policy)

    expected = update(agent, adam, batch_of(rollout), config, 3)
    stats = EagerEngine(policy, config).update(rollout, 3).to_host()

    assert_same_weights(policy, agent)
    for name, value in expected.items():
        assert stats[name] == pytest.approx(value, rel=1e-4, abs=1e-4), name
    all_steps = config.num_minibatches * config.update_epochs
    if variant == "target_kl":
        assert 0 < expected["optimizer_steps"] < all_steps
    else:
        assert expected["optimizer_steps"] == all_steps


@pytest.mark.parametrize("kind", ACTIONS)
def test_steps_that_are_not_finite_are_skipped_by_both(kind: str) -> None:
    spec, config = spec_of(kind), config_of()
    policy = ActorCritic(spec, config)
    agent, adam = agent_like(policy, spec, config)
    rollout = random_rollout(config, spec, policy)
    batch = batch_of(rollout)
    rollout.advantages[0, 0] = batch.advantages[0] = math.nan

    expected = update(agent, adam, batch, config, 0)
    stats = EagerEngine(policy, config).update(rollout, 0).to_host()

    assert expected["skipped_steps"] == stats["skipped_steps"] == config.update_epochs
    assert_same_weights(policy, agent)


@pytest.mark.parametrize("kind", ACTIONS)
def test_nan_in_reset_rows_changes_nothing_in_the_reference(kind: str) -> None:
    spec, config = spec_of(kind), config_of()
    policy = ActorCritic(spec, config)
    rollout = random_rollout(config, spec, policy)
    weights = []
    for poison in (False, True):
        if poison:
            rollout.rewards[~rollout.valid] = math.nan
            rollout.log_probs[~rollout.valid] = math.nan
            rollout.actions[~rollout.valid] = 10**6
        agent, adam = agent_like(policy, spec, config)
        update(agent, adam, batch_of(rollout), config, 0)
        weights.append(agent.state_dict())

    for name, clean in weights[0].items():
        assert torch.equal(clean, weights[1][name]), name


def test_gae_of_a_hand_worked_example() -> None:
    """gamma = lambda = 0.5; the first environment runs on, the others end at step 1.

    Step 2: delta = 1 + 0.5 * 4 - 2 = 1. Step 1: 1 + 0.5 * 2 - 2 = 0, trace 0.25 * 1 where the
    episode goes on; 1 - 2 = -1 where it terminates; 0 and no trace where it is cut.
    Step 0: delta = 1 + 0.5 * 2 - 2 = 0, plus a quarter of step 1.
    """
    rewards = torch.ones(3, 3)
    values = torch.tensor([2.0, 2.0, 2.0, 4.0]).repeat(3, 1).T
    terminated, truncated = torch.zeros(2, 3, 3, dtype=torch.bool)
    terminated[1, 1] = truncated[1, 2] = True

    advantages, returns = compute_gae(rewards, values, terminated, truncated, 0.5, 0.5)

    expected = torch.tensor([[0.0625, -0.25, 0.0], [0.25, -1.0, 0.0], [1.0, 1.0, 1.0]])
    torch.testing.assert_close(advantages, expected, rtol=0.0, atol=0.0)
    torch.testing.assert_close(returns, expected + values[:3], rtol=0.0, atol=0.0)


# Rounding differs between the two, and an environment that amplifies it stops the comparison:
# MuJoCo after some 30 steps, Pendulum in its third rollout. Before that both must agree.
RUNS: dict[str, tuple[str, dict[str, Any], int]] = {
    "CartPole-v1": ("classic", {}, 6),
    "Pendulum-v1": ("classic-continuous", {"norm_obs": True, "norm_reward": True}, 2),
    "HalfCheetah-v4": ("mujoco", {"num_steps": 8, "num_minibatches": 2}, 2),
    "Breakout-v5": ("atari", {"num_envs": 2, "num_steps": 16, "update_epochs": 2}, 1),
}


@pytest.mark.parametrize("engine", ["eager", "mlp"])
@pytest.mark.parametrize("env_id", RUNS)
def test_whole_updates_follow_fastppo_from_the_first_weights_on(env_id: str, engine: str) -> None:
    preset, settings, num_updates = RUNS[env_id]
    if engine == "mlp":
        if preset == "atari":
            pytest.skip("a CNN")
        settings = settings | {"engine": "mlp"}
    config = Config(
        env_id=env_id, **(PRESETS[preset] | settings | {"total_timesteps": 10**6, "device": "cpu"})
    )
    trainer, reference = Trainer(config), ReferenceTrainer(config)
    torch.set_num_threads(1)
    assert_same_weights(trainer.policy, reference.agent, tolerance=0.0)

    for _ in range(num_updates):
        ours, theirs = trainer.run_update(), reference.run_update()

        assert_same_weights(trainer.policy, reference.agent)
        same = ("update", "global_step", "env_steps", "episode/count", "episode/length")
        assert {k: ours.get(k) for k in same} == {k: theirs.get(k) for k in same}
        for name in ("loss/approx_kl", "loss/grad_norm", "episode/return"):
            assert ours.get(name, 0) == pytest.approx(theirs.get(name, 0), rel=1e-3), name
    trainer.close()
    reference.close()


def test_the_reference_books_all_of_its_time() -> None:
    reference = ReferenceTrainer(Config(env_id="CartPole-v1", num_steps=16, num_minibatches=1))
    metrics = reference.run_update()
    reference.close()

    seconds = {k: v for k, v in metrics.items() if k.startswith("time/")}
    total = seconds.pop("time/total")
    assert sum(seconds.values()) == pytest.approx(total)
    assert min(seconds.values()) >= 0
