"""Cases of gather_frames: Atari's stacks of four, for one step up to a minibatch."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fastppo.kernels.frames import op
from fastppo.kernels.tools import case
from fastppo.kernels.tools.case import Case, Check, Draw, Run, Work, name_of, some

NUM_STEPS, NUM_ENVS, STACK = 128, 8, 4
PIXELS = STACK * 84 * 84


def _textbook(stacks: Tensor, index: Tensor, dtype: torch.dtype) -> tuple[Tensor]:
    """Index, cast, divide: [R, 4, H, W] uint8 stacks, stored whole, to floats in 0 .. 1."""
    return (stacks[index].to(dtype) / 255.0,)


def _work(batch_size: int, dtype: torch.dtype, device: torch.device) -> Work:
    draw = Draw(device)
    frames = draw.integers(256, NUM_STEPS + STACK - 1, NUM_ENVS, 84, 84, dtype=torch.uint8)
    age = torch.full((NUM_STEPS, NUM_ENVS), STACK - 1, dtype=torch.uint8, device=device)
    # what the textbook stores: every stack whole
    stacks = frames.unfold(0, STACK, 1).movedim(-1, 2).flatten(0, 1).contiguous()
    index = draw.integers(NUM_STEPS * NUM_ENVS, batch_size)

    def run(function: Callable[..., Any]) -> Run:
        return lambda: function(stacks, index, dtype)

    tolerance = 1e-6 if dtype == torch.float32 else 1e-2
    return Work(
        ours=lambda: (op.gather_frames(frames, age, index, dtype=dtype),),
        textbook=run(_textbook),
        compilable=_textbook,
        with_function=run,
        oracle=lambda: _textbook(stacks, index, torch.float64),
        rtol=tolerance,
    )


def benchmarks(device: torch.device, quick: bool) -> Iterator[Case]:
    gpu = device.type == "cuda"
    dtype = torch.float16 if gpu else torch.float32
    for batch_size in some(quick, 8, 64, 256, *((4096,) if gpu else ())):
        yield Case(
            "gather_frames",
            (("B", batch_size), ("dtype", name_of(dtype))),
            batch_size,
            batch_size * PIXELS * (1 + dtype.itemsize),
            partial(_work, batch_size, dtype),
        )


def _check(
    draw: Draw, size: int, num_stack: int, batch_size: int, dtype: torch.dtype, last: bool
) -> None:
    """Against the specification, with stacks that a reset has emptied in part."""
    num_steps, num_envs = 9, 3
    frames = draw.integers(256, num_steps + num_stack - 1, num_envs, size, size, dtype=torch.uint8)
    age = draw.integers(num_stack, num_steps, num_envs, dtype=torch.uint8)
    index = draw.integers(num_steps * num_envs, batch_size)
    options: dict[str, Any] = {"num_stack": num_stack, "channels_last": last}
    ours = op.gather_frames(frames, age, index, dtype=dtype, **options)
    oracle = op.gather_frames(frames, age, index, dtype=torch.float64, backend="torch", **options)
    case.require_close("stacks", ours, oracle, 1e-6 if dtype == torch.float32 else 1e-2)


def checks(device: torch.device) -> Iterator[Check]:
    for size, num_stack in ((84, 4), (84, 1), (7, 3)):
        for batch_size in (1, 65):
            for dtype in (torch.float32, torch.float16, torch.bfloat16):
                for last in (False, True):
                    name = f"gather_frames {size}x{size} K={num_stack} B={batch_size} {dtype}"
                    name += " channels_last" if last else ""
                    yield case.check(name, _check, device, size, num_stack, batch_size, dtype, last)
