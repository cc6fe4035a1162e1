"""Gradient-norm clip and Adam on the GPU: two launches, or one where one program can do it all.

`norm_kernel` leaves one sum of squares per program, and a copy of the step counter.
`update_kernel` adds those up, every program in the same order, so that all of them take the same
step and twice the same; float atomics would not. The counter is copied because the second launch
advances it while other programs read. Up to SMALL parameters a single program does both parts: a
launch costs more than the idle processors would gain.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastppo.kernels.adam.call import AdamCall
from fastppo.kernels.tools.triton_options import OPTIONS

SMALL = 16384
SMALL_BLOCK = 4096
BLOCK = 1024
MAX_PARTIALS = 1024


@triton.jit
def _decide(norm, step, skip_ptr, lr_ptr, lr, log_beta1, log_beta2, max_grad_norm):
    """Taken (1 or 0), the gradient's scale, lr / (1 - beta1^t), 1 / sqrt(1 - beta2^t)."""
    taken = tl.where(norm < float("inf"), 1, 0)  # 0 for NaN too
    if skip_ptr is not None:
        taken = tl.where(tl.load(skip_ptr) != 0, 0, taken)
    if lr_ptr is not None:
        lr = tl.load(lr_ptr)
    scale = max_grad_norm / (norm + 1e-6)
    scale = tl.where(scale < 1.0, scale, 1.0)
    # In float64: 1 - beta2^t is 1e-3 at first, and float32 would leave it four digits.
    steps = (step + 1.0).to(tl.float64)
    bias1 = (1.0 - tl.exp(steps * log_beta1)).to(tl.float32)
    bias2 = (1.0 - tl.exp(steps * log_beta2)).to(tl.float32)
    return taken, scale, lr / bias1, 1.0 / tl.sqrt(bias2)


@triton.jit
def _update(
    param_ptr,
    grad_ptr,
    exp_avg_ptr,
    exp_avg_sq_ptr,
    at,
    num_params,
    taken,
    scale,
    step_size,
    root,
    beta1,
    rest1,
    beta2,
    rest2,
    eps,
    ZERO_GRAD: tl.constexpr,
):
    """One block of Adam; a step that is not taken neither reads nor writes but the zeros."""
    mask = at < num_params * taken
    g = tl.load(grad_ptr + at, mask, other=0.0) * scale
    m = tl.load(exp_avg_ptr + at, mask, other=0.0)
    v = tl.load(exp_avg_sq_ptr + at, mask, other=0.0)
    param = tl.load(param_ptr + at, mask, other=0.0)
    m = beta1 * m + rest1 * g
    v = beta2 * v + rest2 * g * g
    param -= step_size * m / (tl.sqrt(v) * root + eps)
    tl.store(exp_avg_ptr + at, m, mask)
    tl.store(exp_avg_sq_ptr + at, v, mask)
    tl.store(param_ptr + at, param, mask)
    if ZERO_GRAD:
        # The zeros do not wait for the gradient's load. At an alignment of its own the gradient is
        # loaded in another layout than stored, and a thread would zero what another has to read.
        tl.debug_barrier()
        tl.store(grad_ptr + at, tl.zeros_like(g), at < num_params)


@triton.jit
def norm_kernel(
    grad_ptr,  # [P] f32
    step_ptr,  # [] f32
    partials_ptr,  # [num_programs + 1] f32, written: sums of squares, then the step
    num_params,
    BLOCK_P: tl.constexpr,
):
    program = tl.program_id(0)
    lane = tl.arange(0, BLOCK_P).to(tl.int64)
    squares = tl.zeros([BLOCK_P], tl.float32)
    stride = tl.num_programs(0).to(tl.int64) * BLOCK_P
    for start in range(program.to(tl.int64) * BLOCK_P, num_params, stride):
        g = tl.load(grad_ptr + start + lane, start + lane < num_params, other=0.0)
        squares += g * g
    tl.store(partials_ptr + program, tl.sum(squares, 0))
    if program == 0:
        tl.store(partials_ptr + tl.num_programs(0), tl.load(step_ptr))


@triton.jit
def update_kernel(
    param_ptr,  # [P] f32, updated
    grad_ptr,  # [P] f32, zeroed if ZERO_GRAD
    exp_avg_ptr,  # [P] f32, updated
    exp_avg_sq_ptr,  # [P] f32, updated
    step_ptr,  # [] f32, advanced
    skip_ptr,  # [] bool, or None for false
    lr_ptr,  # [] f32, or None for `lr`
    partials_ptr,  # [num_partials + 1] f32, from norm_kernel
    norm_ptr,  # [] f32, written
    taken_ptr,  # [] bool, written
    num_params,
    num_partials,
    lr,
    beta1,
    rest1,  # 1 - beta1: from a beta in float32 it would have fewer digits
    beta2,
    rest2,  # 1 - beta2
    log_beta1,
    log_beta2,
    eps,
    max_grad_norm,  # inf for none
    ZERO_GRAD: tl.constexpr,
    BLOCK_N: tl.constexpr,  # >= num_partials
    BLOCK_P: tl.constexpr,
):
    # a Python float reaches the kernel as f64 under torch.compile, as f32 in eager mode
    lr = tl.cast(lr, tl.float32)
    max_grad_norm = tl.cast(max_grad_norm, tl.float32)
    beta1 = tl.cast(beta1, tl.float32)
    rest1 = tl.cast(rest1, tl.float32)
    beta2 = tl.cast(beta2, tl.float32)
    rest2 = tl.cast(rest2, tl.float32)
    eps = tl.cast(eps, tl.float32)
    lane = tl.arange(0, BLOCK_N)
    partials = tl.load(partials_ptr + lane, lane < num_partials, other=0.0)
    norm = tl.sqrt(tl.sum(partials, 0))
    step = tl.load(partials_ptr + num_partials)
    taken, scale, step_size, root = _decide(
        norm, step, skip_ptr, lr_ptr, lr, log_beta1, log_beta2, max_grad_norm
    )
    if tl.program_id(0) == 0:
        tl.store(norm_ptr, norm)
        tl.store(taken_ptr, taken != 0)
        tl.store(step_ptr, step + taken)
    at = tl.program_id(0).to(tl.int64) * BLOCK_P + tl.arange(0, BLOCK_P).to(tl.int64)
    _update(
        param_ptr,
        grad_ptr,
        exp_avg_ptr,
        exp_avg_sq_ptr,
        at,
        num_params,
        taken,
        scale,
        step_size,
        root,
        beta1,
        rest1,
        beta2,
        rest2,
        eps,
        ZERO_GRAD,
    )


@triton.jit
def small_kernel(
    param_ptr,  # as for update_kernel
    grad_ptr,
    exp_avg_ptr,
    exp_avg_sq_ptr,
    step_ptr,
    skip_ptr,
    lr_ptr,
    norm_ptr,
    taken_ptr,
    num_params,
    lr,
    beta1,
    rest1,
    beta2,
    rest2,
    log_beta1,
    log_beta2,
    eps,
    max_grad_norm,
    ZERO_GRAD: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """Norm and update by one program."""
    lr = tl.cast(lr, tl.float32)
    max_grad_norm = tl.cast(max_grad_norm, tl.float32)
    beta1 = tl.cast(beta1, tl.float32)
    rest1 = tl.cast(rest1, tl.float32)
    beta2 = tl.cast(beta2, tl.float32)
    rest2 = tl.cast(rest2, tl.float32)
    eps = tl.cast(eps, tl.float32)
    lane = tl.arange(0, BLOCK_P).to(tl.int64)
    squares = tl.zeros([BLOCK_P], tl.float32)
    for start in range(0, num_params, BLOCK_P):
        g = tl.load(grad_ptr + start + lane, start + lane < num_params, other=0.0)
        squares += g * g
    norm = tl.sqrt(tl.sum(squares, 0))
    step = tl.load(step_ptr)
    taken, scale, step_size, root = _decide(
        norm, step, skip_ptr, lr_ptr, lr, log_beta1, log_beta2, max_grad_norm
    )
    tl.store(norm_ptr, norm)
    tl.store(taken_ptr, taken != 0)
    # other threads of the program may still have to read the counter
    tl.debug_barrier()
    tl.store(step_ptr, step + taken)
    for start in range(0, num_params, BLOCK_P):
        _update(
            param_ptr,
            grad_ptr,
            exp_avg_ptr,
            exp_avg_sq_ptr,
            start + lane,
            num_params,
            taken,
            scale,
            step_size,
            root,
            beta1,
            rest1,
            beta2,
            rest2,
            eps,
            ZERO_GRAD,
        )


def clip_adam_(call: AdamCall) -> tuple[Tensor, Tensor]:
    """As `spec.clip_adam_`, for float32 on CUDA. The norm overflows above 1.8e19."""
    param, grad, exp_avg, exp_avg_sq, step = call[:5]
    size = param.numel()
    norm = torch.empty((), dtype=torch.float32, device=param.device)
    taken = torch.empty((), dtype=torch.bool, device=param.device)
    lr_tensor, lr = (call.lr, 0.0) if isinstance(call.lr, Tensor) else (None, float(call.lr))
    buffers = (param, grad, exp_avg, exp_avg_sq, step, call.skip, lr_tensor)
    beta1, beta2 = float(call.beta1), float(call.beta2)
    numbers = (
        lr,
        beta1,
        1.0 - beta1,
        beta2,
        1.0 - beta2,
        math.log(beta1) if beta1 > 0.0 else -math.inf,
        math.log(beta2) if beta2 > 0.0 else -math.inf,
        float(call.eps),
        math.inf if call.max_grad_norm is None else float(call.max_grad_norm),
    )
    with torch.cuda.device_of(param):
        if size <= SMALL:
            small_kernel[(1,)](
                *buffers,
                norm,
                taken,
                size,
                *numbers,
                ZERO_GRAD=call.zero_grad,
                BLOCK_P=SMALL_BLOCK,
                num_warps=16,
                **OPTIONS,
            )
            return norm, taken
        blocks = triton.cdiv(size, BLOCK)
        count = min(blocks, MAX_PARTIALS)
        partials = torch.empty(count + 1, dtype=torch.float32, device=param.device)
        norm_kernel[(count,)](grad, step, partials, size, BLOCK_P=BLOCK, **OPTIONS)
        update_kernel[(blocks,)](
            *buffers,
            partials,
            norm,
            taken,
            size,
            count,
            *numbers,
            ZERO_GRAD=call.zero_grad,
            BLOCK_N=triton.next_power_of_2(count),
            BLOCK_P=BLOCK,
            **OPTIONS,
        )
    return norm, taken
