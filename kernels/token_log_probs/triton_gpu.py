"""Log-probabilities of tokens on the GPU: one program per row, logits in the dtype they have."""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastppo.kernels.tools.triton_options import OPTIONS
from fastppo.kernels.tools.triton_rows import dense_rows
from fastppo.kernels.tools.triton_softmax import (
    block_lanes,
    finite,
    load_chosen,
    load_logits,
    row_softmax,
    tiling,
)


@triton.jit
def _load_ok(valid_ptr, row):
    ok = row >= 0
    if valid_ptr is not None:
        ok = tl.load(valid_ptr + row) != 0
    return ok


@triton.jit
def log_probs_kernel(
    logits_ptr,  # [R, WIDTH] f32 or bf16
    tokens_ptr,  # [R] i64 or i32
    valid_ptr,  # [R] bool, or None for all
    log_probs_ptr,  # [R] f32, written, as the next
    entropy_ptr,
    width,
    logits_stride,  # elements from one row to the next
    inverse_temperature,
    DEPTH: tl.constexpr,
    LANES: tl.constexpr,
):
    # a Python float reaches the kernel as f64 under torch.compile, as f32 in eager mode
    inverse_temperature = tl.cast(inverse_temperature, tl.float32)
    # int64: an element offset past 2**31 wraps silently
    program = tl.program_id(0).to(tl.int64)
    row = program + tl.arange(0, 1)
    ok = _load_ok(valid_ptr, row)
    logits_ptr += program * logits_stride
    token = tl.load(tokens_ptr + row, ok, other=0).to(tl.int64)
    chosen = load_chosen(logits_ptr, None, token, ok, width, inverse_temperature)
    peak, log_total, entropy = row_softmax(
        logits_ptr, None, width, ok, inverse_temperature, DEPTH, LANES
    )
    tl.store(log_probs_ptr + row, tl.where(ok, chosen - peak - log_total, 0.0))
    tl.store(entropy_ptr + row, tl.where(ok, entropy, 0.0))


@triton.jit
def gradient_kernel(
    logits_ptr,  # [R, WIDTH] f32 or bf16
    tokens_ptr,  # [R] i64 or i32
    valid_ptr,  # [R] bool, or None for all
    d_log_probs_ptr,  # [R] f32, as the next
    d_entropy_ptr,
    d_logits_ptr,  # as the logits, dense, written
    width,
    logits_stride,  # elements from one row to the next
    inverse_temperature,
    DEPTH: tl.constexpr,
    LANES: tl.constexpr,
):
    # a Python float reaches the kernel as f64 under torch.compile, as f32 in eager mode
    inverse_temperature = tl.cast(inverse_temperature, tl.float32)
    # int64: an element offset past 2**31 wraps silently
    program = tl.program_id(0).to(tl.int64)
    row = program + tl.arange(0, 1)
    ok = _load_ok(valid_ptr, row)
    logits_ptr += program * logits_stride
    d_logits_ptr += program * width
    token = tl.load(tokens_ptr + row, ok, other=0).to(tl.int64)
    peak, log_total, entropy = row_softmax(
        logits_ptr, None, width, ok, inverse_temperature, DEPTH, LANES
    )
    # Of a row that is not ok every logit reads as -inf: with these, p and the gradient are 0.
    grad = tl.where(ok, tl.load(d_log_probs_ptr + row) * inverse_temperature, 0.0)[None, :]
    slope = tl.where(ok, -tl.load(d_entropy_ptr + row) * inverse_temperature, 0.0)[None, :]
    log_total = tl.where(ok, log_total, 0.0)[None, :]
    entropy = tl.where(ok, entropy, 0.0)[None, :]
    level = slope * entropy - grad
    lane = block_lanes(DEPTH, LANES)
    for start in range(0, width, DEPTH * LANES):
        at = start + lane
        mask = at < width
        z = load_logits(logits_ptr, None, at, mask & ok[None, :], inverse_temperature)
        log_p = finite(z - peak) - log_total
        d_logits = tl.exp(log_p) * (slope * log_p + level)
        d_logits = tl.where(at == token[None, :], d_logits + grad, d_logits)
        tl.store(d_logits_ptr + at, d_logits.to(d_logits_ptr.dtype.element_ty), mask)


def token_log_probs(
    logits: Tensor, tokens: Tensor, valid: Tensor | None, temperature: float
) -> tuple[Tensor, Tensor]:
    """As `spec.token_log_probs`, [R, V] to [R] and [R] float32."""
    num_rows, width = logits.shape
    source = dense_rows(logits)
    log_probs = torch.empty(num_rows, dtype=torch.float32, device=logits.device)
    entropy = torch.empty(num_rows, dtype=torch.float32, device=logits.device)
    with torch.cuda.device_of(logits):
        log_probs_kernel[(num_rows,)](
            source,
            tokens.contiguous(),
            None if valid is None else valid.contiguous(),
            log_probs,
            entropy,
            width,
            source.stride(0),
            1.0 / temperature,
            **tiling(width, source.element_size()),
            **OPTIONS,
        )
    return log_probs, entropy


def gradient_of_logits(
    logits: Tensor,
    tokens: Tensor,
    valid: Tensor | None,
    temperature: float,
    d_log_probs: Tensor,
    d_entropy: Tensor,
) -> Tensor:
    """The gradient of the logits, in their dtype, from those of both results, [R] float32."""
    num_rows, width = logits.shape
    source = dense_rows(logits)
    d_logits = torch.empty(logits.shape, dtype=logits.dtype, device=logits.device)
    with torch.cuda.device_of(logits):
        gradient_kernel[(num_rows,)](
            source,
            tokens.contiguous(),
            None if valid is None else valid.contiguous(),
            d_log_probs.contiguous(),
            d_entropy.contiguous(),
            d_logits,
            width,
            source.stride(0),
            1.0 / temperature,
            **tiling(width, source.element_size()),
            **OPTIONS,
        )
    return d_logits
