"""The fused PPO loss for one head of few actions on the GPU: one row per thread.

A thread loads the logits of its row one by one into registers, where they stay until the gradient:
softmax needs no other thread, and only the six sums over rows do. The loads of a warp are a row
apart, but the lines they touch are the same for all columns and stay in the first cache.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# mypy: disable-error-code="assignment,var-annotated"

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastppo.kernels.loss.triton_moments import load_ok
from fastppo.kernels.loss.triton_rows import PARTIALS, load_scale, row_losses
from fastppo.kernels.tools.triton_options import OPTIONS
from fastppo.kernels.tools.triton_softmax import finite

MAX_WIDTH = 32  # logits that a thread holds
BLOCK_B = 128


@triton.jit(do_not_specialize=["batch_size"])
def narrow_kernel(
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
    d_logits_ptr,  # as logits, written
    d_values_ptr,  # [B] f32, written
    partials_ptr,  # [programs, 8] f32, written
    batch_size,
    normalizer,  # used if above 0 and normalizer_ptr is None
    vf_coef,
    ent_coef,
    low,  # 1 - clip_low
    high,  # 1 + clip_high
    reach,  # half of the distance between these two
    clip_vloss,
    dual_clip,
    WIDTH: tl.constexpr,
    NORM_ADV: tl.constexpr,
    CLIP_VLOSS: tl.constexpr,
    DUAL_CLIP: tl.constexpr,
    BLOCK_B: tl.constexpr,
):
    # a Python float reaches the kernel as f64 under torch.compile, as f32 in eager mode
    vf_coef = tl.cast(vf_coef, tl.float32)
    ent_coef = tl.cast(ent_coef, tl.float32)
    low = tl.cast(low, tl.float32)
    high = tl.cast(high, tl.float32)
    reach = tl.cast(reach, tl.float32)
    clip_vloss = tl.cast(clip_vloss, tl.float32)
    dual_clip = tl.cast(dual_clip, tl.float32)
    # int64: an element offset past 2**31 wraps silently
    row = tl.program_id(0).to(tl.int64) * BLOCK_B + tl.arange(0, BLOCK_B)
    in_range = row < batch_size
    ok = load_ok(valid_ptr, row, in_range)
    action = tl.load(actions_ptr + row, ok, other=0)

    logits = ()
    for j in tl.static_range(WIDTH):
        z = tl.load(logits_ptr + row * WIDTH + j, ok, other=0.0).to(tl.float32)
        if allowed_ptr is not None:
            allowed = tl.load(allowed_ptr + row * WIDTH + j, ok, other=1) != 0
            z = tl.where(allowed, z, -float("inf"))
        logits += (z,)
    highest = tl.full([BLOCK_B], -float("inf"), tl.float32)
    for j in tl.static_range(WIDTH):
        highest = tl.maximum(highest, logits[j])
    total = tl.zeros([BLOCK_B], tl.float32)
    weighted = tl.zeros([BLOCK_B], tl.float32)
    chosen = tl.full([BLOCK_B], float("nan"), tl.float32)  # for an action out of range
    kept = ()
    for j in tl.static_range(WIDTH):
        centred = logits[j] - highest
        chosen = tl.where(action == j, centred, chosen)
        centred = finite(centred)
        e = tl.exp(centred)
        total += e
        weighted += e * centred
        kept += (centred,)
    log_total = tl.log(total)
    entropy = log_total - weighted / total
    policy_grad, value_grad = row_losses(
        chosen - log_total,
        entropy,
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
        reach,
        clip_vloss,
        dual_clip,
        NORM_ADV,
        CLIP_VLOSS,
        DUAL_CLIP,
    )
    scale = load_scale(moments_ptr, normalizer_ptr, normalizer)
    tl.store(d_values_ptr + row, tl.where(ok, vf_coef * scale * value_grad, 0.0), in_range)
    policy_grad = tl.where(ok, policy_grad * scale, 0.0)
    slope = tl.where(ok, ent_coef * scale, 0.0)
    level = slope * entropy - policy_grad
    for j in tl.static_range(WIDTH):
        log_p = kept[j] - log_total
        d_logit = tl.exp(log_p) * (slope * log_p + level)
        d_logit = tl.where(action == j, d_logit + policy_grad, d_logit)
        d_logit = d_logit.to(d_logits_ptr.dtype.element_ty)
        tl.store(d_logits_ptr + row * WIDTH + j, d_logit, in_range)


def launch(
    logits: Tensor,
    new_values: Tensor,
    actions: Tensor,
    action_mask: Tensor | None,
    d_logits: Tensor,
    d_values: Tensor,
    settings: dict[str, Any],
) -> Tensor:
    """Writes both gradients; the partial sums [programs, PARTIALS]. All tensors are contiguous."""
    batch_size, width = logits.shape
    programs = triton.cdiv(batch_size, BLOCK_B)
    partials = torch.empty(programs, PARTIALS, dtype=torch.float32, device=logits.device)
    narrow_kernel[(programs,)](
        logits,
        actions,
        action_mask,
        new_values_ptr=new_values,
        d_logits_ptr=d_logits,
        d_values_ptr=d_values,
        partials_ptr=partials,
        batch_size=batch_size,
        WIDTH=width,
        BLOCK_B=BLOCK_B,
        **settings,
        **OPTIONS,
    )
    return partials
