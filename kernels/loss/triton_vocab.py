"""The fused PPO loss for one head of very many actions on the GPU: one program per row.

A row, up to 131,072 logits, does not fit a program's registers, so it is read twice: once for an
online softmax (running maximum, sum and weighted sum, https://arxiv.org/abs/1805.02867), once for
the gradient, which may overwrite it. A block is DEPTH stretches of LANES logits, and a lane keeps
a running softmax of its own, over its DEPTH logits a turn: the threads meet once per row, not per
block.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastppo.kernels.loss.triton_rows import PARTIALS, finite, load_ok, load_scale, row_losses
from fastppo.kernels.tools.triton_options import OPTIONS


@triton.jit
def _load(logits_ptr, allowed_ptr, at, mask):
    z = tl.load(logits_ptr + at, mask, other=-float("inf")).to(tl.float32)
    if allowed_ptr is not None:
        z = tl.where(tl.load(allowed_ptr + at, mask, other=0) != 0, z, -float("inf"))
    return z


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
    normalizer,  # used if above 0 and normalizer_ptr is None
    vf_coef,
    ent_coef,
    low,  # 1 - clip_coef
    high,  # 1 + clip_coef
    clip_coef,
    clip_vloss,
    dual_clip,
    NORM_ADV: tl.constexpr,
    CLIP_VLOSS: tl.constexpr,
    DUAL_CLIP: tl.constexpr,
    DEPTH: tl.constexpr,
    LANES: tl.constexpr,
    MASK_VECTOR: tl.constexpr,
):
    # a Python float reaches the kernel as f64 under torch.compile, as f32 in eager mode
    vf_coef = tl.cast(vf_coef, tl.float32)
    ent_coef = tl.cast(ent_coef, tl.float32)
    low = tl.cast(low, tl.float32)
    high = tl.cast(high, tl.float32)
    clip_coef = tl.cast(clip_coef, tl.float32)
    clip_vloss = tl.cast(clip_vloss, tl.float32)
    dual_clip = tl.cast(dual_clip, tl.float32)
    # int64: an element offset past 2**31 wraps silently
    program = tl.program_id(0).to(tl.int64)
    row = program + tl.arange(0, 1)  # [1]: row_losses takes a block of rows
    ok = load_ok(valid_ptr, row, row < batch_size)
    logits_ptr += program * logits_stride
    d_logits_ptr += program * d_logits_stride
    if allowed_ptr is not None:
        allowed_ptr += program * allowed_stride * MASK_VECTOR

    # Before anything is stored: the gradient may overwrite the logits.
    action = tl.load(actions_ptr + row, ok, other=0).to(tl.int64)
    exists = ok & (action >= 0) & (action < width)
    chosen = tl.load(logits_ptr + action, exists, other=float("nan")).to(tl.float32)
    if allowed_ptr is not None:
        chosen = tl.where(
            exists & (tl.load(allowed_ptr + action, exists, other=1) == 0), -float("inf"), chosen
        )

    lane = tl.arange(0, DEPTH)[:, None] * LANES + tl.arange(0, LANES)[None, :]
    # A finite floor: where all logits are -inf, -inf - -inf would be NaN.
    highest = tl.full([LANES], -3.0e38, tl.float32)
    total = tl.zeros([LANES], tl.float32)
    weighted = tl.zeros([LANES], tl.float32)  # sum of e**(z - highest) * (z - highest)
    for start in range(0, width, DEPTH * LANES):
        at = start + lane
        z = _load(logits_ptr, allowed_ptr, at, (at < width) & ok[None, :])
        higher = tl.maximum(highest, tl.max(z, 0))
        shift = finite(highest - higher)
        centred = finite(z - higher[None, :])
        e = tl.exp(centred)
        rescale = tl.exp(shift)
        weighted = rescale * (weighted + shift * total) + tl.sum(e * centred, 0)
        total = rescale * total + tl.sum(e, 0)
        highest = higher
    peak = tl.max(highest, 0)
    shift = finite(highest - peak)
    rescale = tl.exp(shift)
    weighted = tl.sum(rescale * (weighted + shift * total), 0)
    total = tl.sum(rescale * total, 0)
    log_total = tl.log(total)
    entropy = log_total - weighted / total

    policy_grad, value_grad = row_losses(
        chosen - peak - log_total,
        entropy + tl.zeros([1], tl.float32),
        row,
        ok,
        old_log_probs_ptr,
        advantages_ptr,
        returns_ptr,
        old_values_ptr,
        new_values_ptr,
        moments_ptr,
        partials_ptr,
        low,
        high,
        clip_coef,
        clip_vloss,
        dual_clip,
        NORM_ADV,
        CLIP_VLOSS,
        DUAL_CLIP,
    )
    scale = load_scale(moments_ptr, normalizer_ptr, normalizer)
    tl.store(d_values_ptr + row, tl.where(ok, vf_coef * scale * value_grad, 0.0))
    # Of a row that is not ok every logit reads as -inf: with these, p and the gradient are 0.
    policy_grad = tl.where(ok, policy_grad * scale, 0.0)[None, :]
    log_total = tl.where(ok, log_total, 0.0)[None, :]
    entropy = tl.where(ok, entropy, 0.0)[None, :]
    slope = tl.where(ok, ent_coef * scale, 0.0)[None, :]
    level = slope * entropy - policy_grad
    for start in range(0, width, DEPTH * LANES):
        at = start + lane
        mask = at < width
        z = _load(logits_ptr, allowed_ptr, at, mask & ok[None, :])
        log_p = finite(z - peak) - log_total
        d_logits = tl.exp(log_p) * (slope * log_p + level)
        d_logits = tl.where(at == action[None, :], d_logits + policy_grad, d_logits)
        tl.store(d_logits_ptr + at, d_logits.to(d_logits_ptr.dtype.element_ty), mask)


def tiling(width: int, element_size: int, mask_stride: int = 0) -> dict[str, int]:
    """Constants of the kernel, and its warps: 16 logits a thread.

    A thread's share of LANES is one load of 16 bytes; were it less, threads would share lanes. The
    mask has loads of as many elements, and no more, or it would choose another layout.
    """
    vector = 16 // element_size
    num_warps = 8 if width >= 4096 else 4
    return {
        "DEPTH": 16 // vector,
        "LANES": 32 * num_warps * vector,
        "MASK_VECTOR": vector if mask_stride % vector == 0 else 1,
        "num_warps": num_warps,
    }


def launch(
    logits: Tensor,
    new_values: Tensor,
    actions: Tensor,
    action_mask: Tensor | None,
    d_logits: Tensor,
    d_values: Tensor,
    settings: dict[str, Any],
) -> Tensor:
    """Writes both gradients; the partial sums [B, PARTIALS].

    The rows of logits, mask and d_logits are dense, and may lie any distance apart.
    """
    batch_size, width = logits.shape
    partials = torch.empty(batch_size, PARTIALS, dtype=torch.float32, device=logits.device)
    mask_stride = 0 if action_mask is None else action_mask.stride(0)
    constants = tiling(width, logits.element_size(), mask_stride)
    vocab_kernel[(batch_size,)](
        logits,
        actions,
        action_mask,
        new_values_ptr=new_values,
        d_logits_ptr=d_logits,
        d_values_ptr=d_values,
        partials_ptr=partials,
        batch_size=batch_size,
        width=width,
        logits_stride=logits.stride(0),
        allowed_stride=mask_stride // constants["MASK_VECTOR"],
        d_logits_stride=d_logits.stride(0),
        **constants,
        **settings,
        **OPTIONS,
    )
    return partials
