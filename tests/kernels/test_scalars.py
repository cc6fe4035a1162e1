"""What callers pass around the tensors: numpy's numbers, and torch's default dtype."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from triton.runtime.interpreter import InterpretedFunction

from fastppo.kernels import api

F32 = torch.float32
Results = list[Tensor]
Scalar = Callable[[Any], Any]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F32)


def gae(backend: str, number: Scalar, layout: str) -> Results:
    flags = draw(3, 4, seed=2) > 1
    rewards, values = draw(3, 4), draw(*((4, 4) if layout == "TN" else (3, 5)), seed=1)
    options: dict[str, Any] = {"gamma": number(0.99), "gae_lambda": number(0.95), "layout": layout}
    return list(api.gae(rewards, values, flags, ~flags, **options, backend=backend))


def loss(backend: str, number: Scalar, kind: str) -> Results:
    batch_size = 12
    terms: dict[str, Any] = {
        name: number(value)
        for name, value in {
            "clip_coef": 0.2, "vf_coef": 0.5, "ent_coef": 0.01, "clip_vloss": 0.2,
            "dual_clip": 3.0, "normalizer": 9.0,
        }.items()
    }  # fmt: skip
    rows = [draw(batch_size, seed=seed) for seed in range(3, 8)]
    values, rows = rows[0].requires_grad_(), rows[1:]
    if kind in ("shared", "per row"):
        mean = draw(batch_size, 3).requires_grad_()
        shape = (3,) if kind == "shared" else (batch_size, 3)
        log_std = (0.1 * draw(*shape, seed=1)).requires_grad_()
        leaves = [mean, log_std, values]
        actions = draw(batch_size, 3, seed=2)
        function: Callable[..., Any] = api.gaussian_ppo_loss
    else:
        nvec = {"narrow": [6], "wide": [40], "vocabulary": [1100], "heads": [3, 2]}[kind]
        leaves = [draw(batch_size, sum(nvec)).requires_grad_(), values]
        actions = torch.zeros(batch_size, len(nvec), dtype=torch.int64)
        if len(nvec) > 1:
            terms["nvec"] = nvec if number is float else np.array(nvec)
        actions = actions if len(nvec) > 1 else actions[:, 0]
        function = api.categorical_ppo_loss
    total, stats = function(*leaves, actions, *rows, **terms, backend=backend)
    return [total.detach(), *stats.values(), *torch.autograd.grad(total, leaves)]


def act(backend: str, number: Scalar, kind: str) -> Results:
    whole: Scalar = int if number is float else np.int64
    counter: dict[str, Any] = {"key": whole(7), "first_env": whole(5), "backend": backend}
    if kind == "gaussian":
        return list(api.act_gaussian(draw(6, 3), draw(3, seed=1), whole(2**40 + 3), **counter))
    nvec: Any = (3, 2) if number is float else np.array([3, 2])
    return list(api.act_categorical(draw(6, 5), whole(2**40 + 3), nvec=nvec, **counter))


def adam(backend: str, number: Scalar, size: int) -> Results:
    param, grad, exp_avg, root = (draw(size, seed=seed) for seed in range(4))
    exp_avg_sq = root.square()
    step = torch.zeros((), dtype=F32)
    norm, taken = api.clip_adam_(
        param,
        grad,
        exp_avg,
        exp_avg_sq,
        step,
        lr=number(1e-3),
        betas=(number(0.9), number(0.99)),
        eps=number(1e-5),
        max_grad_norm=number(0.5),
        backend=backend,
    )
    return [param, grad, exp_avg, exp_avg_sq, step, norm, taken]


def moments(backend: str, number: Scalar) -> Results:
    mean, var = torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    count = torch.zeros((), dtype=torch.float64)
    limits: dict[str, Any] = {"clip": number(2.0), "epsilon": number(1e-6), "backend": backend}
    out = torch.zeros(9, 3, dtype=F32)
    api.update_moments_(mean, var, count, draw(9, 3), normalized_out=out, **limits)
    return [mean, var, count, out, api.normalize(draw(9, 3), mean, var, **limits)]


def gathers(backend: str, number: Scalar) -> Results:
    frames = draw(4, 2, 3, 3).mul(50).to(torch.uint8)
    age = torch.ones(3, 2, dtype=torch.uint8)
    index = torch.tensor([4, 0])
    stack: Any = 2 if number is float else np.int64(2)
    stacks = api.gather_frames(
        frames, age, index, num_stack=stack, scale=number(0.5), backend=backend
    )
    halves = api.gather_frames(
        frames, age, index, num_stack=stack, dtype=torch.float16, backend=backend
    )
    rows = api.gather_rows([draw(6, 2), draw(6)], index, backend=backend)
    stats = api.advantage_stats(draw(8), None, torch.tensor([[4, 0, 2]]), backend=backend)
    return [stacks, halves, *rows, stats, api.advantage_stats(draw(8), None, None, backend=backend)]


CASES: list[tuple[Callable[..., Results], tuple[Any, ...]]] = [
    (gae, ("TN",)),
    (gae, ("NT",)),
    *((loss, (kind,)) for kind in ("narrow", "wide", "vocabulary", "heads", "shared", "per row")),
    (act, ("categorical",)),
    (act, ("gaussian",)),
    (adam, (5,)),
    (adam, (16400,)),
    (moments, ()),
    (gathers, ()),
]
each = pytest.mark.parametrize(
    ("operation", "case"), CASES, ids=[f"{f.__name__} {' '.join(map(str, c))}" for f, c in CASES]
)


@each
def test_the_default_dtype_changes_nothing(
    backend: str, operation: Callable[..., Results], case: tuple[Any, ...]
) -> None:
    expected = operation(backend, float, *case)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        actual = operation(backend, float, *case)
    finally:
        torch.set_default_dtype(before)

    for a, e in zip(actual, expected, strict=True):
        assert a.dtype == e.dtype
        assert torch.equal(a, e)


def _plain(argument: Any) -> bool:
    """Whether a launch on a GPU takes it; the interpreter takes numpy's too."""
    if isinstance(argument, tuple):
        return all(_plain(part) for part in argument)
    return argument is None or type(argument) in (bool, int, float, Tensor)


@each
def test_numbers_may_be_numpys(
    backend: str,
    operation: Callable[..., Results],
    case: tuple[Any, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    launch = InterpretedFunction.run

    def checked(self: Any, *args: Any, **kwargs: Any) -> Any:
        refused = [a for a in (*args, *kwargs.values()) if not (_plain(a) or callable(a))]
        assert not refused
        return launch(self, *args, **kwargs)

    expected = operation(backend, float, *case)
    monkeypatch.setattr(InterpretedFunction, "run", checked)

    actual = operation(backend, np.float64, *case)

    assert all(torch.equal(a, e) for a, e in zip(actual, expected, strict=True))
