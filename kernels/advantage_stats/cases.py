"""Cases of advantage_stats: the four minibatches of one epoch."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fastppo.kernels.advantage_stats import op
from fastppo.kernels.tools import case
from fastppo.kernels.tools.case import Case, Check, Draw, Run, Work, some

MINIBATCHES = 4
BYTES_PER_ROW = 12
"""An advantage and its index."""


def _textbook(advantages: Tensor, index: Tensor) -> tuple[Tensor]:
    """Mean and 1 / (std + 1e-8) of each minibatch, [M, 2], one minibatch after the other."""
    stats = []
    for rows in index:
        batch = advantages[rows]
        stats.append(torch.stack([batch.mean(), 1.0 / (batch.std() + 1e-8)]))
    return (torch.stack(stats),)


def _work(batch_size: int, device: torch.device) -> Work:
    draw = Draw(device)
    total = MINIBATCHES * batch_size
    advantages = draw.normal(total) + 3.0
    index = draw.permutation(total).view(MINIBATCHES, batch_size)

    def run(function: Callable[..., Any]) -> Run:
        return lambda: function(advantages, index)

    return Work(
        ours=lambda: (op.advantage_stats(advantages, None, index),),
        textbook=run(_textbook),
        compilable=_textbook,
        with_function=run,
        oracle=lambda: _textbook(advantages.double(), index),
        comparable=lambda result: (torch.stack([result[0][:, :2].sum(1), result[0][:, 2]], 1),),
    )


def benchmarks(_device: torch.device, quick: bool) -> Iterator[Case]:
    for batch_size in some(quick, 256, 8192):
        rows = MINIBATCHES * batch_size
        shape = (("M", MINIBATCHES), ("B", batch_size))
        yield Case("advantage_stats", shape, rows, BYTES_PER_ROW * rows, partial(_work, batch_size))


def _check(draw: Draw, minibatches: int, batch_size: int, offset: float, masked: bool) -> None:
    total = minibatches * batch_size
    advantages = draw.normal(total) + offset
    valid = draw.flags(total, chance=0.7) if masked else None
    if valid is not None:
        advantages = torch.where(valid, advantages, torch.nan)
    index = draw.permutation(total).view(minibatches, batch_size)
    first, again = (op.advantage_stats(advantages, valid, index) for _ in range(2))
    oracle = op.advantage_stats(advantages.double(), valid, index, backend="torch")
    # the mean and what rounding took from it
    case.require_close("mean", first[:, :2].double().sum(1), oracle[:, :2].sum(1), 1e-5)
    case.require_close("scale and count", first[:, 2:], oracle[:, 2:], 1e-3)
    case.require_same("advantage_stats", first, again)


def checks(device: torch.device) -> Iterator[Check]:
    for minibatches, batch_size in ((1, 1), (3, 33), (4, 1024), (2, 70_001)):
        for offset in (0.0, 300.0):
            for masked in (False, True):
                name = f"advantage_stats M={minibatches} B={batch_size} +{offset} masked={masked}"
                yield case.check(name, _check, device, minibatches, batch_size, offset, masked)
