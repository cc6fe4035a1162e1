"""Each formula against numbers worked by hand on every backend; the oracle against torch's own."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from fastppo.kernels import api

distributions: Any = torch.distributions  # half typed

LN2 = math.log(2.0)
PLAIN: dict[str, Any] = {"clip_coef": 0.2, "vf_coef": 1.0, "ent_coef": 0.0, "norm_adv": False}


def coin(
    backend: str,
    ratios: list[float],
    advantages: list[float],
    valid: list[bool] | None = None,
    **options: Any,
) -> tuple[Tensor, api.Stats, Tensor]:
    """Loss, statistics and d loss / d log-probability of rows that choose heads of a fair coin.

    The log-probability is -ln 2; d log p / d logit of the choice is 1/2.
    """
    logits = torch.zeros(len(ratios), 2, requires_grad=True)
    zeros = torch.zeros(len(ratios))
    loss, stats = api.categorical_ppo_loss(
        logits,
        zeros,
        zeros.long(),
        -LN2 - torch.tensor(ratios).log(),
        torch.tensor(advantages),
        zeros,
        zeros,
        None if valid is None else torch.tensor(valid),
        **{**PLAIN, **options},
        backend=backend,
    )
    (d_logits,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(d_logits[:, 0], -d_logits[:, 1])
    return loss.detach(), stats, 2.0 * d_logits[:, 0]


def close(actual: Tensor, *expected: float) -> None:
    torch.testing.assert_close(
        actual, torch.tensor(expected).reshape(actual.shape), rtol=1e-5, atol=1e-6
    )


def test_clipped_surrogate_kl_and_clip_frac(backend: str) -> None:
    """Five rows, bounds 0.8 and 1.2.

    ratio  A    -A ratio  -A clipped  larger  d / d log p   (r - 1) - ln r   -ln r
     2     1     -2        -1.2       -1.2     0             1 - ln 2         -ln 2
     2    -1      2         1.2        2       2             1 - ln 2         -ln 2
     1/2   1     -1/2      -0.8       -1/2    -1/2          -1/2 + ln 2        ln 2
     1/2  -1      1/2       0.8        0.8     0            -1/2 + ln 2        ln 2
     1     1     -1        -1         -1      -1             0                 0
    sum                                0.1                   1                 0
    """
    loss, stats, grad = coin(backend, [2.0, 2.0, 0.5, 0.5, 1.0], [1.0, -1.0, 1.0, -1.0, 1.0])

    close(loss, 0.1 / 5)
    close(stats["policy_loss"], 0.1 / 5)
    close(stats["approx_kl"], 1 / 5)
    close(stats["old_approx_kl"], 0.0)
    close(stats["clip_frac"], 4 / 5)
    close(grad, 0.0, 2 / 5, -0.5 / 5, 0.0, -1 / 5)


def test_dual_clip_bounds_the_loss_of_a_bad_action(backend: str) -> None:
    """c = 3: ratio 4 is bounded by 3 and has no gradient, ratio 2 is not, A > 0 is left alone."""
    loss, _, grad = coin(backend, [4.0, 2.0, 4.0], [-1.0, -1.0, 1.0], dual_clip=3.0)

    close(loss, (3.0 + 2.0 - 1.2) / 3)
    close(grad, 0.0, 2 / 3, 0.0)


def test_value_clip_takes_the_larger_error(backend: str) -> None:
    """old_v = 0, e = 1/2; errors of v and of the clipped v:

    v    R     (v - R)^2   clipped v  its error^2  larger  d (half of it) / d v
    2    1/2   2.25        1/2        0            2.25     1.5
    2    3     1           1/2        6.25         6.25     0
    1/4  1     0.5625      1/4        0.5625       0.5625  -0.75
    1    3/4   0.0625      1/2        0.0625       0.0625   0.25 / 2, a tie
    1/2  1     0.25        1/2        0.25         0.25    -0.5, inclusive bound
    """
    values = torch.tensor([2.0, 2.0, 0.25, 1.0, 0.5], requires_grad=True)
    zeros = torch.zeros(5)
    loss, stats = api.categorical_ppo_loss(
        torch.zeros(5, 2),
        values,
        zeros.long(),
        zeros - LN2,
        zeros,
        torch.tensor([0.5, 3.0, 1.0, 0.75, 1.0]),
        zeros,
        clip_vloss=0.5,
        **PLAIN,
        backend=backend,
    )
    (grad,) = torch.autograd.grad(loss, values)

    close(stats["value_loss"], 0.5 * 9.375 / 5)
    close(loss.detach(), 0.5 * 9.375 / 5)
    close(grad, 1.5 / 5, 0.0, -0.75 / 5, 0.125 / 5, -0.5 / 5)


def test_normalisation_uses_valid_rows_and_unbiased_spread(backend: str) -> None:
    """1, 2, 3 have mean 2 and unbiased std 1: -1, 0, 1. At ratio 1 the gradient is -A."""
    _, _, grad = coin(
        backend,
        [1.0, 1.0, 7.0, 1.0],
        [1.0, 2.0, 100.0, 3.0],
        [True, True, False, True],
        norm_adv=True,
    )

    close(grad, 1 / 3, 0.0, 0.0, -1 / 3)


def test_a_single_valid_row_keeps_its_advantage(backend: str) -> None:
    _, _, grad = coin(backend, [1.0, 1.0], [5.0, 9.0], [True, False], norm_adv=True)

    close(grad, -5.0, 0.0)


def test_equal_advantages_normalise_to_zero(backend: str) -> None:
    """Not to rounding errors divided by 1e-8."""
    _, _, grad = coin(backend, [1.0] * 7, [0.1] * 7, norm_adv=True)

    assert grad.abs().max() < 1e-6


@pytest.mark.parametrize("as_tensor", [False, True])
def test_normalizer_replaces_the_count(backend: str, as_tensor: bool) -> None:
    """Two micro-batches divided by the global count of 4 add up to the whole batch's mean."""
    ratios, advantages = [1.0, 0.9, 1.1, 1.0], [1.0, 2.0, -1.0, 3.0]
    normalizer = torch.tensor(4) if as_tensor else 4
    whole, _, _ = coin(backend, ratios, advantages)

    first, _, _ = coin(backend, ratios[:1], advantages[:1], normalizer=normalizer)
    rest, _, _ = coin(backend, ratios[1:], advantages[1:], normalizer=normalizer)

    torch.testing.assert_close(first + rest, whole)


def test_entropy_bonus_of_a_coin(backend: str) -> None:
    """H = ln 2, and loss = -ent_coef * H."""
    loss, stats, grad = coin(backend, [1.0, 1.0], [0.0, 0.0], ent_coef=0.5)

    close(stats["entropy"], LN2)
    close(loss, -0.5 * LN2)
    close(grad, 0.0, 0.0)


def test_gaussian_by_hand(backend: str) -> None:
    """mean = 1, std = 2, action = 5: u = 2, and one dimension with mean = action, std = 1.

    log p = -2 - ln 2 - ln(2 pi), H = ln 2 + 1 + ln(2 pi). With ratio 1 and A = 1:
    d / d mean = -u / std = -1, d / d log_std = -(u^2 - 1) = -3 and 1, less ent_coef.
    """
    mean = torch.tensor([[1.0, 3.0]], requires_grad=True)
    log_std = torch.tensor([LN2, 0.0], requires_grad=True)
    zero = torch.zeros(1)
    options = {**PLAIN, "ent_coef": 0.5}
    loss, stats = api.gaussian_ppo_loss(
        mean,
        log_std,
        zero,
        torch.tensor([[5.0, 3.0]]),
        torch.tensor([-2.0 - LN2 - math.log(2 * math.pi)]),
        torch.ones(1),
        zero,
        zero,
        **options,
        backend=backend,
    )
    d_mean, d_log_std = torch.autograd.grad(loss, (mean, log_std))

    entropy = LN2 + 1.0 + math.log(2 * math.pi)
    close(stats["entropy"], entropy)
    close(loss.detach(), -1.0 - 0.5 * entropy)
    close(d_mean, -1.0, 0.0)
    close(d_log_std, -3.0 - 0.5, 1.0 - 0.5)


def double(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rows(batch_size: int) -> dict[str, Any]:
    """Constants of a batch; no ratio is near a bound of SMOOTH."""
    return {
        "old_log_probs": -1.5 + 0.01 * double(batch_size, seed=1),
        "advantages": double(batch_size, seed=2),
        "returns": double(batch_size, seed=3),
        "old_values": double(batch_size, seed=4),
    }


Loss = Callable[..., tuple[Tensor, api.Stats]]
SMOOTH: dict[str, Any] = {"clip_coef": 100.0, "vf_coef": 0.7, "ent_coef": 0.3}


@pytest.mark.parametrize("valid", [None, torch.tensor([True, False, True, True])])
@pytest.mark.parametrize("norm_adv", [False, True])
def test_reference_gradients_match_finite_differences(valid: Tensor | None, norm_adv: bool) -> None:
    values = double(4, seed=5).requires_grad_()
    logits = double(4, 5, seed=6).requires_grad_()
    log_std = (0.1 * double(5, seed=7)).requires_grad_()
    options = {**SMOOTH, "norm_adv": norm_adv, "backend": "torch"}

    def discrete(logits: Tensor, values: Tensor) -> Tensor:
        actions = torch.tensor([[0, 1], [2, 0], [1, 1], [2, 1]])
        return api.categorical_ppo_loss(
            logits, values, actions, **rows(4), valid=valid, nvec=(3, 2), **options
        )[0]

    def continuous(mean: Tensor, log_std: Tensor, values: Tensor) -> Tensor:
        actions = double(4, 5, seed=8)
        return api.gaussian_ppo_loss(
            mean, log_std, values, actions, **rows(4), valid=valid, **options
        )[0]

    assert torch.autograd.gradcheck(discrete, (logits, values))
    assert torch.autograd.gradcheck(continuous, (logits, log_std, values))


def only_row(loss_of: Loss, *arguments: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    """log-probability and entropy of one row; with old log-prob 0, old_approx_kl is -log p."""
    zero = torch.zeros(1, dtype=torch.float64)
    *parameters, actions = arguments
    _, stats = loss_of(
        *parameters, zero, actions, *[zero] * 4, backend="torch", **SMOOTH, **options
    )
    return -stats["old_approx_kl"], stats["entropy"]


@pytest.mark.parametrize("seed", range(5))
def test_reference_log_prob_and_entropy_match_torch_distributions(seed: int) -> None:
    logits, mean, actions = (double(1, 7, seed=100 * seed + i) for i in range(3))
    log_std = double(7, seed=100 * seed + 3)
    action = torch.tensor([seed])
    allowed = torch.arange(7)[None, :] >= seed
    masked = distributions.Categorical(
        logits=logits.masked_fill(~allowed, -1e8)
    )  # -inf is outside the support that torch accepts
    normal = distributions.Normal(mean, log_std.exp())

    discrete = only_row(api.categorical_ppo_loss, logits, action, action_mask=allowed)
    continuous = only_row(api.gaussian_ppo_loss, mean, log_std, actions)

    torch.testing.assert_close(discrete[0], masked.log_prob(action)[0])
    torch.testing.assert_close(discrete[1], masked.entropy()[0])
    torch.testing.assert_close(continuous[0], normal.log_prob(actions).sum())
    torch.testing.assert_close(continuous[1], normal.entropy().sum())
