"""Numbers that are not finite reach no statistic, and the run goes on (issue 10, 21)."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fastppo import envs
from fastppo.config import Config
from fastppo.finite import FiniteGate
from fastppo.trainer import Trainer

NUM_ENVS, NUM_STEPS, UPDATES = 3, 8, 3
STEPS = NUM_STEPS * UPDATES
NOT_FINITE = [np.nan, np.inf, -np.inf, 1e300]  # the last is infinite in float32
Poison = dict[tuple[int, int, str], float]
"""What stands in the reward or in the observation that (step from 1, environment) answers."""


class Scripted:
    """A pool that ignores actions: seeded rows, ends, resets, and poison as the script says."""

    action_space = spaces.Discrete(2)

    def __init__(self, seed: int, poison: Poison) -> None:
        self.spec = self
        self.action_array_spec = {"action": np.zeros(0, np.int64)}
        random = np.random.default_rng(seed)
        self.obs = random.normal(size=(STEPS + 1, NUM_ENVS, 4))
        self.rewards = random.normal(size=(STEPS + 1, NUM_ENVS))
        self.ends = random.random((STEPS + 1, NUM_ENVS)) < 0.15
        for t in range(1, STEPS + 1):
            self.ends[t] &= ~self.ends[t - 1] & (t > 1)
            self.rewards[t, self.ends[t - 1]] = 0.0
        for (t, env, where), value in poison.items():
            if where == "obs":
                self.obs[t, env, t % 4] = value
            elif not self.ends[t - 1, env]:
                self.rewards[t, env] = value
        self.t = 0

    @property
    def lost(self) -> NDArray[np.bool_]:
        """[STEPS, N], by the definition: reward, next observation or own observation."""
        with np.errstate(over="ignore"):
            finite: NDArray[np.bool_] = np.isfinite(self.obs.astype(np.float32).sum(axis=2))
            rewards: NDArray[np.bool_] = np.isfinite(self.rewards.astype(np.float32))
        return ~(rewards[1:] & finite[1:] & finite[:-1] | self.resets)

    @property
    def resets(self) -> NDArray[np.bool_]:
        """[STEPS, N]: the rows after an end; there is none before the first step."""
        return self.ends[:-1] & (np.arange(STEPS) > 0)[:, None]

    def reset(self) -> tuple[Any, ...]:
        return self.obs[0].copy(), {}

    def step(self, _: Any) -> tuple[Any, ...]:
        self.t += 1
        no = np.zeros(NUM_ENVS, np.bool_)
        return self.obs[self.t].copy(), self.rewards[self.t].copy(), self.ends[self.t], no, {}

    def close(self) -> None:
        pass


class Told:
    """In place of the gate, for a clean pool: which rows are to be invalid, and nothing else."""

    def __init__(self, lost: NDArray[np.bool_]) -> None:
        self.all = lost
        self.t = -1

    def step(self, obs: Any, rewards: Any, reset: Any) -> tuple[Any, ...]:
        self.t += 1
        return obs, rewards, self.all[self.t]


@contextmanager
def trainer(pool: Scripted, **changes: Any) -> Iterator[Trainer]:
    config = Config(
        env_id="CartPole-v1", num_envs=NUM_ENVS, num_steps=NUM_STEPS, num_minibatches=2,
        update_epochs=2, hidden_sizes=(8,), norm_obs=True, norm_reward=True, device="cpu",
        **changes,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(envs, "make_pool", lambda *_, **__: pool)
        made = Trainer(config)
    try:
        yield made
    finally:
        made.close()


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, f"{name}.{key}")
    elif isinstance(value, torch.Tensor):
        yield name, value


poisons = st.dictionaries(
    st.tuples(
        st.integers(0, STEPS), st.integers(0, NUM_ENVS - 1), st.sampled_from(["obs", "reward"])
    ),
    st.sampled_from(NOT_FINITE),
    min_size=1,
    max_size=12,
)


@pytest.mark.parametrize(("engine", "backend"), [("eager", "torch"), ("mlp", "numba")])
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), poison=poisons)
def test_a_poisoned_run_equals_one_whose_rows_were_merely_invalid(
    engine: str, backend: str, seed: int, poison: Poison
) -> None:
    """Every parameter, moment and statistic to the last bit, and the count is right."""
    sick, clean = Scripted(seed, poison), Scripted(seed, {})
    lost = sick.lost
    runs = []
    for pool in (sick, clean):
        with trainer(pool, engine=engine, backend=backend) as run:
            if pool is clean:
                run.env.gate = Told(lost)  # type: ignore[assignment]
                run.env.gate.rows = np.zeros(NUM_ENVS, np.int64)
            rows = [run.run_update() for _ in range(UPDATES)]
            runs.append((rows, dict(leaves(run.state()))))
            if pool is sick:
                assert run.env.gate.rows.tolist() == lost.sum(0).tolist()
    (rows, ours), (clean_rows, expected) = runs

    assert [row["env/non_finite_rows"] for row in rows] == [
        lost[: NUM_STEPS * update].sum() for update in range(1, UPDATES + 1)
    ]
    assert rows[-1]["global_step"] == (~lost & ~sick.resets).sum()
    for name, tensor in ours.items():
        assert tensor.isfinite().all(), name
        assert torch.equal(tensor, expected[name]), name
    for row, other in zip(rows, clean_rows, strict=True):
        for name in row:
            if name.startswith(("loss/", "episode/", "env_steps")) and not name.endswith("_per_s"):
                assert row[name] == other[name], name


def test_an_episode_with_a_lost_row_closes_with_what_was_finite() -> None:
    pool = Scripted(0, {})
    pool.obs[:], pool.rewards[:], pool.ends[:] = 0.0, 1.0, False
    pool.rewards[2, 0] = np.nan  # in the middle
    pool.ends[3] = True
    pool.rewards[3, 1] = np.inf  # with the end
    with trainer(pool) as run:
        actions = np.zeros(NUM_ENVS, np.int64)
        valid = [run.env.step(actions).valid.tolist() for _ in range(4)]

    assert valid == [[True] * 3, [False, True, True], [True, False, True], [False] * 3]
    # those that the row of the end is lost to are closed first
    assert sorted(run.env.episodes.drain()) == [(0, 2.0, 2), (1, 2.0, 2), (2, 3.0, 3)]


def test_an_episode_without_a_finite_step_has_no_return() -> None:
    pool = Scripted(0, {})
    pool.rewards[:] = np.nan
    with trainer(pool) as run:
        rows = [run.run_update() for _ in range(UPDATES)]

    assert pool.ends[:-1].any()
    assert [row["episode/count"] for row in rows] == [0] * UPDATES
    assert rows[-1]["global_step"] == 0
    assert "episode/return" not in rows[-1]


def test_advantages_before_a_lost_row_bootstrap_from_its_observation() -> None:
    """gamma = lambda = 1, V(row t) = t, reward 1 a step, row 2 lost: rows 0 and 1 sum to V(2)."""
    pool = Scripted(0, {})
    pool.obs[:], pool.rewards[:], pool.ends[:] = 0.0, 1.0, False
    pool.rewards[3] = np.nan
    with trainer(pool, gamma=1.0, gae_lambda=1.0, backend="torch") as run:
        run.reward_scaler = None
        run.collect()
        run.rollout.values.copy_(torch.arange(NUM_STEPS + 1.0)[:, None].expand(-1, NUM_ENVS))
        run.rollout.finish(None)

    expected = torch.tensor([1 + 1 + 2 - 0, 1 + 2 - 1, 0.0, 5 + 8 - 3, 4 + 8 - 4])
    got = run.rollout.advantages[:5, 0]
    assert torch.equal(got[[0, 1, 3, 4]], expected[[0, 1, 3, 4]])
    assert not run.rollout.valid[2].any()


@settings(max_examples=200, deadline=None)
@given(
    shape=st.sampled_from([(4,), (2, 3), (), (4000,)]),
    kind=st.sampled_from([np.float16, np.float32, np.float64]),
    data=st.data(),
)
def test_the_gate_finds_exactly_what_float32_cannot_hold(
    shape: tuple[int, ...], kind: type, data: st.DataObject
) -> None:
    """Large finite numbers, whose sum or square is none, are left alone."""
    largest = float(np.finfo(kind).max)
    usual = [0.0, -1.5, min(largest, 3.4e38), -min(largest, 3.4e38)]
    broken = [np.nan, np.inf, -np.inf, *([1e300] if kind is np.float64 else [])]
    obs: NDArray[Any] = np.zeros((NUM_ENVS, *shape), kind)
    rewards = np.zeros(NUM_ENVS, np.float32)
    bad = np.zeros(NUM_ENVS, np.bool_)
    for env in range(NUM_ENVS):
        values = data.draw(st.lists(st.sampled_from(usual + broken), min_size=1, max_size=3))
        flat = obs[env].reshape(-1)
        flat[: len(values)] = values[: flat.size]
        obs[env] = flat.reshape(shape)
        rewards[env] = data.draw(st.sampled_from([1.0, 3e38, np.nan, -np.inf]))
        bad[env] = bool(set(map(str, values[: flat.size])) & set(map(str, broken)))
    reset = np.array(data.draw(st.lists(st.booleans(), min_size=NUM_ENVS, max_size=NUM_ENVS)))
    gate = FiniteGate(NUM_ENVS)
    gate.reset(np.zeros_like(obs))

    first, first_rewards, lost = gate.step(obs, rewards, reset)

    expected = (bad | ~np.isfinite(rewards)) & ~reset
    assert (np.zeros(NUM_ENVS, bool) if lost is None else lost).tolist() == expected.tolist()
    with np.errstate(over="ignore"):
        assert np.isfinite(first.astype(np.float32)).all()
    assert np.isfinite(first_rewards).all()
    assert (first[~bad] == obs[~bad]).all()
    assert first.dtype == kind
    assert gate.rows.tolist() == expected.tolist()

    _, _, after = gate.step(np.ones_like(obs), np.ones_like(rewards), np.zeros_like(reset))

    assert (np.zeros(NUM_ENVS, bool) if after is None else after).tolist() == bad.tolist()
    assert gate.step(np.ones_like(obs), np.ones_like(rewards), reset)[2] is None


def test_clean_rows_are_handed_on_and_images_are_not_looked_at() -> None:
    gate = FiniteGate(2)
    images, rewards = np.zeros((2, 4, 84, 84), np.uint8), np.ones(2, np.float32)

    obs, same, lost = gate.step(images, rewards, np.zeros(2, np.bool_))

    assert obs is images
    assert same is rewards
    assert lost is None
    assert gate.reset(images) is images


def test_a_lost_row_is_told_by_environment() -> None:
    gate = FiniteGate(9)
    gate.step(np.zeros((9, 1)), np.full(9, np.nan), np.arange(9) < 2)

    assert gate.warning().startswith("7 steps of environment 2, 3, 4, 5, 6 and 2 more had a reward")
