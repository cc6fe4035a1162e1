"""The fused PPO loss for a diagonal Gaussian policy on the GPU: one program per BLOCK_B rows.

A program holds its rows as one tile [BLOCK_B, BLOCK_D] in registers from the log-probability to
the gradient. A log_std that all rows share gets one partial gradient per program, added up after.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastppo.kernels.loss.terms import Rows, Terms
from fastppo.kernels.loss.triton_moments import load_ok
from fastppo.kernels.loss.triton_rows import (
    PARTIALS,
    finish,
    load_scale,
    prepare,
    row_losses,
)
from fastppo.kernels.tools.triton_options import OPTIONS

TILE = 512  # elements of a tile; at 256 Triton 3.7.1 spills 8 bytes on sm_90 (D = 17, masked)


@triton.jit(do_not_specialize=["batch_size"])
def gaussian_kernel(
    mean_ptr,  # [B, WIDTH] f32
    log_std_ptr,  # [WIDTH] f32 if SHARED, else [B, WIDTH]
    actions_ptr,  # [B, WIDTH] f32
    old_log_probs_ptr,  # [B] f32, as the next four
    advantages_ptr,
    returns_ptr,
    old_values_ptr,
    new_values_ptr,
    valid_ptr,  # [B] bool, or None for all
    moments_ptr,  # [MOMENTS] f32
    normalizer_ptr,  # [] of any number type, or None
    d_mean_ptr,  # [B, WIDTH] f32, written
    d_log_std_ptr,  # [programs, WIDTH] f32 if SHARED, else [B, WIDTH]; written
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
    SHARED: tl.constexpr,
    NORM_ADV: tl.constexpr,
    CLIP_VLOSS: tl.constexpr,
    DUAL_CLIP: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_D: tl.constexpr,
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
    column = tl.arange(0, BLOCK_D)
    in_width = column < WIDTH
    at = row[:, None] * WIDTH + column[None, :]
    mask = ok[:, None] & in_width[None, :]  # [BLOCK_B, BLOCK_D]

    mean = tl.load(mean_ptr + at, mask, other=0.0)
    action = tl.load(actions_ptr + at, mask, other=0.0)
    if SHARED:
        log_std = tl.load(log_std_ptr + column, in_width, other=0.0)[None, :]
    else:
        log_std = tl.load(log_std_ptr + at, mask, other=0.0)
    inverse = tl.exp(-log_std)
    u = (action - mean) * inverse
    log_p = -0.5 * u * u - log_std - 0.9189385332046727  # log(2 pi) / 2
    log_prob = tl.sum(tl.where(mask, log_p, 0.0), 1)
    entropy = tl.sum(tl.where(mask, log_std + 1.4189385332046727, 0.0), 1)

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
    policy_grad = (policy_grad * scale)[:, None]
    tl.store(d_values_ptr + row, tl.where(ok, vf_coef * scale * value_grad, 0.0), in_range)
    writable = in_range[:, None] & in_width[None, :]
    tl.store(d_mean_ptr + at, tl.where(mask, policy_grad * u * inverse, 0.0), writable)
    # not of u * u: far out it is inf, where the gradient is 0
    d_log_std = policy_grad * u * u - policy_grad - ent_coef * scale
    d_log_std = tl.where(mask, d_log_std, 0.0)
    if SHARED:
        partial = d_log_std_ptr + tl.program_id(0).to(tl.int64) * WIDTH + column
        tl.store(partial, tl.sum(d_log_std, 0), in_width)
    else:
        tl.store(d_log_std_ptr + at, d_log_std, writable)


def blocks(width: int) -> tuple[int, int]:
    """BLOCK_B and BLOCK_D for this many action dimensions."""
    block_d = triton.next_power_of_2(width)
    return max(1, min(128, TILE // block_d)), block_d


def gaussian(
    mean: Tensor,
    log_std: Tensor,
    new_values: Tensor,
    actions: Tensor,
    rows: Rows,
    terms: Terms,
) -> tuple[Tensor, ...]:
    """Loss, STATS [6] and the gradients of mean, log_std and values, as `spec`."""
    batch_size, width = mean.shape
    block_b, block_d = blocks(width)
    programs = triton.cdiv(batch_size, block_b)
    shared = log_std.ndim == 1
    device = mean.device
    d_mean = torch.empty(mean.shape, dtype=torch.float32, device=device)
    parts = programs if shared else batch_size
    d_log_std = torch.empty(parts, width, dtype=torch.float32, device=device)
    d_values = torch.empty(new_values.shape, dtype=torch.float32, device=device)
    partials = torch.empty(programs, PARTIALS, dtype=torch.float32, device=device)
    with torch.cuda.device_of(mean):
        settings = prepare(rows, terms)
        gaussian_kernel[(programs,)](
            mean.contiguous(),
            log_std.contiguous(),
            actions.contiguous(),
            new_values_ptr=new_values.contiguous(),
            d_mean_ptr=d_mean,
            d_log_std_ptr=d_log_std,
            d_values_ptr=d_values,
            partials_ptr=partials,
            batch_size=batch_size,
            WIDTH=width,
            SHARED=shared,
            BLOCK_B=block_b,
            BLOCK_D=block_d,
            **settings,
            **OPTIONS,
        )
        loss, stats = finish(partials, settings)
    return loss, stats, d_mean, d_log_std.sum(0) if shared else d_log_std, d_values
