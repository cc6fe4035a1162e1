"""Argument checks of the losses of `api`."""

import math

import torch
from torch import Tensor

from fastppo.kernels.checks import INTEGERS, expect, expect_floats
from fastppo.kernels.loss.terms import Rows, Terms


def check_rows(like: Tensor, new_values: Tensor, rows: Rows) -> None:
    """Raises ValueError unless each is [B], with the dtype and device of `like` [B, ...].

    With bfloat16 logits the rows may, and should, be float32.
    """
    shape, device = like.shape[:1], like.device
    # the usual case first: one pass that costs a fifth of the checks below
    for tensor in (new_values, *rows[:4]):
        if tensor.shape != shape or tensor.dtype != like.dtype or tensor.device != device:
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


def check_terms(like: Tensor, terms: Terms) -> None:
    """Raises ValueError unless the coefficients are in range."""
    clip_coef, vf_coef, ent_coef, clip_vloss, dual_clip, _, normalizer = terms
    if not 0.0 <= clip_coef < math.inf:
        raise ValueError(f"clip_coef={clip_coef}: expected a finite number >= 0")
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
