"""PPO on one token, where the optimum is known: pi_ref e^(r / beta) / Z.

By sampling, so that an estimator's gradient has to be right on average, and with old log-probs and
several steps per batch, as PPO has them.
"""

import pytest
import torch
from torch import Tensor

from fastppo.kernels import api

REWARDS = torch.tensor([1.0, 0.6, 0.2, 0.0, -0.3, 0.4, 0.9, -1.0])
REFERENCE = torch.tensor([0.05, 0.1, 0.2, 0.25, 0.1, 0.1, 0.05, 0.15])
BETA = 0.5


def optimum() -> Tensor:
    return (REFERENCE.log() + REWARDS / BETA).softmax(0)


def trained(estimator: str, *, steps: int = 250, batch: int = 4096) -> Tensor:
    """The policy that PPO ends at, with a rate that falls to 0, from the reference policy."""
    g = torch.Generator().manual_seed(0)
    logits = REFERENCE.log().clone().requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=0.05)
    in_reward, in_loss = estimator == "k1_reward", estimator not in ("k1_reward", "k1", "none")
    for step in range(steps):
        with torch.no_grad():
            tokens = torch.multinomial(logits.softmax(0), batch, replacement=True, generator=g)
            old = logits.log_softmax(0)[tokens]
            reference = REFERENCE.log()[tokens]
            rewards = REWARDS[tokens] - (BETA * (old - reference) if in_reward else 0.0)
            advantages = rewards - rewards.mean()
        for _ in range(2):
            loss, _ = api.categorical_ppo_loss(
                logits.expand(batch, -1), None, tokens, old, advantages, None, None,
                clip_coef=0.2, vf_coef=0.0, ent_coef=0.0, norm_adv=False,
                ref_log_probs=reference if in_loss else None,
                kl_coef=BETA if in_loss else 0.0,
                kl_estimator=estimator if in_loss else "k2",
            )  # fmt: skip
            if estimator == "k1":
                scored = api.token_log_probs(logits.expand(batch, -1), tokens)
                loss = loss + BETA * api.kl_estimate(scored, reference).mean()
            optimizer.zero_grad()
            loss.backward()
            for group in optimizer.param_groups:
                group["lr"] = 0.05 * (1.0 - step / steps)
            optimizer.step()
    return logits.detach().softmax(0)


def distance(policy: Tensor) -> float:
    """In total variation."""
    return float(0.5 * (policy - optimum()).abs().sum())


@pytest.mark.parametrize("estimator", ["k1_reward", "k2", "k3_is"])
def test_the_right_estimators_end_at_the_optimum(estimator: str) -> None:
    assert distance(trained(estimator)) < 0.01


def test_k3_as_a_loss_ends_elsewhere() -> None:
    """Its gradient is that of the other divergence."""
    assert distance(trained("k3")) > 0.05


def test_k1_as_a_loss_does_not_hold_the_policy() -> None:
    """Its gradient is 0 on average: the policy ends as one without a reference does."""
    held, free = trained("k1"), trained("none")

    assert 0.5 * (held - free).abs().sum() < 0.05
    assert distance(held) > 0.3
