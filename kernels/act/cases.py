"""Cases of the act operations: one step of 8 environments, up to thousands."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fastppo.kernels.act import op
from fastppo.kernels.tools import case
from fastppo.kernels.tools.case import Case, Check, Draw, Work, some

WIDTH = 6
KEY = 7


def _textbook_categorical(logits: Tensor) -> tuple[Tensor, ...]:
    """Sample, log-probability and entropy from torch's own distribution."""
    policy = torch.distributions.Categorical(logits=logits, validate_args=False)
    actions = policy.sample()
    return actions, policy.log_prob(actions), policy.entropy()


def _textbook_gaussian(mean: Tensor, log_std: Tensor) -> tuple[Tensor, ...]:
    """Sample, log-probability and entropy from torch's own distribution."""
    policy = torch.distributions.Normal(mean, log_std.expand_as(mean).exp(), validate_args=False)
    actions = policy.sample()
    return actions, policy.log_prob(actions).sum(1), policy.entropy().sum(1)


def _work(
    ours: Callable[..., Any],
    textbook: Callable[..., Any],
    log_probs: Callable[..., tuple[Tensor, ...]],
    outputs: tuple[Tensor, ...],
) -> Work:
    """Draws differ from torch's, so the oracle speaks of our actions' log-probabilities."""
    step = torch.zeros((), dtype=torch.int64, device=outputs[0].device)
    act = partial(ours, *outputs, step, key=KEY)
    return Work(
        ours=act,
        textbook=lambda: textbook(*outputs),
        compilable=None,
        with_function=lambda function: lambda: function(*outputs),
        oracle=lambda: log_probs(act()[0], *map(case.double, outputs)),
        comparable=lambda result: result[1:],
    )


def _categorical_work(batch_size: int, device: torch.device) -> Work:
    def log_probs(actions: Tensor, logits: Tensor) -> tuple[Tensor, ...]:
        log_p = logits.log_softmax(1)
        return log_p.gather(1, actions[:, None])[:, 0], -(log_p.exp() * log_p).sum(1)

    logits = Draw(device).normal(batch_size, WIDTH)
    return _work(op.act_categorical, _textbook_categorical, log_probs, (logits,))


def _gaussian_work(batch_size: int, device: torch.device) -> Work:
    def log_probs(actions: Tensor, mean: Tensor, log_std: Tensor) -> tuple[Tensor, ...]:
        normal = torch.distributions.Normal(mean, log_std.exp().expand_as(mean))
        return normal.log_prob(actions.double()).sum(1), normal.entropy().sum(1)

    mean = Draw(device).normal(batch_size, WIDTH)
    outputs = (mean, torch.full((WIDTH,), -0.5, device=device))
    return _work(op.act_gaussian, _textbook_gaussian, log_probs, outputs)


def benchmarks(_device: torch.device, quick: bool) -> Iterator[Case]:
    for batch_size in some(quick, 8, 256, 4096):
        for name, letter, row_bytes, build in (
            ("act_categorical", "A", 4 * WIDTH + 16, _categorical_work),
            ("act_gaussian", "D", 8 * WIDTH + 8, _gaussian_work),
        ):
            shape = (("B", batch_size), (letter, WIDTH))
            moved = batch_size * row_bytes
            # sampling breaks torch.compile's graph
            yield Case(name, shape, batch_size, moved, partial(build, batch_size), compiles=False)


NAMES = ("actions", "log_probs", "entropy")
NEAR_TIES = 1e-3
"""Part of the rows where the rounding of a backend may decide between two actions."""


def _require_same_draws(draws: Sequence[tuple[Tensor, ...]]) -> None:
    """Of the first and the second run, and of the specification in float32."""
    first, again, expected = draws
    same = first[0] == expected[0] if first[0].dtype == torch.int64 else first[1] == first[1]
    rows = same.view(len(same), -1).all(1)
    ties = 1.0 - rows.double().mean().item()
    case.require(ties <= NEAR_TIES, f"actions: {ties:.2%} of them are not the specification's")
    for name, a, b, c in zip(NAMES, first, again, expected, strict=True):
        case.require_same(name, a, b)
        case.require_close(name, a[rows], c[rows], 1e-3)


def _check_categorical(draw: Draw, batch_size: int, nvec: tuple[int, ...], masked: bool) -> None:
    """The same draw on every backend, and no action that is not allowed."""
    logits = draw.normal(batch_size, sum(nvec))
    mask = draw.flags(batch_size, sum(nvec), chance=0.6) if masked else None
    starts = [sum(nvec[:h]) for h in range(len(nvec))]
    if mask is not None:
        mask[:, starts] = True
    options: dict[str, Any] = {"key": KEY, "nvec": nvec, "action_mask": mask}
    draws = [
        op.act_categorical(logits, 5, **options, backend=backend)
        for backend in ("auto", "auto", "torch")
    ]
    _require_same_draws(draws)
    if mask is not None:
        columns = draws[0][0] + torch.tensor(starts, device=logits.device)
        case.require(bool(mask.gather(1, columns).all()), "an action that the mask forbids")


def _check_gaussian(draw: Draw, batch_size: int, width: int, shared: bool) -> None:
    mean = draw.normal(batch_size, width)
    log_std = 0.1 * (draw.normal(width) if shared else draw.normal(batch_size, width))
    draws = [
        op.act_gaussian(mean, log_std, 5, key=KEY, backend=backend)
        for backend in ("auto", "auto", "torch")
    ]
    _require_same_draws(draws)


def checks(device: torch.device) -> Iterator[Check]:
    for batch_size in (1, 33, 5000):
        for nvec in ((2,), (18,), (300,), (3, 5, 2)):
            for masked in (False, True):
                name = f"act_categorical B={batch_size} {nvec} masked={masked}"
                yield case.check(name, _check_categorical, device, batch_size, nvec, masked)
        for width in (1, 6, 21):
            for shared in (True, False):
                name = f"act_gaussian B={batch_size} D={width} shared={shared}"
                yield case.check(name, _check_gaussian, device, batch_size, width, shared)
