"""What the registered losses share: their schema, and gradients that came with the loss."""

from collections.abc import Callable, Sequence
from ctypes import c_float
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor

from fastppo.kernels.backends import BackendUnavailable, implementation, resolve_backend
from fastppo.kernels.loss.spec import STATS, Stats
from fastppo.kernels.loss.terms import Rows, Terms

Computed = tuple[Tensor, ...]
"""loss (0-d), STATS [6], of tokens with ref_kl [7], then d loss / d p for each parameter p."""

FLAT_SCHEMA = (
    "Tensor old_log_probs, Tensor advantages, Tensor returns, Tensor old_values, Tensor? valid, "
    "Tensor? advantage_stats, Tensor? normalizer, float? divisor, float clip_low, float clip_high, "
    "float vf_coef, float ent_coef, float? clip_vloss, float? dual_clip, bool norm_adv"
)


def flat(rows: Rows, terms: Terms) -> tuple[Any, ...]:
    """The arguments of a registered loss behind the policy's outputs, in its schema's order."""
    on_device = isinstance(terms.normalizer, Tensor)
    return (
        *rows,
        terms.normalizer if on_device else None,
        None if on_device else terms.normalizer,
        *terms[:-1],
    )


def nested(arguments: Sequence[Any]) -> tuple[Rows, Terms]:
    """What `flat` flattened."""
    count = len(Rows._fields)
    on_device, number = arguments[count : count + 2]
    normalizer = number if on_device is None else on_device
    return Rows._make(arguments[:count]), Terms._make([*arguments[count + 2 :], normalizer])


def fused(backend: str, tensor: Tensor) -> Any:
    """The kernels behind a registered loss."""
    name = resolve_backend(backend, tensor.device, tensor.dtype)
    if name == "torch":
        raise BackendUnavailable(
            "torch.ops.fastppo has the fused losses only: "
            "call fastppo.kernels.api for backend 'torch'"
        )
    return implementation("loss", name, tensor)


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


def fake(num_stats: int) -> Callable[..., Computed]:
    """Outputs of a loss of logits, from shapes alone."""

    def outputs(_backend: str, logits: Tensor, new_values: Tensor, *_: Any) -> Computed:
        floats = torch.float32
        return (
            new_values.new_empty((), dtype=floats),
            new_values.new_empty(num_stats, dtype=floats),
            logits.new_empty(logits.shape),
            new_values.new_empty(new_values.shape),
        )

    return outputs


def overwriting(
    run: Callable[..., Computed], backend: str, logits: Tensor, *arguments: Any
) -> Computed:
    """A registered loss with the logits' gradient in their place; for eager code only."""
    result = run(backend, logits, *arguments, overwrite=True)
    result = attach(2, spend=True)(result, backend, logits, *arguments)
    # a layer below that kept its output for its own backward pass learns of it, and raises
    torch.autograd.graph.increment_version(logits)
    return result


def named(computed: tuple[Tensor, ...], *, with_reference: bool = False) -> tuple[Tensor, Stats]:
    """The loss and its statistics by name; a seventh is ref_kl, which counts `with_reference`."""
    loss, stats, *_ = computed
    names = (*STATS, "ref_kl") if with_reference else STATS
    return loss, dict(zip(names, stats.unbind(), strict=False))
