"""The public face of the kernels: advantages and losses, each on the backend that fits its tensors.

    backend   serves                                    is
    triton    float32 on CUDA (CPU when interpreted)    one pass, gradients included
    numba     float32 on the CPU                        one pass, gradients included
    torch     every floating dtype, every device        `reference`, the specification

Nothing here waits for a GPU: counts, scales and statistics stay on the device.
"""

from collections.abc import Sequence
from functools import cache
from types import ModuleType
from typing import Any, cast

import torch
from torch import Tensor

from . import checks, reference
from .backends import BackendUnavailable, available_backends, resolve_backend
from .terms import Rows, Terms

__all__ = [
    "STATS",
    "BackendUnavailable",
    "Stats",
    "available_backends",
    "categorical_ppo_loss",
    "gae",
    "gaussian_ppo_loss",
    "resolve_backend",
    "warmup",
]

Stats = reference.Stats
STATS = reference.STATS


@cache
def _modules(backend: str) -> dict[str, ModuleType]:
    """The module of each operation. Imported on demand: triton is absent on macOS."""
    if backend == "triton":
        from . import triton_categorical, triton_gae, triton_gaussian

        return {"gae": triton_gae, "categorical": triton_categorical, "gaussian": triton_gaussian}
    if backend == "numba":
        from . import numba_gae, numba_loss

        return {"gae": numba_gae, "categorical": numba_loss, "gaussian": numba_loss}
    return {"gae": reference, "categorical": reference, "gaussian": reference}


def _module(operation: str, backend: str, tensor: Tensor) -> Any:
    return _modules(resolve_backend(backend, tensor.device, tensor.dtype))[operation]


def gae(
    rewards: Tensor,
    values: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    *,
    gamma: float,
    gae_lambda: float,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Advantages and returns, both [T, N]; no gradient flows through them.

    The equations are in `reference.gae`. A row behind an episode end (EnvPool's reset row, say)
    reaches no other row, whatever it holds.

    Args:
        rewards: [T, N]
        values: [T + 1, N]; row T is the bootstrap value.
        terminated, truncated: [T, N] bool.
        gamma, gae_lambda: in [0, 1].

    Raises:
        ValueError: a shape, dtype, device or number is off; the message names it.
        BackendUnavailable: `backend` cannot serve these tensors.
    """
    checks.check_gae(rewards, values, terminated, truncated, gamma, gae_lambda)
    run = _module("gae", backend, rewards).gae
    with torch.no_grad():
        result = run(rewards, values, terminated, truncated, gamma=gamma, gae_lambda=gae_lambda)
    return cast(tuple[Tensor, Tensor], result)


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
    backend: str = "auto",
) -> tuple[Tensor, Stats]:
    """PPO's loss for discrete actions, differentiable in `logits` and `new_values`, and its STATS.

    The terms are in `reference.ppo_loss`; every other tensor is a constant.

    Args:
        logits: [B, A], or [B, sum(nvec)] for a multi-discrete policy.
        new_values, old_log_probs, advantages, returns, old_values: [B]
        actions: [B] int64 or int32, or [B, len(nvec)].
        valid: [B] bool or None for all; other rows may hold anything and change nothing.
        clip_vloss, dual_clip: None turns the term off.
        action_mask: as logits, bool, True where allowed. A valid row with no allowed action in a
            head, or with an action out of range, makes the loss NaN.
        normalizer: what sums over rows are divided by, in place of the number of valid rows: a
            number, or a 0-d tensor on the same device.

    Returns:
        loss, 0-d, and a dict of STATS, 0-d each, on the device and detached.

    Raises:
        ValueError: a shape, dtype, device or number is off; the message names it.
        BackendUnavailable: `backend` cannot serve these tensors.
    """
    nvec = None if nvec is None else tuple(nvec)
    checks.check_categorical(logits, actions, action_mask, nvec)
    rows = Rows(old_log_probs, advantages, returns, old_values, valid)
    terms = Terms(clip_coef, vf_coef, ent_coef, clip_vloss, dual_clip, norm_adv, normalizer)
    checks.check_rows(logits, new_values, rows)
    checks.check_terms(logits, terms)
    run = _module("categorical", backend, logits).categorical_ppo_loss
    result = run(logits, new_values, actions, rows, terms, action_mask=action_mask, nvec=nvec)
    return cast(tuple[Tensor, Stats], result)


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
    backend: str = "auto",
) -> tuple[Tensor, Stats]:
    """PPO's loss for a diagonal Gaussian policy, differentiable in mean, log_std and new_values.

    Args:
        mean, actions: [B, D]
        log_std: [D] or [B, D]; its gradient has the same shape.
        The others, the result and the errors are as for `categorical_ppo_loss`.
    """
    checks.check_gaussian(mean, log_std, actions)
    rows = Rows(old_log_probs, advantages, returns, old_values, valid)
    terms = Terms(clip_coef, vf_coef, ent_coef, clip_vloss, dual_clip, norm_adv, normalizer)
    checks.check_rows(mean, new_values, rows)
    checks.check_terms(mean, terms)
    run = _module("gaussian", backend, mean).gaussian_ppo_loss
    return cast(tuple[Tensor, Stats], run(mean, log_std, new_values, actions, rows, terms))


def warmup(device: torch.device | str = "cpu", backend: str = "auto") -> str:
    """Loads the kernels that serve float32 on `device`, so that no timed region does; their name.

    The numba kernels carry explicit signatures, so importing them compiles them (seconds, once per
    machine: they are cached on disk) and nothing can compile them again. Triton compiles per shape
    family at the first call: warm it up by one untimed update.
    """
    name = resolve_backend(backend, device, torch.float32)
    _modules(name)
    return name
