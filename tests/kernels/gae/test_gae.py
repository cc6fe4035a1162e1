"""Every GAE backend against the float64 reference, and that against numbers worked by hand."""

import math
import mmap
import os
import re
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


def env_major(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(tensor.T.contiguous() for tensor in inputs)


@settings(**SETTINGS)
@given(
    num_steps=st.integers(1, 40),
    num_rows=st.integers(1, 3 if INTERPRETED else 50),
    seed=st.integers(0, 2**31),
    ends=st.sampled_from([0.0, 0.1, 1.0]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    index=st.sampled_from([None, torch.int32, torch.int64]),
)
def test_env_major_rows_are_the_time_major_columns(
    backend: str,
    num_steps: int,
    num_rows: int,
    seed: int,
    ends: float,
    dtype: torch.dtype,
    index: torch.dtype | None,
) -> None:
    """With lengths, each row is a rollout of its own; padding is poison, and comes out as 0."""
    rewards, values, terminated, truncated = rollout(num_steps, num_rows, seed, ends)
    rewards, values = rewards.to(dtype), values.to(dtype)
    lengths = torch.randint(
        num_steps + 1, (num_rows,), generator=torch.Generator().manual_seed(seed)
    )
    if index is None:
        lengths = torch.full((num_rows,), num_steps)
    expected = torch.zeros(2, num_rows, num_steps, dtype=torch.float64)
    for n, length in enumerate(lengths.tolist()):
        if length > 0:
            row = (rewards[:length], values[: length + 1], terminated[:length], truncated[:length])
            pair = oracle(*(tensor[:, n : n + 1] for tensor in row), **DISCOUNT)
            expected[:, n, :length] = torch.stack(pair)[:, :, 0]
        rewards[length:, n] = math.nan
        values[length + 1 :, n] = math.inf
        terminated[length:, n] = seed % 2 == 0
        if length == 0:
            values[0, n] = math.nan

    actual = api.gae(
        *env_major((rewards, values, terminated, truncated)),
        **DISCOUNT,
        layout="NT",
        lengths=None if index is None else lengths.to(index),
        backend=backend,
    )

    for a, e in zip(actual, expected, strict=True):
        assert a.dtype == torch.float32
        assert a.is_contiguous()
        torch.testing.assert_close(a.double(), e, **FLOAT32)


def test_hand_worked_padded_rows(backend: str) -> None:
    """gamma = lambda = 1/2; the first row ends in its bootstrap value 4, the second has no step.

    t = 1: delta = 2 + 4/2 - 2 = 2, A = 2                  return 2 + 2 = 4
    t = 0: delta = 1 + 2/2 - 4 = -2, A = -2 + 1/4 * 2      return -3/2 + 4 = 5/2
    """
    nan = math.nan
    rewards = torch.tensor([[1.0, 2.0, nan], [nan, nan, nan]])
    values = torch.tensor([[4.0, 2.0, 4.0, nan], [8.0, nan, nan, nan]])
    never = torch.zeros(2, 3, dtype=torch.bool)

    advantages, returns = api.gae(
        rewards,
        values,
        never,
        never,
        gamma=0.5,
        gae_lambda=0.5,
        lengths=torch.tensor([2, 0]),
        layout="NT",
        backend=backend,
    )

    torch.testing.assert_close(advantages, torch.tensor([[-1.5, 2.0, 0.0], [0.0, 0.0, 0.0]]))
    torch.testing.assert_close(returns, torch.tensor([[2.5, 4.0, 0.0], [0.0, 0.0, 0.0]]))


def test_lengths_out_of_range_count_as_the_nearest(backend: str) -> None:
    inputs = env_major(rollout(9, 3, seed=2))

    wild, tame = (
        api.gae(*inputs, **DISCOUNT, layout="NT", lengths=torch.tensor(x), backend=backend)
        for x in ([-5, 10**12, 4], [0, 9, 4])
    )

    assert all(torch.equal(a, b) for a, b in zip(wild, tame, strict=True))


@pytest.mark.parametrize("num_steps", [255, 256, 257, 1100])
def test_env_major_across_tiles_of_time(backend: str, num_steps: int) -> None:
    inputs = rollout(num_steps, 1, num_steps, ends=0.01)

    actual = api.gae(*env_major(inputs), **DISCOUNT, layout="NT", backend=backend)

    for a, e in zip(actual, oracle(*inputs, **DISCOUNT), strict=True):
        torch.testing.assert_close(a.double(), e.T, **FLOAT32)


def test_env_major_strides_are_honoured(backend: str) -> None:
    inputs = rollout(12, 6, seed=5, ends=0.3)
    rewards, values, terminated, truncated = env_major(inputs)
    strided = (
        torch.cat([rewards, rewards + 1.0], 1)[:, :12],  # rows apart
        torch.stack([values, values + 1.0], 2)[:, :, 0],  # elements apart
        terminated.T.contiguous().T,
        truncated[:1].expand(6, 12),
    )
    assert not any(t.is_contiguous() for t in strided)
    contiguous = tuple(tensor.T.contiguous() for tensor in strided)

    actual = api.gae(*strided, **DISCOUNT, layout="NT", backend=backend)

    for a, e in zip(actual, oracle(*contiguous, **DISCOUNT), strict=True):
        torch.testing.assert_close(a.double(), e.T, **FLOAT32)


def test_bfloat16_is_computed_in_float32(backend: str) -> None:
    """Rewards, values or both; rounding to bfloat16 on the way would show."""
    rewards, values, *flags = rollout(30, 5, seed=1)
    half_rewards, half_values = rewards.bfloat16(), values.bfloat16()

    for r, v in ((half_rewards, half_values), (half_rewards, values), (rewards, half_values)):
        actual = api.gae(r, v, *flags, **DISCOUNT, backend=backend)
        exact = oracle(r, v, *flags, **DISCOUNT)
        for a, e in zip(actual, exact, strict=True):
            assert a.dtype == torch.float32
            torch.testing.assert_close(a.double(), e, **FLOAT32)


def test_more_environments_than_a_block(backend: str) -> None:
    assert_matches_oracle(rollout(2, 4 if INTERPRETED else 4100, seed=7), backend, **DISCOUNT)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layout": "BT"}, "layout='BT': expected 'TN' (time-major) or 'NT'"),
        ({"lengths": torch.ones(3, dtype=torch.long)}, "lengths serve layout='NT' only"),
        (
            {"layout": "NT", "lengths": torch.ones(3)},
            "lengths has dtype torch.float32: expected torch.int64 or torch.int32",
        ),
        (
            {"layout": "NT", "lengths": torch.ones(2, dtype=torch.long)},
            "lengths has shape [2]: expected [3]",
        ),
        ({"layout": "NT"}, "values has shape [4, 3]: expected [3, 4]"),
        (
            {"values": torch.zeros(4, 3).double()},
            "values has dtype torch.float64: expected torch.float32 or torch.bfloat16",
        ),
    ],
)
def test_bad_input_is_named(changes: dict[str, Any], message: str) -> None:
    rewards, values, terminated, truncated = rollout(3, 3, seed=0)
    if "lengths" in changes:
        values = torch.zeros(3, 4) if changes.get("layout") == "NT" else values
    arguments: dict[str, Any] = {
        "rewards": rewards,
        "values": values,
        "terminated": terminated,
        "truncated": truncated,
        **DISCOUNT,
        **changes,
    }

    with pytest.raises(ValueError, match=re.escape(message)):
        api.gae(**arguments)


@pytest.mark.parametrize("layout", ["TN", "NT"])
def test_the_operation_keeps_its_contract(backend: str, layout: str) -> None:
    inputs = rollout(5, 4, seed=0)
    lengths = None
    if layout == "NT":
        inputs, lengths = env_major(inputs), torch.tensor([5, 3, 0, 1])

    torch.library.opcheck(
        torch.ops.fastppo.gae.default, (*inputs, lengths, 0.99, 0.95, layout, backend)
    )


def test_compiles_into_one_graph(backend: str) -> None:
    inputs = env_major(rollout(5, 4, seed=0))
    lengths = torch.tensor([5, 3, 0, 1])

    def advantages(rewards: Tensor, *rest: Tensor) -> Tensor:
        doubled = (2.0 * rewards, *rest)
        return api.gae(*doubled, **DISCOUNT, lengths=lengths, layout="NT", backend=backend)[0]

    compiled: Any = torch.compile(advantages, fullgraph=True, backend="aot_eager")

    assert torch.equal(compiled(*inputs), advantages(*inputs))


def far_apart(memory: mmap.mmap, dtype: torch.dtype, start: int, stride: int) -> list[Tensor]:
    """Three views [8] of untouched memory, `stride` elements apart."""
    size = torch.empty((), dtype=dtype).element_size()
    return [
        torch.frombuffer(memory, dtype=dtype, count=8, offset=start + t * stride * size)
        for t in range(3)
    ]


@pytest.mark.skipif(not INTERPRETED, reason="of the Triton kernels")
@pytest.mark.parametrize("layout", ["TN", "NT"])
def test_offsets_past_2_to_the_31(layout: str) -> None:
    """Tiny rows that lie 2**30 elements and more apart, in memory that is mostly never touched."""
    from fastppo.kernels.gae import triton_gpu as triton_gae

    stride = 2**30  # an int32 itself, unlike twice as much
    private, anonymous, no_reserve = mmap.MAP_PRIVATE, mmap.MAP_ANONYMOUS, 0x4000
    memory = mmap.mmap(-1, 9 * 2**30 + 2**16, flags=private | anonymous | no_reserve)
    rows = {}
    names = ("rewards", "values", "advantages", "returns", "terminated", "truncated")
    for i, name in enumerate(names):
        dtype = torch.bool if name.startswith("t") else torch.float32
        rows[name] = far_apart(memory, dtype, 4096 * i, stride)
    g = torch.Generator().manual_seed(0)
    for name in ("rewards", "values"):
        for row in rows[name]:
            row.copy_(torch.randn(8, generator=g))
    inputs = [torch.stack(rows[name]) for name in ("rewards", "values", "terminated", "truncated")]
    first = [rows[name][0] for name in (*names[:2], *names[4:])]
    written = [rows["advantages"][0], rows["returns"][0]]
    if layout == "TN":  # two steps, and the values behind them
        inputs = [inputs[0][:2], inputs[1], *(flag[:2] for flag in inputs[2:])]
        constants = triton_gae.tiling(2, 8)
        triton_gae.gae_kernel[(1,)](*first, *written, 2, stride, 0.99, 0.99 * 0.95, **constants)
    else:
        inputs = [inputs[0][:, :7], inputs[1], *(flag[:, :7] for flag in inputs[2:])]
        triton_gae.gae_rows_kernel[(3,)](
            *first, None, None, None, *written, 7, *[stride] * 6, 0.99, 0.99 * 0.95, BLOCK_T=16
        )

    expected = api.gae(*inputs, **DISCOUNT, layout=layout, backend="torch")

    for name, e in zip(("advantages", "returns"), expected, strict=True):
        for row, e_row in zip(rows[name], e, strict=False):
            torch.testing.assert_close(row[: len(e_row)], e_row, **FLOAT32)
