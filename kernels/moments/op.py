"""Running mean and variance, and rows to unit scale: public functions, checked and sent on."""

import math

import torch
from torch import Tensor

from fastppo.kernels.backends import implementation
from fastppo.kernels.registry import register


def _run_normalize(
    out: Tensor,
    rows: Tensor,
    mean: Tensor,
    var: Tensor,
    clip: float,
    epsilon: float,
    backend: str,
) -> None:
    # by `out`, which is float32 where rows are integers
    module = implementation("moments", backend, out)
    if rows.numel() > 0:
        module.normalize(out, rows, mean, var, clip, epsilon)


def _run_update(
    mean: Tensor,
    var: Tensor,
    count: Tensor,
    rows: Tensor,
    valid: Tensor | None,
    normalized_out: Tensor | None,
    clip: float,
    epsilon: float,
    backend: str,
) -> None:
    like = rows.new_empty((), dtype=_out_dtype(rows))
    module = implementation("moments", backend, like)
    if rows.numel() == 0:
        return
    module.update_moments(mean, var, count, rows, valid)
    if normalized_out is not None:
        module.normalize(normalized_out, rows, mean, var, clip, epsilon)


def _fake(*_: object) -> None:
    return None


_normalize = register(
    "normalize(Tensor(a!) out, Tensor rows, Tensor mean, Tensor var, float clip, float epsilon, "
    "str backend) -> ()",
    _run_normalize,
    _fake,
)
_update_moments = register(
    "update_moments_(Tensor(a!) mean, Tensor(b!) var, Tensor(c!) count, Tensor rows, "
    "Tensor? valid, Tensor(d!)? normalized_out, float clip, float epsilon, str backend) -> ()",
    _run_update,
    _fake,
)


def _out_dtype(rows: Tensor) -> torch.dtype:
    return torch.float64 if rows.dtype == torch.float64 else torch.float32


def _check(rows: Tensor, mean: Tensor, var: Tensor, clip: float, epsilon: float) -> None:
    if rows.shape[rows.ndim - mean.ndim :] != mean.shape or mean.numel() == 0:
        raise ValueError(
            f"rows has shape {list(rows.shape)}: expected [..., *{list(mean.shape)}], no size 0"
        )
    if var.shape != mean.shape:
        raise ValueError(f"var has shape {list(var.shape)}: expected {list(mean.shape)}, as mean")
    for name, tensor in ("mean", mean), ("var", var):
        if tensor.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"{name} has dtype {tensor.dtype}: expected float32 or float64")
        if tensor.device != rows.device:
            raise ValueError(f"{name} is on {tensor.device}: expected {rows.device}, as rows")
    if not clip > 0.0:
        raise ValueError(f"clip={clip}: expected a number > 0, or inf for none")
    if not 0.0 < epsilon < math.inf:
        raise ValueError(f"epsilon={epsilon}: expected a finite number > 0")


def _check_out(name: str, out: Tensor, rows: Tensor) -> None:
    if out.shape != rows.shape or out.dtype != _out_dtype(rows) or out.device != rows.device:
        raise ValueError(
            f"{name} is {out.dtype} {list(out.shape)} on {out.device}: "
            f"expected {_out_dtype(rows)} {list(rows.shape)} on {rows.device}"
        )
    if not out.is_contiguous():
        raise ValueError(f"{name} is not contiguous: it is written in place, pass it dense")


def normalize(
    rows: Tensor,
    mean: Tensor,
    var: Tensor,
    *,
    clip: float,
    epsilon: float = 1e-8,
    out: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """(rows - mean) / sqrt(var + epsilon), clipped to [-clip, clip], in one pass; NaN stays NaN.

    Args:
        rows: [..., *shape] of any dtype.
        mean, var: shape, float64 or float32; the mean counts to more digits than float32 has.
        clip: inf for none.
        out: where to write, as rows, contiguous and float32; may be `rows` itself. None allocates.

    Returns:
        float32, or float64 for float64 rows, which the torch backend alone serves.

    Raises:
        ValueError: a shape, dtype, device or number is off; the message names it.
        BackendUnavailable: `backend` cannot serve these tensors.
    """
    _check(rows, mean, var, clip, epsilon)
    if out is None:
        out = torch.empty(rows.shape, dtype=_out_dtype(rows), device=rows.device)
    else:
        _check_out("out", out, rows)
    _normalize(out, rows.detach(), mean, var, clip, epsilon, backend)
    return out


def update_moments_(
    mean: Tensor,
    var: Tensor,
    count: Tensor,
    rows: Tensor,
    valid: Tensor | None = None,
    *,
    normalized_out: Tensor | None = None,
    clip: float = 10.0,
    epsilon: float = 1e-8,
    backend: str = "auto",
) -> None:
    """Merges the valid, finite rows into mean, population variance and count, in place.

    The merge is equation 2.1 of Chan, Golub and LeVeque (Updating formulae and a pairwise
    algorithm for computing sample variances, 1979). Without such a row nothing changes. A row
    that is not finite is left out, and not counted: it would spoil the moments for ever.

    Args:
        mean, var: shape, float64, contiguous.
        count: 0-d float64, the number of rows merged so far.
        rows: [B, *shape] of any dtype.
        valid: [B] bool, or None for all; other rows may hold anything.
        normalized_out: [B, *shape] float32, contiguous; receives every row, valid or not,
            normalised under the statistics that include these rows, as Gymnasium's wrapper does.
        clip, epsilon: as for `normalize`.

    Raises:
        ValueError: a shape, dtype, device, layout or number is off; the message names it.
        BackendUnavailable: `backend` cannot serve these tensors.
    """
    _check(rows, mean, var, clip, epsilon)
    for name, tensor in ("mean", mean), ("var", var), ("count", count):
        if tensor.dtype != torch.float64 or not tensor.is_contiguous():
            raise ValueError(f"{name} is {tensor.dtype}: expected float64, contiguous")
    if count.ndim != 0 or count.device != rows.device:
        raise ValueError(
            f"count has shape {list(count.shape)} on {count.device}: expected 0-d on {rows.device}"
        )
    if rows.ndim != mean.ndim + 1:
        raise ValueError(
            f"rows has shape {list(rows.shape)}: expected [B, *{list(mean.shape)}], flatten it"
        )
    if valid is not None and (
        valid.shape != rows.shape[:1] or valid.dtype != torch.bool or valid.device != rows.device
    ):
        raise ValueError(
            f"valid is {valid.dtype} {list(valid.shape)} on {valid.device}: "
            f"expected bool [{rows.shape[0]}] on {rows.device}"
        )
    if normalized_out is not None:
        _check_out("normalized_out", normalized_out, rows)
    rows = rows.detach()
    _update_moments(mean, var, count, rows, valid, normalized_out, clip, epsilon, backend)
