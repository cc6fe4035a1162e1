"""Log-probabilities of tokens on the CPU: one row at a time, which stays in the cache."""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

import numpy as np
import torch
from numba import carray
from torch import Tensor

from fastppo.kernels.tools.numba_math import ONE, ZERO, log
from fastppo.kernels.tools.numba_memory import (
    address,
    dense,
    empty,
    kernel_of_records,
    pointer,
)
from fastppo.kernels.tools.numba_softmax import (
    copy,
    gradient,
    load_row,
    maximum,
    rounded,
    softmax,
)


@kernel_of_records
def log_probs_kernel(
    num_rows: int,
    width: int,  # V
    logits_address: int,  # [R, V] f32, or bf16 as u16
    bfloat16: bool,
    tokens_address: int,  # [R] i64
    valid_address: int,  # [R] bool, or 0 for all
    inverse_temperature: float,
    log_probs_address: int,  # [R] f32, written, as the next
    entropy_address: int,
):
    wide = carray(pointer(logits_address), (0 if bfloat16 else num_rows, width), np.float32)
    halves = carray(pointer(logits_address), (num_rows if bfloat16 else 0, width), np.uint16)
    tokens = carray(pointer(tokens_address), (num_rows,), np.int64)
    valid = carray(pointer(valid_address), (num_rows if valid_address else 0,), np.bool_)
    log_probs = carray(pointer(log_probs_address), (num_rows,), np.float32)
    entropy = carray(pointer(entropy_address), (num_rows,), np.float32)
    cooled = np.float32(inverse_temperature)
    z = np.empty(width, np.float32)
    e = np.empty(width, np.float32)
    for i in range(num_rows):
        if valid_address and not valid[i]:
            log_probs[i] = ZERO
            entropy[i] = ZERO
            continue
        load_row(wide, halves, i, bfloat16, cooled, z)
        top = maximum(z)
        token = tokens[i]
        exists = token >= 0 and token < width
        chosen = z[token] - top if exists else np.float32(np.nan)
        total, weighted = softmax(z, top, e)
        log_total = log(total)
        log_probs[i] = chosen - log_total
        entropy[i] = log_total - weighted * (ONE / total)


@kernel_of_records
def gradient_kernel(
    num_rows: int,
    width: int,  # V
    logits_address: int,  # [R, V] f32, or bf16 as u16
    bfloat16: bool,
    tokens_address: int,  # [R] i64
    valid_address: int,  # [R] bool, or 0 for all
    inverse_temperature: float,
    d_log_probs_address: int,  # [R] f32, as the next
    d_entropy_address: int,
    d_logits_address: int,  # as the logits, written
):
    wide_rows, half_rows = (0, num_rows) if bfloat16 else (num_rows, 0)
    wide = carray(pointer(logits_address), (wide_rows, width), np.float32)
    halves = carray(pointer(logits_address), (half_rows, width), np.uint16)
    d_wide = carray(pointer(d_logits_address), (wide_rows, width), np.float32)
    d_halves = carray(pointer(d_logits_address), (half_rows, width), np.uint16)
    tokens = carray(pointer(tokens_address), (num_rows,), np.int64)
    valid = carray(pointer(valid_address), (num_rows if valid_address else 0,), np.bool_)
    d_log_probs = carray(pointer(d_log_probs_address), (num_rows,), np.float32)
    d_entropy = carray(pointer(d_entropy_address), (num_rows,), np.float32)
    cooled = np.float32(inverse_temperature)
    z = np.empty(width, np.float32)
    e = np.empty(width, np.float32)
    for i in range(num_rows):
        if valid_address and not valid[i]:
            z[:] = ZERO
        else:
            load_row(wide, halves, i, bfloat16, cooled, z)
            top = maximum(z)
            total, weighted = softmax(z, top, e)
            inverse = ONE / total
            # d log p_a / d z = 1[a] - p, d H / d z = -p (log p + H), and log p + H = q + shift
            slope = -d_entropy[i]
            tail = slope * (-weighted * inverse) - d_log_probs[i]
            gradient(z, e, cooled * inverse, slope, tail)
            token = tokens[i]
            if token >= 0 and token < width:
                z[token] += cooled * d_log_probs[i]
        if bfloat16:
            rounded(z, d_halves[i])
        else:
            copy(z, d_wide[i])


def token_log_probs(
    logits: Tensor, tokens: Tensor, valid: Tensor | None, temperature: float
) -> tuple[Tensor, Tensor]:
    """As `spec.token_log_probs`, [R, V] to [R] and [R] float32."""
    z, chosen = dense(logits), dense(tokens.long())
    ok = None if valid is None else dense(valid)
    log_probs, entropy = empty(len(z)), empty(len(z))
    log_probs_kernel(
        *z.shape,
        z.data_ptr(),
        z.dtype == torch.bfloat16,
        chosen.data_ptr(),
        address(ok),
        1.0 / temperature,
        log_probs.data_ptr(),
        entropy.data_ptr(),
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
    z, chosen = dense(logits), dense(tokens.long())
    ok = None if valid is None else dense(valid)
    d_log_probs, d_entropy = dense(d_log_probs), dense(d_entropy)
    d_logits = empty(*z.shape, dtype=z.dtype)
    gradient_kernel(
        *z.shape,
        z.data_ptr(),
        z.dtype == torch.bfloat16,
        chosen.data_ptr(),
        address(ok),
        1.0 / temperature,
        d_log_probs.data_ptr(),
        d_entropy.data_ptr(),
        d_logits.data_ptr(),
    )
    return d_logits
