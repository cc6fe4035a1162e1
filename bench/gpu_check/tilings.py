"""Tilings of the Triton kernels against the ones that ship, as the device times them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from fastppo.bench.kernels.clocks import graph_clock
from fastppo.kernels.tools.case import Draw

REPEATS = 7


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
    operation: str, shape: str, shipped: str, tried: dict[str, Callable[[], Any]], module: Any,
    name: str, values: dict[str, Any]
) -> dict[str, Any]:  # fmt: skip
    seconds: dict[str, float] = {}
    for label, value in values.items():
        with _replaced(module, name, value):
            try:
                seconds[label] = _best(tried["run"])
            except Exception as error:
                seconds[label] = float("inf")
                if "out of resource" not in str(error):
                    raise
    return {"operation": operation, "shape": shape, "shipped": shipped, "seconds": seconds}


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
            for steps in (4, 8, 16)
            for chunks, block, warps in ((1, 64, 2), (1, 128, 4), (8, 16, 4), (16, 8, 4),
                                         (32, 8, 8), (64, 4, 8), (128, 2, 8), (32, 4, 4))
        ]  # fmt: skip
        values = {
            str(list(option.values())): (lambda *_, option=option: dict(option))
            for option in options
        }
        run = lambda: triton_gpu.gae(*inputs, gamma=0.99, gae_lambda=0.95)  # noqa: E731, B023
        yield _finding("gae", f"T={num_steps} N={num_envs}", str(list(shipped.values())),
                       {"run": run}, triton_gpu, "tiling", values)  # fmt: skip


def _narrow(device: torch.device) -> Iterator[dict[str, Any]]:
    from fastppo.kernels.loss import op, triton_narrow

    for rows in (256, 4096, 65_536, 1_048_576):
        for width in (6, 18):
            draw = Draw(device)
            logits = draw.normal(rows, width)
            columns = [draw.normal(rows) for _ in range(5)]
            actions = draw.integers(width, rows)
            stats = torch.tensor([0.0, 0.0, 1.0, float(rows)], device=device)

            def run() -> Any:
                return op.categorical_ppo_loss(
                    logits, columns[0], actions, *columns[1:],  # noqa: B023
                    clip_coef=0.1, vf_coef=0.5, ent_coef=0.01, clip_vloss=0.1,
                    advantage_stats=stats, backend="triton",  # noqa: B023
                )  # fmt: skip

            values = {f"BLOCK_B={block}": block for block in (32, 64, 128, 256)}
            yield _finding("categorical", f"B={rows} A={width}",
                           f"BLOCK_B={triton_narrow.BLOCK_B}", {"run": run}, triton_narrow,
                           "BLOCK_B", values)  # fmt: skip
