"""The loss of a language model's tokens: how they add up, and the way to the kernels.

Triton and numba run the kernel for vocabularies at every width, by the steps of `token_log_probs`.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

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
from fastppo.kernels.registry import register


class Batch(NamedTuple):
    """Tokens in a row, and all that their loss is given besides the logits."""

    new_values: Tensor
    actions: Tensor
    rows: Rows
    terms: Terms
    tokens: Tokens

    def part(self, start: int, stop: int) -> "Batch":
        """Tokens start .. stop - 1. The terms' normalizer must be a number for it to be a part."""

        def cut(tensor: Tensor | None) -> Any:
            return None if tensor is None else tensor[start:stop]

        *rows, advantage_stats = self.rows
        extras = self.tokens
        return Batch(
            cut(self.new_values),
            cut(self.actions),
            Rows._make([*map(cut, rows), advantage_stats]),
            self.terms,
            extras._replace(weights=cut(extras.weights), ref_log_probs=cut(extras.ref_log_probs)),
        )


def computed(
    backend: str, logits: Tensor, batch: Batch, action_mask: Tensor | None, *, overwrite: bool
) -> Computed:
    """Loss, STATS and ref_kl [7], gradients of logits [R, V] and values, by a fused backend."""
    new_values, actions, *settings = batch
    compute = fused(backend, logits).tokens
    return cast(Computed, compute(logits, new_values, actions, *settings, action_mask, overwrite))


def _run(
    backend: str,
    logits: Tensor,
    new_values: Tensor,
    actions: Tensor,
    action_mask: Tensor | None,
    *arguments: Any,
    overwrite: bool = False,
) -> Computed:
    extras = len(Tokens._fields)
    rows, terms = nested(arguments[:-extras])
    tokens = Tokens._make(arguments[-extras:])
    batch = Batch(new_values, actions, rows, terms, tokens)
    return computed(backend, logits, batch, action_mask, overwrite=overwrite)


_operation = register(
    "token_ppo_loss(str backend, Tensor logits, Tensor new_values, Tensor actions, "
    f"Tensor? action_mask, {FLAT_SCHEMA}, float temperature, Tensor? weights, "
    "Tensor? ref_log_probs, float kl_coef, str kl_estimator) -> (Tensor, Tensor, Tensor, Tensor)",
    _run,
    fake(len(STATS) + 1),
    attach(2),
)


class Sums(NamedTuple):
    """How the terms of tokens add up."""

    reduction: str
    """One of REDUCTIONS."""
    sequence_id: Tensor | None
    """[...], or None: a row of [B, T] is a sequence."""


def shares(
    shape: Sequence[int], valid: Tensor | None, sums: Sums, terms: Terms, like: Tensor
) -> tuple[Tensor | None, float | Tensor | None]:
    """What each token counts for, and what their sum is divided by, unless a normalizer is given.

        token         1               number of valid tokens
        sequence      1 / its length  number of sequences: the mean over sequences of token means
        sequence_sum  1               number of sequences
        constant      1               number of sequences * T

    A length counts valid tokens, and a sequence counts if it has one.

    Args:
        shape: of the tokens.
        valid: [prod(shape)] bool, or None.

    Returns:
        weights [prod(shape)] or None for 1, and the normalizer or None for the number of rows.

    Raises:
        ValueError: nothing says which token belongs to which sequence.
    """
    reduction, sequence_id = sums
    given = terms.normalizer
    if reduction == "token" or (reduction != "sequence" and given is not None):
        return None, given
    checks.check_sequences(reduction, sequence_id, shape, valid, like)
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    total = like.shape[:-1].numel()
    ok = torch.ones(total, dtype=dtype, device=like.device) if valid is None else valid.to(dtype)
    if sequence_id is None:
        lengths = ok.view(*shape).sum(1)
        each = lengths[:, None].expand(*shape).reshape(-1)
    else:
        index = sequence_id.reshape(-1).long()
        index = index if valid is None else torch.where(valid, index, 0)
        lengths = torch.zeros_like(ok).index_add_(0, index, ok)
        each = lengths[index]
    count = (lengths > 0).sum()
    if reduction == "sequence":
        # of a sequence without a valid token nothing is read
        return 1.0 / each.clamp(min=1.0), count if given is None else given
    return None, count * shape[1] if reduction == "constant" else count


def batch_of(
    like: Tensor,
    new_values: Tensor | None,
    actions: Tensor,
    rows: Rows,
    terms: Terms,
    tokens: Tokens,
    sums: Sums,
) -> Batch:
    """The tokens of logits or hidden states `like` [..., X], checked but for the actions."""
    floats = torch.float64 if like.dtype == torch.float64 else torch.float32
    if new_values is None:
        new_values = torch.zeros(like.shape[:-1], dtype=floats, device=like.device)
        rows = rows._replace(returns=new_values, old_values=new_values)
    checks.check_rows(like, new_values, rows)
    checks.check_terms(like, terms)
    checks.check_extras(like, tokens, sums.reduction)
    checks.check_whitened(terms, rows.advantage_stats)
    rows, ref_log_probs = rows.flat(), tokens.ref_log_probs
    if ref_log_probs is not None:
        ref_log_probs = ref_log_probs.reshape(-1).to(floats)
    if like.dtype == torch.bfloat16:
        new_values, rows = new_values.float(), rows.float()
    weights, normalizer = shares(like.shape[:-1], rows.valid, sums, terms, like)
    return Batch(
        new_values.reshape(-1),
        actions.reshape(-1),
        rows,
        terms._replace(normalizer=normalizer),
        tokens._replace(weights=weights, ref_log_probs=ref_log_probs),
    )


def token_loss(
    logits: Tensor,
    new_values: Tensor | None,
    actions: Tensor,
    rows: Rows,
    terms: Terms,
    tokens: Tokens,
    sums: Sums,
    action_mask: Tensor | None,
    overwrite_logits: bool,
    backend: str,
) -> tuple[Tensor, Stats]:
    """`op.categorical_ppo_loss` of tokens; [...] for every tensor but the logits and their mask."""
    checks.check_tokens(logits, actions, action_mask, rows.valid)
    batch = batch_of(logits, new_values, actions, rows, terms, tokens, sums)
    width = logits.shape[-1]
    z = logits.reshape(-1, width)
    if action_mask is not None:
        action_mask = action_mask.reshape(-1, width)
    name = resolve_backend(backend, logits.device, logits.dtype)
    if name == "torch":
        checks.check_no_overwrite(overwrite_logits, "backend 'torch' keeps the logits")
        return specified(z, batch, action_mask)
    values, chosen, rows, terms, tokens = batch
    arguments = (name, z, values, chosen, action_mask, *flat(rows, terms), *tokens)
    if overwrite_logits:
        checks.check_overwritable(z)
        checks.check_viewed(logits, z)
        result = overwriting(_run, *arguments)
    else:
        result = cast(Computed, _operation(*arguments))
    return named(result, with_reference=tokens.ref_log_probs is not None)


def specified(
    logits: Tensor, batch: Batch, action_mask: Tensor | None = None
) -> tuple[Tensor, Stats]:
    """The specification's loss of logits [R, V]."""
    new_values, actions, rows, terms, tokens = batch
    logits = logits.float() if logits.dtype == torch.bfloat16 else logits
    return spec.categorical_ppo_loss(
        logits, new_values, actions, rows, terms, tokens=tokens, action_mask=action_mask
    )
