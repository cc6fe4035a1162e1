"""Generalized advantage estimation: the public function, checked and sent to a backend."""

from typing import Any, cast

import torch
from torch import Tensor

from fastppo.kernels.backends import implementation
from fastppo.kernels.gae import checks
from fastppo.kernels.registry import register


def _run(
    rewards: Tensor,
    values: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    lengths: Tensor | None,
    gamma: float,
    gae_lambda: float,
    layout: str,
    backend: str,
    valid: Tensor | None = None,
    lambdas: Tensor | None = None,
    out: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    module = implementation("gae", backend, rewards)
    with torch.no_grad():
        result = module.gae(
            rewards,
            values,
            terminated,
            truncated,
            lengths,
            gamma=gamma,
            gae_lambda=gae_lambda,
            layout=layout,
            valid=valid,
            lambdas=lambdas,
            out=out,
        )
    return cast(tuple[Tensor, Tensor], result)


def _run_out(*arguments: Any) -> None:
    *inputs, advantages, returns = arguments
    run: Any = _run
    run(*inputs, (advantages, returns))


def _fake(rewards: Tensor, *_: object) -> tuple[Tensor, Tensor]:
    dtype = torch.float32 if rewards.dtype == torch.bfloat16 else rewards.dtype
    return (
        rewards.new_empty(rewards.shape, dtype=dtype),
        rewards.new_empty(rewards.shape, dtype=dtype),
    )


def _fake_out(*_: object) -> None:
    """Both outputs are arguments."""


_INPUTS = (
    "Tensor rewards, Tensor values, Tensor terminated, Tensor truncated, Tensor? lengths, "
    "float gamma, float gae_lambda, str layout, str backend"
)
_operation = register(
    f"gae({_INPUTS}, Tensor? valid=None, Tensor? lambdas=None) -> (Tensor, Tensor)", _run, _fake
)
_operation_out = register(
    f"gae_out({_INPUTS}, Tensor? valid, Tensor? lambdas, Tensor(a!) advantages, "
    "Tensor(b!) returns) -> ()",
    _run_out,
    _fake_out,
)


def gae(
    rewards: Tensor,
    values: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    *,
    gamma: float,
    gae_lambda: float | Tensor,
    lengths: Tensor | None = None,
    valid: Tensor | None = None,
    layout: str = "TN",
    out: tuple[Tensor, Tensor] | None = None,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Advantages and returns, shaped as rewards; no gradient flows through them.

    The equations are in `spec.gae`. A row behind an episode end (EnvPool's reset row, say)
    reaches no other row, whatever it holds.

    Args:
        rewards: [T, N]; bfloat16 is computed and returned in float32.
        values: [T + 1, N]; row T is the bootstrap value. As rewards, or one bfloat16 and the other
            float32.
        terminated, truncated: [T, N] bool.
        gamma, gae_lambda: in [0, 1]. For layout "NT" gae_lambda may be [N] floats, one of each row;
            on a GPU, where looking would stall it, their range is not checked.
        lengths: [N] int64 or int32, for layout "NT" only. Steps from lengths[n] on are padding:
            never used, 0 in both results; values[n, lengths[n]] is the bootstrap value. A length
            outside 0 .. T is clamped: checking it would stall a GPU.
        valid: [N, T] bool or None for all, for layout "NT" only. The others are holes, such as the
            tokens of a prompt or of a tool: never used, 0 in both results, and a row counts as if
            they were cut out: one gamma and lambda for each valid step, none across a hole, and
            the value behind a step is that of the next valid one.
        layout: "TN" (time-major), or "NT": rewards and flags [N, T], values [N, T + 1], as
            sequences of tokens come.
        out: advantages and returns to write, dense and as returned, or None for new tensors.

    Raises:
        ValueError: a shape, dtype, device or number is off; the message names it.
        BackendUnavailable: `backend` cannot serve these tensors.
    """
    lambdas, decay = (gae_lambda, 1.0) if isinstance(gae_lambda, Tensor) else (None, gae_lambda)
    inputs = (rewards, values, terminated, truncated)
    checks.check_gae(*inputs, gamma, decay, lengths=lengths, layout=layout)
    checks.check_rows_only(rewards, layout, valid, lambdas)
    rewards, values = rewards.detach(), values.detach()
    inputs = (rewards, values, terminated, truncated)
    options = (lengths, gamma, decay, layout, backend, valid, lambdas)
    if out is None:
        return cast(tuple[Tensor, Tensor], _operation(*inputs, *options))
    checks.check_out(out, rewards)
    _operation_out(*inputs, *options, *out)
    return out
