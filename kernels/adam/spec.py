"""Gradient-norm clip and Adam in plain torch: the specification, and in float64 the oracle."""

import torch
from torch import Tensor

from fastppo.kernels.adam.call import AdamCall


def clip_adam_(call: AdamCall) -> tuple[Tensor, Tensor]:
    """Algorithm 1 of https://arxiv.org/abs/1412.6980 on the clipped gradient g, at step t = s + 1.

        g = grad * min(1, max_grad_norm / (|grad| + 1e-6))
        m = beta1 m + (1 - beta1) g
        v = beta2 v + (1 - beta2) g^2
        p = p - lr / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + eps)

    If `skip` is set or |grad| is not finite, only `zero_grad` takes effect.
    """
    beta1, beta2 = call.beta1, call.beta2
    norm = torch.linalg.vector_norm(call.grad)
    taken = torch.isfinite(norm)
    if call.skip is not None:
        taken = taken & ~call.skip
    if call.max_grad_norm is not None:
        grad_scale = (call.max_grad_norm / (norm + 1e-6)).clamp(max=1.0)
    else:
        grad_scale = torch.ones_like(norm)
    clipped = call.grad * grad_scale
    new_step = call.step + 1.0
    # in float64: 1 - beta2^t is 1e-3 at first, and float32 would leave it four digits
    bias1 = 1.0 - beta1 ** new_step.double()
    bias2 = 1.0 - beta2 ** new_step.double()
    m = beta1 * call.exp_avg + (1.0 - beta1) * clipped
    v = beta2 * call.exp_avg_sq + (1.0 - beta2) * clipped.square()
    denominator = v.sqrt() / bias2.sqrt().to(v.dtype) + call.eps
    new_param = call.param - (call.lr / bias1).to(v.dtype) * (m / denominator)
    for old, new in (
        (call.param, new_param),
        (call.exp_avg, m),
        (call.exp_avg_sq, v),
        (call.step, new_step),
    ):
        old.copy_(torch.where(taken, new, old))
    if call.zero_grad:
        call.grad.zero_()
    return norm, taken
