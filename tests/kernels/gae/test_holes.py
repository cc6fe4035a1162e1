"""GAE of rows with holes, and of rows with a lambda of their own: a row counts as compressed."""

import math
import os
import re
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastppo.kernels import api

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
SETTINGS: dict[str, Any] = {"deadline": None, "max_examples": 8 if INTERPRETED else 100}
NEVER = torch.zeros(1, 5, dtype=torch.bool)


@settings(**SETTINGS)
@given(
    num_rows=st.integers(1, 4),
    num_steps=st.sampled_from([1, 7, 40, 300]),
    seed=st.integers(0, 2**31),
    share=st.sampled_from([0.0, 0.5, 0.95]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    own_lambda=st.booleans(),
    with_lengths=st.booleans(),
)
def test_a_row_with_holes_is_the_row_without(
    backend: str,
    num_rows: int,
    num_steps: int,
    seed: int,
    share: float,
    dtype: torch.dtype,
    own_lambda: bool,
    with_lengths: bool,
) -> None:
    """Compressed, and computed in float64 row by row; what stands in a hole is poison."""
    g = torch.Generator().manual_seed(seed)
    shape = (num_rows, num_steps)
    rewards = torch.randn(shape, generator=g).to(dtype)
    values = torch.randn(num_rows, num_steps + 1, generator=g).to(dtype)
    terminated, truncated = (torch.rand(shape, generator=g) < 0.1 for _ in range(2))
    valid = torch.rand(shape, generator=g) < share
    lambdas = torch.rand(num_rows, generator=g) if own_lambda else torch.full((num_rows,), 0.95)
    lengths = torch.full((num_rows,), num_steps)
    if with_lengths:
        lengths = torch.randint(num_steps + 1, (num_rows,), generator=g)
    live = valid & (torch.arange(num_steps) < lengths[:, None])
    expected = torch.zeros(2, *shape, dtype=torch.float64)
    for n in range(num_rows):
        keep = live[n]
        if not keep.any():
            continue
        behind = torch.cat([values[n, :-1][keep], values[n, lengths[n]][None]])
        row = (rewards[n][keep], behind, terminated[n][keep], truncated[n][keep])
        columns = [x[:, None].double() if x.is_floating_point() else x[:, None] for x in row]
        pair = api.gae(*columns, gamma=0.9, gae_lambda=float(lambdas[n]), backend="torch")
        expected[:, n, keep] = torch.stack(pair)[:, :, 0]
    bootstrap = values.gather(1, lengths[:, None])
    rewards[~live], values[:, :-1][~live] = math.nan, math.nan
    values[:, -1] = math.inf
    values.scatter_(1, lengths[:, None], bootstrap)
    terminated |= ~live

    actual = api.gae(
        rewards,
        values,
        terminated,
        truncated,
        gamma=0.9,
        gae_lambda=lambdas if own_lambda else 0.95,
        lengths=lengths if with_lengths else None,
        valid=valid,
        layout="NT",
        backend=backend,
    )

    for a, e in zip(actual, expected, strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a.double(), e, rtol=1e-5, atol=1e-5)


def advantages(backend: str, rewards: list[float], values: list[float], **options: Any) -> Tensor:
    """Of one row of five places, gamma = lambda = 1/2."""
    inputs: dict[str, Any] = {"terminated": NEVER, "truncated": NEVER, **options}
    result, _ = api.gae(
        torch.tensor([rewards], dtype=torch.float32),
        torch.tensor([values], dtype=torch.float32),
        **inputs,
        gamma=0.5,
        gae_lambda=0.5,
        layout="NT",
        backend=backend,
    )
    return result[0]


def test_hand_worked_hole_in_four_conventions(backend: str) -> None:
    """Tokens at 0, 2 and 3, a tool's word at 1, padding at 4; the reward 8 at the last token.

    Compressed, as here: the hole takes no step.
        t = 3: delta = 8 - 2 = 6                     A = 6       (terminated: nothing behind)
        t = 2: delta = 0 + 2/2 - 4 = -3              A = -3 + 6/4 = -3/2
        t = 0: delta = 0 + 4/2 - 1 = 1               A = 1 - 3/8 = 5/8
    The other three: a hole that decays (A_0 = 1 - 3/32), a hole that is a step of reward and value
    0 (delta_0 = -1), and a reward behind the last token, at the place of padding.
    """
    nan = math.nan
    valid = torch.tensor([[True, False, True, True, False]])
    ends = torch.tensor([[False, False, False, True, False]])

    ours = advantages(
        backend, [0, nan, 0, 8, nan], [1, nan, 4, 2, nan, nan], valid=valid, terminated=ends
    )

    torch.testing.assert_close(ours, torch.tensor([0.625, 0.0, -1.5, 6.0, 0.0]))
    zeros = advantages(backend, [0, 0, 0, 8, 0], [1, 0, 4, 2, 0, 0], terminated=ends)
    assert zeros[0] == -1 + 1 / 4 * (2.0 + 1 / 4 * -1.5)  # a step of its own
    later = advantages(
        backend, [0, nan, 0, 0, 8], [1, nan, 4, 2, 0, 0], valid=torch.tensor([[1, 0, 1, 1, 1]]) > 0
    )
    torch.testing.assert_close(later[[2, 3]], torch.tensor([-3 + 1 / 4 * 0.0, -2 + 1 / 4 * 8.0]))


def test_hand_worked_cut(backend: str) -> None:
    """A row that is cut has a value behind its last token: that at its length."""
    valid = torch.tensor([[True, True, False, False, False]])
    cut = torch.tensor([[False, True, False, False, False]])
    nan = math.nan

    ours = advantages(
        backend,
        [1, 1, nan, nan, nan],
        [0, 2, nan, 6, nan, nan],
        valid=valid,
        truncated=cut,
        lengths=torch.tensor([3]),
    )

    torch.testing.assert_close(ours, torch.tensor([2 + 1 / 4 * 2, 1 + 3.0 - 2, 0, 0, 0]))


def test_a_lambda_of_each_row(backend: str) -> None:
    """One of 0 is the delta, one of 1 the return less the value."""
    rewards, values = torch.ones(2, 3), torch.zeros(2, 4)
    never = torch.zeros(2, 3, dtype=torch.bool)

    result, _ = api.gae(
        rewards,
        values,
        never,
        never,
        gamma=1.0,
        gae_lambda=torch.tensor([0.0, 1.0]),
        layout="NT",
        backend=backend,
    )

    assert result.tolist() == [[1.0, 1.0, 1.0], [3.0, 2.0, 1.0]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layout": "TN", "valid": torch.ones(3, 3).bool()}, "valid serves layout='NT' only"),
        ({"layout": "TN", "gae_lambda": torch.ones(3)}, "gae_lambda of [N] serves layout='NT'"),
        ({"valid": torch.ones(3).bool()}, "valid has shape [3]: expected [3, 3]"),
        ({"valid": torch.ones(3, 3)}, "valid has dtype torch.float32: expected torch.bool"),
        ({"gae_lambda": torch.ones(2)}, "gae_lambda has shape [2]: expected [3]"),
        ({"gae_lambda": torch.tensor([0.5, 1.5, 0.5])}, "gae_lambda holds 1.5: expected numbers"),
        ({"gae_lambda": torch.tensor([0.5, math.nan, 0])}, "gae_lambda holds nan: expected"),
    ],
)
def test_bad_input_is_named(changes: dict[str, Any], message: str) -> None:
    layout = changes.get("layout", "NT")
    never = torch.zeros(3, 3, dtype=torch.bool)
    values = torch.zeros(3, 4) if layout == "NT" else torch.zeros(4, 3)
    options = {"gamma": 0.9, "gae_lambda": 0.9, "layout": "NT", **changes}

    with pytest.raises(ValueError, match=re.escape(message)):
        api.gae(torch.zeros(3, 3), values, never, never, **options)


def test_compiles_into_one_graph(backend: str) -> None:
    g = torch.Generator().manual_seed(0)
    rewards, values = torch.randn(4, 5, generator=g), torch.randn(4, 6, generator=g)
    never, valid = torch.zeros(4, 5, dtype=torch.bool), torch.rand(4, 5, generator=g) < 0.6
    lambdas = torch.tensor([0.9, 0.8, 0.7, 0.6])

    def result(rewards: Tensor) -> Tensor:
        return api.gae(
            2.0 * rewards, values, never, never, gamma=0.9, gae_lambda=lambdas, valid=valid,
            layout="NT", backend=backend,
        )[0]  # fmt: skip

    compiled: Any = torch.compile(result, fullgraph=True, backend="aot_eager")

    assert torch.equal(compiled(rewards), result(rewards))
