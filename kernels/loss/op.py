"""The fused PPO losses: public functions, autograd, and the way to a backend.

A fused backend computes loss, statistics and gradients in one forward pass; backward only scales.
"""

from collections.abc import Callable, Sequence
from ctypes import c_float
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor

from fastppo.kernels.backends import BackendUnavailable, implementation, resolve_backend
from fastppo.kernels.loss import checks, spec
from fastppo.kernels.loss.spec import STATS, Stats
from fastppo.kernels.loss.terms import Rows, Terms
from fastppo.kernels.registry import register

Computed = tuple[Tensor, ...]
"""loss (0-d), the six STATS [6], then d loss / d p for each parameter p."""


@cache
def unit_gradient(device: torch.device) -> Tensor:
    """1, 0-d float32: `loss.backward(unit_gradient(loss.device))` fills and multiplies nothing.

    Whoever writes to it changes every such backward pass.
    """
    return torch.ones((), device=device)


def _is_one(factor: Tensor) -> bool:
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
        if ctx.spend:
            # a second backward pass finds them changed, and raises
            grads = [grad.mul_(factor) for grad in grads]
        elif not _is_one(factor):
            grads = [grad * factor for grad in grads]
        return None, None, None, *grads

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:
        del ctx, tangents
        raise RuntimeError(
            "forward-mode AD: the fused losses have gradients by backward only; "
            "pass backend='torch'"
        )


def _attach(num_parameters: int, *, spend: bool = False) -> Callable[..., Computed]:
    """Gives a registered loss its gradients, in the arguments behind the backend's name.

    Args:
        spend: backward may scale the gradients in place, once.
    """

    def attach(computed: Computed, _backend: str, *arguments: Any) -> Computed:
        loss, stats, *grads = computed
        parameters = arguments[:num_parameters]
        # in a tuple, or autograd would take the result for one of the inputs
        loss = cast(Any, _Computed).apply((loss,), grads, spend, *parameters)
        return loss, stats, *grads

    return attach


def _named(computed: Computed) -> tuple[Tensor, Stats]:
    loss, stats, *_ = computed
    return loss, dict(zip(STATS, stats.unbind(), strict=True))


def _fused(backend: str, tensor: Tensor) -> Any:
    """The kernels behind a registered loss."""
    name = resolve_backend(backend, tensor.device, tensor.dtype)
    if name == "torch":
        raise BackendUnavailable(
            "torch.ops.fastppo has the fused losses only: "
            "call fastppo.kernels.api for backend 'torch'"
        )
    return implementation("loss", name, tensor)


def _flat(rows: Rows, terms: Terms) -> tuple[Any, ...]:
    """The arguments of a registered loss behind the policy's outputs, in its schema's order."""
    on_device = isinstance(terms.normalizer, Tensor)
    return (
        *rows,
        terms.normalizer if on_device else None,
        None if on_device else terms.normalizer,
        *terms[:-1],
    )


def _nested(arguments: Sequence[Any]) -> tuple[Rows, Terms]:
    """What `_flat` flattened."""
    count = len(Rows._fields)
    on_device, number = arguments[count : count + 2]
    normalizer = number if on_device is None else on_device
    return Rows._make(arguments[:count]), Terms._make([*arguments[count + 2 :], normalizer])


_FLAT_SCHEMA = (
    "Tensor old_log_probs, Tensor advantages, Tensor returns, Tensor old_values, Tensor? valid, "
    "Tensor? advantage_stats, Tensor? normalizer, float? divisor, float clip_coef, float vf_coef, "
    "float ent_coef, float? clip_vloss, float? dual_clip, bool norm_adv"
)


def _run_categorical(
    backend: str,
    logits: Tensor,
    new_values: Tensor,
    actions: Tensor,
    action_mask: Tensor | None,
    nvec: Sequence[int] | None,
    *flat: Any,
    overwrite: bool = False,
) -> Computed:
    compute = _fused(backend, logits).categorical
    nvec = None if nvec is None else tuple(nvec)
    settings = (actions, *_nested(flat), action_mask, nvec, overwrite)
    return cast(Computed, compute(logits, new_values, *settings))


def _overwriting(backend: str, logits: Tensor, *arguments: Any) -> Computed:
    """As the registered loss, with the logits' gradient in their place; for eager code only."""
    computed = _run_categorical(backend, logits, *arguments, overwrite=True)
    computed = _attach(2, spend=True)(computed, backend, logits, *arguments)
    # a layer below that kept its output for its own backward pass learns of it, and raises
    torch.autograd.graph.increment_version(logits)
    return computed


def _fake_categorical(
    _backend: str, logits: Tensor, new_values: Tensor, *_arguments: Any
) -> Computed:
    floats = torch.float32
    return (
        new_values.new_empty((), dtype=floats),
        new_values.new_empty(len(STATS), dtype=floats),
        logits.new_empty(logits.shape),
        new_values.new_empty(new_values.shape),
    )


_categorical = register(
    "categorical_ppo_loss(str backend, Tensor logits, Tensor new_values, Tensor actions, "
    f"Tensor? action_mask, int[]? nvec, {_FLAT_SCHEMA}) -> (Tensor, Tensor, Tensor, Tensor)",
    _run_categorical,
    _fake_categorical,
    _attach(2),
)


def _run_gaussian(
    backend: str,
    mean: Tensor,
    log_std: Tensor,
    new_values: Tensor,
    actions: Tensor,
    *flat: Any,
) -> Computed:
    compute = _fused(backend, mean).gaussian
    return cast(Computed, compute(mean, log_std, new_values, actions, *_nested(flat)))


def _fake_gaussian(
    _backend: str, mean: Tensor, log_std: Tensor, new_values: Tensor, *_arguments: Any
) -> Computed:
    parameters = (mean, log_std, new_values)
    grads = tuple(parameter.new_empty(parameter.shape) for parameter in parameters)
    return new_values.new_empty(()), new_values.new_empty(len(STATS)), *grads


_gaussian = register(
    "gaussian_ppo_loss(str backend, Tensor mean, Tensor log_std, Tensor new_values, "
    f"Tensor actions, {_FLAT_SCHEMA}) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    _run_gaussian,
    _fake_gaussian,
    _attach(3),
)


def categorical_ppo_loss(
    logits: Tensor,
    new_values: Tensor,
    actions: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    returns: Tensor,
    old_values: Tensor,
    valid: Tensor | None = None,
    *,
    clip_coef: float,
    vf_coef: float,
    ent_coef: float,
    clip_vloss: float | None = None,
    dual_clip: float | None = None,
    norm_adv: bool = True,
    action_mask: Tensor | None = None,
    nvec: Sequence[int] | None = None,
    normalizer: float | Tensor | None = None,
    advantage_stats: Tensor | None = None,
    overwrite_logits: bool = False,
    backend: str = "auto",
) -> tuple[Tensor, Stats]:
    """PPO's loss for discrete actions, differentiable in `logits` and `new_values`, and its STATS.

    The terms are in `spec.ppo_loss`; every other tensor is a constant.

    Args:
        logits: [B, A], or [B, sum(nvec)] for a multi-discrete policy; bfloat16 logits are
            widened to float32, and their gradient is bfloat16.
        new_values, old_log_probs, advantages, returns, old_values: [B]; with bfloat16 logits
            better float32: a log-ratio of bfloat16 numbers is mostly rounding.
        actions: [B] int64 or int32, or [B, len(nvec)].
        valid: [B] bool or None for all; other rows may hold anything and change nothing.
        clip_vloss, dual_clip: None turns the term off.
        action_mask: as logits, bool, True where allowed. A valid row with no allowed action in a
            head, or with an action out of range, makes the loss NaN.
        normalizer: what sums over rows are divided by, in place of the number of valid rows: a
            number, or a 0-d tensor on the same device.
        advantage_stats: [4], the row of `advantage_stats` for this minibatch, or None to compute
            it here.
        overwrite_logits: lets the gradient overwrite the logits, which spares a second [B, A]: the
            logits must not be read afterwards, and autograd raises if a layer needs them.

    Returns:
        loss, 0-d, and a dict of STATS, 0-d each, on the device and detached.

    Raises:
        ValueError: a shape, dtype, device or number is off; the message names it.
        BackendUnavailable: `backend` cannot serve these tensors.
    """
    # numpy's integers would reach the kernels, too
    nvec = None if nvec is None else tuple(int(n) for n in nvec)
    checks.check_categorical(logits, actions, action_mask, nvec)
    rows = Rows(old_log_probs, advantages, returns, old_values, valid, advantage_stats)
    terms = Terms(clip_coef, vf_coef, ent_coef, clip_vloss, dual_clip, norm_adv, normalizer)
    checks.check_rows(logits, new_values, rows)
    checks.check_terms(logits, terms)
    if logits.dtype == torch.bfloat16:
        new_values, rows = new_values.float(), rows.float()
    name = resolve_backend(backend, logits.device, logits.dtype)
    if name == "torch":
        checks.check_no_overwrite(overwrite_logits, "backend 'torch' keeps the logits")
        logits = logits.float() if logits.dtype == torch.bfloat16 else logits
        return spec.categorical_ppo_loss(
            logits, new_values, actions, rows, terms, action_mask=action_mask, nvec=nvec
        )
    arguments = (name, logits, new_values, actions, action_mask, nvec, *_flat(rows, terms))
    if overwrite_logits:
        checks.check_overwritable(logits)
        return _named(_overwriting(*arguments))
    return _named(_categorical(*arguments))


def gaussian_ppo_loss(
    mean: Tensor,
    log_std: Tensor,
    new_values: Tensor,
    actions: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    returns: Tensor,
    old_values: Tensor,
    valid: Tensor | None = None,
    *,
    clip_coef: float,
    vf_coef: float,
    ent_coef: float,
    clip_vloss: float | None = None,
    dual_clip: float | None = None,
    norm_adv: bool = True,
    normalizer: float | Tensor | None = None,
    advantage_stats: Tensor | None = None,
    backend: str = "auto",
) -> tuple[Tensor, Stats]:
    """PPO's loss for a diagonal Gaussian policy, differentiable in mean, log_std and new_values.

    Args:
        mean, actions: [B, D]
        log_std: [D] or [B, D], in the dtype of the mean; its gradient has the same shape.
        The others, the result and the errors are as for `categorical_ppo_loss`.
    """
    checks.check_gaussian(mean, log_std, actions)
    rows = Rows(old_log_probs, advantages, returns, old_values, valid, advantage_stats)
    terms = Terms(clip_coef, vf_coef, ent_coef, clip_vloss, dual_clip, norm_adv, normalizer)
    checks.check_rows(mean, new_values, rows)
    checks.check_terms(mean, terms)
    if mean.dtype == torch.bfloat16:
        mean, log_std, actions = mean.float(), log_std.float(), actions.float()
        new_values, rows = new_values.float(), rows.float()
    name = resolve_backend(backend, mean.device, mean.dtype)
    if name == "torch":
        return spec.gaussian_ppo_loss(mean, log_std, new_values, actions, rows, terms)
    flat = _flat(rows, terms)
    return _named(_gaussian(name, mean, log_std, new_values, actions, *flat))
