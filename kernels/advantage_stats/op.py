"""Advantage statistics of an epoch's minibatches: the public function, checked and dispatched."""

from typing import cast

import torch
from torch import Tensor

from fastppo.kernels.backends import implementation
from fastppo.kernels.registry import register


def _run(advantages: Tensor, valid: Tensor | None, index: Tensor | None, backend: str) -> Tensor:
    module = implementation("advantage_stats", backend, advantages)
    return cast(Tensor, module.advantage_stats(advantages, valid, index))


def _fake(advantages: Tensor, _valid: object, index: Tensor | None, _backend: str) -> Tensor:
    return advantages.new_empty((1 if index is None else index.shape[0], 4))


_operation = register(
    "advantage_stats(Tensor advantages, Tensor? valid, Tensor? index, str backend) -> Tensor",
    _run,
    _fake,
)


def _check(advantages: Tensor, valid: Tensor | None, index: Tensor | None) -> None:
    if advantages.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"advantages has dtype {advantages.dtype}: expected float32 or float64")
    if advantages.ndim not in (1, 2) or 0 in advantages.shape:
        raise ValueError(
            f"advantages has shape {list(advantages.shape)}: expected [R] or [T, N], no size 0"
        )
    if valid is not None:
        if valid.shape != advantages.shape or valid.dtype != torch.bool:
            raise ValueError(
                f"valid is {valid.dtype} {list(valid.shape)}: "
                f"expected bool {list(advantages.shape)}, as advantages"
            )
        if valid.device != advantages.device:
            raise ValueError(f"valid is on {valid.device}: expected {advantages.device}")
    if index is not None:
        if index.ndim != 2 or 0 in index.shape or index.dtype != torch.int64:
            raise ValueError(
                f"index is {index.dtype} {list(index.shape)}: expected int64 [M, B], no size 0"
            )
        if index.device != advantages.device:
            raise ValueError(f"index is on {index.device}: expected {advantages.device}")


def advantage_stats(
    advantages: Tensor,
    valid: Tensor | None,
    index: Tensor | None,
    *,
    backend: str = "auto",
) -> Tensor:
    """What normalises the advantages of each minibatch of an epoch: [M, 4], all in one launch.

    The columns are the mean of the valid rows; what rounding took from it, so that
    A - mean - mean_low is accurate however large the mean; 1 / (unbiased std + 1e-8); and the
    number of valid rows. A minibatch of one valid row has mean 0 and scale 1, which leaves its
    advantage as it is; so has one of none. Row m is the `advantage_stats` of the PPO losses.
    The normalisation is that of https://arxiv.org/abs/2006.05990, section 3.3, per minibatch.

    Args:
        advantages: [R], or [T, N] taken as T * N rows.
        valid: as advantages, bool, or None for all; other rows may hold anything.
        index: [M, B] rows of each minibatch, or None for one minibatch of all rows. A row number
            out of range counts as a valid row of NaN, which makes its minibatch's statistics NaN.

    Returns:
        In the dtype of the advantages, on their device, without a graph.

    Raises:
        ValueError: a shape, dtype or device is off; the message names it.
        BackendUnavailable: `backend` cannot serve these tensors.
    """
    _check(advantages, valid, index)
    return cast(Tensor, _operation(advantages.detach(), valid, index, backend))
