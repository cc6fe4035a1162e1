"""Argument checks of the losses of `api`."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from fastppo.kernels.checks import (
    FUSED,
    INTEGERS,
    check_temperature,
    check_vocabulary,
    expect,
    expect_floats,
    expect_logits,
)
from fastppo.kernels.loss.terms import KL_ESTIMATORS, REDUCTIONS, Rows, Terms, Tokens


def check_rows(like: Tensor, new_values: Tensor, rows: Rows) -> None:
    """Raises ValueError unless each is [...], with the dtype and device of `like` [..., A].

    With bfloat16 logits the rows may, and should, be float32.
    """
    shape, device = like.shape[:-1], like.device
    # the usual case first: one pass that costs a fifth of the checks below
    for tensor in (new_values, *rows[:4]):
        if (
            tensor is None
            or tensor.shape != shape
            or tensor.dtype != like.dtype
            or tensor.device != device
        ):
            break
    else:
        if rows.valid is None and rows.advantage_stats is None:
            return
    bfloat16 = like.dtype == torch.bfloat16
    dtype = (torch.float32, torch.bfloat16) if bfloat16 else like.dtype
    expect("new_values", new_values, like, shape, dtype)
    expect("old_log_probs", rows.old_log_probs, like, shape, dtype)
    expect("advantages", rows.advantages, like, shape, dtype)
    expect("returns", rows.returns, like, shape, dtype)
    expect("old_values", rows.old_values, like, shape, dtype)
    if rows.valid is not None:
        expect("valid", rows.valid, like, shape, torch.bool)
    if rows.advantage_stats is not None:
        stats_dtype = torch.float32 if bfloat16 else like.dtype
        expect("advantage_stats", rows.advantage_stats, like, (4,), stats_dtype)


def clip_range(clip_coef: float | tuple[float, float]) -> tuple[float, float]:
    """How far a ratio may go below 1 and above.

    Raises:
        ValueError: a number is out of range, or there are not two.
    """
    if not isinstance(clip_coef, (tuple, list)):
        if not 0.0 <= clip_coef < math.inf:
            raise ValueError(f"clip_coef={clip_coef}: expected a finite number >= 0")
        return clip_coef, clip_coef
    if len(clip_coef) != 2 or not all(0.0 <= one < math.inf for one in clip_coef):
        raise ValueError(f"clip_coef={clip_coef}: expected (low, high), finite numbers >= 0")
    return clip_coef[0], clip_coef[1]


def check_terms(like: Tensor, terms: Terms) -> None:
    """Raises ValueError unless the coefficients are in range."""
    _, _, vf_coef, ent_coef, clip_vloss, dual_clip, _, normalizer = terms
    if not -math.inf < vf_coef < math.inf:
        raise ValueError(f"vf_coef={vf_coef}: expected a finite number")
    if not -math.inf < ent_coef < math.inf:
        raise ValueError(f"ent_coef={ent_coef}: expected a finite number")
    if clip_vloss is not None and not 0.0 <= clip_vloss < math.inf:
        raise ValueError(f"clip_vloss={clip_vloss}: expected None or a finite number >= 0")
    if dual_clip is not None and not 1.0 < dual_clip < math.inf:
        raise ValueError(f"dual_clip={dual_clip}: expected None or a finite number > 1")
    if isinstance(normalizer, Tensor):
        # Its value stays on the device: reading it here would stall the GPU.
        if normalizer.ndim != 0 or normalizer.device != like.device:
            raise ValueError(
                f"normalizer has shape {list(normalizer.shape)} on {normalizer.device}: "
                f"expected a number or a 0-d tensor on {like.device}"
            )
    elif normalizer is not None and not 0.0 < normalizer < math.inf:
        raise ValueError(f"normalizer={normalizer}: expected a finite number > 0")


def check_categorical(
    logits: Tensor,
    actions: Tensor,
    action_mask: Tensor | None,
    nvec: tuple[int, ...] | None,
) -> None:
    """Raises ValueError unless logits, actions and mask fit each other and `nvec`."""
    expect_floats("logits", logits, 2, "[B, A]")
    batch_size, width = shape = logits.shape
    if nvec is None:
        expect("actions", actions, logits, (batch_size,), INTEGERS)
    else:
        if not nvec or min(nvec) < 1 or sum(nvec) != width:
            raise ValueError(
                f"nvec={nvec} sums to {sum(nvec)}: expected sizes >= 1 that sum to "
                f"logits.shape[1] = {width}"
            )
        expect("actions", actions, logits, (batch_size, len(nvec)), INTEGERS)
    if action_mask is not None:
        expect("action_mask", action_mask, logits, shape, torch.bool)


def check_tokens(
    logits: Tensor, actions: Tensor, action_mask: Tensor | None, valid: Tensor | None
) -> None:
    """Raises ValueError unless they are [..., V] and [...], and on a CPU in the vocabulary."""
    expect_logits("logits", logits)
    shape, width = logits.shape[:-1], logits.shape[-1]
    expect("actions", actions, logits, shape, INTEGERS)
    if action_mask is not None:
        expect("action_mask", action_mask, logits, logits.shape, torch.bool)
    check_vocabulary("actions", actions, width, valid)


def check_extras(logits: Tensor, tokens: Tokens, reduction: str) -> None:
    """Raises ValueError unless what tokens have besides is in range."""
    check_temperature(tokens.temperature)
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction={reduction!r}: expected one of {', '.join(REDUCTIONS)}")
    if tokens.kl_estimator not in KL_ESTIMATORS:
        raise ValueError(
            f"kl_estimator={tokens.kl_estimator!r}: expected one of {', '.join(KL_ESTIMATORS)}; "
            "k1 has no gradient as a loss, put it into the rewards (shape_rewards)"
        )
    if not -math.inf < tokens.kl_coef < math.inf:
        raise ValueError(f"kl_coef={tokens.kl_coef}: expected a finite number")
    if tokens.ref_log_probs is None:
        if tokens.kl_coef != 0.0:
            raise ValueError(f"kl_coef={tokens.kl_coef}: needs ref_log_probs, which is missing")
        return
    dtype = FUSED if logits.dtype in FUSED else logits.dtype
    expect("ref_log_probs", tokens.ref_log_probs, logits, logits.shape[:-1], dtype)


def check_one_head(nvec: Sequence[int] | None) -> None:
    """Raises ValueError if tokens were to have several heads."""
    if nvec is not None:
        raise ValueError(
            f"nvec={nvec}: a token is one choice; leave nvec out, or logits [B, sum(nvec)] without "
            "what tokens have"
        )


def check_sequences(
    reduction: str,
    sequence_id: Tensor | None,
    shape: Sequence[int],
    valid: Tensor | None,
    logits: Tensor,
) -> None:
    """Raises ValueError unless it is known which sequence a token belongs to."""
    if sequence_id is None:
        if len(shape) != 2:
            raise ValueError(
                f"reduction={reduction!r}: nothing says which token belongs to which sequence; "
                "pass sequence_id, or logits of [B, T, V]"
            )
        return
    expect("sequence_id", sequence_id, logits, shape, INTEGERS)
    if reduction == "constant":
        raise ValueError(
            "reduction='constant' with sequence_id: no length is known that every sequence counts "
            "for; pass normalizer=number of sequences * that length"
        )
    if not sequence_id.is_cpu or torch.compiler.is_compiling():
        return
    flat, total = sequence_id.reshape(-1), sequence_id.numel()
    outside = (flat < 0) | (flat >= total)
    outside = outside if valid is None else outside & valid
    if bool(outside.any()):
        raise ValueError(
            f"sequence_id: {int(flat[outside][0])} is out of range: expected 0 to {total - 1}, one "
            "less than there are tokens"
        )


def check_viewed(logits: Tensor, flat: Tensor) -> None:
    """Raises ValueError if [..., V] became [rows, V] by a copy, which nobody else would see."""
    if flat.data_ptr() != logits.data_ptr():
        raise ValueError(
            f"overwrite_logits=True: logits with strides {logits.stride()} are no rows one after "
            "the other: pass logits.contiguous(), or leave it off"
        )


def check_whitened(terms: Terms, advantage_stats: Tensor | None) -> None:
    """Raises ValueError if advantages were to be normalised over a part of the batch."""
    if terms.norm_adv and terms.normalizer is not None and advantage_stats is None:
        raise ValueError(
            "norm_adv=True with a normalizer: mean and spread would be those of a micro-batch; "
            "pass norm_adv=False and whiten() the whole batch's advantages before, or its "
            "advantage_stats"
        )


def check_no_chunk_moments(norm_adv: bool, advantage_stats: Tensor | None) -> None:
    """Raises ValueError if advantages were to be normalised over a chunk."""
    if norm_adv and advantage_stats is None:
        raise ValueError(
            "norm_adv=True: mean and spread would be those of a chunk; pass norm_adv=False and "
            "whiten() the advantages before, or their advantage_stats"
        )


def check_overwritable(logits: Tensor) -> None:
    """Raises ValueError if two logits share memory, as after expand(), or torch.compile owns it."""
    compiling = torch.compiler.is_compiling()
    check_no_overwrite(compiling, "torch.compile plans its memory itself")
    (small, inner), (large, _) = sorted(zip(logits.stride(), logits.shape, strict=True))
    if small < 1 or (large < small * inner and 1 not in logits.shape):
        raise ValueError(
            f"overwrite_logits=True: logits with strides {logits.stride()} share memory between "
            "rows: pass logits.contiguous(), or leave it off"
        )


def check_no_overwrite(overwrite_logits: bool, reason: str) -> None:
    """Raises ValueError if the logits were to be overwritten where they cannot be."""
    if overwrite_logits:
        raise ValueError(f"overwrite_logits=True: {reason}; leave it off here")


def check_gaussian(mean: Tensor, log_std: Tensor, actions: Tensor) -> None:
    """Raises ValueError unless mean, log_std and actions fit each other."""
    expect_floats("mean", mean, 2, "[B, D]")
    shape = mean.shape
    expect("log_std", log_std, mean, shape if log_std.ndim == 2 else shape[1:], mean.dtype)
    expect("actions", actions, mean, shape, mean.dtype)
