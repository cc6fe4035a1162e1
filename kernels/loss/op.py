"""The fused PPO losses: public functions, autograd, and the way to a backend.

A fused backend computes loss, statistics and gradients in one forward pass; backward only scales.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from fastppo.kernels.backends import resolve_backend
from fastppo.kernels.loss import checks, spec
from fastppo.kernels.loss.computed import (
    FLAT_SCHEMA,
    Computed,
    attach,
    fake,
    flat,
    fused,
    named,
    nested,
    overwriting,
)
from fastppo.kernels.loss.spec import STATS, Stats
from fastppo.kernels.loss.terms import Rows, Terms, Tokens
from fastppo.kernels.loss.tokens import Sums, token_loss
from fastppo.kernels.registry import register


def _run_categorical(
    backend: str,
    logits: Tensor,
    new_values: Tensor,
    actions: Tensor,
    action_mask: Tensor | None,
    nvec: Sequence[int] | None,
    *flat: Any,
    overwrite: bool = False,
) -> Computed:
    compute = fused(backend, logits).categorical
    nvec = None if nvec is None else tuple(nvec)
    settings = (actions, *nested(flat), action_mask, nvec, overwrite)
    return cast(Computed, compute(logits, new_values, *settings))


_categorical = register(
    "categorical_ppo_loss(str backend, Tensor logits, Tensor new_values, Tensor actions, "
    f"Tensor? action_mask, int[]? nvec, {FLAT_SCHEMA}) -> (Tensor, Tensor, Tensor, Tensor)",
    _run_categorical,
    fake(len(STATS)),
    attach(2),
)


def _run_gaussian(
    backend: str,
    mean: Tensor,
    log_std: Tensor,
    new_values: Tensor,
    actions: Tensor,
    *flat: Any,
) -> Computed:
    compute = fused(backend, mean).gaussian
    return cast(Computed, compute(mean, log_std, new_values, actions, *nested(flat)))


def _fake_gaussian(
    _backend: str, mean: Tensor, log_std: Tensor, new_values: Tensor, *_arguments: Any
) -> Computed:
    parameters = (mean, log_std, new_values)
    grads = tuple(parameter.new_empty(parameter.shape) for parameter in parameters)
    return new_values.new_empty(()), new_values.new_empty(len(STATS)), *grads


_gaussian = register(
    "gaussian_ppo_loss(str backend, Tensor mean, Tensor log_std, Tensor new_values, "
    f"Tensor actions, {FLAT_SCHEMA}) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    _run_gaussian,
    _fake_gaussian,
    attach(3),
)


def categorical_ppo_loss(
    logits: Tensor,
    new_values: Tensor | None,
    actions: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    returns: Tensor | None,
    old_values: Tensor | None,
    valid: Tensor | None = None,
    *,
    clip_coef: float | tuple[float, float],
    vf_coef: float,
    ent_coef: float,
    clip_vloss: float | None = None,
    dual_clip: float | None = None,
    norm_adv: bool = True,
    action_mask: Tensor | None = None,
    nvec: Sequence[int] | None = None,
    normalizer: float | Tensor | None = None,
    advantage_stats: Tensor | None = None,
    temperature: float = 1.0,
    reduction: str = "token",
    sequence_id: Tensor | None = None,
    ref_log_probs: Tensor | None = None,
    kl_coef: float = 0.0,
    kl_estimator: str = "k2",
    overwrite_logits: bool = False,
    backend: str = "auto",
) -> tuple[Tensor, Stats]:
    """PPO's loss for discrete actions, differentiable in `logits` and `new_values`, and its STATS.

    The terms are in `spec.ppo_loss`; every other tensor is a constant. Actions are those of a
    control task, logits [B, A], or tokens of a language model, logits [..., V]; of tokens are also
    2-d logits with any of: no values, temperature, a reduction, reference log-probabilities.

    Args:
        logits: [B, A], or [B, sum(nvec)] for a multi-discrete policy, or [..., V]; bfloat16 logits
            are widened to float32, and their gradient is bfloat16.
        new_values, old_log_probs, advantages, returns, old_values: [B] or [...]; with bfloat16
            logits better float32: a log-ratio of bfloat16 numbers is mostly rounding. new_values
            None is an actor alone: returns and old_values are not looked at.
        actions: [B] int64 or int32, or [B, len(nvec)], or [...].
        valid: [B] or [...] bool or None for all; other rows may hold anything and change nothing.
        clip_coef: the ratio is clipped to 1 -+ clip_coef, or to 1 - low .. 1 + high for (low,
            high).
        clip_vloss, dual_clip: None turns the term off.
        action_mask: as logits, bool, True where allowed. A valid row with no allowed action in a
            head, or with an action out of range, makes the loss NaN.
        normalizer: what sums over rows are divided by, in place of the number that `reduction`
            stands for: a number, or a 0-d tensor on the same device. Micro-batches and ranks that
            divide by the whole batch's number add up to its loss, statistics and gradient.
        advantage_stats: [4], the row of `advantage_stats` for this minibatch, or None to compute
            it here.
        temperature: of tokens: the policy is softmax(logits / temperature).
        reduction: of tokens: "token", the mean over tokens; "sequence", the mean over sequences of
            their tokens' means; "sequence_sum", the mean over sequences of their tokens' sums;
            "constant", these sums by the number of sequences times T. Statistics add up alike.
        sequence_id: [...] integer, 0 up to the number of tokens - 1: which sequence a token belongs
            to; None for logits [B, T, V], whose rows are sequences.
        ref_log_probs: [...], of the same tokens under a reference policy: the loss has kl_coef
            times `spec.reference_kl` more, and the statistics have "ref_kl".
        kl_estimator: "k2", "k3" or "k3_is"; see `spec.reference_kl` for what each minimises.
        overwrite_logits: lets the gradient overwrite the logits, which spares a second [B, A]: the
            logits must not be read afterwards, and autograd raises if a layer needs them.

    Returns:
        loss, 0-d, and a dict of STATS, 0-d each, on the device and detached.

    Raises:
        ValueError: a shape, dtype, device or number is off, or on a CPU a token is outside the
            vocabulary; the message names it.
        BackendUnavailable: `backend` cannot serve these tensors.
    """
    clip = checks.clip_range(clip_coef)
    terms = Terms(*clip, vf_coef, ent_coef, clip_vloss, dual_clip, norm_adv, normalizer)
    rows = Rows(
        old_log_probs,
        advantages,
        cast(Tensor, returns),
        cast(Tensor, old_values),
        valid,
        advantage_stats,
    )
    if (
        logits.ndim > 2
        or new_values is None
        or reduction != "token"
        or sequence_id is not None
        or temperature != 1.0
        or ref_log_probs is not None
        or kl_coef != 0.0
    ):
        checks.check_one_head(nvec)
        tokens = Tokens(temperature, None, ref_log_probs, kl_coef, kl_estimator)
        sums = Sums(reduction, sequence_id)
        policy = (logits, new_values, actions, rows, terms, tokens, sums)
        return token_loss(*policy, action_mask, overwrite_logits, backend)
    # numpy's integers would reach the kernels, too
    nvec = None if nvec is None else tuple(int(n) for n in nvec)
    checks.check_categorical(logits, actions, action_mask, nvec)
    checks.check_rows(logits, new_values, rows)
    checks.check_terms(logits, terms)
    if logits.dtype == torch.bfloat16:
        new_values, rows = new_values.float(), rows.float()
    name = resolve_backend(backend, logits.device, logits.dtype)
    if name == "torch":
        checks.check_no_overwrite(overwrite_logits, "backend 'torch' keeps the logits")
        logits = logits.float() if logits.dtype == torch.bfloat16 else logits
        return spec.categorical_ppo_loss(
            logits, new_values, actions, rows, terms, action_mask=action_mask, nvec=nvec
        )
    arguments = (name, logits, new_values, actions, action_mask, nvec, *flat(rows, terms))
    if overwrite_logits:
        checks.check_overwritable(logits)
        return named(overwriting(_run_categorical, *arguments))
    return named(_categorical(*arguments))


def gaussian_ppo_loss(
    mean: Tensor,
    log_std: Tensor,
    new_values: Tensor,
    actions: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    returns: Tensor,
    old_values: Tensor,
    valid: Tensor | None = None,
    *,
    clip_coef: float | tuple[float, float],
    vf_coef: float,
    ent_coef: float,
    clip_vloss: float | None = None,
    dual_clip: float | None = None,
    norm_adv: bool = True,
    normalizer: float | Tensor | None = None,
    advantage_stats: Tensor | None = None,
    backend: str = "auto",
) -> tuple[Tensor, Stats]:
    """PPO's loss for a diagonal Gaussian policy, differentiable in mean, log_std and new_values.

    Args:
        mean, actions: [B, D]
        log_std: [D] or [B, D], in the dtype of the mean; its gradient has the same shape.
        The others, the result and the errors are as for `categorical_ppo_loss`.
    """
    checks.check_gaussian(mean, log_std, actions)
    rows = Rows(old_log_probs, advantages, returns, old_values, valid, advantage_stats)
    clip = checks.clip_range(clip_coef)
    terms = Terms(*clip, vf_coef, ent_coef, clip_vloss, dual_clip, norm_adv, normalizer)
    checks.check_rows(mean, new_values, rows)
    checks.check_terms(mean, terms)
    if mean.dtype == torch.bfloat16:
        mean, log_std, actions = mean.float(), log_std.float(), actions.float()
        new_values, rows = new_values.float(), rows.float()
    name = resolve_backend(backend, mean.device, mean.dtype)
    if name == "torch":
        return spec.gaussian_ppo_loss(mean, log_std, new_values, actions, rows, terms)
    arguments = (name, mean, log_std, new_values, actions, *flat(rows, terms))
    return named(_gaussian(*arguments))
