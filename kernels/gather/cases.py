"""Cases of gather_rows: the fields of a MuJoCo minibatch."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fastppo.kernels.gather import op
from fastppo.kernels.tools import case
from fastppo.kernels.tools.case import Case, Check, Draw, Run, Work, some

WIDTH = 17
BYTES_PER_ROW = 2 * (4 * WIDTH + 4 * 4 + 8 + 1) + 8
"""Observation, four floats, action and flag read and written, and the index."""


def _textbook(fields: Sequence[Tensor], index: Tensor) -> tuple[Tensor, ...]:
    """Indexes one field after the other."""
    return tuple(field[index] for field in fields)


def _fields(draw: Draw, total: int, width: int) -> list[Tensor]:
    floats = [draw.normal(total) for _ in range(4)]
    actions, valid = draw.integers(6, total), draw.flags(total, chance=0.9)
    return [draw.normal(total, width), *floats, actions, valid]


def _work(batch_size: int, device: torch.device) -> Work:
    draw = Draw(device)
    total = 4 * batch_size
    fields, index = _fields(draw, total, WIDTH), draw.permutation(total)[:batch_size]

    def run(function: Callable[..., Any]) -> Run:
        return lambda: function(fields, index)

    return Work(
        ours=run(op.gather_rows),
        textbook=run(_textbook),
        compilable=_textbook,
        with_function=run,
        oracle=run(_textbook),
        rtol=0.0,
    )


def benchmarks(_device: torch.device, quick: bool) -> Iterator[Case]:
    for batch_size in some(quick, 256, 2048, 16384):
        shape = (("B", batch_size), ("D", WIDTH))
        moved = BYTES_PER_ROW * batch_size
        yield Case("gather_rows", shape, batch_size, moved, partial(_work, batch_size))


def _check(draw: Draw, total: int, batch_size: int, width: int) -> None:
    """Bytes are moved, so they must be the same, whatever they hold."""
    fields = _fields(draw, total, width)
    fields[1][draw.flags(total)] = torch.nan
    fields += [fields[0].bfloat16(), draw.integers(256, total, 3, dtype=torch.uint8)]
    index = draw.integers(total, batch_size)
    rows = op.gather_rows(fields, index)
    for i, (field, ours) in enumerate(zip(fields, rows, strict=True)):
        expected = field[index]
        same = torch.equal(ours.view(torch.uint8), expected.view(torch.uint8))
        case.require(same, f"field {i}, {field.dtype}: not the rows of the index")


def checks(device: torch.device) -> Iterator[Check]:
    for total, batch_size in ((1, 1), (100, 257), (70_000, 4096)):
        for width in (1, 17, 376):
            name = f"gather_rows R={total} B={batch_size} D={width}"
            yield case.check(name, _check, device, total, batch_size, width)
