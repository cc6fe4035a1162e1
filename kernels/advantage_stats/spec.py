"""Advantage statistics in plain torch: the specification, and in float64 the oracle."""

import math

import torch
from torch import Tensor


def advantage_stats(advantages: Tensor, valid: Tensor | None, index: Tensor | None) -> Tensor:
    """[M, 4]: mean, mean_low, 1 / (std + 1e-8) and count of the valid rows of each minibatch.

        mean + mean_low = sum A / n
        std^2           = sum (A - mean - mean_low)^2 / (n - 1)

    With n < 2 the first three are 0, 0 and 1.
    """
    rows = advantages.flatten()
    ok = torch.ones_like(rows, dtype=torch.bool) if valid is None else valid.flatten()
    if index is None:
        rows, ok = rows[None], ok[None]
    else:
        exists = (index >= 0) & (index < len(rows))
        index = torch.where(exists, index, 0)
        rows, ok = torch.where(exists, rows[index], math.nan), ok[index] | ~exists
    count = ok.sum(1)
    at_least_one = count.clamp(min=1)
    rows = torch.where(ok, rows, 0.0)
    mean = rows.sum(1) / at_least_one
    # Centred by the rounded mean, the second sum holds what rounding took from it.
    centred = torch.where(ok, rows - mean[:, None], 0.0)
    mean_low = centred.sum(1) / at_least_one
    centred = torch.where(ok, centred - mean_low[:, None], 0.0)
    std = (centred.square().sum(1) / (count - 1).clamp(min=1)).sqrt()
    several = count > 1
    return torch.stack(
        [
            torch.where(several, mean, 0.0),
            torch.where(several, mean_low, 0.0),
            torch.where(several, 1.0 / (std + 1e-8), 1.0),
            count.to(rows.dtype),
        ],
        1,
    )
