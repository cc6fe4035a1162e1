"""The autograd glue of the fused losses: the forward pass already holds the gradients."""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .reference import STATS, Stats

# Computes loss (0-d), the six STATS [6], and d loss / d p for each parameter p it is given.
Run = Callable[..., tuple[Tensor, Tensor, tuple[Tensor, ...]]]


class _FusedLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, run: Run, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        loss, stats, grads = run(*(p.detach() for p in parameters))
        ctx.save_for_backward(*grads)
        ctx.mark_non_differentiable(stats)
        # Or autograd would fill a zero gradient for `stats` on every backward pass.
        ctx.set_materialize_grads(False)
        return loss, stats

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor, _grad_stats: None) -> tuple[Tensor | None, ...]:
        needed = ctx.needs_input_grad[1:]
        grads = zip(ctx.saved_tensors, needed, strict=True)
        return (None, *(grad * grad_loss if need else None for grad, need in grads))


def fused_loss(run: Run, *parameters: Tensor) -> tuple[Tensor, Stats]:
    """The loss and statistics that `run(*parameters)` computes, differentiable in `parameters`."""
    loss, stats = cast(Any, _FusedLoss).apply(run, *parameters)
    return loss, dict(zip(STATS, stats.unbind(), strict=True))
