"""Acting: a policy's outputs to actions, log-probabilities and entropies in one launch."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, overload

import torch
from torch import Tensor

from fastppo.kernels.act import checks
from fastppo.kernels.act.drawn import Drawn
from fastppo.kernels.backends import implementation
from fastppo.kernels.registry import register
from fastppo.kernels.tools.philox import Counter

Out = TypeVar("Out", tuple[Tensor, Tensor], tuple[Tensor, Tensor, Tensor])


def _nested(flat: Sequence[Any]) -> tuple[Counter, Drawn]:
    """Arguments of a registered operation behind the policy's outputs: what `_draw` flattened."""
    key, step, step_number, first_env, env_ids, *out = flat
    step = int(step_number) if step is None else step
    return Counter(key, step, int(first_env), env_ids), Drawn(*out)


def _run_categorical(
    backend: str, logits: Tensor, action_mask: Tensor | None, nvec: Sequence[int], *flat: Any
) -> None:
    counter, out = _nested(flat)
    module = implementation("act", backend, logits)
    module.categorical(logits, counter, nvec, action_mask, out)


def _run_gaussian(backend: str, mean: Tensor, log_std: Tensor, *flat: Any) -> None:
    implementation("act", backend, mean).gaussian(mean, log_std, *_nested(flat))


def _fake(*_: object) -> None:
    """All outputs are arguments."""


# SymInt: compiled code that counts its steps is not compiled again for each
_COUNTER = "int key, Tensor? step, SymInt step_number, SymInt first_env, Tensor? env_ids"
_OUT = "Tensor(a!) actions, Tensor(b!) log_probs, Tensor(c!)? entropy"
_categorical = register(
    "act_categorical(str backend, Tensor logits, Tensor? action_mask, SymInt[] nvec, "
    f"{_COUNTER}, {_OUT}) -> ()",
    _run_categorical,
    _fake,
)
_gaussian = register(
    f"act_gaussian(str backend, Tensor mean, Tensor log_std, {_COUNTER}, {_OUT}) -> ()",
    _run_gaussian,
    _fake,
)


def _signed(key: int) -> int:
    """The same 64 bits as an operation takes them."""
    key = int(key)
    return key - 2**64 if key >= 2**63 else key


def _make_out(
    outputs: Tensor, shape: Sequence[int], dtype: torch.dtype | None
) -> tuple[Tensor, Tensor, Tensor]:
    device, floats = outputs.device, checks.float_dtype(outputs)
    rows = outputs.shape[:1]
    return (
        torch.empty(shape, dtype=dtype or floats, device=device),
        torch.empty(rows, dtype=floats, device=device),
        torch.empty(rows, dtype=floats, device=device),
    )


def _draw(
    operation: Callable[..., None],
    backend: str,
    outputs: tuple[object, ...],
    counter: Counter,
    out: tuple[Tensor, ...],
) -> None:
    """Calls the operation on the policy's `outputs`; two results in `out` spare the entropy."""
    key, step, *envs = counter
    step_tensor, number = (step, 0) if isinstance(step, Tensor) else (None, step)
    operation(backend, *outputs, _signed(key), step_tensor, number, *envs, *Drawn(*out))


@overload
def act_categorical(
    logits: Tensor,
    step: Tensor | int,
    *,
    key: int,
    first_env: int = 0,
    env_ids: Tensor | None = None,
    nvec: Sequence[int] | None = None,
    action_mask: Tensor | None = None,
    out: None = None,
    backend: str = "auto",
) -> tuple[Tensor, Tensor, Tensor]: ...


@overload
def act_categorical(
    logits: Tensor,
    step: Tensor | int,
    *,
    key: int,
    first_env: int = 0,
    env_ids: Tensor | None = None,
    nvec: Sequence[int] | None = None,
    action_mask: Tensor | None = None,
    out: Out,
    backend: str = "auto",
) -> Out: ...


def act_categorical(
    logits: Tensor,
    step: Tensor | int,
    *,
    key: int,
    first_env: int = 0,
    env_ids: Tensor | None = None,
    nvec: Sequence[int] | None = None,
    action_mask: Tensor | None = None,
    out: tuple[Tensor, ...] | None = None,
    backend: str = "auto",
) -> tuple[Tensor, ...]:
    """Draws discrete actions; their log-probabilities and entropies, without a graph.

    The draw of environment e at step s is a function of (key, e, s) alone: neither the number of
    rows, nor their order, nor the backend changes it. The equations are in
    `spec.categorical`; the generator is Philox-4x32-10 (Salmon et al., SC 2011).

    Args:
        logits: [B, A], or [B, sum(nvec)] for a multi-discrete policy; computed in float32, or in
            float64 where they are.
        step: decisions so far, >= 0. A 0-d int64 tensor on the device is read by the kernel, so
            that a replayed CUDA graph goes on where the tensor says.
        key: 64 bits, of the run.
        first_env: global id of row 0's environment; row i belongs to first_env + i.
        env_ids: [B] int64, instead: the global id of each row.
        nvec: number of actions of each head.
        action_mask: as logits, bool, True where allowed. A logit of -inf forbids an action too.
        out: (actions, log_probs) or (actions, log_probs, entropy) to write, as row t of a buffer:
            contiguous, shaped as returned. Without the third the entropy is not computed.

    Returns:
        `out`, or new tensors: actions [B], or [B, len(nvec)], int64; log_probs [B]; entropy [B].
        A head with a NaN or inf among its allowed logits, or none allowed, makes both numbers NaN;
        its action is then the first of the largest that is no NaN, and 0 where there is none.

    Raises:
        ValueError: a shape, dtype, device or number is off; the message names it.
        BackendUnavailable: `backend` cannot serve these tensors.
    """
    nvec = None if nvec is None else tuple(int(n) for n in nvec)  # a space's are numpy's
    checks.check_categorical(logits, nvec, action_mask)
    checks.check_counter(logits, key, step, first_env, env_ids)
    shape = logits.shape[:1] if nvec is None else (logits.shape[0], len(nvec))
    if out is None:
        out = _make_out(logits, shape, torch.int64)
    else:
        checks.check_out(out, logits, shape, torch.int64)
    widths = logits.shape[1:] if nvec is None else nvec
    outputs = (logits.detach(), action_mask, widths)
    _draw(_categorical, backend, outputs, Counter(key, step, first_env, env_ids), out)
    return out


@overload
def act_gaussian(
    mean: Tensor,
    log_std: Tensor,
    step: Tensor | int,
    *,
    key: int,
    first_env: int = 0,
    env_ids: Tensor | None = None,
    out: None = None,
    backend: str = "auto",
) -> tuple[Tensor, Tensor, Tensor]: ...


@overload
def act_gaussian(
    mean: Tensor,
    log_std: Tensor,
    step: Tensor | int,
    *,
    key: int,
    first_env: int = 0,
    env_ids: Tensor | None = None,
    out: Out,
    backend: str = "auto",
) -> Out: ...


def act_gaussian(
    mean: Tensor,
    log_std: Tensor,
    step: Tensor | int,
    *,
    key: int,
    first_env: int = 0,
    env_ids: Tensor | None = None,
    out: tuple[Tensor, ...] | None = None,
    backend: str = "auto",
) -> tuple[Tensor, ...]:
    """Draws actions of a diagonal Gaussian; their log-probabilities and entropies, without a graph.

    The equations are in `spec.gaussian`. Keep the actions unclipped, and clip what the environment
    gets: the log-probability belongs to the unclipped action.

    Args:
        mean: [B, D]; computed in float32, or in float64 where it is.
        log_std: [D], or [B, D] where it depends on the state; mean's dtype, or float32.
        out: as returned, the first [B, D] in the dtype of the log-probabilities.
        The others are as for `act_categorical`.

    Returns:
        `out`, or new tensors: actions [B, D]; log_probs [B]; entropy [B].

    Raises:
        ValueError: a shape, dtype, device or number is off; the message names it.
        BackendUnavailable: `backend` cannot serve these tensors.
    """
    checks.check_gaussian(mean, log_std)
    checks.check_counter(mean, key, step, first_env, env_ids)
    if out is None:
        out = _make_out(mean, mean.shape, None)
    else:
        checks.check_out(out, mean, mean.shape, checks.float_dtype(mean))
    outputs = (mean.detach(), log_std.detach())
    _draw(_gaussian, backend, outputs, Counter(key, step, first_env, env_ids), out)
    return out
