"""Gradient-norm clip and Adam in plain torch: the specification, and in float64 the oracle."""

import torch
from torch import Tensor


def clip_adam_(
    param: Tensor,
    grad: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    step: Tensor,
    lr: float | Tensor,
    beta1: float,
    beta2: float,
    eps: float,
    max_grad_norm: float | None,
    skip: Tensor | None,
    zero_grad: bool,
) -> tuple[Tensor, Tensor]:
    """Algorithm 1 of https://arxiv.org/abs/1412.6980 on the clipped gradient g, at step t = s + 1.

        g = grad * min(1, max_grad_norm / (|grad| + 1e-6))
        m = beta1 m + (1 - beta1) g
        v = beta2 v + (1 - beta2) g^2
        p = p - lr / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + eps)

    Nothing but a wish to zero the gradient is carried out unless |grad| is finite and not `skip`.
    """
    norm = torch.linalg.vector_norm(grad)
    taken = torch.isfinite(norm)
    if skip is not None:
        taken = taken & ~skip
    if max_grad_norm is not None:
        grad_scale = (max_grad_norm / (norm + 1e-6)).clamp(max=1.0)
    else:
        grad_scale = torch.ones_like(norm)
    clipped = grad * grad_scale
    new_step = step + 1.0
    # in float64: 1 - beta2^t is 1e-3 at first, and float32 would leave it four digits
    bias1 = 1.0 - beta1 ** new_step.double()
    bias2 = 1.0 - beta2 ** new_step.double()
    m = beta1 * exp_avg + (1.0 - beta1) * clipped
    v = beta2 * exp_avg_sq + (1.0 - beta2) * clipped.square()
    denominator = v.sqrt() / bias2.sqrt().to(v.dtype) + eps
    new_param = param - (lr / bias1).to(v.dtype) * (m / denominator)
    param.copy_(torch.where(taken, new_param, param))
    exp_avg.copy_(torch.where(taken, m, exp_avg))
    exp_avg_sq.copy_(torch.where(taken, v, exp_avg_sq))
    step.copy_(torch.where(taken, new_step, step))
    if zero_grad:
        grad.zero_()
    return norm, taken
