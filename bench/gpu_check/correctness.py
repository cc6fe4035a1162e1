"""Every kernel on the device against its specification in float64, at shapes that are awkward.

What a machine without a GPU cannot show: the tests run Triton's interpreter, which has no races,
computes exp and log with numpy, and accepts code that the compiler rejects.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from fastppo.kernels import api

Check = Callable[[], None]
TERMS = {"clip_coef": 0.2, "vf_coef": 0.5, "ent_coef": 0.01, "clip_vloss": 0.2, "dual_clip": 3.0}


class _Draw:
    """Seeded tensors on one device."""

    def __init__(self, device: torch.device, seed: int) -> None:
        self.device = device
        self.generator = torch.Generator(device).manual_seed(seed)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator, device=self.device)

    def flags(self, *shape: int, chance: float = 0.1) -> Tensor:
        return torch.rand(shape, generator=self.generator, device=self.device) < chance

    def integers(self, high: int, *shape: int) -> Tensor:
        return torch.randint(0, high, shape, generator=self.generator, device=self.device)


def _double(value: Any) -> Any:
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.detach().double()
    return value


def _close(name: str, actual: Tensor, expected: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(
        actual.double(),
        expected.double(),
        rtol=tolerance,
        atol=tolerance,
        equal_nan=True,
        msg=lambda text: f"{name}: {text.splitlines()[0]} {' '.join(text.split()[-40:])}",
    )


def _gae(draw: _Draw, num_steps: int, num_envs: int, layout: str, dtype: torch.dtype) -> None:
    shape = (num_steps, num_envs) if layout == "TN" else (num_envs, num_steps)
    longer = (num_steps + 1, num_envs) if layout == "TN" else (num_envs, num_steps + 1)
    inputs = [draw.normal(*shape).to(dtype), draw.normal(*longer).to(dtype)]
    inputs += [draw.flags(*shape), draw.flags(*shape)]
    options: dict[str, Any] = {"gamma": 0.99, "gae_lambda": 0.95, "layout": layout}
    first = api.gae(*inputs, **options)
    again = api.gae(*inputs, **options)
    oracle = api.gae(*(_double(t) for t in inputs), **options, backend="torch")
    for name, a, b, expected in zip(("advantages", "returns"), first, again, oracle, strict=True):
        _close(name, a, expected, 1e-4)
        _require(torch.equal(a, b), f"{name}: two runs differ")


def _loss(
    function: Callable[..., Any], count: int, inputs: list[Tensor], tolerance: float, **options: Any
) -> None:
    """Loss, statistics and the gradients of the first `count` inputs."""

    def run(tensors: list[Any], backend: str) -> dict[str, Tensor]:
        leaves = [
            t.detach().clone().requires_grad_() if i < count else t for i, t in enumerate(tensors)
        ]
        settings = {name: _double(v) if backend == "torch" else v for name, v in options.items()}
        loss, stats = function(*leaves, **TERMS, **settings, backend=backend)
        grads = torch.autograd.grad(loss, leaves[:count])
        return {"loss": loss.detach(), **stats, **{f"grad {i}": g for i, g in enumerate(grads)}}

    first, again = run(inputs, "auto"), run(inputs, "auto")
    oracle = run([_double(t) for t in inputs], "torch")
    for name, value in first.items():
        # a gradient is divided by the number of rows
        scale = 1.0 / len(inputs[0]) if name.startswith("grad") else 1.0
        _close(name, value / scale, oracle[name] / scale, tolerance)
        _require(torch.equal(value, again[name]), f"{name}: two runs differ")


def _rows(draw: _Draw, batch_size: int, valid: bool) -> list[Any]:
    rows: list[Any] = [-1.0 + 0.3 * draw.normal(batch_size)]
    rows += [draw.normal(batch_size) for _ in range(3)]
    return [*rows, draw.flags(batch_size, chance=0.8) if valid else None]


def _categorical(
    draw: _Draw, batch_size: int, nvec: tuple[int, ...], *, masked: bool, dtype: torch.dtype
) -> None:
    logits = draw.normal(batch_size, sum(nvec)).to(dtype)
    actions = torch.stack([draw.integers(n, batch_size) for n in nvec], 1)
    mask = None
    if masked:
        mask = draw.flags(batch_size, sum(nvec), chance=0.7)
        start = 0
        for h, n in enumerate(nvec):
            mask.scatter_(1, start + actions[:, h, None], True)
            start += n
    rows = _rows(draw, batch_size, masked)
    single = len(nvec) == 1
    inputs: list[Any] = [logits, draw.normal(batch_size), actions[:, 0] if single else actions]
    _loss(
        api.categorical_ppo_loss,
        2,
        [*inputs, *rows],
        1e-3 if dtype == torch.float32 else 3e-2,
        action_mask=mask,
        nvec=None if single else nvec,
    )


def _gaussian(draw: _Draw, batch_size: int, width: int, shared: bool) -> None:
    mean = draw.normal(batch_size, width)
    log_std = 0.1 * (draw.normal(width) if shared else draw.normal(batch_size, width))
    actions = mean + 0.5 * draw.normal(batch_size, width)
    rows = _rows(draw, batch_size, not shared)
    with torch.no_grad():
        normal = torch.distributions.Normal(mean, log_std.exp().expand_as(mean))
        rows[0] = normal.log_prob(actions).sum(1) + 0.2 * draw.normal(batch_size)
    inputs: list[Any] = [mean, log_std, draw.normal(batch_size), actions, *rows]
    _loss(api.gaussian_ppo_loss, 3, inputs, 2e-3)


def _adam(draw: _Draw, size: int, misaligned: int, zero_grad: bool) -> None:
    """Three steps; buffer number `misaligned` begins 4 bytes past a multiple of 16."""
    names = ("param", "grad", "exp_avg", "exp_avg_sq")
    values = [draw.normal(size) for _ in names]
    values[3] = values[3].square()
    states: dict[str, list[Tensor]] = {}
    for label in ("first", "again", "oracle"):
        dtype = torch.float64 if label == "oracle" else torch.float32
        buffers = [torch.empty(size + 1, dtype=dtype, device=draw.device) for _ in names]
        state = [b[1:] if i == misaligned else b[:-1] for i, b in enumerate(buffers)]
        for tensor, value in zip(state, values, strict=True):
            tensor.copy_(value)
        param, grad, exp_avg, exp_avg_sq = state
        step = torch.zeros((), dtype=torch.float32, device=draw.device)
        for _ in range(3):
            norm, taken = api.clip_adam_(
                param,
                grad,
                exp_avg,
                exp_avg_sq,
                step,
                lr=3e-4,
                max_grad_norm=0.5,
                zero_grad=zero_grad,
                backend="torch" if label == "oracle" else "auto",
            )
            _require(bool(taken), "a step was skipped")
            if zero_grad:
                _require(not bool(grad.any()), "the gradient is not zero")
                grad.copy_(values[1])
        states[label] = [*state, norm, step]
    for name, a, b, expected in zip((*names, "norm", "step"), *states.values(), strict=True):
        _close(name, a, expected, 1e-5)
        _require(torch.equal(a, b), f"{name}: two runs differ")


def _require(is_so: bool, wrong: str) -> None:
    """As assert, which python -O leaves out: nothing would be checked, and all would pass."""
    if not is_so:
        raise AssertionError(wrong)


def checks(device: torch.device) -> Iterator[tuple[str, Check]]:
    """Named checks; each raises AssertionError where the kernel is wrong."""

    def named(name: str, function: Callable[..., None], *args: Any, **kwargs: Any) -> Any:
        return name, lambda: function(_Draw(device, seed=len(name)), *args, **kwargs)

    floats, halves = torch.float32, torch.bfloat16
    for num_steps, num_envs in ((1, 1), (5, 3), (128, 8), (129, 33), (2048, 5), (64, 40000)):
        for layout in ("TN", "NT"):
            for dtype in (floats, halves):
                label = f"gae {layout} T={num_steps} N={num_envs} {dtype}"
                yield named(label, _gae, num_steps, num_envs, layout, dtype)
    for batch_size in (1, 2, 33, 257, 5000):
        for nvec in ((2,), (6,), (18,), (31,), (300,), (3, 5, 2)):
            for masked in (False, True):
                label = f"categorical B={batch_size} {nvec} masked={masked}"
                yield named(label, _categorical, batch_size, nvec, masked=masked, dtype=floats)
        for width in (1, 6, 17, 21):
            for shared in (True, False):
                label = f"gaussian B={batch_size} D={width} shared={shared}"
                yield named(label, _gaussian, batch_size, width, shared)
    for size in (1, 33, 5000, 16384, 100_003):
        for misaligned in (-1, 0, 1):
            for zero_grad in (False, True):
                label = f"adam P={size} misaligned={misaligned} zero_grad={zero_grad}"
                yield named(label, _adam, size, misaligned, zero_grad)
    for width, dtype in ((50257, floats), (131072, halves), (131072, floats)):
        for masked in (False, True):
            label = f"vocabulary A={width} {dtype} masked={masked}"
            yield named(label, _categorical, 7, (width,), masked=masked, dtype=dtype)
