"""Cases of gae: rollouts of Atari and MuJoCo, up to what fills a GPU."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fastppo.kernels.gae import op
from fastppo.kernels.tools import case
from fastppo.kernels.tools.case import Case, Check, Draw, Run, Work, some

GAMMA, LAMBDA = 0.99, 0.95
BYTES_PER_ELEMENT = 18
"""Reward, value and two flags read, advantage and return written."""


def _textbook(
    rewards: Tensor, values: Tensor, terminated: Tensor, truncated: Tensor
) -> tuple[Tensor, Tensor]:
    """The backward loop over time, [T, N]."""
    not_terminated = 1.0 - terminated.to(values.dtype)
    not_done = 1.0 - (terminated | truncated).to(values.dtype)
    advantages = torch.zeros_like(rewards)
    last = torch.zeros_like(rewards[0])
    for t in reversed(range(rewards.shape[0])):
        delta = rewards[t] + GAMMA * values[t + 1] * not_terminated[t] - values[t]
        advantages[t] = last = delta + GAMMA * LAMBDA * not_done[t] * last
    return advantages, advantages + values[:-1]


def _work(num_steps: int, num_envs: int, device: torch.device) -> Work:
    draw = Draw(device)
    rewards, values = draw.normal(num_steps, num_envs), draw.normal(num_steps + 1, num_envs)
    flags = [draw.flags(num_steps, num_envs, chance=0.01) for _ in range(2)]

    def run(function: Callable[..., Any]) -> Run:
        return lambda: function(rewards, values, *flags)

    return Work(
        ours=run(partial(op.gae, gamma=GAMMA, gae_lambda=LAMBDA)),
        textbook=run(_textbook),
        compilable=None,
        with_function=run,
        oracle=lambda: _textbook(rewards.double(), values.double(), *flags),
    )


def benchmarks(device: torch.device, quick: bool) -> Iterator[Case]:
    gpu = device.type == "cuda"
    envs = some(quick, 8, 64, 256, 1024, 4096, *((16384, 65536) if gpu else ()))
    for num_steps in (128,) if quick else (32, 128, 512, 2048):
        for num_envs in envs:
            elements = num_steps * num_envs
            if elements > (2**28 if gpu else 2**21):
                continue
            yield Case(
                "gae",
                (("T", num_steps), ("N", num_envs)),
                elements,
                BYTES_PER_ELEMENT * elements + 4 * num_envs,
                partial(_work, num_steps, num_envs),
                compiles=False,  # it would unroll the loop, nine nodes a step
            )


def _check(draw: Draw, num_steps: int, num_envs: int, layout: str, dtype: torch.dtype) -> None:
    shape = (num_steps, num_envs) if layout == "TN" else (num_envs, num_steps)
    longer = (num_steps + 1, num_envs) if layout == "TN" else (num_envs, num_steps + 1)
    inputs = [draw.normal(*shape).to(dtype), draw.normal(*longer).to(dtype)]
    inputs += [draw.flags(*shape), draw.flags(*shape)]
    options: dict[str, Any] = {"gamma": GAMMA, "gae_lambda": LAMBDA, "layout": layout}
    first = op.gae(*inputs, **options)
    again = op.gae(*inputs, **options)
    oracle = op.gae(*map(case.double, inputs), **options, backend="torch")
    for name, a, b, expected in zip(("advantages", "returns"), first, again, oracle, strict=True):
        case.require_close(name, a, expected, 1e-4)
        case.require_same(name, a, b)


def _check_holes(draw: Draw, num_rows: int, num_steps: int, dtype: torch.dtype) -> None:
    shape = (num_rows, num_steps)
    inputs = [draw.normal(*shape).to(dtype), draw.normal(num_rows, num_steps + 1).to(dtype)]
    inputs += [draw.flags(*shape, chance=0.02), draw.flags(*shape, chance=0.02)]
    options: dict[str, Any] = {
        "gamma": GAMMA,
        "gae_lambda": torch.rand(num_rows, generator=draw.generator, device=draw.device),
        "lengths": draw.integers(num_steps + 1, num_rows),
        "valid": draw.flags(*shape, chance=0.7),
        "layout": "NT",
    }
    first, again = op.gae(*inputs, **options), op.gae(*inputs, **options)
    oracle = op.gae(*map(case.double, inputs), **options, backend="torch")
    for name, a, b, expected in zip(("advantages", "returns"), first, again, oracle, strict=True):
        case.require_close(name, a, expected, 1e-4)
        case.require_same(name, a, b)


def checks(device: torch.device) -> Iterator[Check]:
    for num_steps, num_envs in ((1, 1), (5, 3), (128, 8), (129, 33), (2048, 5), (64, 40000)):
        for layout in ("TN", "NT"):
            for dtype in (torch.float32, torch.bfloat16):
                name = f"gae {layout} T={num_steps} N={num_envs} {dtype}"
                yield case.check(name, _check, device, num_steps, num_envs, layout, dtype)
    for num_rows, num_steps in ((1, 1), (5, 40), (33, 512), (3, 5000)):
        for dtype in (torch.float32, torch.bfloat16):
            name = f"gae holes N={num_rows} T={num_steps} {dtype}"
            yield case.check(name, _check_holes, device, num_rows, num_steps, dtype)
