"""Every GAE backend against the float64 reference, and that against numbers worked by hand."""

import math
import os
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastppo.kernels import api

# The interpreter spends some 90 us on each element of a scan.
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
SETTINGS: dict[str, Any] = {"deadline": None, "max_examples": 6 if INTERPRETED else 100}
FLOAT32: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-5}
DISCOUNT: dict[str, Any] = {"gamma": 0.99, "gae_lambda": 0.95}


def rollout(num_steps: int, num_envs: int, seed: int, ends: float = 0.1) -> tuple[Tensor, ...]:
    """rewards, values, terminated, truncated; a step ends in either way with chance `ends`."""
    g = torch.Generator().manual_seed(seed)
    rewards = torch.randn(num_steps, num_envs, generator=g)
    values = torch.randn(num_steps + 1, num_envs, generator=g)
    terminated = torch.rand(num_steps, num_envs, generator=g) < ends
    truncated = torch.rand(num_steps, num_envs, generator=g) < ends
    return rewards, values, terminated, truncated


def oracle(
    rewards: Tensor, values: Tensor, terminated: Tensor, truncated: Tensor, **discount: Any
) -> tuple[Tensor, Tensor]:
    rewards, values = rewards.double(), values.double()
    return api.gae(rewards, values, terminated, truncated, **discount, backend="torch")


def assert_matches_oracle(inputs: tuple[Tensor, ...], backend: str, **discount: Any) -> None:
    actual = api.gae(*inputs, **discount, backend=backend)

    for a, e in zip(actual, oracle(*inputs, **discount), strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a.double(), e, **FLOAT32)


@settings(**SETTINGS)
@given(
    num_steps=st.integers(1, 40),
    num_envs=st.integers(1, 20 if INTERPRETED else 200),
    seed=st.integers(0, 2**31),
    ends=st.sampled_from([0.0, 0.1, 1.0]),
    gamma=st.sampled_from([0.0, 0.9, 0.99, 1.0]),
    gae_lambda=st.sampled_from([0.0, 0.95, 1.0]),
)
def test_matches_float64_reference(
    backend: str,
    num_steps: int,
    num_envs: int,
    seed: int,
    ends: float,
    gamma: float,
    gae_lambda: float,
) -> None:
    inputs = rollout(num_steps, num_envs, seed, ends)

    assert_matches_oracle(inputs, backend, gamma=gamma, gae_lambda=gae_lambda)


@pytest.mark.parametrize("num_steps", [1, 127, 128, 129, 300])
def test_matches_float64_reference_across_tiles_of_time(backend: str, num_steps: int) -> None:
    assert_matches_oracle(rollout(num_steps, 3, num_steps), backend, **DISCOUNT)


def test_hand_worked_termination_and_truncation(backend: str) -> None:
    """gamma = lambda = 1/2, an episode that terminates at t = 1 and one truncated at t = 2.

    t = 3: delta = 4 + 8/2 - 4 =  4, A = 4                      return 4 + 4 = 8
    t = 2: delta = 3 + 4/2 - 2 =  3, A = 3, no trace            return 3 + 2 = 5
    t = 1: delta = 2 + 0   - 4 = -2, A = -2, no trace           return -2 + 4 = 2
    t = 0: delta = 1 + 4/2 - 2 =  1, A = 1 + 1/4 * -2 = 1/2     return 1/2 + 2 = 5/2
    """
    rewards = torch.tensor([[1.0], [2.0], [3.0], [4.0]])
    values = torch.tensor([[2.0], [4.0], [2.0], [4.0], [8.0]])
    terminated = torch.tensor([[False], [True], [False], [False]])
    truncated = torch.tensor([[False], [False], [True], [False]])

    advantages, returns = api.gae(
        rewards, values, terminated, truncated, gamma=0.5, gae_lambda=0.5, backend=backend
    )

    torch.testing.assert_close(advantages, torch.tensor([[0.5], [-2.0], [3.0], [4.0]]))
    torch.testing.assert_close(returns, torch.tensor([[2.5], [2.0], [5.0], [8.0]]))


def test_lambda_one_gives_monte_carlo_returns(backend: str) -> None:
    """1 + 1/2 * (2 + 1/2 * (3 + 1/2 * 2)) = 3, and so on."""
    rewards = torch.tensor([[1.0], [2.0], [3.0]])
    values = torch.tensor([[0.5], [1.0], [1.5], [2.0]])
    never = torch.zeros(3, 1, dtype=torch.bool)

    _, returns = api.gae(rewards, values, never, never, gamma=0.5, gae_lambda=1.0, backend=backend)

    torch.testing.assert_close(returns, torch.tensor([[3.0], [4.0], [4.0]]))


@pytest.mark.parametrize("end", ["terminated", "truncated"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_reward_of_a_reset_row_reaches_no_other_row(backend: str, bad: float, end: str) -> None:
    """EnvPool's row after a done is no transition; its reward may be anything."""
    rewards, values, terminated, truncated = rollout(40, 4, seed=3, ends=0.0)
    (terminated if end == "terminated" else truncated)[[6, 20]] = True
    clean = oracle(rewards, values, terminated, truncated, **DISCOUNT)
    rewards[[7, 21]] = bad

    actual = api.gae(rewards, values, terminated, truncated, **DISCOUNT, backend=backend)

    rest = [t for t in range(40) if t not in (7, 21)]
    for a, e in zip(actual, clean, strict=True):
        assert not a[[7, 21]].isfinite().any()
        torch.testing.assert_close(a[rest].double(), e[rest], **FLOAT32)


def test_nan_reward_of_a_transition_shows(backend: str) -> None:
    rewards, values, terminated, truncated = rollout(6, 2, seed=0, ends=0.0)
    rewards[4, 1] = math.nan

    advantages, _ = api.gae(rewards, values, terminated, truncated, **DISCOUNT, backend=backend)

    assert advantages[:5, 1].isnan().all()
    assert advantages[:, 0].isfinite().all()


def test_strided_inputs_are_honoured(backend: str) -> None:
    rewards, values, terminated, truncated = rollout(12, 6, seed=5, ends=0.3)
    strided = (
        rewards.T.contiguous().T,
        torch.stack([values, values + 1.0], 2)[:, :, 0],
        torch.cat([terminated, ~terminated], 1)[:, :6],
        truncated[:, :1].expand(12, 6),
    )
    assert not any(t.is_contiguous() for t in strided)

    assert_matches_oracle(strided, backend, **DISCOUNT)


def test_same_input_gives_the_same_bits(backend: str) -> None:
    inputs = rollout(33, 9, seed=8)

    first, second = (api.gae(*inputs, **DISCOUNT, backend=backend) for _ in range(2))

    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_results_carry_no_graph(backend: str) -> None:
    rewards, values, terminated, truncated = rollout(3, 2, seed=0)
    values.requires_grad_()

    advantages, returns = api.gae(
        rewards, values, terminated, truncated, **DISCOUNT, backend=backend
    )

    assert not advantages.requires_grad
    assert not returns.requires_grad
