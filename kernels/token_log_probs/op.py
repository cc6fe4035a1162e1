"""Log-probabilities of tokens: the public function, its derivative, and the way to a backend."""

from typing import Any, Literal, cast, overload

import torch
from torch import Tensor

from fastppo.kernels.backends import BackendUnavailable, implementation, resolve_backend
from fastppo.kernels.checks import (
    INTEGERS,
    check_temperature,
    check_vocabulary,
    expect,
    expect_logits,
)
from fastppo.kernels.registry import register
from fastppo.kernels.token_log_probs import spec


def _fused(backend: str, logits: Tensor) -> Any:
    if resolve_backend(backend, logits.device, logits.dtype) == "torch":
        raise BackendUnavailable(
            "torch.ops.fastppo has the fused operation only: "
            "call fastppo.kernels.api for backend 'torch'"
        )
    return implementation("token_log_probs", backend, logits)


def _run(
    backend: str, logits: Tensor, tokens: Tensor, valid: Tensor | None, temperature: float
) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        result = _fused(backend, logits).token_log_probs(logits, tokens, valid, temperature)
    return cast(tuple[Tensor, Tensor], result)


def _fake(_backend: str, logits: Tensor, *_: object) -> tuple[Tensor, Tensor]:
    size, floats = logits.shape[0], torch.float32
    return logits.new_empty(size, dtype=floats), logits.new_empty(size, dtype=floats)


def _run_gradient(backend: str, logits: Tensor, *arguments: Any) -> Tensor:
    gradient: Tensor = _fused(backend, logits).gradient_of_logits(logits, *arguments)
    return gradient


def _fake_gradient(_backend: str, logits: Tensor, *_: object) -> Tensor:
    return logits.new_empty(logits.shape)


register(
    "token_log_probs_gradient(str backend, Tensor logits, Tensor tokens, Tensor? valid, "
    "float temperature, Tensor d_log_probs, Tensor d_entropy) -> Tensor",
    _run_gradient,
    _fake_gradient,
)


class _Scored(torch.autograd.Function):
    """The derivative reads the logits again, and computes the softmax again: none is kept."""

    @staticmethod
    def forward(
        ctx: Any, scored: tuple[Tensor, Tensor], constants: tuple[Any, ...], logits: Tensor
    ) -> tuple[Tensor, Tensor]:
        backend, tokens, valid, temperature = constants
        ctx.save_for_backward(logits, tokens, valid)
        ctx.constants = backend, temperature
        return scored[0].view_as(scored[0]), scored[1].view_as(scored[1])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "create_graph=True: token_log_probs has first derivatives only; "
                "pass backend='torch'"
            )
        logits, tokens, valid = ctx.saved_tensors
        backend, temperature = ctx.constants
        # by its name: what traces this backward pass, AOTAutograd, must see one node
        gradient = torch.ops.fastppo.token_log_probs_gradient.default
        return None, None, gradient(backend, logits, tokens, valid, temperature, *grads)


def _attach(
    scored: tuple[Tensor, Tensor],
    backend: str,
    logits: Tensor,
    tokens: Tensor,
    valid: Tensor | None,
    temperature: float,
) -> tuple[Tensor, Tensor]:
    constants = backend, tokens, valid, temperature
    result = cast(Any, _Scored).apply(scored, constants, logits)
    return cast(tuple[Tensor, Tensor], result)


_operation = register(
    "token_log_probs(str backend, Tensor logits, Tensor tokens, Tensor? valid, "
    "float temperature) -> (Tensor, Tensor)",
    _run,
    _fake,
    _attach,
)


@overload
def token_log_probs(
    logits: Tensor,
    tokens: Tensor,
    *,
    temperature: float = ...,
    valid: Tensor | None = ...,
    with_entropy: Literal[False] = ...,
    backend: str = ...,
) -> Tensor: ...


@overload
def token_log_probs(
    logits: Tensor,
    tokens: Tensor,
    *,
    temperature: float = ...,
    valid: Tensor | None = ...,
    with_entropy: Literal[True],
    backend: str = ...,
) -> tuple[Tensor, Tensor]: ...


def token_log_probs(
    logits: Tensor,
    tokens: Tensor,
    *,
    temperature: float = 1.0,
    valid: Tensor | None = None,
    with_entropy: bool = False,
    backend: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """Log-probabilities of tokens under softmax(logits / temperature), differentiable in logits.

    Computed in float32 from bfloat16 logits, and by the steps of `categorical_ppo_loss` on
    [..., V], on each backend: a policy that has not changed has a ratio of exactly 1.

    Args:
        logits: [..., V], the logits that the tokens were drawn from: a causal model's output of
            the position before each token.
        tokens: [...] int64 or int32. On a GPU, where looking would stall it, one outside the
            vocabulary has log-probability NaN.
        temperature: the one that the tokens were drawn with.
        valid: [...] bool or None for all; other places may hold anything, and are 0 in the results
            and in the gradient.
        with_entropy: returns the entropies too.

    Returns:
        log-probabilities [...], float32 (float64 for float64 logits), or they and the entropies.

    Raises:
        ValueError: a shape, dtype, device or number is off, or on a CPU a valid token outside the
            vocabulary; the message names it.
        BackendUnavailable: `backend` cannot serve these tensors.
    """
    expect_logits("logits", logits)
    shape, width = logits.shape[:-1], logits.shape[-1]
    expect("tokens", tokens, logits, shape, INTEGERS)
    if valid is not None:
        expect("valid", valid, logits, shape, torch.bool)
    check_temperature(temperature)
    check_vocabulary("tokens", tokens, width, valid)
    flat = logits.reshape(-1, width)
    chosen, ok = tokens.reshape(-1), None if valid is None else valid.reshape(-1)
    name = resolve_backend(backend, logits.device, logits.dtype)
    if name == "torch":
        log_probs, entropy = spec.token_log_probs(flat, chosen, ok, temperature)
    else:
        log_probs, entropy = _operation(name, flat, chosen, ok, float(temperature))
    if with_entropy:
        return log_probs.view(shape), entropy.view(shape)
    return log_probs.view(shape)
