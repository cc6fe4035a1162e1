"""The fused PPO loss for one head of very many actions on the GPU: one program per row.

A row, up to 131,072 logits, does not fit a program's registers, so it is read twice: once for an
online softmax (`triton_softmax`), once for the gradient, which may overwrite it.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastppo.kernels.loss.terms import KL_ESTIMATORS, Tokens
from fastppo.kernels.loss.triton_moments import load_ok
from fastppo.kernels.loss.triton_rows import (
    PARTIALS,
    bounded_exp,
    load_scale,
    row_terms,
)
from fastppo.kernels.tools import triton_softmax
from fastppo.kernels.tools.triton_options import OPTIONS
from fastppo.kernels.tools.triton_softmax import (
    block_lanes,
    finite,
    load_chosen,
    load_logits,
    row_softmax,
)


@triton.jit
def _reference_kl(log_prob, ref_log_prob, old_log_prob, ESTIMATOR: tl.constexpr):
    """`spec.reference_kl`, and its derivative by log_prob."""
    difference = log_prob - ref_log_prob
    if ESTIMATOR == 0:
        value = 0.5 * difference * difference
        grad = difference
    elif ESTIMATOR == 1:
        inverse = bounded_exp(-difference)
        value = inverse - 1.0 + difference
        grad = 1.0 - inverse
    else:
        ratio = bounded_exp(log_prob - old_log_prob)
        value = bounded_exp(ref_log_prob - old_log_prob) + ratio * (difference - 1.0)
        grad = ratio * difference
    return value, grad


@triton.jit(do_not_specialize=["batch_size", "allowed_stride"])
def vocab_kernel(
    logits_ptr,  # [B, WIDTH] f32 or bf16
    actions_ptr,  # [B] i64 or i32
    allowed_ptr,  # [B, WIDTH] bool, or None for all
    old_log_probs_ptr,  # [B] f32, as the next four
    advantages_ptr,
    returns_ptr,
    old_values_ptr,
    new_values_ptr,
    valid_ptr,  # [B] bool, or None for all
    weights_ptr,  # [B] f32, or None for 1
    ref_log_probs_ptr,  # [B] f32, or None
    moments_ptr,  # [MOMENTS] f32
    normalizer_ptr,  # [] of any number type, or None
    d_logits_ptr,  # as logits, written; may be logits_ptr
    d_values_ptr,  # [B] f32, written
    partials_ptr,  # [B, 8] f32, written
    batch_size,
    width,
    logits_stride,  # elements from one row to the next, as the next two
    allowed_stride,  # in units of MASK_VECTOR
    d_logits_stride,
    inverse_temperature,
    normalizer,  # used if above 0 and normalizer_ptr is None
    vf_coef,
    ent_coef,
    kl_coef,
    low,  # 1 - clip_low
    high,  # 1 + clip_high
    reach,  # half of the distance between these two
    clip_vloss,
    dual_clip,
    NORM_ADV: tl.constexpr,
    CLIP_VLOSS: tl.constexpr,
    DUAL_CLIP: tl.constexpr,
    ESTIMATOR: tl.constexpr,  # index into KL_ESTIMATORS
    DEPTH: tl.constexpr,
    LANES: tl.constexpr,
    MASK_VECTOR: tl.constexpr,
):
    # a Python float reaches the kernel as f64 under torch.compile, as f32 in eager mode
    inverse_temperature = tl.cast(inverse_temperature, tl.float32)
    vf_coef = tl.cast(vf_coef, tl.float32)
    ent_coef = tl.cast(ent_coef, tl.float32)
    kl_coef = tl.cast(kl_coef, tl.float32)
    low = tl.cast(low, tl.float32)
    high = tl.cast(high, tl.float32)
    reach = tl.cast(reach, tl.float32)
    clip_vloss = tl.cast(clip_vloss, tl.float32)
    dual_clip = tl.cast(dual_clip, tl.float32)
    # int64: an element offset past 2**31 wraps silently
    program = tl.program_id(0).to(tl.int64)
    row = program + tl.arange(0, 1)  # [1]: row_terms takes a block of rows
    ok = load_ok(valid_ptr, row, row < batch_size)
    logits_ptr += program * logits_stride
    d_logits_ptr += program * d_logits_stride
    if allowed_ptr is not None:
        allowed_ptr += program * allowed_stride * MASK_VECTOR

    # Before anything is stored: the gradient may overwrite the logits.
    action = tl.load(actions_ptr + row, ok, other=0).to(tl.int64)
    chosen = load_chosen(logits_ptr, allowed_ptr, action, ok, width, inverse_temperature)
    peak, log_total, entropy = row_softmax(
        logits_ptr, allowed_ptr, width, ok, inverse_temperature, DEPTH, LANES
    )
    log_prob = chosen - peak - log_total
    policy, value, log_ratio, ratio, far, policy_grad, value_grad = row_terms(
        log_prob,
        row,
        ok,
        old_log_probs_ptr,
        advantages_ptr,
        returns_ptr,
        old_values_ptr,
        new_values_ptr,
        moments_ptr,
        low,
        high,
        reach,
        clip_vloss,
        dual_clip,
        NORM_ADV,
        CLIP_VLOSS,
        DUAL_CLIP,
    )
    ref_kl = tl.zeros([1], tl.float32)
    if ref_log_probs_ptr is not None:
        ref_log_prob = tl.load(ref_log_probs_ptr + row, ok, other=0.0)
        old_log_prob = tl.load(old_log_probs_ptr + row, ok, other=0.0)
        ref_kl, kl_grad = _reference_kl(
            tl.where(ok, log_prob, 0.0), ref_log_prob, old_log_prob, ESTIMATOR
        )
        policy_grad += kl_coef * kl_grad
    share = tl.where(ok, 1.0, 0.0)
    if weights_ptr is not None:
        share = tl.load(weights_ptr + row, ok, other=0.0)
    sums_ptr = partials_ptr + row * 8
    tl.store(sums_ptr, policy * share)
    tl.store(sums_ptr + 1, value * share)
    tl.store(sums_ptr + 2, tl.where(ok, entropy, 0.0) * share)
    tl.store(sums_ptr + 3, (ratio - 1.0 - log_ratio) * share)
    tl.store(sums_ptr + 4, -log_ratio * share)
    tl.store(sums_ptr + 5, tl.where(far, share, 0.0))
    tl.store(sums_ptr + 6, ref_kl * share)

    scale = load_scale(moments_ptr, normalizer_ptr, normalizer) * share
    tl.store(d_values_ptr + row, tl.where(ok, vf_coef * scale * value_grad, 0.0))
    # Of a row that is not ok every logit reads as -inf: with these, p and the gradient are 0.
    scale = scale * inverse_temperature
    policy_grad = tl.where(ok, policy_grad * scale, 0.0)[None, :]
    log_total = tl.where(ok, log_total, 0.0)[None, :]
    entropy = tl.where(ok, entropy, 0.0)[None, :]
    slope = tl.where(ok, ent_coef * scale, 0.0)[None, :]
    level = slope * entropy - policy_grad
    lane = block_lanes(DEPTH, LANES)
    for start in range(0, width, DEPTH * LANES):
        at = start + lane
        mask = at < width
        z = load_logits(logits_ptr, allowed_ptr, at, mask & ok[None, :], inverse_temperature)
        log_p = finite(z - peak) - log_total
        d_logits = tl.exp(log_p) * (slope * log_p + level)
        d_logits = tl.where(at == action[None, :], d_logits + policy_grad, d_logits)
        tl.store(d_logits_ptr + at, d_logits.to(d_logits_ptr.dtype.element_ty), mask)


def tiling(width: int, element_size: int, mask_stride: int = 0) -> dict[str, int]:
    """Constants of the kernel, and its warps.

    The mask has loads of as many elements as the logits, and no more, or it would choose another
    layout.
    """
    constants = triton_softmax.tiling(width, element_size)
    vector = 16 // element_size
    return constants | {"MASK_VECTOR": vector if mask_stride % vector == 0 else 1}


def launch(
    logits: Tensor,
    new_values: Tensor,
    actions: Tensor,
    action_mask: Tensor | None,
    d_logits: Tensor,
    d_values: Tensor,
    settings: dict[str, Any],
    tokens: Tokens,
) -> Tensor:
    """Writes both gradients; the partial sums [B, PARTIALS], seven of them used.

    The rows of logits, mask and d_logits are dense, and may lie any distance apart.
    """
    batch_size, width = logits.shape
    partials = torch.empty(batch_size, PARTIALS, dtype=torch.float32, device=logits.device)
    mask_stride = 0 if action_mask is None else action_mask.stride(0)
    constants = tiling(width, logits.element_size(), mask_stride)
    weights, ref_log_probs = tokens.weights, tokens.ref_log_probs
    vocab_kernel[(batch_size,)](
        logits,
        actions,
        action_mask,
        new_values_ptr=new_values,
        weights_ptr=None if weights is None else weights.contiguous(),
        ref_log_probs_ptr=None if ref_log_probs is None else ref_log_probs.contiguous(),
        d_logits_ptr=d_logits,
        d_values_ptr=d_values,
        partials_ptr=partials,
        batch_size=batch_size,
        width=width,
        logits_stride=logits.stride(0),
        allowed_stride=mask_stride // constants["MASK_VECTOR"],
        d_logits_stride=d_logits.stride(0),
        inverse_temperature=1.0 / tokens.temperature,
        kl_coef=float(tokens.kl_coef),
        ESTIMATOR=KL_ESTIMATORS.index(tokens.kl_estimator),
        **constants,
        **settings,
        **OPTIONS,
    )
    return partials
