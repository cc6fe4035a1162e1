"""Losses whose gradients came with them: what autograd is told, and the names of the statistics."""

from collections.abc import Callable, Sequence
from ctypes import c_float
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor

from fastppo.kernels.loss.spec import STATS, Stats

Computed = tuple[Tensor, ...]
"""loss (0-d), the six STATS [6], then d loss / d p for each parameter p."""


@cache
def unit_gradient(device: torch.device) -> Tensor:
    """1, 0-d float32: `loss.backward(unit_gradient(loss.device))` fills and multiplies nothing.

    Whoever writes to it changes every such backward pass.
    """
    return torch.ones((), device=device)


def is_one(factor: Tensor) -> bool:
    """Whether backward has nothing to multiply by, as after loss.backward().

    Read from memory on a CPU, where looking is free: factor.numpy() would cost seven times as much.
    On a GPU it would stall, so there only `unit_gradient` is known by its address.
    """
    if type(factor) is not Tensor:  # while torch.compile traces it has no memory
        return False
    if factor.is_cpu:
        return c_float.from_address(factor.data_ptr()).value == 1.0
    return factor.data_ptr() == unit_gradient(factor.device).data_ptr()


class _Computed(torch.autograd.Function):
    """A loss whose gradients were computed together with it."""

    @staticmethod
    def forward(
        ctx: Any, loss: tuple[Tensor], grads: Sequence[Tensor], spend: bool, *parameters: Tensor
    ) -> Tensor:
        del parameters
        ctx.save_for_backward(*grads)
        ctx.spend = spend
        return loss[0]

    @staticmethod
    def backward(ctx: Any, factor: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "create_graph=True: the fused losses have first derivatives only; "
                "pass backend='torch'"
            )
        grads: Sequence[Tensor] = ctx.saved_tensors
        if is_one(factor):
            if ctx.spend:
                # a second backward pass finds them changed, and raises
                torch.autograd.graph.increment_version(grads)
        else:
            grads = [grad.mul_(factor) if ctx.spend else grad * factor for grad in grads]
        return None, None, None, *grads

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:
        del ctx, tangents
        raise RuntimeError(
            "forward-mode AD: the fused losses have gradients by backward only; "
            "pass backend='torch'"
        )


def attach(num_parameters: int, *, spend: bool = False) -> Callable[..., Computed]:
    """Gives a registered loss its gradients, in the arguments behind the backend's name.

    Args:
        spend: backward may scale the gradients in place, once.
    """

    def attached(computed: Computed, _backend: str, *arguments: Any) -> Computed:
        loss, stats, *grads = computed
        parameters = arguments[:num_parameters]
        # in a tuple, or autograd would take the result for one of the inputs
        loss = cast(Any, _Computed).apply((loss,), grads, spend, *parameters)
        return loss, stats, *grads

    return attached


def named(computed: tuple[Tensor, ...], *, with_reference: bool = False) -> tuple[Tensor, Stats]:
    """The loss and its statistics by name; a seventh is ref_kl, which counts `with_reference`."""
    loss, stats, *_ = computed
    names = (*STATS, "ref_kl") if with_reference else STATS
    return loss, dict(zip(names, stats.unbind(), strict=False))
