"""Advantage statistics: every backend against float64, and that against numbers worked by hand."""

import math
import os
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastppo.kernels import api

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
SETTINGS: dict[str, Any] = {"deadline": None, "max_examples": 10 if INTERPRETED else 100}
NAN = float("nan")


def rollout(num_rows: int, seed: int, offset: float = 0.0) -> tuple[Tensor, Tensor]:
    """advantages with NaN where not valid, and valid; one row in five is not."""
    g = torch.Generator().manual_seed(seed)
    valid = torch.rand(num_rows, generator=g) < 0.8
    return torch.where(valid, torch.randn(num_rows, generator=g) + offset, NAN), valid


def assert_matches_oracle(
    advantages: Tensor, valid: Tensor | None, index: Tensor | None, backend: str
) -> None:
    actual = api.advantage_stats(advantages, valid, index, backend=backend)
    expected = api.advantage_stats(advantages.double(), valid, index, backend="torch")

    assert actual.dtype == torch.float32
    assert torch.equal(actual[:, 3].double(), expected[:, 3])
    spread = 1.0 / expected[:, 2]
    error = (actual.double()[:, :2].sum(1) - expected[:, :2].sum(1)).abs()
    assert (error <= 1e-6 * torch.minimum(spread, expected[:, :2].sum(1).abs()) + 2e-7).all()
    torch.testing.assert_close(actual[:, 2].double(), expected[:, 2], rtol=1e-6, atol=0.0)


@settings(**SETTINGS)
@given(
    minibatches=st.integers(1, 5),
    batch_size=st.integers(1, 300),
    seed=st.integers(0, 2**31),
    offset=st.sampled_from([0.0, -3.0, 1000.0]),
)
def test_matches_float64_reference(
    backend: str, minibatches: int, batch_size: int, seed: int, offset: float
) -> None:
    num_rows = minibatches * batch_size
    advantages, valid = rollout(num_rows, seed, offset)
    g = torch.Generator().manual_seed(seed)
    index = torch.randperm(num_rows, generator=g).view(minibatches, batch_size)

    assert_matches_oracle(advantages, valid, index, backend)
    assert_matches_oracle(advantages, valid, None, backend)
    assert_matches_oracle(advantages.nan_to_num(offset), None, index, backend)


@pytest.mark.parametrize("batch_size", [8192, 8193, 20000])
def test_matches_float64_reference_across_blocks(backend: str, batch_size: int) -> None:
    advantages, valid = rollout(4 * batch_size, batch_size, offset=1000.0)
    index = torch.randperm(4 * batch_size).view(4, batch_size)

    assert_matches_oracle(advantages, valid, index, backend)


def test_hand_worked_minibatches(backend: str) -> None:
    """Rows 1, 2, 3 and 6: mean 3, squares 4 + 1 + 0 + 9, variance 14/3. Row 7 alone stays."""
    advantages = torch.tensor([[1.0, NAN, 2.0, NAN], [3.0, 7.0, NAN, 6.0]])
    index = torch.tensor([[7, 4, 2, 0, 3], [1, 5, 6, 3, 3], [1, 3, 6, 6, 6]])

    stats = api.advantage_stats(advantages, ~advantages.isnan(), index, backend=backend)

    rstd = 1.0 / math.sqrt(14.0 / 3.0)
    expected = torch.tensor([[3.0, 0.0, rstd, 4.0], [0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 0.0]])
    torch.testing.assert_close(stats, expected)


def test_constant_advantages_become_zero(backend: str) -> None:
    mean, low, rstd, count = api.advantage_stats(
        torch.full((40,), 0.1), None, None, backend=backend
    )[0].tolist()

    assert count == 40
    assert abs((0.1 - mean - low) * rstd) < 1.0


def test_a_large_mean_leaves_the_normalised_advantages_accurate(backend: str) -> None:
    advantages, _ = rollout(500, seed=1)
    advantages = advantages.nan_to_num(0.5) + 1e5
    exact = advantages.double()
    expected = (exact - exact.mean()) / (exact.std() + 1e-8)

    mean, low, rstd, _ = api.advantage_stats(advantages, None, None, backend=backend)[0]

    torch.testing.assert_close(
        ((advantages - mean - low) * rstd).double(), expected, rtol=1e-5, atol=1e-6
    )


def test_nan_of_a_valid_row_shows(backend: str) -> None:
    advantages = torch.ones(2, 6)
    advantages[1, 2] = NAN

    stats = api.advantage_stats(advantages, None, torch.arange(12).view(2, 6), backend=backend)

    assert stats[0].isfinite().all()
    assert stats[1, :3].isnan().all()


@pytest.mark.parametrize("row", [-1, 12, 2**40])
def test_a_row_number_out_of_range_shows_and_is_not_read(backend: str, row: int) -> None:
    index = torch.arange(12).view(2, 6).clone()
    index[1, 3] = row
    valid = torch.ones(12, dtype=torch.bool)

    stats = api.advantage_stats(torch.arange(12.0), valid, index, backend=backend)

    assert stats[0].isfinite().all()
    assert stats[1, 0].isnan()


def test_strided_inputs_are_honoured(backend: str) -> None:
    advantages, valid = rollout(60, seed=4)
    index = torch.randperm(60).view(20, 3).T
    strided = (advantages.view(6, 10).T, torch.stack([valid.view(6, 10), ~valid.view(6, 10)])[0].T)
    assert not index.is_contiguous()
    assert not strided[0].is_contiguous()

    assert_matches_oracle(*strided, index, backend)


def test_same_input_gives_the_same_bits(backend: str) -> None:
    advantages, valid = rollout(4 * 20000, seed=8)
    index = torch.randperm(4 * 20000).view(4, 20000)
    first, second = (
        api.advantage_stats(advantages, valid, index, backend=backend) for _ in range(2)
    )

    assert torch.equal(first, second)


def test_feeds_the_loss_what_it_computes_itself() -> None:
    g = torch.Generator().manual_seed(0)
    rows = [torch.randn(8, generator=g) for _ in range(5)]
    valid = torch.rand(8, generator=g) < 0.8
    terms: Any = {"clip_coef": 0.2, "vf_coef": 0.5, "ent_coef": 0.01, "backend": "torch"}
    logits, actions = torch.randn(8, 3, generator=g), torch.zeros(8, dtype=torch.int64)
    stats = api.advantage_stats(rows[2], valid, None, backend="torch")
    arguments: Any = (logits, rows[0], actions, *rows[1:], valid)

    given, _ = api.categorical_ppo_loss(*arguments, **terms, advantage_stats=stats[0])
    computed, _ = api.categorical_ppo_loss(*arguments, **terms)

    torch.testing.assert_close(given, computed)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"advantages": torch.zeros(3, 4, 1)}, r"advantages has shape \[3, 4, 1\]"),
        ({"advantages": torch.zeros(0)}, r"advantages has shape \[0\]"),
        ({"advantages": torch.zeros(12, dtype=torch.bfloat16)}, "advantages has dtype"),
        ({"valid": torch.ones(11, dtype=torch.bool)}, r"valid is torch.bool \[11\]"),
        ({"valid": torch.ones(12)}, "valid is torch.float32"),
        ({"valid": torch.ones(12, dtype=torch.bool, device="meta")}, "valid is on meta"),
        ({"index": torch.zeros(12, dtype=torch.int64)}, r"index is torch.int64 \[12\]"),
        ({"index": torch.zeros(3, 4, dtype=torch.int32)}, "index is torch.int32"),
        ({"index": torch.zeros(3, 4, dtype=torch.int64, device="meta")}, "index is on meta"),
    ],
)
def test_bad_input_is_named(change: dict[str, Tensor], message: str) -> None:
    arguments: dict[str, Any] = {"advantages": torch.zeros(12), "valid": None, "index": None}

    with pytest.raises(ValueError, match=message):
        api.advantage_stats(**(arguments | change))


def test_registered_operation_passes_opcheck(backend: str) -> None:
    advantages, valid = rollout(12, seed=2)
    index = torch.arange(12).view(3, 4)

    for arguments in ((advantages, valid, index), (advantages.nan_to_num(), None, None)):
        torch.library.opcheck(
            torch.ops.fastppo.advantage_stats.default, (*arguments, backend), raise_exception=True
        )


def test_compiles_into_one_graph(backend: str) -> None:
    advantages, valid = rollout(12, seed=3)
    index = torch.arange(12).view(3, 4)
    compiled = torch.compile(api.advantage_stats, fullgraph=True, backend="aot_eager")

    actual = compiled(advantages, valid, index, backend=backend)

    assert torch.equal(actual, api.advantage_stats(advantages, valid, index, backend=backend))
