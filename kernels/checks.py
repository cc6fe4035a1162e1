"""Argument checks of `api`: one-line ValueErrors, cheap enough for the hot path (a few us)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from fastppo.kernels.loss.terms import Rows, Terms

_INTEGERS = (torch.int64, torch.int32)
_FUSED = (torch.float32, torch.bfloat16)


def _expect(name: str, tensor: Tensor, like: Tensor, shape: Sequence[int], dtype: object) -> None:
    """Raises unless `tensor` has `shape`, `dtype` (one, or a tuple of them) and like's device."""
    if tensor.shape != shape:
        raise ValueError(f"{name} has shape {list(tensor.shape)}: expected {list(shape)}")
    allowed = dtype if isinstance(dtype, tuple) else (dtype,)
    if tensor.dtype not in allowed:
        names = " or ".join(str(d) for d in allowed)
        raise ValueError(f"{name} has dtype {tensor.dtype}: expected {names}")
    if tensor.device != like.device:
        raise ValueError(f"{name} is on {tensor.device}: expected {like.device}, as its siblings")


def _expect_floats(name: str, tensor: Tensor, ndim: int, shape: str) -> None:
    if tensor.ndim != ndim or 0 in tensor.shape:
        raise ValueError(f"{name} has shape {list(tensor.shape)}: expected {shape}, no size 0")
    if not tensor.dtype.is_floating_point:
        raise ValueError(f"{name} has dtype {tensor.dtype}: expected a floating dtype")


def check_gae(
    rewards: Tensor,
    values: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    gamma: float,
    gae_lambda: float,
    *,
    lengths: Tensor | None,
    layout: str,
) -> None:
    """Raises ValueError unless the arguments keep the contract of `api.gae`."""
    if layout not in ("TN", "NT"):
        raise ValueError(f"layout={layout!r}: expected 'TN' (time-major) or 'NT'")
    time_major = layout == "TN"
    _expect_floats("rewards", rewards, 2, "[T, N]" if time_major else "[N, T]")
    first, second = shape = rewards.shape
    dtype = _FUSED if rewards.dtype in _FUSED else rewards.dtype
    longer = (first + 1, second) if time_major else (first, second + 1)
    _expect("values", values, rewards, longer, dtype)
    _expect("terminated", terminated, rewards, shape, torch.bool)
    _expect("truncated", truncated, rewards, shape, torch.bool)
    if lengths is not None:
        if time_major:
            raise ValueError("lengths serve layout='NT' only: pass it, or truncated for a cut")
        _expect("lengths", lengths, rewards, (first,), _INTEGERS)
    if not 0.0 <= gamma <= 1.0:
        raise ValueError(f"gamma={gamma}: expected a number in [0, 1]")
    if not 0.0 <= gae_lambda <= 1.0:
        raise ValueError(f"gae_lambda={gae_lambda}: expected a number in [0, 1]")


def check_rows(like: Tensor, new_values: Tensor, rows: Rows) -> None:
    """Raises ValueError unless each is [B], with the dtype and device of `like` [B, ...].

    Beside bfloat16 logits the rows may, and should, be float32.
    """
    shape, device = like.shape[:1], like.device
    # the usual case at a fifth of the price: a loss is small next to what asks about it
    for tensor in (new_values, *rows[:4]):
        if tensor.shape != shape or tensor.dtype != like.dtype or tensor.device != device:
            break
    else:
        if rows.valid is None and rows.advantage_stats is None:
            return
    bfloat16 = like.dtype == torch.bfloat16
    dtype = (torch.float32, torch.bfloat16) if bfloat16 else like.dtype
    _expect("new_values", new_values, like, shape, dtype)
    _expect("old_log_probs", rows.old_log_probs, like, shape, dtype)
    _expect("advantages", rows.advantages, like, shape, dtype)
    _expect("returns", rows.returns, like, shape, dtype)
    _expect("old_values", rows.old_values, like, shape, dtype)
    if rows.valid is not None:
        _expect("valid", rows.valid, like, shape, torch.bool)
    if rows.advantage_stats is not None:
        stats_dtype = torch.float32 if bfloat16 else like.dtype
        _expect("advantage_stats", rows.advantage_stats, like, (4,), stats_dtype)


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
    _expect_floats("logits", logits, 2, "[B, A]")
    batch_size, width = shape = logits.shape
    if nvec is None:
        _expect("actions", actions, logits, (batch_size,), _INTEGERS)
    else:
        if not nvec or min(nvec) < 1 or sum(nvec) != width:
            raise ValueError(
                f"nvec={nvec} sums to {sum(nvec)}: expected sizes >= 1 that sum to "
                f"logits.shape[1] = {width}"
            )
        _expect("actions", actions, logits, (batch_size, len(nvec)), _INTEGERS)
    if action_mask is not None:
        _expect("action_mask", action_mask, logits, shape, torch.bool)


def check_overwritable(logits: Tensor) -> None:
    """Raises ValueError if two elements of the logits share memory, as after expand()."""
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
    _expect_floats("mean", mean, 2, "[B, D]")
    shape = mean.shape
    _expect("log_std", log_std, mean, shape if log_std.ndim == 2 else shape[1:], mean.dtype)
    _expect("actions", actions, mean, shape, mean.dtype)
