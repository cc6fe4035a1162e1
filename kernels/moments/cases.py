"""Cases of update_moments_ and normalize: the observations of MuJoCo, a step up to a rollout."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fastppo.kernels.moments import op
from fastppo.kernels.tools import case
from fastppo.kernels.tools.case import Case, Check, Draw, Run, Work, some

WIDTH = 17
CLIP = 10.0
BYTES_PER_ROW = 8 * WIDTH
"""An observation read, and one written, normalised."""
MOMENT_BYTES = 2 * 8 * WIDTH
"""Mean and variance, float64."""


def _normalize(rows: Tensor, mean: Tensor, var: Tensor) -> tuple[Tensor]:
    """(x - mean) / sqrt(var + 1e-8), clipped."""
    mean, var = mean.to(rows.dtype), var.to(rows.dtype)
    return (torch.clamp((rows - mean) / torch.sqrt(var + 1e-8), -CLIP, CLIP),)


def _update(mean: Tensor, var: Tensor, count: Tensor, rows: Tensor) -> tuple[Tensor, ...]:
    """Chan's merge of a batch into running moments; then the rows under the new ones."""
    batch_mean, batch_var = rows.mean(0), rows.var(0, correction=0)
    batch_count = rows.shape[0]
    total = count + batch_count
    delta = batch_mean - mean
    squares = var * count + batch_var * batch_count + delta**2 * count * batch_count / total
    mean, var = mean + delta * batch_count / total, squares / total
    return *_normalize(rows, mean, var), mean, var


def _moments(draw: Draw, *shape: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, variance and count, float64."""
    count = torch.full((), 100.0, dtype=torch.float64, device=draw.device)
    return draw.normal(*shape).double(), draw.normal(*shape).double().square() + 0.1, count


def _update_work(batch_size: int, device: torch.device) -> Work:
    draw = Draw(device)
    mean, var, count = _moments(draw, WIDTH)
    start = (mean.clone(), var.clone(), count.clone())
    rows = draw.normal(batch_size, WIDTH)
    out = torch.empty_like(rows)

    def ours() -> tuple[Tensor, ...]:
        op.update_moments_(mean, var, count, rows, normalized_out=out, clip=CLIP)
        return out, mean, var

    def run(function: Callable[..., Any]) -> Run:
        return lambda: function(*start, rows)

    return Work(
        ours=ours,
        textbook=run(_update),
        compilable=_update,
        with_function=run,
        oracle=lambda: _update(*start, rows.double()),
    )


def _normalize_work(batch_size: int, device: torch.device) -> Work:
    draw = Draw(device)
    mean, var, _ = _moments(draw, WIDTH)
    rows = draw.normal(batch_size, WIDTH)

    def run(function: Callable[..., Any]) -> Run:
        return lambda: function(rows, mean, var)

    return Work(
        ours=lambda: (op.normalize(rows, mean, var, clip=CLIP),),
        textbook=run(_normalize),
        compilable=_normalize,
        with_function=run,
        oracle=lambda: _normalize(rows.double(), mean, var),
    )


def benchmarks(_device: torch.device, quick: bool) -> Iterator[Case]:
    for batch_size in some(quick, 8, 256, 8192):
        shape = (("B", batch_size), ("D", WIDTH))
        moved = BYTES_PER_ROW * batch_size + MOMENT_BYTES
        for name, written, build in (
            ("update_moments", MOMENT_BYTES, _update_work),
            ("normalize", 0, _normalize_work),
        ):
            yield Case(name, shape, batch_size, moved + written, partial(build, batch_size))


def _check(draw: Draw, batch_size: int, shape: tuple[int, ...], masked: bool) -> None:
    """Two merges; rows that do not count are NaN."""
    batches = [3.0 + draw.normal(batch_size, *shape) for _ in range(2)]
    valid = draw.flags(batch_size, chance=0.7) if masked else None
    if valid is not None:
        for rows in batches:
            rows[~valid] = torch.nan
    results: list[list[Tensor]] = []
    start = _moments(draw, *shape)
    for backend in ("auto", "auto", "torch"):
        mean, var, count = (tensor.clone() for tensor in start)
        for rows in batches:
            rows = rows if backend == "auto" else rows.double()
            out = torch.empty_like(rows)
            op.update_moments_(mean, var, count, rows, valid, normalized_out=out, backend=backend)
        normal = op.normalize(rows, mean, var, clip=2.0, backend=backend)
        results.append([mean, var, count, out, normal])
    names = ("mean", "var", "count", "normalized_out", "normalize")
    for name, first, again, expected in zip(names, *results, strict=True):
        case.require_close(name, first, expected, 1e-4)
        case.require_same(name, first, again)


def checks(device: torch.device) -> Iterator[Check]:
    for batch_size in (1, 33, 5000):
        for shape in ((1,), (17,), (376,), (3, 5)):
            for masked in (False, True):
                name = f"moments B={batch_size} {shape} masked={masked}"
                yield case.check(name, _check, device, batch_size, shape, masked)
