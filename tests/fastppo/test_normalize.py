"""Running statistics: equal to numpy over everything seen, blind to invalid rows."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fastppo.normalize import ObsNormalizer, RewardScaler, RunningMoments

NAN = float("nan")


@given(st.lists(st.integers(0, 12), min_size=1, max_size=6), st.integers(0, 2**31))
def test_moments_equal_those_of_all_valid_rows(sizes: list[int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    moments = RunningMoments((3,))
    seen = []
    for size in sizes:
        rows = 1e3 + torch.randn(size, 3, generator=generator)
        valid = torch.rand(size, generator=generator) < 0.7
        seen.append(rows[valid])
        moments.update(torch.where(valid[:, None], rows, NAN), valid)
    everything = torch.cat(seen).double()

    assert float(moments.count) == len(everything)
    if len(everything):
        np.testing.assert_allclose(moments.mean, everything.mean(0), rtol=1e-12)
        np.testing.assert_allclose(
            moments.var, everything.var(0, unbiased=False), rtol=1e-6, atol=1e-9
        )


def test_moments_before_any_row_are_those_of_the_unit_normal() -> None:
    moments = RunningMoments((2,))
    moments.update(torch.full((4, 2), NAN), torch.zeros(4, dtype=torch.bool))

    assert moments.mean.tolist() == [0.0, 0.0]
    assert moments.var.tolist() == [1.0, 1.0]


def test_observations_come_out_centred_scaled_and_clipped() -> None:
    """Rows 1, 2, 3 have mean 2 and variance 2/3; 100 is 120 deviations away and clipped to 5."""
    normalizer = ObsNormalizer((1,), clip=5.0)
    normalizer.moments.update(torch.tensor([[1.0], [2.0], [3.0]]), torch.ones(3, dtype=torch.bool))

    out = normalizer(torch.tensor([[1.0], [2.0], [100.0]]))

    assert out.dtype == torch.float32
    torch.testing.assert_close(out, torch.tensor([[-math.sqrt(1.5)], [0.0], [5.0]]))


def test_observations_are_normalised_into_the_row_that_is_read() -> None:
    normalizer = ObsNormalizer((2,), clip=5.0)
    normalizer.update(torch.randn(9, 2), torch.ones(9, dtype=torch.bool))
    obs, inputs = torch.randn(3, 4, 2), torch.zeros(3, 4, 2)

    out = normalizer(obs[1], out=inputs[1])

    assert out.data_ptr() == inputs[1].data_ptr()
    assert torch.equal(inputs[1], normalizer(obs[1]))
    assert not inputs[[0, 2]].any()


def test_rewards_are_divided_by_the_deviation_of_the_discounted_return() -> None:
    """One environment, gamma 0.5, rewards 1, 2, reset row, 4, and a second rollout of 1.

    The returns run forward: 1, 2 + 0.5 = 2.5, (episode ends, reset row), 4; then 1 + 2 = 3.
    """
    scaler = RewardScaler(num_envs=1, gamma=0.5, clip=10.0)
    rewards = torch.tensor([[1.0], [2.0], [NAN], [4.0]])
    valid = torch.tensor([[True], [True], [False], [True]])

    first = scaler(rewards, valid, "torch")

    deviation = float(np.std([1.0, 2.5, 4.0]))
    expected = torch.tensor([[1.0], [2.0], [0.0], [4.0]]) / deviation
    torch.testing.assert_close(first, expected.float())

    scaler(torch.tensor([[1.0]]), torch.tensor([[True]]), "torch")

    np.testing.assert_allclose(scaler.moments.var, np.var([1.0, 2.5, 4.0, 3.0]))


@given(st.integers(1, 9), st.integers(1, 4), st.integers(0, 2**31))
def test_reward_scaling_equals_the_textbook_loop(steps: int, num_envs: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scaler = RewardScaler(num_envs, gamma=0.9, clip=10.0)
    running = np.zeros(num_envs)
    returns = []
    for _ in range(3):
        rewards = torch.randn(steps, num_envs, generator=generator)
        valid = torch.rand(steps, num_envs, generator=generator) < 0.8
        scaler(torch.where(valid, rewards, NAN), valid, "torch")
        for t in range(steps):
            row = valid[t].numpy()
            running = np.where(row, rewards[t].double().numpy() + 0.9 * running, 0.0)
            returns.extend(running[row])

    assert float(scaler.moments.count) == len(returns)
    if returns:
        np.testing.assert_allclose(scaler.moments.var, np.var(returns), rtol=1e-4, atol=1e-8)


def test_scaled_rewards_are_clipped() -> None:
    scaler = RewardScaler(num_envs=1, gamma=0.0, clip=2.0)
    rewards = torch.tensor([[0.0]] * 99 + [[1.0]])

    scaled = scaler(rewards, torch.ones(100, 1, dtype=torch.bool), "torch")

    assert float(scaled[-1]) == 2.0


@pytest.mark.parametrize("backend", ["torch", "numba"])
@pytest.mark.parametrize("size", [NAN, math.inf, 3e38])
def test_a_return_beyond_float32_does_not_stay(size: float, backend: str) -> None:
    """Two environments in an episode without end; gamma 1, so that the sum of two rewards is inf.

    The next rollout starts from 0 there, and the statistics are those of what was finite.
    """
    scaler = RewardScaler(num_envs=2, gamma=1.0, clip=10.0)
    everything = torch.ones(3, 2, dtype=torch.bool)
    scaler(torch.tensor([[size, 1.0]] * 3), everything, backend)
    scaler(torch.tensor([[2.0, 1.0]] * 3), everything, backend)

    assert scaler.running.tolist() == [6.0, 6.0]
    assert scaler.moments.var.isfinite()
    assert float(scaler.moments.count) == (10 if size == 3e38 else 9)
