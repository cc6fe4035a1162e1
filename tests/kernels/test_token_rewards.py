"""Rewards of tokens by hand: where they stand, what a divergence is, what whitening does."""

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from fastppo.kernels import api

NAN = math.nan


def test_scores_stand_at_the_last_valid_token() -> None:
    """Three tokens, one, none; kl_coef 1/2 and log-ratios 2, so -1 at each."""
    valid = torch.tensor([[1, 1, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]]).bool()
    log_probs = torch.where(valid, 2.0, NAN)
    reference = torch.where(valid, 0.0, NAN)
    scores = torch.tensor([8.0, 4.0, 99.0])

    rewards = api.shape_rewards(scores, log_probs, reference, valid, kl_coef=0.5)

    assert rewards.tolist() == [[-1, -1, 7, 0], [0, 3, 0, 0], [0, 0, 0, 0]]


def test_or_behind_it_as_openai_and_trl_have_it() -> None:
    """And at the last where the row is full."""
    valid = torch.tensor([[1, 1, 0], [1, 1, 1]]).bool()
    zeros = torch.zeros(2, 3)

    rewards = api.shape_rewards(
        torch.tensor([8.0, 4.0]), zeros, zeros, valid, kl_coef=0.5, reward_at="eos+1"
    )

    assert rewards.tolist() == [[0, 0, 8], [0, 0, 4]]


def test_rewards_have_no_gradient() -> None:
    log_probs = torch.zeros(1, 2, requires_grad=True)

    rewards = api.shape_rewards(
        torch.ones(1), log_probs, torch.zeros(1, 2), torch.ones(1, 2).bool(), kl_coef=0.1
    )

    assert not rewards.requires_grad


def test_estimates_by_hand() -> None:
    """pi = 2 pi_ref = 4 pi_old: d = log 2."""
    two = math.log(2.0)
    log_probs, reference, old = (torch.tensor([x]) for x in (2 * two, two, 0.0))
    expected = {"k1": two, "k2": two * two / 2, "k3": 0.5 - 1 + two, "k3_is": 4 * (two - 0.5)}

    for estimator, value in expected.items():
        ours = api.kl_estimate(log_probs, reference, estimator, old_log_probs=old)
        torch.testing.assert_close(ours, torch.tensor([value]))


def expected_gradient(estimator: str, *, detached: bool = False) -> torch.Tensor:
    """Of an estimate's exact mean over tokens from the policy, by the policy's logits."""
    logits = torch.tensor([0.3, -1.0, 0.8, 0.1], dtype=torch.float64, requires_grad=True)
    log_p = logits.log_softmax(0)
    reference = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64).log()
    estimates = api.kl_estimate(log_p, reference, estimator, old_log_probs=log_p.detach())
    if detached:  # a reward: the score function's gradient
        total = (log_p.exp().detach() * estimates.detach() * log_p).sum()
    else:
        total = (log_p.exp().detach() * estimates).sum()
    (grad,) = torch.autograd.grad(total, logits)
    return grad


def test_which_estimate_has_which_gradient() -> None:
    """k1 as a reward, k2 and k3_is as losses: KL(pi || pi_ref). k3: KL(pi_ref || pi). k1: none."""
    logits = torch.tensor([0.3, -1.0, 0.8, 0.1], dtype=torch.float64, requires_grad=True)
    reference = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64).log()
    log_p = logits.log_softmax(0)
    reverse = (log_p.exp() * (log_p - reference)).sum()
    forward = (reference.exp() * (reference - log_p)).sum()
    (reverse_grad,) = torch.autograd.grad(reverse, logits, retain_graph=True)
    (forward_grad,) = torch.autograd.grad(forward, logits)

    torch.testing.assert_close(expected_gradient("k1", detached=True), reverse_grad)
    torch.testing.assert_close(expected_gradient("k2"), reverse_grad)
    torch.testing.assert_close(expected_gradient("k3_is"), reverse_grad)
    torch.testing.assert_close(expected_gradient("k3"), forward_grad)
    torch.testing.assert_close(expected_gradient("k1"), torch.zeros_like(forward_grad))
    assert (forward_grad - reverse_grad).abs().max() > 0.01


def test_whitening_is_over_the_valid_places_of_the_whole_batch() -> None:
    values = torch.tensor([[1.0, 3.0, NAN], [5.0, NAN, NAN]])

    white = api.whiten(values, ~values.isnan())

    torch.testing.assert_close(white, torch.tensor([[-1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]))
    kept = api.whiten(values, ~values.isnan(), shift_mean=False)
    torch.testing.assert_close(kept, torch.tensor([[2.0, 3.0, 0.0], [4.0, 0.0, 0.0]]))
    one = torch.tensor([NAN, 7.0])
    assert api.whiten(one, ~one.isnan()).tolist() == [0.0, 7.0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t: api.kl_estimate(t, t, "k4"), "estimator='k4': expected one of k1, k2, k3, k3_"),
        (lambda t: api.kl_estimate(t, t, "k3_is"), "estimator='k3_is' weighs by pi / pi_old"),
        (lambda t: api.kl_estimate(t, t[:1]), "ref_log_probs has shape [1, 3]: expected [2, 3]"),
        (
            lambda t: api.shape_rewards(t[0], t, t, t > 0, kl_coef=0.1),
            "scores has shape [3]: expected [2]",
        ),
        (
            lambda t: api.shape_rewards(t[:, 0], t, t, t > 0, kl_coef=0.1, reward_at="eos"),
            "reward_at='eos': expected one of last, eos+1",
        ),
        (lambda t: api.whiten(t, t[0] > 0), "valid has shape [3]: expected [2, 3]"),
        (lambda t: api.whiten(t.long()), "values has dtype torch.int64: expected a floating"),
    ],
)
def test_bad_input_is_named(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        call(torch.zeros(2, 3))


def test_the_page_runs_as_it_stands() -> None:
    text = (Path(__file__).parents[2] / "docs" / "tokens.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.S)

    assert len(blocks) == 1
    exec(compile(blocks[0], "docs/tokens.md", "exec"), {})
