"""What a language model's tokens are rewarded with, in plain torch: scores, divergences, whitening.

Small work, [B, T], beside that on the logits. Nothing here has a gradient but `kl_estimate`.
"""

import torch
from torch import Tensor

from fastppo.kernels.checks import expect, expect_floats

ESTIMATORS = ("k1", "k2", "k3", "k3_is")
PLACES = ("last", "eos+1")


def kl_estimate(
    log_probs: Tensor,
    ref_log_probs: Tensor,
    estimator: str = "k1",
    *,
    old_log_probs: Tensor | None = None,
) -> Tensor:
    """An estimate of KL(pi || pi_ref) for each token, from the tokens drawn, differentiable.

        d = log pi - log pi_ref;  k1 = d,  k2 = d^2 / 2,  k3 = e^-d - 1 + d
        k3_is = k3 * pi / pi_old

    k1 to k3: http://joschu.net/blog/kl-approx.html. As values, k1 and k3 are unbiased, and k3 is
    never negative. As losses, k2 and k3_is have the gradient of KL(pi || pi_ref), k3 has that of
    KL(pi_ref || pi), and the gradient of k1 is 0 on average: k1 belongs into the rewards.

    Args:
        log_probs, ref_log_probs: one shape.
        old_log_probs: of the policy that drew the tokens, for "k3_is".

    Raises:
        ValueError: a shape or the estimator is off, or old_log_probs is missing.
    """
    if estimator not in ESTIMATORS:
        raise ValueError(f"estimator={estimator!r}: expected one of {', '.join(ESTIMATORS)}")
    if estimator == "k3_is" and old_log_probs is None:
        raise ValueError("estimator='k3_is' weighs by pi / pi_old: pass old_log_probs")
    expect("ref_log_probs", ref_log_probs, log_probs, log_probs.shape, _FLOATS)
    difference = log_probs - ref_log_probs
    if estimator == "k1":
        return difference
    if estimator == "k2":
        return 0.5 * difference.square()
    if estimator == "k3" or old_log_probs is None:
        return torch.exp(-difference) - 1.0 + difference
    expect("old_log_probs", old_log_probs, log_probs, log_probs.shape, _FLOATS)
    # pi / pi_old * e^-d is pi_ref / pi_old, without a slope: multiplied out, two would cancel
    ratio, constant = (log_probs - old_log_probs).exp(), (ref_log_probs - old_log_probs).exp()
    return constant + ratio * (difference - 1.0)


def shape_rewards(
    scores: Tensor,
    log_probs: Tensor,
    ref_log_probs: Tensor,
    valid: Tensor,
    kl_coef: float,
    reward_at: str = "last",
) -> Tensor:
    """Rewards of tokens: minus kl_coef times k1 at each, and the sequence's score at the last.

        r_t = -kl_coef (log pi(a_t) - log pi_ref(a_t)) + score [t is the last valid token]

    Its expectation's gradient is that of score - kl_coef KL(pi || pi_ref), exactly.

    Args:
        scores: [B], of the whole sequences.
        log_probs, ref_log_probs: [B, T], of the policy that drew the tokens, and the reference's.
        valid: [B, T] bool; what other places hold is not read, and their reward is 0.
        reward_at: "last", or "eos+1" for the place behind the last valid token, as OpenAI's and
            TRL's programs have it: there only where a value and an advantage are computed for it,
            too. A sequence that fills its row has its score at the last token then.

    Returns:
        [B, T], without gradient. A sequence without a valid token has no reward.

    Raises:
        ValueError: a shape, a dtype or reward_at is off.
    """
    if reward_at not in PLACES:
        raise ValueError(f"reward_at={reward_at!r}: expected one of {', '.join(PLACES)}")
    expect_floats("log_probs", log_probs, 2, "[B, T]")
    shape = log_probs.shape
    expect("ref_log_probs", ref_log_probs, log_probs, shape, _FLOATS)
    expect("valid", valid, log_probs, shape, torch.bool)
    expect("scores", scores, log_probs, shape[:1], _FLOATS)
    with torch.no_grad():
        divergence = kl_estimate(log_probs, ref_log_probs)
        rewards = torch.where(valid, -kl_coef * divergence, 0.0)
        step = torch.arange(shape[1], device=valid.device)
        last = torch.where(valid, step, -1).max(1).values
        place = last if reward_at == "last" else (last + 1).clamp(max=shape[1] - 1)
        here = (step == place[:, None]) & (last >= 0)[:, None]
        return torch.where(here, rewards + scores[:, None], rewards)


def whiten(values: Tensor, valid: Tensor | None = None, *, shift_mean: bool = True) -> Tensor:
    """(x - mean) / (std + 1e-8) over the valid places of the whole batch, unbiased std.

    Before the batch is split: what is normalised in each micro-batch is something else.

    Args:
        values: any shape.
        valid: of that shape, bool, or None for all; other places are not read, and are 0.
        shift_mean: False leaves the mean where it is.

    Returns:
        As values, without gradient. A single valid place stays as it is.
    """
    if not values.dtype.is_floating_point:
        raise ValueError(f"values has dtype {values.dtype}: expected a floating dtype")
    if valid is not None:
        expect("valid", valid, values, values.shape, torch.bool)
    with torch.no_grad():
        ok = torch.ones_like(values, dtype=torch.bool) if valid is None else valid
        count = ok.sum()
        raw = torch.where(ok, values, 0.0)
        mean = raw.sum() / count.clamp(min=1)
        centred = torch.where(ok, raw - mean, 0.0)
        std = (centred.square().sum() / (count - 1).clamp(min=1)).sqrt()
        white = centred / (std + 1e-8)
        if not shift_mean:
            white = torch.where(ok, white + mean, 0.0)
        return torch.where(count > 1, white, raw)


_FLOATS = (torch.float32, torch.bfloat16, torch.float64, torch.float16)
