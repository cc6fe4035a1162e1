"""The PPO losses in plain torch: the specification, and the oracle of every test.

Each function works in the dtype of its inputs; called with float64 it is what the Triton and numba
kernels are tested against. Gradients come from autograd. Clarity wins over speed here.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from fastppo.kernels.loss.terms import LOG_RATIO_MAX, Rows, Terms, Tokens

Stats = dict[str, Tensor]
STATS = ("policy_loss", "value_loss", "entropy", "approx_kl", "old_approx_kl", "clip_frac")


def categorical_ppo_loss(
    logits: Tensor,
    new_values: Tensor,
    actions: Tensor,
    rows: Rows,
    terms: Terms,
    *,
    tokens: Tokens | None = None,
    action_mask: Tensor | None = None,
    nvec: Sequence[int] | None = None,
) -> tuple[Tensor, Stats]:
    """PPO's loss and statistics for discrete actions; see `ppo_loss` for the terms.

    Args:
        logits: [B, A], or [B, sum(nvec)]: one block of columns per head.
        new_values: [B]
        actions: [B] integer, or [B, len(nvec)].
        rows, terms, tokens: see `terms.py`.
        action_mask: as logits, bool; False makes an action impossible. A valid row with a head
            that allows no action, or an action out of range, makes the loss NaN.
        nvec: number of actions of each head; log-probabilities and entropies add over heads.

    Returns:
        loss, and the statistics of `ppo_loss`.
    """
    ok = _valid(rows, new_values)
    # Clean the inputs, not the outputs: autograd multiplies by zero, and NaN times zero is NaN.
    z = torch.where(ok[:, None], logits, 0.0)
    if tokens is not None:
        z = z / tokens.temperature
    if action_mask is not None:
        z = torch.where(action_mask | ~ok[:, None], z, -math.inf)
    widths = [logits.shape[1]] if nvec is None else list(nvec)
    chosen = torch.where(ok[:, None], actions.reshape(len(actions), len(widths)), 0).long()

    log_prob = torch.zeros_like(new_values)
    entropy = torch.zeros_like(new_values)
    for z_head, action, width in zip(
        torch.split(z, widths, 1), chosen.unbind(1), widths, strict=True
    ):
        logp = z_head.log_softmax(1)
        in_range = (action >= 0) & (action < width)
        picked = logp.gather(1, action.clamp(0, width - 1)[:, None])[:, 0]
        log_prob = log_prob + torch.where(in_range, picked, math.nan)
        # p * log p is 0 at p = 0, but 0 * -inf is NaN, in the gradient too
        finite = torch.where(logp == -math.inf, 0.0, logp)
        entropy = entropy - (logp.exp() * finite).sum(1)
    return ppo_loss(log_prob, entropy, new_values, rows, terms, tokens)


def gaussian_ppo_loss(
    mean: Tensor,
    log_std: Tensor,
    new_values: Tensor,
    actions: Tensor,
    rows: Rows,
    terms: Terms,
) -> tuple[Tensor, Stats]:
    """PPO's loss and statistics for a diagonal Gaussian policy; see `ppo_loss` for the terms.

        log pi(a) = sum_d -(a_d - mean_d)^2 / (2 std_d^2) - log_std_d - log(2 pi) / 2
        H(pi)     = sum_d log_std_d + (1 + log(2 pi)) / 2

    Args:
        mean, actions: [B, D]
        log_std: [D], or [B, D] where it depends on the state.
        The others are as for `categorical_ppo_loss`.
    """
    ok = _valid(rows, new_values)
    row_ok = ok[:, None]
    if log_std.ndim == 2:
        log_std = torch.where(row_ok, log_std, 0.0)
    error = torch.where(row_ok, actions, 0.0) - torch.where(row_ok, mean, 0.0)
    half_log_2pi = 0.5 * math.log(2.0 * math.pi)
    scaled = error * torch.exp(-log_std)
    log_prob = (-0.5 * scaled.square() - log_std - half_log_2pi).sum(1)
    entropy = (log_std + 0.5 + half_log_2pi).expand_as(mean).sum(1)
    return ppo_loss(log_prob, entropy, new_values, rows, terms)


def _valid(rows: Rows, like: Tensor) -> Tensor:
    return torch.ones_like(like, dtype=torch.bool) if rows.valid is None else rows.valid


def normalized(advantages: Tensor, ok: Tensor) -> Tensor:
    """(A - mean) / (std + 1e-8) over the rows where `ok`, unbiased; one row stays as it is."""
    count = ok.sum()
    raw = torch.where(ok, advantages, 0.0)
    centred = torch.where(ok, raw - raw.sum() / count.clamp(min=1), 0.0)
    # Twice: the first mean is rounded to the size of A, the second only to that of its spread.
    centred = torch.where(ok, centred - centred.sum() / count.clamp(min=1), 0.0)
    std = (centred.square().sum() / (count - 1).clamp(min=1)).sqrt()
    return torch.where(count > 1, centred / (std + 1e-8), raw)


def _ratio(log_ratio: Tensor) -> Tensor:
    """exp(log_ratio), bounded; its slope is its value."""
    # The difference is 0 with a slope of 1: a constant would drop the gradient of the rows that
    # moved most.
    # For inf it is NaN: what is infinite was so in the inputs, and must show in the loss.
    bound = LOG_RATIO_MAX + (log_ratio - log_ratio.detach())
    return torch.where(log_ratio > LOG_RATIO_MAX, bound, log_ratio).exp()


def reference_kl(
    log_prob: Tensor, ref_log_prob: Tensor, old_log_prob: Tensor, estimator: str
) -> Tensor:
    """An estimate of KL(pi || pi_ref) for each row, differentiable in log_prob.

        d = log pi - log pi_ref
        k2    = d^2 / 2
        k3    = e^-d - 1 + d
        k3_is = pi / pi_old * k3

    k1 = d, k2 and k3 are those of http://joschu.net/blog/kl-approx.html. What an estimate is good
    for as a loss is another matter: over actions drawn from pi, the gradient of k2 and of k3_is is
    that of KL(pi || pi_ref), the gradient of k3 is that of KL(pi_ref || pi), and that of k1 is 0.
    """
    difference = log_prob - ref_log_prob
    if estimator == "k2":
        return 0.5 * difference.square()
    if estimator == "k3":
        return _ratio(-difference) - 1.0 + difference
    # pi / pi_old * e^-d is pi_ref / pi_old, a constant: multiplied out, two huge slopes would
    # have to cancel where the policy is far from its reference
    ratio, constant = _ratio(log_prob - old_log_prob), _ratio(ref_log_prob - old_log_prob)
    return constant + ratio * (difference - 1.0)


def ppo_loss(
    log_prob: Tensor,
    entropy: Tensor,
    new_values: Tensor,
    rows: Rows,
    terms: Terms,
    tokens: Tokens | None = None,
) -> tuple[Tensor, Stats]:
    """loss = policy_loss + vf_coef * value_loss - ent_coef * entropy, and six statistics.

        policy_loss = mean max(-A ratio, -A clip(ratio, 1 - clip_low, 1 + clip_high))
        value_loss  = mean (v - R)^2 / 2

    The first is equation 7 of https://arxiv.org/abs/1707.06347, negated. `dual_clip = c` bounds
    it by -c A where A < 0: equation 5 of https://arxiv.org/abs/1912.09729. `clip_vloss = e`
    takes the larger of (v - R)^2 and the same with v clipped to old_v +- e. approx_kl is the
    mean of (ratio - 1) - log ratio, old_approx_kl that of -log ratio: k3 and k1 of
    http://joschu.net/blog/kl-approx.html. Each mean is a sum over the rows where `ok`, divided
    by their number or by `normalizer`; without such rows all is 0. With `tokens.weights` each row
    counts that much, and with `tokens.ref_log_probs` the loss has kl_coef times the mean of
    `reference_kl` more, and a seventh statistic, ref_kl.

    A finite ratio is at most e^LOG_RATIO_MAX, in every dtype: with inf, a clipped row or an
    advantage of 0 would have the gradient 0 * inf. Beyond the bound its slope is the bound. A
    log-ratio of +inf makes the loss NaN, one of -inf is a ratio of 0.
    """
    ok = _valid(rows, new_values)
    adv = torch.where(ok, rows.advantages.detach(), 0.0)
    if terms.norm_adv and rows.advantage_stats is not None:
        mean, mean_low, rstd, _ = rows.advantage_stats.detach().unbind()
        adv = torch.where(ok, (adv - mean - mean_low) * rstd, 0.0)
    elif terms.norm_adv:
        adv = normalized(adv, ok)
    old_log_prob = torch.where(ok, rows.old_log_probs.detach(), 0.0)
    log_ratio = log_prob - old_log_prob
    ratio = _ratio(log_ratio)
    clipped = ratio.clamp(1.0 - terms.clip_low, 1.0 + terms.clip_high)
    policy = torch.maximum(-adv * ratio, -adv * clipped)
    if terms.dual_clip is not None:
        policy = torch.where(adv < 0, torch.minimum(policy, -terms.dual_clip * adv), policy)

    new = torch.where(ok, new_values, 0.0)
    target = torch.where(ok, rows.returns.detach(), 0.0)
    value = (new - target).square()
    if terms.clip_vloss is not None:
        old = torch.where(ok, rows.old_values.detach(), 0.0)
        near = old + (new - old).clamp(-terms.clip_vloss, terms.clip_vloss)
        value = torch.maximum(value, (near - target).square())

    count = ok.sum()
    any_ok = count > 0
    normalizer = terms.normalizer
    if normalizer is None or isinstance(normalizer, Tensor):
        given = count if normalizer is None else normalizer
        scale = any_ok / torch.where(any_ok, given.to(adv.dtype), 1.0)
    else:
        scale = any_ok.to(adv.dtype) / normalizer

    def mean_of(per_row: Tensor) -> Tensor:
        per_row = torch.where(ok, per_row, 0.0)
        if tokens is None:
            return per_row.sum() * scale
        if tokens.weights is not None:
            per_row = per_row * torch.where(ok, tokens.weights, 0.0)
        # in float64: where padding stands between the rows shall change no bit
        return (per_row.sum(dtype=torch.float64) * scale).to(per_row.dtype)

    policy_loss, value_loss = mean_of(policy), mean_of(0.5 * value)
    mean_entropy = mean_of(entropy)
    loss = policy_loss + terms.vf_coef * value_loss - terms.ent_coef * mean_entropy
    ref_kl = None
    if tokens is not None and tokens.ref_log_probs is not None:
        ref_log_prob = torch.where(ok, tokens.ref_log_probs.detach(), 0.0)
        ref_kl = mean_of(reference_kl(log_prob, ref_log_prob, old_log_prob, tokens.kl_estimator))
        loss = loss + tokens.kl_coef * ref_kl
    with torch.no_grad():
        outside = (ratio - terms.middle).abs() > terms.reach
        stats = {
            "policy_loss": policy_loss.detach(),
            "value_loss": value_loss.detach(),
            "entropy": mean_entropy.detach(),
            "approx_kl": mean_of((ratio - 1.0) - log_ratio),
            "old_approx_kl": mean_of(-log_ratio),
            "clip_frac": mean_of(outside.to(adv.dtype)),
        }
    if ref_kl is not None:
        stats["ref_kl"] = ref_kl.detach()
    return loss, stats
