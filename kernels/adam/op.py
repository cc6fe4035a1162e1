"""Gradient-norm clip and Adam over one flat parameter: the public function, checked and sent on."""

import math
from typing import Any, cast

import torch
from torch import Tensor

from fastppo.kernels.adam.call import AdamCall
from fastppo.kernels.backends import implementation
from fastppo.kernels.registry import register

LR = AdamCall._fields.index("lr")


def _flat(call: AdamCall) -> tuple[Any, ...]:
    """In the schema's order, where a learning rate is a tensor or a number."""
    on_device = isinstance(call.lr, Tensor)
    lr = (call.lr, 0.0) if on_device else (None, call.lr)
    return *call[:LR], *lr, *call[LR + 1 :]


def _run(*arguments: Any) -> tuple[Tensor, Tensor]:
    """Takes what `_flat` flattened, and the backend's name."""
    *flat, backend = arguments
    tensor, number = flat[LR : LR + 2]
    call = AdamCall._make([*flat[:LR], number if tensor is None else tensor, *flat[LR + 2 :]])
    module = implementation("adam", backend, call.param)
    return cast(tuple[Tensor, Tensor], module.clip_adam_(call))


def _fake(param: Tensor, *_: object) -> tuple[Tensor, Tensor]:
    return param.new_empty(()), param.new_empty((), dtype=torch.bool)


_operation = register(
    "clip_adam_(Tensor(a!) param, Tensor(b!) grad, Tensor(c!) exp_avg, Tensor(d!) exp_avg_sq, "
    "Tensor(e!) step, Tensor? lr_tensor, float lr, float beta1, float beta2, float eps, "
    "float? max_grad_norm, Tensor? skip, bool zero_grad, str backend) -> (Tensor, Tensor)",
    _run,
    _fake,
)


def _check(call: AdamCall) -> None:
    param = call.param
    dtype, device = param.dtype, param.device
    if param.ndim != 1 or param.numel() == 0 or dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"param is {dtype} {list(param.shape)}: expected float32 or float64 [P], P >= 1"
        )
    for name in ("param", "grad", "exp_avg", "exp_avg_sq"):
        tensor: Tensor = getattr(call, name)
        if tensor.shape != param.shape or tensor.dtype != dtype or tensor.device != device:
            raise ValueError(
                f"{name} is {tensor.dtype} {list(tensor.shape)} on {tensor.device}: "
                f"expected {dtype} {list(param.shape)} on {device}, as param"
            )
        if not tensor.is_contiguous():
            raise ValueError(f"{name} is not contiguous: it is written in place, pass it dense")
    for name, expected in (("step", torch.float32), ("lr", torch.float32), ("skip", torch.bool)):
        scalar = getattr(call, name)
        if isinstance(scalar, Tensor) and (
            scalar.ndim != 0 or scalar.dtype != expected or scalar.device != device
        ):
            raise ValueError(
                f"{name} is {scalar.dtype} {list(scalar.shape)} on {scalar.device}: "
                f"expected a 0-d {expected} tensor on {device}"
            )
    if not isinstance(call.lr, Tensor) and not 0.0 <= call.lr < math.inf:
        raise ValueError(f"lr={call.lr}: expected a finite number >= 0, or a 0-d tensor")
    if not (0.0 <= call.beta1 < 1.0 and 0.0 <= call.beta2 < 1.0):
        raise ValueError(f"betas={call.beta1, call.beta2}: expected two numbers in [0, 1)")
    if not 0.0 <= call.eps < math.inf:
        raise ValueError(f"eps={call.eps}: expected a finite number >= 0")
    norm = call.max_grad_norm
    if norm is not None and not 0.0 < norm < math.inf:
        raise ValueError(f"max_grad_norm={norm}: expected None or a finite number > 0")


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
    call = AdamCall(
        param, grad, exp_avg, exp_avg_sq, step, lr, *betas, eps, max_grad_norm, skip, zero_grad
    )
    _check(call)
    detached = call._replace(param=param.detach())
    return cast(tuple[Tensor, Tensor], _operation(*_flat(detached), backend))
