"""The fused PPO loss for several heads, or for one of medium width: one program per BLOCK_B rows.

A head is a tile [BLOCK_B, BLOCK_A] of logits in registers: maximum, exponentials, log-probability,
entropy and, once the row's loss is known, the gradient. With several heads the gradient needs the
sum of all log-probabilities, so each head's logits are read twice, the second time from cache.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastppo.kernels.loss.triton_moments import load_ok
from fastppo.kernels.loss.triton_rows import PARTIALS, load_scale, row_losses
from fastppo.kernels.tools.triton_options import OPTIONS
from fastppo.kernels.tools.triton_softmax import finite

TILE = 1024  # elements of a tile: 8 per thread of 4 warps
MAX_WIDTH = 512  # actions of a head; at 1000 Triton 3.7.1 spills 8 bytes on sm_80


@triton.jit
def _softmax(
    logits_ptr,
    allowed_ptr,
    actions_ptr,
    row,
    ok,
    HEAD: tl.constexpr,
    START: tl.constexpr,
    SIZE: tl.constexpr,
    WIDTH: tl.constexpr,
    NUM_HEADS: tl.constexpr,
    BLOCK_A: tl.constexpr,
):
    """p, log p [B, A], entropy, log p of the choice [B], and the choice [B, A], of one head."""
    column = tl.arange(0, BLOCK_A)
    at = row[:, None] * WIDTH + START + column[None, :]
    mask = ok[:, None] & (column < SIZE)[None, :]
    z = tl.load(logits_ptr + at, mask, other=-float("inf")).to(tl.float32)
    if allowed_ptr is not None:
        z = tl.where(tl.load(allowed_ptr + at, mask, other=0) != 0, z, -float("inf"))
    z = tl.where(ok[:, None], z, 0.0)
    centred = z - tl.max(z, 1)[:, None]
    kept = finite(centred)
    e = tl.exp(kept)
    total = tl.sum(e, 1)
    log_total = tl.log(total)
    entropy = log_total - tl.sum(e * kept, 1) / total
    action = tl.load(actions_ptr + row * NUM_HEADS + HEAD, ok, other=0)
    picked = column[None, :] == action[:, None]
    chosen = tl.sum(tl.where(picked, centred, 0.0), 1) - log_total
    chosen = tl.where((action >= 0) & (action < SIZE), chosen, float("nan"))
    return e / total[:, None], kept - log_total[:, None], entropy, chosen, picked


@triton.jit(do_not_specialize=["batch_size"])
def categorical_kernel(
    logits_ptr,  # [B, WIDTH] f32 or bf16
    actions_ptr,  # [B, NUM_HEADS] i64 or i32
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
    NVEC: tl.constexpr,  # actions of each head
    STARTS: tl.constexpr,  # first column of each head
    NUM_HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    NORM_ADV: tl.constexpr,
    CLIP_VLOSS: tl.constexpr,
    DUAL_CLIP: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_A: tl.constexpr,
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

    log_prob = tl.zeros([BLOCK_B], tl.float32)
    entropy = tl.zeros([BLOCK_B], tl.float32)
    for h in tl.static_range(NUM_HEADS):
        _, _, head_entropy, chosen, _ = _softmax(
            logits_ptr,
            allowed_ptr,
            actions_ptr,
            row,
            ok,
            h,
            STARTS[h],
            NVEC[h],
            WIDTH,
            NUM_HEADS,
            BLOCK_A,
        )
        log_prob += chosen
        entropy += head_entropy
    policy_grad, value_grad = row_losses(
        log_prob,
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
    policy_grad = policy_grad * scale
    tl.store(d_values_ptr + row, tl.where(ok, vf_coef * scale * value_grad, 0.0), in_range)
    for h in tl.static_range(NUM_HEADS):
        p, log_p, head_entropy, _, picked = _softmax(
            logits_ptr,
            allowed_ptr,
            actions_ptr,
            row,
            ok,
            h,
            STARTS[h],
            NVEC[h],
            WIDTH,
            NUM_HEADS,
            BLOCK_A,
        )
        d_logits = policy_grad[:, None] * (tl.where(picked, 1.0, 0.0) - p)
        d_logits += ent_coef * scale * p * (log_p + head_entropy[:, None])
        column = tl.arange(0, BLOCK_A)
        at = row[:, None] * WIDTH + STARTS[h] + column[None, :]
        mask = in_range[:, None] & (column < NVEC[h])[None, :]
        d_logits = tl.where(ok[:, None], d_logits, 0.0).to(d_logits_ptr.dtype.element_ty)
        tl.store(d_logits_ptr + at, d_logits, mask)


def blocks(nvec: Sequence[int]) -> tuple[int, int]:
    """BLOCK_B and BLOCK_A for these heads."""
    block_a = triton.next_power_of_2(max(nvec))
    # several heads keep more alive: at the full tile Triton 3.7.1 spills 8 bytes on sm_90
    tile = TILE if len(nvec) == 1 else TILE // 2
    return max(1, min(128, tile // block_a)), block_a


def launch(
    logits: Tensor,
    new_values: Tensor,
    actions: Tensor,
    action_mask: Tensor | None,
    d_logits: Tensor,
    d_values: Tensor,
    settings: dict[str, Any],
    nvec: Sequence[int],
) -> Tensor:
    """Writes both gradients; the partial sums [programs, PARTIALS]. All tensors are contiguous."""
    batch_size, width = logits.shape
    block_b, block_a = blocks(nvec)
    programs = triton.cdiv(batch_size, block_b)
    partials = torch.empty(programs, PARTIALS, dtype=torch.float32, device=logits.device)
    categorical_kernel[(programs,)](
        logits,
        actions,
        action_mask,
        new_values_ptr=new_values,
        d_logits_ptr=d_logits,
        d_values_ptr=d_values,
        partials_ptr=partials,
        batch_size=batch_size,
        NVEC=tuple(nvec),
        STARTS=tuple(sum(nvec[:h]) for h in range(len(nvec))),
        NUM_HEADS=len(nvec),
        WIDTH=width,
        BLOCK_B=block_b,
        BLOCK_A=block_a,
        **settings,
        **OPTIONS,
    )
    return partials
