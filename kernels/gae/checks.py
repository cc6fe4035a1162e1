"""Argument checks of `api.gae`."""

import torch
from torch import Tensor

from fastppo.kernels.checks import FUSED, INTEGERS, expect, expect_floats


def check_gae(
    rewards: Tensor,
    values: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    gamma: float,
    gae_lambda: float,
    *,
    lengths: Tensor | None,
    layout: str,
) -> None:
    """Raises ValueError unless the arguments keep the contract of `api.gae`."""
    if layout not in ("TN", "NT"):
        raise ValueError(f"layout={layout!r}: expected 'TN' (time-major) or 'NT'")
    time_major = layout == "TN"
    expect_floats("rewards", rewards, 2, "[T, N]" if time_major else "[N, T]")
    first, second = shape = rewards.shape
    dtype = FUSED if rewards.dtype in FUSED else rewards.dtype
    longer = (first + 1, second) if time_major else (first, second + 1)
    expect("values", values, rewards, longer, dtype)
    expect("terminated", terminated, rewards, shape, torch.bool)
    expect("truncated", truncated, rewards, shape, torch.bool)
    if lengths is not None:
        if time_major:
            raise ValueError("lengths serve layout='NT' only: pass it, or truncated for a cut")
        expect("lengths", lengths, rewards, (first,), INTEGERS)
    if not 0.0 <= gamma <= 1.0:
        raise ValueError(f"gamma={gamma}: expected a number in [0, 1]")
    if not 0.0 <= gae_lambda <= 1.0:
        raise ValueError(f"gae_lambda={gae_lambda}: expected a number in [0, 1]")


def check_rows_only(
    rewards: Tensor, layout: str, valid: Tensor | None, lambdas: Tensor | None
) -> None:
    """Raises ValueError unless holes and lambdas of rows fit rewards [N, T]."""
    if layout == "TN":
        for name, tensor in (("valid", valid), ("gae_lambda of [N]", lambdas)):
            if tensor is not None:
                raise ValueError(f"{name} serves layout='NT' only: leave it out, or transpose")
        return
    if valid is not None:
        expect("valid", valid, rewards, rewards.shape, torch.bool)
    if lambdas is None:
        return
    floats = (torch.float32, torch.float64)
    expect("gae_lambda", lambdas, rewards, rewards.shape[:1], floats)
    if lambdas.is_cpu and not torch.compiler.is_compiling():
        inside = (lambdas >= 0.0) & (lambdas <= 1.0)
        if not bool(inside.all()):
            wrong = float(lambdas[~inside][0])
            raise ValueError(f"gae_lambda holds {wrong}: expected numbers in [0, 1]")


def check_out(out: tuple[Tensor, Tensor], rewards: Tensor) -> None:
    """Raises ValueError unless both can be written as `gae` would return them."""
    dtype = torch.float32 if rewards.dtype == torch.bfloat16 else rewards.dtype
    for name, tensor in zip(("advantages", "returns"), out, strict=True):
        if (tensor.shape, tensor.dtype, tensor.device) != (rewards.shape, dtype, rewards.device):
            raise ValueError(
                f"out, {name}: {tensor.dtype} {list(tensor.shape)} on {tensor.device}: expected "
                f"{dtype} {list(rewards.shape)} on {rewards.device}"
            )
        if not tensor.is_contiguous():
            raise ValueError(f"out, {name}: not contiguous; it is written in place, pass it dense")
