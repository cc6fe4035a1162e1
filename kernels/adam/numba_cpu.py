"""Gradient-norm clip and Adam on the CPU: one pass over the gradient, one over all four buffers.

One thread: a second one, on chunks of fixed size, did not pay at 1.7 million parameters, where the
memory is the limit (docs/performance.md). A small network's buffers stay in the cache between the
passes, and a gradient is zeroed block by block, while it is there.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

import math

import numba
import numpy as np
import torch
from numba import njit
from torch import Tensor

from fastppo.kernels.adam.call import AdamCall
from fastppo.kernels.tools.numba_memory import OPTIONS, SUMMING, kernel, pointer

BLOCK = 4096


@njit(**SUMMING)
def _squares(grad):
    total = 0.0
    for i in range(grad.shape[0]):
        g = np.float64(grad[i])
        total += g * g
    return total


# A function of its own, not inlined by hand: LLVM then proves once that the buffers do not overlap.
@njit(**OPTIONS)
def _adam(
    param, grad, exp_avg, exp_avg_sq, scale, step_size, root, beta1, rest1, beta2, rest2, eps
):
    for i in range(param.shape[0]):
        g = grad[i] * scale
        m = beta1 * exp_avg[i] + rest1 * g
        v = beta2 * exp_avg_sq[i] + rest2 * g * g
        exp_avg[i] = m
        exp_avg_sq[i] = v
        param[i] -= step_size * m / (np.sqrt(v) * root + eps)


@kernel(
    "void(int64, int64, int64, int64, int64, int64, int64, int64, float64, float64, float64, "
    "float64, float64, boolean, int64, int64)"
)
def clip_adam_kernel(
    param_at,  # [P] f32, updated, as are the two moments
    grad_at,  # [P] f32, zeroed if zero_grad
    exp_avg_at,
    exp_avg_sq_at,
    size,
    step_at,  # [] f32, advanced
    skip_at,  # [] bool, or 0 for false
    lr_at,  # [] f32, or 0 for `lr`
    lr,
    beta1,
    beta2,
    eps,
    max_grad_norm,  # inf for none
    zero_grad,
    norm_at,  # [] f32, written
    taken_at,  # [] bool, written
):
    param = numba.carray(pointer(param_at), size, np.float32)
    grad = numba.carray(pointer(grad_at), size, np.float32)
    exp_avg = numba.carray(pointer(exp_avg_at), size, np.float32)
    exp_avg_sq = numba.carray(pointer(exp_avg_sq_at), size, np.float32)
    step = numba.carray(pointer(step_at), 1, np.float32)
    norm = np.float32(math.sqrt(_squares(grad)))
    taken = bool(np.isfinite(norm))
    if skip_at != 0 and numba.carray(pointer(skip_at), 1, np.bool_)[0]:
        taken = False
    numba.carray(pointer(norm_at), 1, np.float32)[0] = norm
    numba.carray(pointer(taken_at), 1, np.bool_)[0] = taken
    if lr_at != 0:
        lr = np.float64(numba.carray(pointer(lr_at), 1, np.float32)[0])
    next_step = np.float64(step[0]) + 1.0
    scale = np.float32(min(1.0, max_grad_norm / (np.float64(norm) + 1e-6)))
    step_size = np.float32(lr / (1.0 - beta1**next_step))
    root = np.float32(1.0 / math.sqrt(1.0 - beta2**next_step))
    if taken:
        step[0] = np.float32(next_step)
    for a in range(0, size, BLOCK):
        b = min(a + BLOCK, size)
        if taken:
            _adam(
                param[a:b],
                grad[a:b],
                exp_avg[a:b],
                exp_avg_sq[a:b],
                scale,
                step_size,
                root,
                np.float32(beta1),
                np.float32(1.0 - beta1),
                np.float32(beta2),
                np.float32(1.0 - beta2),
                np.float32(eps),
            )
        if zero_grad:
            grad[a:b] = np.float32(0.0)


def clip_adam_(call: AdamCall) -> tuple[Tensor, Tensor]:
    """As `spec.clip_adam_`, for float32 on the CPU."""
    norm = torch.empty((), dtype=torch.float32, device="cpu")
    taken = torch.empty((), dtype=torch.bool, device="cpu")
    lr_at, lr = (call.lr.data_ptr(), 0.0) if isinstance(call.lr, Tensor) else (0, call.lr)
    clip_adam_kernel(
        call.param.data_ptr(),
        call.grad.data_ptr(),
        call.exp_avg.data_ptr(),
        call.exp_avg_sq.data_ptr(),
        call.param.numel(),
        call.step.data_ptr(),
        0 if call.skip is None else call.skip.data_ptr(),
        lr_at,
        lr,
        call.beta1,
        call.beta2,
        call.eps,
        math.inf if call.max_grad_norm is None else call.max_grad_norm,
        call.zero_grad,
        norm.data_ptr(),
        taken.data_ptr(),
    )
    return norm, taken
