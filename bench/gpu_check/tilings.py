"""Tilings of the Triton kernels against the ones that ship, as the device times them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import triton.runtime.errors as triton_errors

from fastppo.bench.kernels.clocks import graph_clock
from fastppo.kernels.tools.case import Draw

REPEATS = 7
TILINGS = (
    (8, 1, 128, 4),
    (8, 8, 16, 4),
    (4, 32, 4, 4),
    (8, 32, 8, 8),
    (8, 64, 4, 8),
    (4, 1, 64, 2),
)
"""Of the GAE: steps of a thread, chunks of an environment, environments of a program, warps."""


def sweep(device: torch.device) -> Iterator[dict[str, Any]]:
    """One finding per operation and shape: seconds of the shipped tiling, and of all others."""
    yield from _gae(device)
    yield from _narrow(device)


def _best(run: Callable[[], Any]) -> float:
    measure = graph_clock(run)
    return min(measure() for _ in range(REPEATS))


@contextmanager
def _replaced(module: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


def _finding(
    operation: str,
    shape: str,
    run: Callable[[], Any],
    where: tuple[Any, str],
    values: dict[str, Any],
) -> dict[str, Any]:
    """Times `run` with each value in the module's place; the first is what ships."""
    seconds: dict[str, float] = {}
    for label, value in values.items():
        with _replaced(*where, value):
            try:
                seconds[label] = _best(run)
            except triton_errors.OutOfResources:
                continue
    return {
        "operation": operation,
        "shape": shape,
        "shipped": next(iter(values)),
        "seconds": seconds,
    }


def _gae(device: torch.device) -> Iterator[dict[str, Any]]:
    from fastppo.kernels.gae import triton_gpu

    for num_steps, num_envs in ((128, 8), (128, 128), (64, 256), (2048, 1024), (128, 4096),
                                (128, 65_536)):  # fmt: skip
        draw = Draw(device)
        inputs = (
            draw.normal(num_steps, num_envs),
            draw.normal(num_steps + 1, num_envs),
            draw.flags(num_steps, num_envs),
            draw.flags(num_steps, num_envs),
        )
        shipped = triton_gpu.tiling(num_steps, num_envs)
        options = [shipped] + [
            {"STEPS": steps, "CHUNKS": chunks, "BLOCK_N": block, "num_warps": warps}
            for steps, chunks, block, warps in TILINGS
        ]
        values = {
            str(list(option.values())): (lambda *_, option=option: dict(option))
            for option in options
        }
        run = partial(triton_gpu.gae, *inputs, gamma=0.99, gae_lambda=0.95)
        shape = f"T={num_steps} N={num_envs}"
        yield _finding("gae", shape, run, (triton_gpu, "tiling"), values)


def _narrow(device: torch.device) -> Iterator[dict[str, Any]]:
    from fastppo.kernels.loss import op, triton_narrow

    blocks = dict.fromkeys((triton_narrow.BLOCK_B, 32, 64, 128, 256))
    values = {f"BLOCK_B={block}": block for block in blocks}
    for rows in (256, 65_536, 1_048_576):
        for width in (6, 18):
            draw = Draw(device)
            run = partial(
                op.categorical_ppo_loss,
                draw.normal(rows, width),
                draw.normal(rows),
                draw.integers(width, rows),
                *(draw.normal(rows) for _ in range(4)),
                clip_coef=0.1,
                vf_coef=0.5,
                ent_coef=0.01,
                clip_vloss=0.1,
                advantage_stats=torch.tensor([0.0, 0.0, 1.0, float(rows)], device=device),
                backend="triton",
            )
            shape = f"B={rows} A={width}"
            yield _finding("categorical", shape, run, (triton_narrow, "BLOCK_B"), values)
