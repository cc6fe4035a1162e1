"""Every backend of gather_rows gives the rows themselves, bit for bit."""

import os
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastppo.kernels import api

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
SETTINGS: dict[str, Any] = {"deadline": None, "max_examples": 8 if INTERPRETED else 40}
DTYPES = (
    torch.float32, torch.int64, torch.int32, torch.bool, torch.uint8, torch.float64, torch.float16,
)  # fmt: skip


def field(num_rows: int, trailing: tuple[int, ...], dtype: torch.dtype, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.randint(0, 200, (num_rows, *trailing), generator=generator)
    return numbers % 3 == 0 if dtype == torch.bool else numbers.to(dtype)


@settings(**SETTINGS)
@given(
    num_rows=st.integers(1, 40),
    batch_size=st.integers(0, 12 if INTERPRETED else 300),
    kinds=st.lists(
        st.tuples(st.sampled_from(DTYPES), st.sampled_from([(), (1,), (3,), (2, 5), (0,), (33,)])),
        min_size=1,
        max_size=7,
    ),
    seed=st.integers(0, 2**31),
)
def test_gives_the_rows_of_every_field(
    backend: str,
    num_rows: int,
    batch_size: int,
    kinds: list[tuple[torch.dtype, tuple[int, ...]]],
    seed: int,
) -> None:
    fields = [field(num_rows, shape, dtype, seed + i) for i, (dtype, shape) in enumerate(kinds)]
    generator = torch.Generator().manual_seed(seed)
    index = torch.randint(0, num_rows, (batch_size,), generator=generator)

    gathered = api.gather_rows(fields, index, backend=backend)

    assert len(gathered) == len(fields)
    for rows, whole in zip(gathered, fields, strict=True):
        assert rows.dtype == whole.dtype
        assert torch.equal(rows, whole[index])


def test_hand_worked(backend: str) -> None:
    returns = torch.tensor([1.0, 2.0, 3.0])
    valid = torch.tensor([True, False, True])
    obs = torch.tensor([[1, 2], [3, 4], [5, 6]])

    rows = api.gather_rows([returns, valid, obs], torch.tensor([2, 0, 2]), backend=backend)

    assert [t.tolist() for t in rows] == [
        [3.0, 1.0, 3.0],
        [True, True, True],
        [[5, 6], [1, 2], [5, 6]],
    ]


def test_what_is_not_asked_for_is_not_read(backend: str) -> None:
    poisoned = torch.full((9, 3), float("nan"))
    poisoned[4] = 1.0

    (rows,) = api.gather_rows([poisoned], torch.tensor([4, 4]), backend=backend)

    assert torch.equal(rows, torch.ones(2, 3))


def test_strided_fields_index_and_out_are_honoured(backend: str) -> None:
    wide = field(12, (6,), torch.float32, 0)
    fields = [wide[:, ::2], wide.T.contiguous().T, wide[::2].repeat(2, 1)[:, 1], wide[:, 3]]
    index = torch.tensor([0, 9, 3, 9, 11, 9])[::2]
    assert not any(t.is_contiguous() for t in (*fields, index))
    out = [torch.zeros(3, 6)[:, ::2], torch.zeros(6, 3).T, torch.zeros(3, 2)[:, 0], torch.zeros(3)]

    fresh = api.gather_rows(fields, index, backend=backend)
    written = api.gather_rows(fields, index, out=out, backend=backend)

    for whole, new, target, given_out in zip(fields, fresh, written, out, strict=True):
        assert target is given_out
        assert torch.equal(new, whole[index])
        assert torch.equal(target, whole[index])


@pytest.mark.parametrize("bad", [-1, 5, 2**40])
def test_a_row_out_of_range_is_loud(backend: str, bad: int) -> None:
    """An error on the CPU; where that would wait for the device, NaN and False."""
    fields = [torch.ones(5), torch.ones(5, 3), torch.ones(5, dtype=torch.bool)]
    index = torch.tensor([0, bad])

    if backend == "triton":
        single, wide, flags = api.gather_rows(fields, index, backend=backend)
        assert single.isnan().tolist() == [False, True]
        assert wide.isnan().all(1).tolist() == [False, True]
        assert flags.tolist() == [True, False]
    else:
        with pytest.raises(IndexError, match="index"):
            api.gather_rows(fields, index, backend=backend)


def test_no_gradient_flows(backend: str) -> None:
    values = torch.ones(4, requires_grad=True)

    (rows,) = api.gather_rows([values], torch.tensor([1]), backend=backend)

    assert not rows.requires_grad


def test_autograd_notices_a_buffer_that_is_written_again(backend: str) -> None:
    out = [torch.zeros(2)]
    weight = torch.ones(2, requires_grad=True)
    api.gather_rows([torch.ones(3)], torch.tensor([0, 1]), out=out, backend=backend)
    product = (weight * out[0]).sum()  # keeps out[0]

    api.gather_rows([torch.ones(3)], torch.tensor([2, 1]), out=out, backend=backend)

    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward()


@pytest.mark.parametrize(
    ("fields", "index", "out", "message"),
    [
        ([], torch.tensor([0]), None, "fields is empty"),
        ([torch.ones(3), torch.ones(4)], torch.tensor([0]), None, r"fields\[1\] has shape \[4\]"),
        ([torch.ones(3), torch.ones(())], torch.tensor([0]), None, r"fields\[1\] has shape \[\]"),
        ([torch.ones(3)], torch.tensor([0.0]), None, "index has .*float32: expected .* int64"),
        ([torch.ones(3)], torch.tensor([[0]]), None, r"index has shape \[1, 1\]"),
        ([torch.ones(3)], torch.tensor([0]), [], "out has 0 tensors: expected 1"),
        ([torch.ones(3)], torch.tensor([0]), [torch.ones(2)], r"out\[0\] is \[2\]"),
        ([torch.ones(3)], torch.tensor([0]), [torch.ones(1).int()], "expected .*float32"),
    ],
)
def test_bad_input_is_named(
    fields: list[Tensor], index: Tensor, out: list[Tensor] | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        api.gather_rows(fields, index, out=out)


def test_is_one_registered_operation(backend: str) -> None:
    fields = [torch.arange(6.0), torch.arange(12).view(6, 2)]
    index = torch.tensor([5, 0, 3])
    rows = torch.ops.fastppo.gather_rows.default
    rows_out = torch.ops.fastppo.gather_rows_out.default

    torch.library.opcheck(rows, (fields, index, backend))
    torch.library.opcheck(
        rows_out, (fields, index, [torch.zeros(3), torch.zeros(3, 2, dtype=torch.int64)], backend)
    )


def test_compiles_into_one_graph(backend: str) -> None:
    fields = [torch.arange(6.0), torch.arange(12).view(6, 2)]
    index = torch.tensor([5, 0, 3])

    def both(index: Tensor, out: Tensor) -> tuple[Tensor, ...]:
        api.gather_rows(fields[:1], index, out=[out], backend=backend)
        return (*api.gather_rows(fields, index, backend=backend), out + 1)

    expected = both(index, torch.zeros(3))
    actual = torch.compile(both, fullgraph=True, backend="aot_eager")(index, torch.zeros(3))

    assert all(torch.equal(a, e) for a, e in zip(actual, expected, strict=True))
