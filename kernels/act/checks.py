"""Argument checks of `api.act_categorical` and `api.act_gaussian`."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fastppo.kernels.checks import expect, expect_floats

MAX_ENVS = 2**32


def float_dtype(outputs: Tensor) -> torch.dtype:
    """The dtype of the log-probabilities of these policy outputs: float32 at least."""
    return torch.float64 if outputs.dtype == torch.float64 else torch.float32


def check_categorical(
    logits: Tensor, nvec: Sequence[int] | None, action_mask: Tensor | None
) -> None:
    """Raises ValueError unless logits, head sizes and mask fit each other."""
    expect_floats("logits", logits, 2, "[B, A]")
    if nvec is not None and (not nvec or min(nvec) < 1 or sum(nvec) != logits.shape[1]):
        raise ValueError(
            f"nvec={tuple(nvec)} sums to {sum(nvec)}: expected sizes >= 1 that sum to "
            f"logits.shape[1] = {logits.shape[1]}"
        )
    if action_mask is not None:
        expect("action_mask", action_mask, logits, logits.shape, torch.bool)


def check_gaussian(mean: Tensor, log_std: Tensor) -> None:
    """Raises ValueError unless mean and log_std fit each other."""
    expect_floats("mean", mean, 2, "[B, D]")
    shape = mean.shape if log_std.ndim == 2 else mean.shape[1:]
    expect("log_std", log_std, mean, shape, (mean.dtype, float_dtype(mean)))


def check_counter(
    like: Tensor, key: int, step: Tensor | int, first_env: int, env_ids: Tensor | None
) -> None:
    """Raises ValueError unless key, step and environments are in range and on like's device."""
    if not 0 <= key < 2**64:
        raise ValueError(f"key={key}: expected 64 bits, 0 <= key < 2**64")
    if isinstance(step, Tensor):
        expect("step", step, like, (), torch.int64)
    elif not 0 <= step < 2**63:
        raise ValueError(f"step={step}: expected 0 <= step < 2**63")
    if env_ids is not None:
        expect("env_ids", env_ids, like, like.shape[:1], torch.int64)
        if first_env:
            raise ValueError(f"first_env={first_env} and env_ids: pass one of the two")
    elif not 0 <= first_env <= MAX_ENVS - like.shape[0]:
        raise ValueError(
            f"first_env={first_env}: expected >= 0, and {like.shape[0]} ids below 2**32 from there"
        )


def check_out(
    out: Sequence[Tensor], like: Tensor, shape: Sequence[int], dtype: torch.dtype
) -> None:
    """Raises ValueError unless `out` can be written in place of new tensors."""
    if len(out) not in (2, 3):
        raise ValueError(
            f"out has {len(out)} tensors: expected (actions, log_probs) or with entropy as third"
        )
    rows, floats = like.shape[:1], float_dtype(like)
    for index, tensor in enumerate(out):
        want, kind = (rows, floats) if index else (shape, dtype)
        fits = tensor.shape == want and tensor.dtype == kind and tensor.device == like.device
        if not fits:  # the names are made only here: this runs at every step of every rollout
            expect(f"out[{index}]", tensor, like, want, kind)
        if not tensor.is_contiguous():
            raise ValueError(
                f"out[{index}] has strides {tensor.stride()}: expected a contiguous row of a buffer"
            )
