"""Gradient-norm clip and Adam over one flat parameter: the public function, checked and sent on."""

import math
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor

from fastppo.kernels.backends import implementation
from fastppo.kernels.registry import register


def _run(
    param: Tensor,
    grad: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    step: Tensor,
    lr_tensor: Tensor | None,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    max_grad_norm: float | None,
    skip: Tensor | None,
    zero_grad: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    module = implementation("adam", backend, param)
    result = module.clip_adam_(
        param,
        grad,
        exp_avg,
        exp_avg_sq,
        step,
        lr if lr_tensor is None else lr_tensor,
        beta1,
        beta2,
        eps,
        max_grad_norm,
        skip,
        zero_grad,
    )
    return cast(tuple[Tensor, Tensor], result)


def _fake(param: Tensor, *_: object) -> tuple[Tensor, Tensor]:
    return param.new_empty(()), param.new_empty((), dtype=torch.bool)


_operation = register(
    "clip_adam_(Tensor(a!) param, Tensor(b!) grad, Tensor(c!) exp_avg, Tensor(d!) exp_avg_sq, "
    "Tensor(e!) step, Tensor? lr_tensor, float lr, float beta1, float beta2, float eps, "
    "float? max_grad_norm, Tensor? skip, bool zero_grad, str backend) -> (Tensor, Tensor)",
    _run,
    _fake,
)


def _check(
    param: Tensor,
    others: Mapping[str, Tensor],
    scalars: Mapping[str, tuple[object, torch.dtype]],
    lr: float | Tensor,
    betas: tuple[float, float],
    eps: float,
    max_grad_norm: float | None,
) -> None:
    dtype, device = param.dtype, param.device
    if param.ndim != 1 or param.numel() == 0 or dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"param is {dtype} {list(param.shape)}: expected float32 or float64 [P], P >= 1"
        )
    for name, tensor in ("param", param), *others.items():
        if tensor.shape != param.shape or tensor.dtype != dtype or tensor.device != device:
            raise ValueError(
                f"{name} is {tensor.dtype} {list(tensor.shape)} on {tensor.device}: "
                f"expected {dtype} {list(param.shape)} on {device}, as param"
            )
        if not tensor.is_contiguous():
            raise ValueError(f"{name} is not contiguous: it is written in place, pass it dense")
    for name, (scalar, expected) in scalars.items():
        if isinstance(scalar, Tensor) and (
            scalar.ndim != 0 or scalar.dtype != expected or scalar.device != device
        ):
            raise ValueError(
                f"{name} is {scalar.dtype} {list(scalar.shape)} on {scalar.device}: "
                f"expected a 0-d {expected} tensor on {device}"
            )
    if not isinstance(lr, Tensor) and not 0.0 <= lr < math.inf:
        raise ValueError(f"lr={lr}: expected a finite number >= 0, or a 0-d tensor")
    if not (0.0 <= betas[0] < 1.0 and 0.0 <= betas[1] < 1.0):
        raise ValueError(f"betas={betas}: expected two numbers in [0, 1)")
    if not 0.0 <= eps < math.inf:
        raise ValueError(f"eps={eps}: expected a finite number >= 0")
    if max_grad_norm is not None and not 0.0 < max_grad_norm < math.inf:
        raise ValueError(f"max_grad_norm={max_grad_norm}: expected None or a finite number > 0")


def clip_adam_(
    param: Tensor,
    grad: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    step: Tensor,
    *,
    lr: float | Tensor,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    max_grad_norm: float | None = None,
    skip: Tensor | None = None,
    zero_grad: bool = False,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Clips the gradient to a global norm and takes one step of Adam, all in place.

    As `torch.nn.utils.clip_grad_norm_` and then `torch.optim.Adam`; the equations are in
    `spec.clip_adam_`, from https://arxiv.org/abs/1412.6980. The step is not taken, and
    `param`, both moments and `step` keep their bits, where `skip` is true or the norm is not
    finite; the host does not wait to learn which.

    Args:
        param, grad, exp_avg, exp_avg_sq: [P], contiguous, and none of them overlaps another.
        step: 0-d float32, the number of steps taken so far; advanced by one with each.
        lr: a number, or a 0-d float32 tensor on the device.
        max_grad_norm: None leaves the gradient as it is.
        skip: 0-d bool on the device, or None for false.
        zero_grad: whether to leave zeros in `grad`, taken or not; else it keeps its bits, unlike
            `clip_grad_norm_`, which writes the clipped gradient.

    Returns:
        The norm of the gradient before clipping, 0-d, and whether the step was taken, 0-d bool.

    Raises:
        ValueError: a shape, dtype, device, layout or number is off; the message names it.
        BackendUnavailable: `backend` cannot serve these tensors.
    """
    tensors = {"grad": grad, "exp_avg": exp_avg, "exp_avg_sq": exp_avg_sq}
    scalars = {
        "step": (step, torch.float32),
        "lr": (lr, torch.float32),
        "skip": (skip, torch.bool),
    }
    _check(param, tensors, scalars, lr, betas, eps, max_grad_norm)
    on_device = isinstance(lr, Tensor)
    arguments = (
        param.detach(),
        grad,
        exp_avg,
        exp_avg_sq,
        step,
        lr if on_device else None,
        0.0 if on_device else lr,
        betas[0],
        betas[1],
        eps,
        max_grad_norm,
        skip,
        zero_grad,
        backend,
    )
    return cast(tuple[Tensor, Tensor], _operation(*arguments))
