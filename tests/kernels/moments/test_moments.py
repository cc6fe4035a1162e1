"""Running moments and normalisation: every backend against numpy over everything it was given."""

import math
import os
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastppo.kernels import api

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
SETTINGS: dict[str, Any] = {"deadline": None, "max_examples": 8 if INTERPRETED else 60}
NAN = float("nan")


def state(*shape: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, variance and count before any row."""
    kind = torch.float64
    return (
        torch.zeros(shape, dtype=kind),
        torch.ones(shape, dtype=kind),
        torch.zeros((), dtype=kind),
    )


def batch(size: int, *shape: int, seed: int = 0, offset: float = 0.0) -> tuple[Tensor, Tensor]:
    """Rows, NaN where not valid, and valid; three rows in ten are not."""
    g = torch.Generator().manual_seed(seed)
    valid = torch.rand(size, generator=g) < 0.7
    rows = offset + torch.randn(size, *shape, generator=g)
    return torch.where(valid.view(-1, *[1] * len(shape)), rows, NAN), valid


@settings(**SETTINGS)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    width=st.integers(1, 40),
    seed=st.integers(0, 2**31),
    offset=st.sampled_from([0.0, 1e3, -1e4]),
)
def test_moments_equal_those_of_all_valid_rows(
    backend: str, sizes: list[int], width: int, seed: int, offset: float
) -> None:
    mean, var, count = state(width)
    seen = []
    for i, size in enumerate(sizes):
        rows, valid = batch(size, width, seed=seed + i, offset=offset)
        api.update_moments_(mean, var, count, rows, valid, backend=backend)
        seen.append(rows[valid])
    everything = torch.cat(seen).double().numpy()

    assert float(count) == len(everything)
    if len(everything):
        np.testing.assert_allclose(mean, everything.mean(0), rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(var, everything.var(0), rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize(("size", "width"), [(300, 17), (70, 376), (2100, 1), (5, 3)])
def test_moments_match_across_tiles(backend: str, size: int, width: int) -> None:
    ours, exact = state(width), state(width)
    rows, valid = batch(size, width, offset=1e3)

    for _ in range(2):
        api.update_moments_(*ours, rows, valid, backend=backend)
        api.update_moments_(*exact, rows.double(), valid, backend="torch")

    for mine, other in zip(ours, exact, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-6, atol=1e-9)


def test_hand_worked_merge(backend: str) -> None:
    """Rows 1 and 3, then 8: means 2 and 4; variances 1 and (9 + 1 + 16) / 3 = 26 / 3."""
    mean, var, count = state(1)
    rows = torch.tensor([[1.0], [NAN], [3.0], [8.0]])

    api.update_moments_(
        mean, var, count, rows[:3], torch.tensor([True, False, True]), backend=backend
    )
    assert (mean.item(), var.item(), count.item()) == (2.0, 1.0, 2.0)

    api.update_moments_(mean, var, count, rows[3:], backend=backend)
    assert (mean.item(), count.item()) == (4.0, 3.0)
    assert var.item() == pytest.approx(26.0 / 3.0)


def test_no_valid_row_changes_no_bit(backend: str) -> None:
    moments = state(3)
    api.update_moments_(*moments, torch.randn(5, 3), backend=backend)
    before = [m.clone() for m in moments]

    nothing = torch.zeros(4, dtype=torch.bool)
    api.update_moments_(*moments, torch.full((4, 3), NAN), nothing, backend=backend)

    assert all(torch.equal(a, b) for a, b in zip(moments, before, strict=True))


def test_no_row_at_all_changes_no_bit(backend: str) -> None:
    moments = state(3)

    api.update_moments_(*moments, torch.zeros(0, 3), backend=backend)

    assert [m.tolist() for m in moments] == [[0.0] * 3, [1.0] * 3, 0.0]
    assert api.normalize(torch.zeros(0, 3), *moments[:2], clip=1.0, backend=backend).numel() == 0


@settings(**SETTINGS)
@given(
    size=st.integers(1, 40),
    width=st.integers(1, 80),
    seed=st.integers(0, 2**31),
    masked=st.booleans(),
    data=st.data(),
)
def test_a_row_that_is_not_finite_is_not_merged(
    backend: str, size: int, width: int, seed: int, masked: bool, data: st.DataObject
) -> None:
    """As many moments as if `valid` had been false there, whatever the number and its column."""
    rows, valid = batch(size, width, seed=seed)
    rows = rows.nan_to_num()
    flags = valid if masked else None
    kept = valid.clone() if masked else torch.ones(size, dtype=torch.bool)
    for row in data.draw(st.sets(st.integers(0, size - 1))):
        column = data.draw(st.integers(0, width - 1))
        rows[row, column] = data.draw(st.sampled_from([NAN, math.inf, -math.inf]))
        kept[row] = False
    ours, exact = state(width), state(width)

    for moments, mask in ((ours, flags), (exact, kept)):
        api.update_moments_(*moments, torch.ones(3, width), backend=backend)
        api.update_moments_(*moments, rows, mask, backend=backend)

    assert all(torch.equal(a, b) for a, b in zip(ours, exact, strict=True))
    assert all(m.isfinite().all() for m in ours)


def test_the_largest_finite_numbers_leave_moments_finite(backend: str) -> None:
    mean, var, count = state(2)

    for _ in range(2):
        rows = torch.tensor([[3.4e38, 1.0], [-3.4e38, 3.0], [3.4e38, 2.0]])
        api.update_moments_(mean, var, count, rows, backend=backend)

    assert count == 6
    assert mean.isfinite().all()
    assert var.isfinite().all()
    assert float(mean[1]) == 2.0
    assert float(var[1]) == pytest.approx(2.0 / 3.0)


@settings(**SETTINGS)
@given(
    size=st.integers(1, 40),
    width=st.integers(1, 40),
    seed=st.integers(0, 2**31),
    offset=st.sampled_from([0.0, 1e4]),
    clip=st.sampled_from([0.5, 10.0, math.inf]),
)
def test_normalize_matches_float64(
    backend: str, size: int, width: int, seed: int, offset: float, clip: float
) -> None:
    g = torch.Generator().manual_seed(seed)
    mean = offset + torch.randn(width, generator=g, dtype=torch.float64)
    var = torch.rand(width, generator=g, dtype=torch.float64) + 0.01
    rows = offset + torch.randn(size, width, generator=g)

    out = api.normalize(rows, mean, var, clip=clip, backend=backend)

    expected = api.normalize(rows.double(), mean, var, clip=clip, backend="torch")
    assert (out.dtype, expected.dtype) == (torch.float32, torch.float64)
    torch.testing.assert_close(out.double(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.float16, torch.bfloat16])
def test_rows_of_other_types_come_out_as_float32(backend: str, dtype: torch.dtype) -> None:
    rows = torch.tensor([[0, 4], [2, 8]]).to(dtype)
    mean, var = torch.tensor([1.0, 6.0]), torch.tensor([1.0, 4.0])
    moments = state(2)

    out = api.normalize(rows, mean, var, clip=5.0, backend=backend)
    api.update_moments_(*moments, rows, backend=backend)

    torch.testing.assert_close(out, torch.tensor([[-1.0, -1.0], [1.0, 1.0]]))
    assert moments[0].tolist() == [1.0, 6.0]
    assert moments[1].tolist() == [1.0, 4.0]


def test_normalize_clips_and_keeps_nan(backend: str) -> None:
    rows = torch.tensor([[100.0, -100.0, NAN, math.inf]])

    out = api.normalize(rows, torch.zeros(4), torch.ones(4), clip=5.0, backend=backend)

    assert out[0, [0, 1, 3]].tolist() == [5.0, -5.0, 5.0]
    assert out[0, 2].isnan()


def test_normalized_out_is_under_the_updated_statistics(backend: str) -> None:
    """Rows 1 and 3 have mean 2 and deviation 1; the invalid row is normalised with them."""
    moments = state(1)
    rows = torch.tensor([[1.0], [3.0], [7.0]])
    out = torch.empty(3, 1)

    api.update_moments_(
        *moments,
        rows,
        torch.tensor([True, True, False]),
        normalized_out=out,
        clip=4.0,
        backend=backend,
    )

    torch.testing.assert_close(out, torch.tensor([[-1.0], [1.0], [4.0]]))


def test_shapes_beyond_vectors_and_strided_rows(backend: str) -> None:
    rows, valid = batch(12, 6, seed=3)
    strided = rows.view(12, 2, 3).transpose(1, 2)
    flags = torch.stack([valid, ~valid], 1)[:, 0]
    moments, scalar = state(3, 2), state()
    assert not strided.is_contiguous()
    assert not flags.is_contiguous()

    api.update_moments_(*moments, strided, flags, backend=backend)
    api.update_moments_(*scalar, rows[:, 0], flags, backend=backend)
    out = api.normalize(strided, *moments[:2], clip=10.0, backend=backend)

    exact = strided[valid].double()
    torch.testing.assert_close(moments[0], exact.mean(0), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(scalar[0], exact[:, 0, 0].mean(), rtol=1e-6, atol=1e-6)
    expected = (exact - exact.mean(0)) / exact.std(0, correction=0)
    torch.testing.assert_close(out[valid].double(), expected, rtol=1e-5, atol=1e-5)


def test_normalize_may_overwrite_its_rows(backend: str) -> None:
    rows = torch.randn(9, 5)
    mean, var = torch.randn(5).double(), torch.rand(5).double() + 0.1
    expected = api.normalize(rows, mean, var, clip=1.0, backend=backend)

    out = api.normalize(rows, mean, var, clip=1.0, out=rows, backend=backend)

    assert out is rows
    assert torch.equal(out, expected)


def test_same_input_gives_the_same_bits(backend: str) -> None:
    rows, valid = batch(700, 17, seed=8)
    first, second = state(17), state(17)

    for moments in (first, second):
        api.update_moments_(*moments, rows, valid, backend=backend)

    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": torch.zeros(4, 2)}, r"rows has shape \[4, 2\]"),
        ({"rows": torch.zeros(2, 4, 3)}, r"rows has shape \[2, 4, 3\].*flatten it"),
        ({"mean": torch.zeros(3)}, "mean is torch.float32"),
        ({"mean": torch.zeros(3, dtype=torch.int64)}, "mean has dtype torch.int64"),
        ({"var": torch.ones(2, dtype=torch.float64)}, r"var has shape \[2\]"),
        ({"var": torch.ones(3, dtype=torch.float64, device="meta")}, "var is on meta"),
        ({"count": torch.zeros(1, dtype=torch.float64)}, r"count has shape \[1\]"),
        ({"count": torch.zeros(())}, "count is torch.float32"),
        ({"valid": torch.ones(4)}, "valid is torch.float32"),
        ({"normalized_out": torch.zeros(3, 4).T}, "normalized_out is not contiguous"),
        ({"normalized_out": torch.zeros(4, 3).double()}, "normalized_out is torch.float64"),
        ({"clip": 0.0}, "clip=0.0"),
        ({"epsilon": 0.0}, "epsilon=0.0"),
    ],
)
def test_bad_input_is_named(change: dict[str, Any], message: str) -> None:
    mean, var, count = state(3)
    arguments: dict[str, Any] = {
        "mean": mean, "var": var, "count": count, "rows": torch.zeros(4, 3)
    }  # fmt: skip

    with pytest.raises(ValueError, match=message):
        api.update_moments_(**(arguments | change))


def test_registered_operations_pass_opcheck(backend: str) -> None:
    rows, valid = batch(6, 3)
    out = torch.zeros(6, 3)
    mean, var, _ = state(3)
    operations = torch.ops.fastppo

    torch.library.opcheck(
        operations.normalize.default, (out, torch.randn(6, 3), mean, var, 5.0, 1e-8, backend)
    )
    for optional in ((valid, torch.zeros(6, 3)), (None, None)):
        arguments = (*state(3), rows.nan_to_num(), *optional, 5.0, 1e-8, backend)
        torch.library.opcheck(operations.update_moments_.default, arguments)

    assert not out.any()  # opcheck works on copies


def test_compile_into_one_graph(backend: str) -> None:
    rows, valid = batch(6, 3)

    def both(rows: Tensor, valid: Tensor, mean: Tensor, var: Tensor, count: Tensor) -> Tensor:
        api.update_moments_(mean, var, count, rows, valid, backend=backend)
        return api.normalize(rows, mean, var, clip=10.0, backend=backend)

    eager, compiled = state(3), state(3)
    expected = both(rows, valid, *eager)
    actual = torch.compile(both, fullgraph=True, backend="aot_eager")(rows, valid, *compiled)

    torch.testing.assert_close(actual, expected, equal_nan=True, rtol=0.0, atol=0.0)
    assert all(torch.equal(a, b) for a, b in zip(compiled, eager, strict=True))
