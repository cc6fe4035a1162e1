"""Cases of clip_adam_: the parameters of CartPole, MuJoCo and Atari policies."""

from collections.abc import Iterator
from functools import cache, partial

import torch
from torch import Tensor

from fastppo.kernels.adam import op
from fastppo.kernels.tools import case
from fastppo.kernels.tools.case import Case, Check, Draw, Run, Work, some

LR, EPS, MAX_NORM = 3e-4, 1e-5, 0.5
BYTES_PER_PARAMETER = 28
"""Parameter, gradient and two moments read, all but the gradient written."""


def _textbook(start: Tensor, gradient: Tensor) -> Run:
    """torch's clip and fused Adam, one step further with every call."""
    weights = torch.nn.Parameter(start.clone())

    @cache
    def optimizer() -> torch.optim.Optimizer:  # torch takes seconds to make its first one
        # capturable: its step is then on the device, and a graph can be captured
        return torch.optim.Adam([weights], lr=LR, eps=EPS, fused=True, capturable=weights.is_cuda)

    def run() -> tuple[Tensor, ...]:
        # a fresh gradient costs the copy that a backward pass would have written
        weights.grad = gradient.clone()
        norm = torch.nn.utils.clip_grad_norm_([weights], MAX_NORM, foreach=True)
        optimizer().step()
        return weights.detach(), norm

    return run


def _work(size: int, device: torch.device) -> Work:
    draw = Draw(device)
    start, gradient = draw.normal(size), draw.normal(size)
    parameter, exp_avg, exp_avg_sq = start.clone(), torch.zeros_like(start), torch.zeros_like(start)
    step = torch.zeros((), device=device)
    own_gradient = gradient.clone()
    take_step = partial(op.clip_adam_, lr=LR, eps=EPS, max_grad_norm=MAX_NORM)

    def ours() -> tuple[Tensor, ...]:
        own_gradient.copy_(gradient)
        norm, _ = take_step(parameter, own_gradient, exp_avg, exp_avg_sq, step)
        return parameter, norm

    return Work(
        ours=ours,
        textbook=_textbook(start, gradient),
        compilable=None,
        with_function=lambda _: _textbook(start, gradient),
        oracle=_textbook(start.double(), gradient.double()),
    )


def benchmarks(_device: torch.device, quick: bool) -> Iterator[Case]:
    for size in some(quick, 9_000, 140_000, 1_700_000):
        yield Case(
            "adam",
            (("P", size),),
            size,
            BYTES_PER_PARAMETER * size,
            partial(_work, size),
            compiles=False,  # torch's fused optimizer is one kernel already
        )


def _check(draw: Draw, size: int, misaligned: int, zero_grad: bool) -> None:
    """Three steps; buffer number `misaligned` begins 4 bytes past a multiple of 16."""
    names = ("param", "grad", "exp_avg", "exp_avg_sq")
    values = [draw.normal(size) for _ in names]
    values[3] = values[3].square()
    states: dict[str, list[Tensor]] = {}
    for label in ("first", "again", "oracle"):
        dtype = torch.float64 if label == "oracle" else torch.float32
        buffers = [torch.empty(size + 1, dtype=dtype, device=draw.device) for _ in names]
        state = [b[1:] if i == misaligned else b[:-1] for i, b in enumerate(buffers)]
        for tensor, value in zip(state, values, strict=True):
            tensor.copy_(value)
        param, grad, exp_avg, exp_avg_sq = state
        step = torch.zeros((), dtype=torch.float32, device=draw.device)
        for _ in range(3):
            norm, taken = op.clip_adam_(
                param,
                grad,
                exp_avg,
                exp_avg_sq,
                step,
                lr=LR,
                max_grad_norm=MAX_NORM,
                zero_grad=zero_grad,
                backend="torch" if label == "oracle" else "auto",
            )
            case.require(bool(taken), "a step was skipped")
            if zero_grad:
                case.require(not bool(grad.any()), "the gradient is not zero")
                grad.copy_(values[1])
        states[label] = [*state, norm, step]
    for name, a, b, expected in zip((*names, "norm", "step"), *states.values(), strict=True):
        case.require_close(name, a, expected, 1e-5)
        case.require_same(name, a, b)


def checks(device: torch.device) -> Iterator[Check]:
    for size in (1, 33, 5000, 16384, 100_003):
        for misaligned in (-1, 0, 1):
            for zero_grad in (False, True):
                name = f"adam P={size} misaligned={misaligned} zero_grad={zero_grad}"
                yield case.check(name, _check, device, size, misaligned, zero_grad)
