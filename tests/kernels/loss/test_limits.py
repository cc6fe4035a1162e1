"""What the losses make of numbers at the edge: huge, masked, non-finite, out of range."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from fastppo.kernels import api

OPTIONS: dict[str, Any] = {
    "clip_coef": 0.2,
    "vf_coef": 0.5,
    "ent_coef": 0.01,
    "norm_adv": False,
}
BATCH = 20  # more than one tile of the numba kernels


def discrete(backend: str, **changes: Any) -> tuple[Tensor, api.Stats, Tensor, Tensor]:
    """Loss, statistics and both gradients of a plain batch with `changes`."""
    g = torch.Generator().manual_seed(0)
    arguments: dict[str, Any] = {
        "logits": torch.randn(BATCH, 4, generator=g),
        "new_values": torch.randn(BATCH, generator=g),
        "actions": torch.randint(4, (BATCH,), generator=g),
        "old_log_probs": torch.full((BATCH,), -1.4),
        "advantages": torch.randn(BATCH, generator=g),
        "returns": torch.randn(BATCH, generator=g),
        "old_values": torch.randn(BATCH, generator=g),
        **OPTIONS,
        **changes,
    }
    arguments["logits"] = logits = arguments["logits"].requires_grad_()
    arguments["new_values"] = values = arguments["new_values"].requires_grad_()
    loss, stats = api.categorical_ppo_loss(**arguments, backend=backend)
    d_logits, d_values = torch.autograd.grad(loss, (logits, values))
    return loss.detach(), stats, d_logits, d_values


def continuous(backend: str, **changes: Any) -> tuple[Tensor, api.Stats]:
    g = torch.Generator().manual_seed(0)
    arguments: dict[str, Any] = {
        "mean": torch.randn(BATCH, 3, generator=g),
        "log_std": torch.zeros(3),
        "new_values": torch.randn(BATCH, generator=g),
        "actions": torch.randn(BATCH, 3, generator=g),
        "old_log_probs": torch.full((BATCH,), -4.0),
        "advantages": torch.randn(BATCH, generator=g),
        "returns": torch.randn(BATCH, generator=g),
        "old_values": torch.randn(BATCH, generator=g),
        **OPTIONS,
        **changes,
    }
    return api.gaussian_ppo_loss(**arguments, backend=backend)


def test_huge_logits(backend: str) -> None:
    logits = torch.full((BATCH, 4), -1e4)
    logits[:, 2] = 1e4
    actions = torch.full((BATCH,), 2)

    loss, stats, d_logits, _ = discrete(
        backend, logits=logits, actions=actions, old_log_probs=torch.zeros(BATCH)
    )

    assert loss.isfinite()
    assert stats["entropy"] == 0.0
    assert stats["approx_kl"] == 0.0
    assert (d_logits == 0.0).all()


def test_masked_actions_have_probability_zero_and_no_gradient(backend: str) -> None:
    """The same as a policy over the allowed actions alone."""
    allowed = torch.tensor([True, False, True, False]).expand(BATCH, 4)
    logits = torch.randn(BATCH, 4, generator=torch.Generator().manual_seed(1))
    logits[:, 1] = 1e4
    actions = torch.randint(2, (BATCH,), generator=torch.Generator().manual_seed(2))

    masked = discrete(backend, logits=logits, actions=2 * actions, action_mask=allowed)
    small = discrete(backend, logits=logits[:, [0, 2]].detach(), actions=actions)

    assert (masked[2][:, [1, 3]] == 0.0).all()
    torch.testing.assert_close(masked[0], small[0])
    torch.testing.assert_close(masked[2][:, [0, 2]], small[2])
    for name in api.STATS:
        torch.testing.assert_close(masked[1][name], small[1][name])


def test_choosing_a_masked_action_is_a_ratio_of_zero(backend: str) -> None:
    allowed = torch.ones(BATCH, 4, dtype=torch.bool)
    allowed[3, 1] = False
    actions = torch.ones(BATCH, dtype=torch.long)

    loss, stats, d_logits, _ = discrete(backend, actions=actions, action_mask=allowed)

    assert loss.isfinite()
    assert stats["approx_kl"] == math.inf
    assert stats["old_approx_kl"] == math.inf
    assert d_logits.isfinite().all()
    assert d_logits[3, 1] == 0.0


@pytest.mark.parametrize("row", [0, BATCH - 1])
def test_no_allowed_action_makes_the_loss_nan(backend: str, row: int) -> None:
    allowed = torch.ones(BATCH, 4, dtype=torch.bool)
    allowed[row] = False

    loss, stats, d_logits, _ = discrete(backend, action_mask=allowed)

    assert loss.isnan()
    assert stats["entropy"].isnan()
    others = torch.arange(BATCH) != row
    assert d_logits[others].isfinite().all()


@pytest.mark.parametrize("action", [-1, 4, 10**9])
def test_action_out_of_range_makes_the_loss_nan(backend: str, action: int) -> None:
    """In a valid row. An exception would have to wait for the GPU."""
    actions = torch.zeros(BATCH, dtype=torch.long)
    actions[7] = action

    loss, stats, _, _ = discrete(backend, actions=actions)

    assert loss.isnan()
    assert stats["policy_loss"].isnan()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["logits", "new_values", "old_log_probs", "advantages", "returns"])
@pytest.mark.parametrize("norm_adv", [False, True])
@pytest.mark.filterwarnings("ignore:All-NaN slice")  # numpy's maximum, in the interpreter
def test_non_finite_valid_row_shows_in_the_loss(
    backend: str, name: str, bad: float, norm_adv: bool
) -> None:
    if (name, bad) == ("logits", -math.inf):
        return  # an impossible action, not an error
    if (name, bad) == ("old_log_probs", math.inf):
        return  # a ratio of zero
    clean = torch.full((BATCH, 4) if name == "logits" else (BATCH,), -1.0)
    # The chosen action's advantage is negative: a clipped ratio would hide an infinite one.
    advantages = -torch.ones(BATCH) - torch.arange(BATCH) / BATCH
    clean[11, ...] = bad
    changes = {"advantages": advantages, name: clean}

    loss, _, _, _ = discrete(backend, **changes, norm_adv=norm_adv and name == "advantages")

    assert not loss.isfinite()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("name", ["mean", "log_std", "actions"])
def test_non_finite_gaussian_shows_in_the_loss(backend: str, name: str, bad: float) -> None:
    clean = torch.zeros(3) if name == "log_std" else torch.zeros(BATCH, 3)
    clean[..., 1] = bad

    loss, stats = continuous(backend, **{name: clean})

    if bad == math.inf and name != "log_std":
        # A density of zero: the ratio is 0 and only the KL can tell.
        assert stats["approx_kl"] == math.inf
    else:
        assert not loss.isfinite()


@pytest.mark.parametrize("log_ratio", [89.0, 100.0, 1000.0])
def test_overflowing_ratio(backend: str, log_ratio: float) -> None:
    """inf as in torch, in float32; a good action is clipped, a bad one has infinite loss."""
    old = torch.full((BATCH,), -math.log(4.0) - log_ratio)
    flat = {"logits": torch.zeros(BATCH, 4), "old_log_probs": old}

    good = discrete(backend, **flat, advantages=torch.ones(BATCH))
    bad = discrete(
        backend, **{**flat, "logits": torch.zeros(BATCH, 4)}, advantages=-torch.ones(BATCH)
    )

    torch.testing.assert_close(good[1]["policy_loss"], torch.tensor(-1.2))
    assert good[1]["approx_kl"] == math.inf
    assert bad[0] == math.inf
    if backend != "torch":  # autograd multiplies 0 by inf
        assert (good[2].abs() < 1e-6).all()


def test_overflowing_ratio_is_bounded_by_the_dual_clip(backend: str) -> None:
    old = torch.full((BATCH,), -math.log(4.0) - 100.0)

    loss, _, d_logits, _ = discrete(
        backend,
        logits=torch.zeros(BATCH, 4),
        old_log_probs=old,
        advantages=-torch.ones(BATCH),
        dual_clip=3.0,
        vf_coef=0.0,
        ent_coef=0.0,
    )

    torch.testing.assert_close(loss, torch.tensor(3.0))
    if backend != "torch":
        assert (d_logits == 0.0).all()


@pytest.mark.parametrize("width", [1, 100, 5000])
def test_wide_and_narrow_heads(backend: str, width: int) -> None:
    logits = torch.randn(3, width, generator=torch.Generator().manual_seed(0))
    rest = [torch.zeros(3) for _ in range(5)]
    actions = torch.tensor([0, width // 2, width - 1])
    actual, expected = (
        api.categorical_ppo_loss(
            z.requires_grad_(),
            *(rest[0].to(z), actions),
            *(t.to(z) for t in rest[1:]),
            **OPTIONS,
            backend=name,
        )
        for z, name in ((logits.clone(), backend), (logits.double(), "torch"))
    )

    for name in api.STATS:
        torch.testing.assert_close(
            actual[1][name].double(), expected[1][name], rtol=2e-5, atol=1e-5
        )
