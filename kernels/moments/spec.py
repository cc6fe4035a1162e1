"""Running moments and normalisation in plain torch: the specification."""

import torch
from torch import Tensor


def normalize(
    out: Tensor, rows: Tensor, mean: Tensor, var: Tensor, clip: float, epsilon: float
) -> None:
    """out = clip((rows - mean) / sqrt(var + epsilon)), computed in float64."""
    normal = (rows.double() - mean.double()) * torch.rsqrt(var.double() + epsilon)
    out.copy_(normal.clamp_(-clip, clip))


def update_moments(
    mean: Tensor, var: Tensor, count: Tensor, rows: Tensor, valid: Tensor | None
) -> None:
    """Merges k rows of mean m and variance s into n rows, with d = m - mean and N = n + k.

    mean = mean + d k / N
    var  = (n var + k s + d^2 n k / N) / N

    Rows that are not finite are not among the k. An element whose variance would overflow keeps
    its old moments.
    """
    finite = rows.reshape(len(rows), -1).isfinite().all(1)
    valid = finite if valid is None else valid & finite
    mask = valid.view(-1, *[1] * mean.ndim)
    rows = torch.where(mask, rows, 0).double()
    new_count = valid.sum().double()
    safe_count = new_count.clamp(min=1.0)
    new_mean = rows.sum(0) / safe_count
    new_squares = torch.where(mask, rows - new_mean, 0.0).square().sum(0)
    total = count + new_count
    safe_total = total.clamp(min=1.0)
    delta = new_mean - mean
    squares = var * count + new_squares + delta.square() * count * new_count / safe_total
    seen = (new_count > 0) & squares.isfinite()
    mean.copy_(torch.where(seen, mean + delta * new_count / safe_total, mean))
    var.copy_(torch.where(seen, squares / safe_total, var))
    count.copy_(total)
