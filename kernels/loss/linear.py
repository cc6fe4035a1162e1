"""The loss of tokens from the last hidden states: the logits never exist all at once.

Rows go through the output layer in chunks: a product makes a chunk's logits, the loss puts their
gradient in their place, and two products carry it on to the hidden states and to the weight. A
backward pass that computed the logits again would cost a fourth.
"""

from typing import Any, cast

import torch
from torch import Tensor

from fastppo.kernels.backends import check_not_transformed, resolve_backend
from fastppo.kernels.checks import INTEGERS, check_vocabulary, expect, expect_logits
from fastppo.kernels.loss import checks
from fastppo.kernels.loss.computed import is_one, named
from fastppo.kernels.loss.spec import Stats
from fastppo.kernels.loss.terms import Rows, Terms, Tokens
from fastppo.kernels.loss.tokens import Batch, Sums, batch_of, computed, specified

BLOCK = 4096
"""Columns of a chunk's gradient that are widened at a time, for a product in float32."""


class _Chunked(torch.autograd.Function):
    """A loss whose gradients were computed with it, and are spent by the first backward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        loss: tuple[Tensor],
        grads: tuple[Tensor | None, ...],
        *parameters: Tensor | None,
    ) -> Tensor:
        del parameters
        ctx.grads = grads
        return loss[0]

    @staticmethod
    def backward(ctx: Any, factor: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "create_graph=True: linear_token_ppo_loss has first derivatives only; pass the "
                "logits to categorical_ppo_loss with backend='torch'"
            )
        if ctx.grads is None:
            raise RuntimeError(
                "linear_token_ppo_loss: a second backward pass; the first spent the gradients, "
                "compute the loss again"
            )
        # in place: a second weight's worth of memory is what this loss is there to spare
        grads, ctx.grads = ctx.grads, None
        if not is_one(factor):
            grads = [None if grad is None else grad.mul_(factor) for grad in grads]
        return None, None, *grads


def _chunk(
    name: str, logits: Tensor, batch: Batch, with_reference: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Loss, statistics [6 or 7], and the gradients of a chunk's logits and values."""
    if name != "torch":
        loss, stats, d_logits, d_values = computed(name, logits, batch, None, overwrite=True)
        return loss, stats if with_reference else stats[:-1], d_logits, d_values
    with torch.enable_grad():
        leaf = logits.detach().requires_grad_()
        values = batch.new_values.detach().requires_grad_()
        loss, named_stats = specified(leaf, batch._replace(new_values=values))
        d_logits, d_values = torch.autograd.grad(loss, (leaf, values))
    return loss.detach(), torch.stack(list(named_stats.values())), d_logits, d_values


def _add_product(total: Tensor, d_logits: Tensor, hidden: Tensor) -> None:
    """total [V, H] += d_logits.T @ hidden; in float32 whatever these two are."""
    if d_logits.dtype == total.dtype:
        total.addmm_(d_logits.T, hidden)
        return
    hidden = hidden.float()
    for start in range(0, len(total), BLOCK):
        stop = start + BLOCK
        total[start:stop].addmm_(d_logits[:, start:stop].float().T, hidden)


Parameters = tuple[Tensor, Tensor, Tensor | None, Tensor]
"""hidden [R, H], weight [V, H], bias [V] or None, new_values [R]."""


def _gradients(parameters: Parameters) -> list[Tensor | None]:
    """Zeros for each gradient that is wanted; float32 for those that add up over the chunks."""
    hidden, *_, new_values = parameters
    wide = torch.float64 if hidden.dtype == torch.float64 else torch.float32
    dtypes = (hidden.dtype, wide, wide, new_values.dtype)
    return [
        torch.zeros(of.shape, dtype=dtype, device=of.device)
        if of is not None and of.requires_grad and torch.is_grad_enabled()
        else None
        for of, dtype in zip(parameters, dtypes, strict=True)
    ]


def _sweep(
    name: str, parameters: Parameters, batch: Batch, chunk: int
) -> tuple[Tensor, Tensor, tuple[Tensor | None, ...]]:
    """Loss, statistics [6 or 7], and the gradients of the parameters that want one."""
    grads = _gradients(parameters)
    hidden, weight, bias = parameters[0].detach(), parameters[1].detach(), parameters[2]
    bias = None if bias is None else bias.detach()
    d_hidden, d_weight, d_bias, d_values = grads
    num_rows = len(hidden)
    room = torch.empty(min(chunk, num_rows), len(weight), dtype=hidden.dtype, device=hidden.device)
    with_reference = batch.tokens.ref_log_probs is not None
    losses: list[Tensor] = []
    stats: list[Tensor] = []
    for start in range(0, num_rows, chunk):
        stop = min(start + chunk, num_rows)
        rows, logits = hidden[start:stop], room[: stop - start]
        if bias is None:
            torch.mm(rows, weight.T, out=logits)
        else:
            torch.addmm(bias, rows, weight.T, out=logits)
        part = batch.part(start, stop)
        one_loss, one_stats, d_logits, one_d_values = _chunk(name, logits, part, with_reference)
        losses.append(one_loss)
        stats.append(one_stats)
        if d_hidden is not None:
            torch.mm(d_logits, weight, out=d_hidden[start:stop])
        if d_weight is not None:
            _add_product(d_weight, d_logits, rows)
        if d_bias is not None:
            d_bias += d_logits.sum(0, dtype=d_bias.dtype)
        if d_values is not None:
            d_values[start:stop] = one_d_values
    if d_weight is not None:
        d_weight = d_weight.to(weight.dtype)
    if d_bias is not None:
        d_bias = d_bias.to(weight.dtype)
    loss = torch.stack(losses).sum()
    return loss, torch.stack(stats).sum(0), (d_hidden, d_weight, d_bias, d_values)


def _whole(batch: Batch) -> Batch:
    """The same, divided by the whole batch's number in every part."""
    if batch.terms.normalizer is not None:
        return batch
    valid = batch.rows.valid
    count = len(batch.actions) if valid is None else valid.sum()
    return batch._replace(terms=batch.terms._replace(normalizer=count))


def linear_token_ppo_loss(
    hidden: Tensor,
    weight: Tensor,
    tokens: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    valid: Tensor | None = None,
    *,
    bias: Tensor | None = None,
    new_values: Tensor | None = None,
    returns: Tensor | None = None,
    old_values: Tensor | None = None,
    clip_coef: float | tuple[float, float],
    vf_coef: float = 0.0,
    ent_coef: float = 0.0,
    clip_vloss: float | None = None,
    dual_clip: float | None = None,
    norm_adv: bool = False,
    normalizer: float | Tensor | None = None,
    advantage_stats: Tensor | None = None,
    temperature: float = 1.0,
    reduction: str = "token",
    sequence_id: Tensor | None = None,
    ref_log_probs: Tensor | None = None,
    kl_coef: float = 0.0,
    kl_estimator: str = "k2",
    chunk: int = 1024,
    backend: str = "auto",
) -> tuple[Tensor, Stats]:
    """`categorical_ppo_loss` of logits = hidden @ weight.T + bias, differentiable in these.

    The same loss, statistics and gradients, but for rounding: of the logits no more than `chunk`
    rows exist at a time. Backward may run once.

    Args:
        hidden: [..., H], the last hidden state before each token; float32 or bfloat16.
        weight: [V, H], of the output layer, in the dtype of hidden. Its gradient adds up over the
            chunks in float32.
        tokens, old_log_probs, advantages, valid: [...]
        bias: [V] or None.
        chunk: rows at a time; memory is chunk * V logits and one gradient of the weight, while
            narrow products run below the speed of the machine.
        The others, the result and the errors are as for `categorical_ppo_loss`.
    """
    expect_logits("hidden", hidden)
    width, depth = len(weight), hidden.shape[-1]
    expect("weight", weight, hidden, (width, depth), hidden.dtype)
    if bias is not None:
        expect("bias", bias, hidden, (width,), hidden.dtype)
    expect("tokens", tokens, hidden, hidden.shape[:-1], INTEGERS)
    check_vocabulary("tokens", tokens, width, valid)
    if chunk < 1:
        raise ValueError(f"chunk={chunk}: expected a number of rows, 1 or more")
    checks.check_no_chunk_moments(norm_adv, advantage_stats)
    check_not_transformed("linear_token_ppo_loss")
    name = resolve_backend(backend, hidden.device, hidden.dtype)
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
    extras = Tokens(temperature, None, ref_log_probs, kl_coef, kl_estimator)
    sums = Sums(reduction, sequence_id)
    batch = batch_of(hidden, new_values, tokens, rows, terms, extras, sums)
    parameters = (hidden.reshape(-1, depth), weight, bias, batch.new_values)
    loss, stats, grads = _sweep(name, parameters, _whole(batch), chunk)
    loss = cast(Any, _Chunked).apply((loss,), grads, *parameters)
    return named((loss, stats), with_reference=ref_log_probs is not None)
