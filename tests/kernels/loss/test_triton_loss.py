"""What only the Triton losses promise: which kernel serves what, launches, memory, offsets."""

import mmap
import os
from typing import Any

import pytest
import torch
from torch import Tensor

from fastppo.kernels import api

pytestmark = pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") != "1", reason="of the Triton kernels, interpreted"
)
OPTIONS: dict[str, Any] = {"clip_coef": 0.2, "vf_coef": 0.5, "ent_coef": 0.01}
FLOAT32: dict[str, Any] = {"rtol": 2e-5, "atol": 1e-6}
BATCH = 7


def arguments_of(width: int, nvec: tuple[int, ...] | None = None) -> dict[str, Any]:
    g = torch.Generator().manual_seed(0)
    shape = (BATCH,) if nvec is None else (BATCH, len(nvec))
    rows = torch.randn(5, BATCH, generator=g)
    return {
        "logits": torch.randn(BATCH, width, generator=g),
        "new_values": rows[0],
        "actions": torch.randint(min(nvec or (width,)), shape, generator=g),
        "old_log_probs": rows[1] - 2.0,
        "advantages": rows[2] + 5.0,
        "returns": rows[3],
        "old_values": rows[4],
        "nvec": nvec,
        **OPTIONS,
    }


def exact(arguments: dict[str, Any]) -> dict[str, Any]:
    return {
        n: x.double() if isinstance(x, Tensor) and x.is_floating_point() else x
        for n, x in arguments.items()
    }


def launches(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the kernels launched from now on, in order."""
    from fastppo.kernels.loss import (
        triton_categorical,
        triton_gaussian,
        triton_moments,
        triton_narrow,
        triton_rows,
        triton_vocab,
    )

    launched: list[str] = []

    class Recorded:
        def __init__(self, name: str, kernel: Any) -> None:
            self.name, self.kernel = name, kernel

        def __getitem__(self, grid: tuple[int, ...]) -> Any:
            launched.append(self.name)
            return self.kernel[grid]

    losses = (triton_categorical, triton_gaussian, triton_narrow, triton_vocab)
    for module in (*losses, triton_moments, triton_rows):
        for name, kernel in list(vars(module).items()):
            if name.endswith("_kernel"):
                monkeypatch.setattr(module, name, Recorded(name.removesuffix("_kernel"), kernel))
    return launched


@pytest.mark.parametrize(
    ("nvec", "kernel"),
    [
        ((6,), "narrow"),
        ((32,), "narrow"),
        ((33,), "categorical"),
        ((3, 2), "categorical"),
        ((512,), "categorical"),
        ((513,), "vocab"),
    ],
)
def test_which_kernel_serves(
    monkeypatch: pytest.MonkeyPatch, nvec: tuple[int, ...], kernel: str
) -> None:
    launched = launches(monkeypatch)

    api.categorical_ppo_loss(**arguments_of(sum(nvec), nvec), backend="triton")

    assert launched == ["moments", kernel, "finish"]


@pytest.mark.parametrize("normalizer", [None, 11.0, torch.tensor(11)])
@pytest.mark.parametrize("norm_adv", [False, True])
@pytest.mark.parametrize("width", [6, 40, 1100])
def test_given_advantage_stats_spare_a_launch(
    monkeypatch: pytest.MonkeyPatch, width: int, norm_adv: bool, normalizer: Any
) -> None:
    """They are used as they are; without norm_adv only the count is."""
    arguments = arguments_of(width)
    stats = torch.tensor([1.0, 0.5, 2.0, float(BATCH)])
    arguments |= {"advantage_stats": stats, "norm_adv": norm_adv, "normalizer": normalizer}
    launched = launches(monkeypatch)

    loss, _ = api.categorical_ppo_loss(**arguments, backend="triton")

    assert "moments" not in launched
    assert len(launched) == 2
    expected, _ = api.categorical_ppo_loss(**exact(arguments), backend="torch")
    torch.testing.assert_close(loss.double(), expected, **FLOAT32)


@pytest.mark.parametrize("norm_adv", [False, True])
def test_given_advantage_stats_of_a_gaussian(
    monkeypatch: pytest.MonkeyPatch, norm_adv: bool
) -> None:
    g = torch.Generator().manual_seed(0)
    arguments = {**arguments_of(3), "mean": torch.randn(BATCH, 3, generator=g)}
    del arguments["logits"], arguments["nvec"]
    arguments |= {
        "log_std": torch.zeros(3),
        "actions": torch.randn(BATCH, 3, generator=g),
        "advantage_stats": torch.tensor([1.0, 0.5, 2.0, float(BATCH)]),
        "norm_adv": norm_adv,
    }
    launched = launches(monkeypatch)

    loss, _ = api.gaussian_ppo_loss(**arguments, backend="triton")

    assert launched == ["gaussian", "finish"]
    expected, _ = api.gaussian_ppo_loss(**exact(arguments), backend="torch")
    torch.testing.assert_close(loss.double(), expected, **FLOAT32)


def test_a_wide_head_beside_others_is_refused() -> None:
    with pytest.raises(api.BackendUnavailable, match=r"up to 512 actions.*pass backend='torch'"):
        api.categorical_ppo_loss(**arguments_of(515, (2, 513)), backend="triton")


@pytest.mark.parametrize("width", [6, 40, 1100])
def test_overwriting_logits_that_share_memory_is_refused(width: int) -> None:
    arguments = arguments_of(width)
    arguments["logits"] = arguments["logits"][:1].expand(BATCH, width)

    with pytest.raises(ValueError, match=r"share memory between rows: pass logits.contiguous"):
        api.categorical_ppo_loss(**arguments, overwrite_logits=True, backend="triton")


def test_offsets_past_2_to_the_31() -> None:
    """Three rows of logits, 2**30 elements apart in memory that is mostly never touched."""
    from fastppo.kernels.loss import triton_rows, triton_vocab
    from fastppo.kernels.loss.terms import Rows, Terms

    width, stride = 5, 2**30  # an int32 itself, unlike twice as much
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000  # MAP_NORESERVE
    memory = mmap.mmap(-1, 8 * stride + 2**16, flags=flags)

    def three_rows(start: int, dtype: torch.dtype) -> list[Tensor]:
        size = torch.empty((), dtype=dtype).element_size()
        offsets = (start, start + stride * size, start + 2 * stride * size)
        return [torch.frombuffer(memory, dtype=dtype, count=width, offset=o) for o in offsets]

    logits, d_logits = three_rows(0, torch.float32), three_rows(4096, torch.float32)
    allowed = three_rows(8192, torch.bool)
    g = torch.Generator().manual_seed(0)
    for row, mask in zip(logits, allowed, strict=True):
        row.copy_(torch.randn(width, generator=g))
        mask.copy_(torch.tensor([True, True, False, True, True]))
    actions = torch.tensor([1, 4, 0])
    columns = torch.randn(5, 3, generator=g)
    rows = Rows(columns[0], columns[1], columns[2], columns[3], None)
    d_values, partials = torch.empty(3), torch.empty(3, 8)
    settings = triton_rows.prepare(rows, Terms(0.2, 0.2, 0.5, 0.01, None, None, False, None))
    triton_vocab.vocab_kernel[(3,)](
        logits[0],
        actions,
        allowed[0],
        new_values_ptr=columns[4],
        weights_ptr=None,
        ref_log_probs_ptr=None,
        d_logits_ptr=d_logits[0],
        d_values_ptr=d_values,
        partials_ptr=partials,
        batch_size=3,
        width=width,
        logits_stride=stride,
        allowed_stride=stride,
        d_logits_stride=stride,
        inverse_temperature=1.0,
        kl_coef=0.0,
        ESTIMATOR=0,
        DEPTH=2,
        LANES=4,
        MASK_VECTOR=1,
        **settings,
    )

    z = torch.stack(logits).double().requires_grad_()
    loss, _ = api.categorical_ppo_loss(
        z,
        columns[4].double(),
        actions,
        *(column.double() for column in columns[:4]),
        **OPTIONS,
        norm_adv=False,
        action_mask=torch.stack(allowed),
        backend="torch",
    )
    expected = torch.autograd.grad(loss, z)[0]
    torch.testing.assert_close(torch.stack(d_logits).double(), expected, **FLOAT32)


@pytest.mark.parametrize("rows", [2048, 2049, 6000, 257 * 2048 + 3])
def test_moments_of_many_rows_are_those_of_float64(rows: int) -> None:
    """Also where the mean is large, some blocks have no valid row, and programs are many."""
    from fastppo.kernels.loss.triton_moments import advantage_moments

    g = torch.Generator().manual_seed(rows)
    advantages = 1e4 + torch.randn(rows, generator=g)
    valid = torch.rand(rows, generator=g) < 0.7
    valid[2048:4096] = False
    advantages[~valid] = float("nan")

    mean, low, scale, count = advantage_moments(advantages, valid, norm_adv=True).double().tolist()

    expected = advantages[valid].double()
    assert count == len(expected)
    assert mean + low == pytest.approx(expected.mean().item(), rel=1e-9)
    assert 1.0 / scale == pytest.approx(expected.std().item(), rel=1e-5)
    assert advantage_moments(advantages, valid, norm_adv=False).tolist() == [0.0, 0.0, 1.0, count]
