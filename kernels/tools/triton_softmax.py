"""Softmax of a row as wide as a vocabulary on the GPU: one program reads it once, online.

Running maximum, sum and weighted sum: https://arxiv.org/abs/1805.02867. A block is DEPTH stretches
of LANES logits, and a lane keeps a running softmax of its own, over its DEPTH logits a turn: the
threads meet once per row, not per block.
What works on the same logits works here, so that a token that is scored twice gets the same bits.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

import triton
import triton.language as tl


@triton.jit
def finite(centred):
    """e**-120 is 0, and finite: 0 * -inf would be NaN. A NaN stays one."""
    return tl.maximum(centred, -120.0, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def load_logits(logits_ptr, allowed_ptr, at, mask, inverse_temperature):
    """Logits / temperature; -inf where masked or not allowed."""
    z = tl.load(logits_ptr + at, mask, other=-float("inf")).to(tl.float32) * inverse_temperature
    if allowed_ptr is not None:
        z = tl.where(tl.load(allowed_ptr + at, mask, other=0) != 0, z, -float("inf"))
    return z


@triton.jit
def block_lanes(DEPTH: tl.constexpr, LANES: tl.constexpr):
    """Columns of the first block, [DEPTH, LANES]."""
    return tl.arange(0, DEPTH)[:, None] * LANES + tl.arange(0, LANES)[None, :]


@triton.jit
def row_softmax(
    logits_ptr,  # of the row
    allowed_ptr,  # of the row, or None for all
    width,
    ok,  # [1]; a row that is not ok reads as -inf
    inverse_temperature,
    DEPTH: tl.constexpr,
    LANES: tl.constexpr,
):
    """The largest logit, the log of the sum of e**(z - largest), and the entropy."""
    lane = block_lanes(DEPTH, LANES)
    # A finite floor: where all logits are -inf, -inf - -inf would be NaN.
    highest = tl.full([LANES], -3.0e38, tl.float32)
    total = tl.zeros([LANES], tl.float32)
    weighted = tl.zeros([LANES], tl.float32)  # sum of e**(z - highest) * (z - highest)
    for start in range(0, width, DEPTH * LANES):
        at = start + lane
        mask = (at < width) & ok[None, :]
        z = load_logits(logits_ptr, allowed_ptr, at, mask, inverse_temperature)
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
    return peak, log_total, log_total - weighted / total


@triton.jit
def load_chosen(logits_ptr, allowed_ptr, token, ok, width, inverse_temperature):
    """The token's logit / temperature, [1]; NaN for one outside the vocabulary."""
    exists = ok & (token >= 0) & (token < width)
    chosen = tl.load(logits_ptr + token, exists, other=float("nan")).to(tl.float32)
    chosen = chosen * inverse_temperature
    if allowed_ptr is not None:
        forbidden = exists & (tl.load(allowed_ptr + token, exists, other=1) == 0)
        chosen = tl.where(forbidden, -float("inf"), chosen)
    return chosen


def tiling(width: int, element_size: int) -> dict[str, int]:
    """DEPTH, LANES and warps: 16 logits a thread.

    A thread's share of LANES is one load of 16 bytes; were it less, threads would share lanes.
    """
    vector = 16 // element_size
    num_warps = 8 if width >= 4096 else 4
    return {
        "DEPTH": 16 // vector,
        "LANES": 32 * num_warps * vector,
        "num_warps": num_warps,
    }
