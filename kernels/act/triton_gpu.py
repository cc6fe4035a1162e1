"""Acting on the GPU: noise, choice, log-probability and entropy of BLOCK_B rows per program.

A head is a tile [BLOCK_B, BLOCK_A] of logits in registers, with a tile of Gumbel numbers of the
same shape: one Philox counter makes four neighbouring columns. More than MAX_BLOCK actions take
several tiles, over which maximum, sums and choice are carried (an online softmax), so that the
logits are read once. The step may be read from memory: a captured graph that advances it draws
new actions at each replay.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastppo.kernels.act.drawn import Drawn
from fastppo.kernels.tools.philox import Counter
from fastppo.kernels.tools.triton_options import OPTIONS
from fastppo.kernels.tools.triton_philox import normal, uniform, unit, words

TILE = 1024  # elements of a tile: 8 per thread of 4 warps
MAX_BLOCK = 1024  # columns of a tile
NUMBERS = ["num_rows", "first_env", "step_low", "step_high", "key_low", "key_high"]
# Of row t of a buffer: with an odd number of environments its alignment changes with t, and every
# combination would be compiled in the middle of a rollout. The Gaussian's actions stay out: stored
# in another layout than computed they would go through shared memory, aligned or not.
ONE_PER_ROW = ["log_probs_ptr", "entropy_ptr"]


@triton.jit
def _env_ids(env_ids_ptr, first_env, row, in_range):
    if env_ids_ptr is not None:
        return tl.load(env_ids_ptr + row, in_range, other=0)
    return row + first_env


@triton.jit
def _head(
    logits_ptr,
    allowed_ptr,
    env,
    step_ptr,
    step_low,
    step_high,
    key_low,
    key_high,
    row,
    in_range,
    START: tl.constexpr,
    SIZE: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_A: tl.constexpr,
):
    """Choice, its log-probability, and entropy of one head, [BLOCK_B] each."""
    top = tl.full([BLOCK_B], -float("inf"), tl.float32)
    best = tl.full([BLOCK_B], -float("inf"), tl.float32)
    chosen = tl.full([BLOCK_B], -float("inf"), tl.float32)
    choice = tl.zeros([BLOCK_B], tl.int32)
    total = tl.zeros([BLOCK_B], tl.float32)
    weighted = tl.zeros([BLOCK_B], tl.float32)
    # a tile begins at a multiple of four, where a counter's words do
    for base in range(START // 4 * 4, START + SIZE, BLOCK_A):
        column = base + tl.arange(0, BLOCK_A)[None, :]
        inside = (column >= START) & (column < START + SIZE)
        at = row[:, None] * WIDTH + column
        mask = in_range[:, None] & inside
        z = tl.load(logits_ptr + at, mask, other=-float("inf")).to(tl.float32)
        if allowed_ptr is not None:
            z = tl.where(tl.load(allowed_ptr + at, mask, other=0) != 0, z, -float("inf"))
        block = (base // 4 + tl.arange(0, BLOCK_A // 4))[None, :]
        w0, w1, w2, w3 = words(env, block, step_ptr, step_low, step_high, key_low, key_high)
        bits = tl.interleave(tl.interleave(w0, w2), tl.interleave(w1, w3))
        perturbed = z - tl.log(-tl.log(unit(bits)))
        # a NaN is never the largest
        perturbed = tl.where(perturbed == perturbed, perturbed, -float("inf"))
        block_best, where = tl.max(perturbed, 1, return_indices=True)
        picked = tl.sum(tl.where(tl.arange(0, BLOCK_A)[None, :] == where[:, None], z, 0.0), 1)
        better = block_best > best
        best = tl.where(better, block_best, best)
        chosen = tl.where(better, picked, chosen)
        choice = tl.where(better, base - START + where, choice)

        new_top = tl.max(z, 1)
        new_top = tl.where(new_top > top, new_top, top)
        # no finite logit so far: nothing to subtract
        shift = tl.where(new_top == -float("inf"), 0.0, new_top)
        moved = tl.where(top == -float("inf"), 0.0, top - shift)
        factor = tl.exp(moved)
        centred = z - shift[:, None]
        # e**-120 is 0, and finite: 0 * -inf would be NaN
        finite = tl.where(centred < -87.0, -120.0, centred)
        e = tl.exp(finite)
        weighted = (weighted + tl.where(total == 0.0, 0.0, total * moved)) * factor
        weighted += tl.sum(e * finite, 1)
        total = total * factor + tl.sum(e, 1)
        top = new_top
    log_total = tl.log(total)
    log_prob = chosen - top - log_total
    # NaN where no logit is a number above -inf
    entropy = log_total - weighted / total + (top - top)
    return choice, log_prob, entropy


@triton.jit(do_not_specialize=NUMBERS, do_not_specialize_on_alignment=["actions_ptr", *ONE_PER_ROW])
def categorical_act_kernel(
    logits_ptr,  # [B, WIDTH] f32 or bf16
    allowed_ptr,  # [B, WIDTH] bool, or None for all
    env_ids_ptr,  # [B] i64, or None to count from first_env
    step_ptr,  # [] i64, or None for step_low and step_high
    actions_ptr,  # [B, NUM_HEADS] i64, written
    log_probs_ptr,  # [B] f32, written
    entropy_ptr,  # [B] f32, written, or None
    num_rows,
    first_env,
    step_low,
    step_high,
    key_low,
    key_high,
    NVEC: tl.constexpr,  # actions of each head
    STARTS: tl.constexpr,  # first column of each head
    NUM_HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_A: tl.constexpr,
):
    # int64: an element offset past 2**31 wraps silently
    row = tl.program_id(0).to(tl.int64) * BLOCK_B + tl.arange(0, BLOCK_B)
    in_range = row < num_rows
    env = _env_ids(env_ids_ptr, first_env, row, in_range)[:, None]
    log_prob = tl.zeros([BLOCK_B], tl.float32)
    entropy = tl.zeros([BLOCK_B], tl.float32)
    for h in tl.static_range(NUM_HEADS):
        choice, head_log_prob, head_entropy = _head(
            logits_ptr,
            allowed_ptr,
            env,
            step_ptr,
            step_low,
            step_high,
            key_low,
            key_high,
            row,
            in_range,
            STARTS[h],
            NVEC[h],
            WIDTH,
            BLOCK_B,
            BLOCK_A,
        )
        log_prob += head_log_prob
        entropy += head_entropy
        tl.store(actions_ptr + row * NUM_HEADS + h, choice, in_range)
    tl.store(log_probs_ptr + row, log_prob, in_range)
    if entropy_ptr is not None:
        tl.store(entropy_ptr + row, entropy, in_range)


@triton.jit(do_not_specialize=NUMBERS, do_not_specialize_on_alignment=ONE_PER_ROW)
def gaussian_act_kernel(
    mean_ptr,  # [B, WIDTH] f32 or bf16
    log_std_ptr,  # [WIDTH] or [B, WIDTH] f32 or bf16
    env_ids_ptr,  # [B] i64, or None to count from first_env
    step_ptr,  # [] i64, or None for step_low and step_high
    actions_ptr,  # [B, WIDTH] f32, written
    log_probs_ptr,  # [B] f32, written
    entropy_ptr,  # [B] f32, written, or None
    num_rows,
    first_env,
    step_low,
    step_high,
    key_low,
    key_high,
    WIDTH: tl.constexpr,
    SHARED: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    # int64: an element offset past 2**31 wraps silently
    row = tl.program_id(0).to(tl.int64) * BLOCK_B + tl.arange(0, BLOCK_B)
    in_range = row < num_rows
    env = _env_ids(env_ids_ptr, first_env, row, in_range)[:, None]
    PAIRS: tl.constexpr = (WIDTH + 1) // 2
    log_prob = tl.zeros([BLOCK_B], tl.float32)
    entropy = tl.zeros([BLOCK_B], tl.float32)
    for base in range(0, WIDTH, BLOCK_D):
        column = base + tl.arange(0, BLOCK_D)[None, :]
        at = row[:, None] * WIDTH + column
        mask = in_range[:, None] & (column < WIDTH)
        mean = tl.load(mean_ptr + at, mask, other=0.0).to(tl.float32)
        if SHARED:
            log_std = tl.load(log_std_ptr + column, column < WIDTH, other=0.0).to(tl.float32)
        else:
            log_std = tl.load(log_std_ptr + at, mask, other=0.0).to(tl.float32)
        first_half = column < PAIRS
        pair = tl.where(first_half, column, column - PAIRS)
        u = uniform(pair, env, step_ptr, step_low, step_high, key_low, key_high)
        v = uniform(PAIRS + pair, env, step_ptr, step_low, step_high, key_low, key_high)
        action = mean + tl.exp(log_std) * normal(u, v, first_half)
        tl.store(actions_ptr + at, action, mask)
        scaled = (action - mean) * tl.exp(-log_std)
        log_p = -0.5 * scaled * scaled - log_std - 0.9189385332046727  # log(2 pi) / 2
        log_prob += tl.sum(tl.where(mask, log_p, 0.0), 1)
        entropy += tl.sum(tl.where(mask, log_std + 1.4189385332046727, 0.0), 1)
    tl.store(log_probs_ptr + row, log_prob, in_range)
    if entropy_ptr is not None:
        tl.store(entropy_ptr + row, entropy, in_range)


def tiling(nvec: Sequence[int]) -> tuple[int, int]:
    """Rows and columns of a tile for these heads; all rows' columns in one tile if they fit."""
    starts = [sum(nvec[:head]) for head in range(len(nvec))]
    spans = [start % 4 + size for start, size in zip(starts, nvec, strict=True)]
    block = max(4, min(MAX_BLOCK, triton.next_power_of_2(max(spans))))
    return max(1, min(128, TILE // block)), block


def _half(number: int) -> int:
    """The low 32 bits, as an int32."""
    return (number & 0xFFFFFFFF) - ((number & 0x80000000) << 1)


def _counter_arguments(counter: Counter) -> dict[str, Any]:
    on_device = isinstance(counter.step, Tensor)
    step = 0 if isinstance(counter.step, Tensor) else counter.step
    return {
        "env_ids_ptr": None if counter.env_ids is None else counter.env_ids.contiguous(),
        "step_ptr": counter.step if on_device else None,
        "first_env": _half(counter.first_env),
        "step_low": _half(step),
        "step_high": _half(step >> 32),
        "key_low": _half(counter.key),
        "key_high": _half(counter.key >> 32),
    }


def categorical(
    logits: Tensor,
    counter: Counter,
    nvec: Sequence[int],
    action_mask: Tensor | None,
    out: Drawn,
) -> None:
    """As `spec.categorical`, for float32 and bfloat16 on CUDA."""
    num_rows, width = logits.shape
    block_b, block_a = tiling(nvec)
    with torch.cuda.device_of(logits):
        categorical_act_kernel[(triton.cdiv(num_rows, block_b),)](
            logits_ptr=logits.contiguous(),
            allowed_ptr=None if action_mask is None else action_mask.contiguous(),
            actions_ptr=out.actions,
            log_probs_ptr=out.log_probs,
            entropy_ptr=out.entropy,
            num_rows=num_rows,
            **_counter_arguments(counter),
            NVEC=tuple(nvec),
            STARTS=tuple(sum(nvec[:h]) for h in range(len(nvec))),
            NUM_HEADS=len(nvec),
            WIDTH=width,
            BLOCK_B=block_b,
            BLOCK_A=block_a,
            **OPTIONS,
        )


def gaussian(
    mean: Tensor,
    log_std: Tensor,
    counter: Counter,
    out: Drawn,
) -> None:
    """As `spec.gaussian`, for float32 and bfloat16 on CUDA."""
    num_rows, width = mean.shape
    block_b, block_d = tiling((width,))
    with torch.cuda.device_of(mean):
        gaussian_act_kernel[(triton.cdiv(num_rows, block_b),)](
            mean_ptr=mean.contiguous(),
            log_std_ptr=log_std.contiguous(),
            actions_ptr=out.actions,
            log_probs_ptr=out.log_probs,
            entropy_ptr=out.entropy,
            num_rows=num_rows,
            **_counter_arguments(counter),
            WIDTH=width,
            SHARED=log_std.ndim == 1,
            BLOCK_B=block_b,
            BLOCK_D=block_d,
            **OPTIONS,
        )
