"""The grid of the kernel benchmarks: each operation at real shapes, ours beside the textbook's."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fastppo.bench.kernels import textbook
from fastppo.kernels import api

Run = Callable[[], tuple[Tensor, ...]]
NOT_COMPILED = {
    "gae": "torch.compile unrolls the loop: some nine graph nodes a step, thousands in all",
    "act_categorical": "sampling breaks the graph",
    "act_gaussian": "sampling breaks the graph",
    "adam": "torch's fused optimizer is one kernel already",
}
"""Operations whose textbook form torch.compile is not given, and why."""
GAMMA, LAMBDA = 0.99, 0.95


@dataclass(frozen=True, slots=True)
class Work:
    """One operation on one set of tensors."""

    ours: Run
    textbook: Run
    compilable: Callable[..., Any] | None
    """The textbook function that torch.compile gets; None for the operations of NOT_COMPILED."""
    with_function: Callable[[Callable[..., Any]], Run]
    """`textbook` with that function in place of its own."""
    oracle: Callable[[], tuple[Tensor, ...]]
    """What `ours` must return, in float64."""
    comparable: Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]] = lambda result: result
    """The part of our result that the oracle speaks of."""
    rtol: float = 1e-4
    atol: float = 1e-5


@dataclass(frozen=True, slots=True)
class Case:
    """One operation at one shape."""

    operation: str
    shape: tuple[tuple[str, int | str], ...]
    size: int
    """Elements or rows, the abscissa of the picture."""
    bytes_moved: int
    """Every input read once, every output written once."""
    build: Callable[[torch.device], Work]
    compiles: bool = True
    """Whether the work has something that torch.compile can be given."""

    @property
    def label(self) -> str:
        return " ".join(f"{name}={value}" for name, value in self.shape)

    @property
    def id(self) -> str:
        return f"{self.operation}[{self.label}]"


def _generator(device: torch.device) -> torch.Generator:
    return torch.Generator(device).manual_seed(0)


def _gae(num_steps: int, num_envs: int, device: torch.device) -> Work:
    g = _generator(device)
    rewards = torch.randn(num_steps, num_envs, generator=g, device=device)
    values = torch.randn(num_steps + 1, num_envs, generator=g, device=device)
    terminated = torch.rand(num_steps, num_envs, generator=g, device=device) < 0.01
    truncated = torch.rand(num_steps, num_envs, generator=g, device=device) < 0.01

    def run(function: Callable[..., Any]) -> Run:
        return lambda: function(rewards, values, terminated, truncated, GAMMA, LAMBDA)

    return Work(
        ours=lambda: api.gae(
            rewards, values, terminated, truncated, gamma=GAMMA, gae_lambda=LAMBDA
        ),
        textbook=run(textbook.gae),
        compilable=None,
        with_function=run,
        oracle=lambda: textbook.gae(
            rewards.double(), values.double(), terminated, truncated, GAMMA, LAMBDA
        ),
        atol=1e-4,
    )


def _rows(batch_size: int, g: torch.Generator, device: torch.device) -> list[Tensor]:
    """old_log_probs, advantages, returns, old_values."""
    draw = partial(torch.randn, batch_size, generator=g, device=device)
    return [-2.0 + 0.3 * draw(), draw(), draw(), draw()]


def _differentiate(function: Callable[..., Any], inputs: list[Tensor], count: int) -> Run:
    """Loss and statistics of `function(*inputs)`, then the gradients of the first `count`."""
    leaves = [t.detach().requires_grad_(i < count) for i, t in enumerate(inputs)]

    def run() -> tuple[Tensor, ...]:
        loss, stats = function(*leaves)
        return loss.detach(), stats, *torch.autograd.grad(loss, leaves[:count])

    return run


def _stacked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Our losses with the coefficients of the textbook and statistics as one tensor."""

    def run(*inputs: Tensor) -> tuple[Tensor, Tensor]:
        loss, stats = function(*inputs, **textbook.COEFFICIENTS)
        return loss, stats["policy_loss"]

    return run


def _loss_work(ours: Any, theirs: Any, inputs: list[Tensor], count: int, rtol: float) -> Work:
    with torch.no_grad():
        doubles = [t.double() if t.is_floating_point() else t for t in inputs]
    return Work(
        ours=_differentiate(_stacked(ours), inputs, count),
        textbook=_differentiate(theirs, inputs, count),
        compilable=theirs,
        with_function=lambda function: _differentiate(function, inputs, count),
        oracle=lambda: _without_stats(_differentiate(theirs, doubles, count)()),
        comparable=_without_stats,
        rtol=rtol,
        atol=rtol / 100,
    )


def _without_stats(result: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return result[0], *result[2:]


def _categorical(batch_size: int, width: int, dtype: torch.dtype, device: torch.device) -> Work:
    g = _generator(device)
    logits = torch.randn(batch_size, width, generator=g, device=device).to(dtype)
    values = torch.randn(batch_size, generator=g, device=device)
    actions = torch.randint(0, width, (batch_size,), generator=g, device=device)
    rows = _rows(batch_size, g, device)
    rows[0] = rows[0] - math.log(width) + 2.0
    return _loss_work(
        api.categorical_ppo_loss,
        textbook.categorical_ppo_loss,
        [logits, values, actions, *rows],
        2,
        1e-2 if dtype == torch.bfloat16 else 1e-3,
    )


def _gaussian(batch_size: int, width: int, device: torch.device) -> Work:
    g = _generator(device)
    mean = torch.randn(batch_size, width, generator=g, device=device)
    log_std = torch.full((width,), -0.5, device=device)
    values = torch.randn(batch_size, generator=g, device=device)
    actions = mean + 0.6 * torch.randn(batch_size, width, generator=g, device=device)
    rows = _rows(batch_size, g, device)
    normal = torch.distributions.Normal(mean, log_std.exp().expand_as(mean))
    rows[0] = normal.log_prob(actions).sum(1) + 0.1 * rows[1]
    return _loss_work(
        api.gaussian_ppo_loss,
        textbook.gaussian_ppo_loss,
        [mean, log_std, values, actions, *rows],
        3,
        1e-3,
    )


def _advantage_stats(minibatches: int, batch_size: int, device: torch.device) -> Work:
    g = _generator(device)
    total = minibatches * batch_size
    advantages = torch.randn(total, generator=g, device=device) + 3.0
    index = torch.randperm(total, generator=g, device=device).view(minibatches, batch_size)

    def run(function: Callable[..., Any]) -> Run:
        return lambda: (function(advantages, index),)

    return Work(
        ours=lambda: (api.advantage_stats(advantages, None, index),),
        textbook=run(textbook.advantage_stats),
        compilable=textbook.advantage_stats,
        with_function=run,
        oracle=lambda: (textbook.advantage_stats(advantages.double(), index),),
        comparable=lambda result: (torch.stack([result[0][:, :2].sum(1), result[0][:, 2]], 1),),
    )


def _act_categorical(batch_size: int, width: int, device: torch.device) -> Work:
    logits = torch.randn(batch_size, width, generator=_generator(device), device=device)
    step = torch.zeros((), dtype=torch.int64, device=device)
    ours = partial(api.act_categorical, logits, step, key=7)

    def oracle() -> tuple[Tensor, ...]:
        log_p = logits.double().log_softmax(1)
        actions = ours()[0]
        return log_p.gather(1, actions[:, None])[:, 0], -(log_p.exp() * log_p).sum(1)

    return Work(
        ours=ours,
        textbook=lambda: textbook.act_categorical(logits),
        compilable=None,
        with_function=lambda function: lambda: function(logits),
        oracle=oracle,
        comparable=lambda result: result[1:],
    )


def _act_gaussian(batch_size: int, width: int, device: torch.device) -> Work:
    mean = torch.randn(batch_size, width, generator=_generator(device), device=device)
    log_std = torch.full((width,), -0.5, device=device)
    step = torch.zeros((), dtype=torch.int64, device=device)
    ours = partial(api.act_gaussian, mean, log_std, step, key=7)

    def oracle() -> tuple[Tensor, ...]:
        std = log_std.double().exp().expand_as(mean)
        normal = torch.distributions.Normal(mean.double(), std)
        return normal.log_prob(ours()[0].double()).sum(1), normal.entropy().sum(1)

    return Work(
        ours=ours,
        textbook=lambda: textbook.act_gaussian(mean, log_std),
        compilable=None,
        with_function=lambda function: lambda: function(mean, log_std),
        oracle=oracle,
        comparable=lambda result: result[1:],
        atol=1e-4,
    )


def _gather_rows(total: int, batch_size: int, width: int, device: torch.device) -> Work:
    g = _generator(device)
    fields = [
        torch.randn(total, width, generator=g, device=device),
        *(torch.randn(total, generator=g, device=device) for _ in range(4)),
        torch.randint(0, 6, (total,), generator=g, device=device),
        torch.rand(total, generator=g, device=device) < 0.9,
    ]
    index = torch.randperm(total, generator=g, device=device)[:batch_size]

    def run(function: Callable[..., Any]) -> Run:
        return lambda: function(fields, index)

    return Work(
        ours=run(api.gather_rows),
        textbook=run(textbook.gather_rows),
        compilable=textbook.gather_rows,
        with_function=run,
        oracle=run(textbook.gather_rows),
        rtol=0.0,
        atol=0.0,
    )


def _gather_frames(batch_size: int, dtype: torch.dtype, device: torch.device) -> Work:
    g = _generator(device)
    num_steps, num_envs, stack = 128, 8, 4
    shape = (num_steps + stack - 1, num_envs, 84, 84)
    frames = torch.randint(0, 256, shape, generator=g, device=device, dtype=torch.uint8)
    age = torch.full((num_steps, num_envs), stack - 1, dtype=torch.uint8, device=device)
    # what the textbook stores: every stack whole
    stacks = frames.unfold(0, stack, 1).movedim(-1, 2).flatten(0, 1).contiguous()
    index = torch.randint(0, num_steps * num_envs, (batch_size,), generator=g, device=device)

    def run(function: Callable[..., Any]) -> Run:
        return lambda: (function(stacks, index, dtype),)

    return Work(
        ours=lambda: (api.gather_frames(frames, age, index, dtype=dtype),),
        textbook=run(textbook.gather_frames),
        compilable=textbook.gather_frames,
        with_function=run,
        oracle=lambda: (textbook.gather_frames(stacks, index, torch.float64),),
        rtol=1e-2 if dtype != torch.float32 else 1e-6,
        atol=1e-2 if dtype != torch.float32 else 1e-6,
    )


def _adam(size: int, device: torch.device) -> Work:
    g = _generator(device)
    start = torch.randn(size, generator=g, device=device)
    gradient = torch.randn(size, generator=g, device=device)
    lr, max_norm = 3e-4, 0.5

    parameter, exp_avg, exp_avg_sq = start.clone(), torch.zeros_like(start), torch.zeros_like(start)
    step = torch.zeros((), device=device)
    ours_gradient = gradient.clone()

    def ours() -> tuple[Tensor, ...]:
        norm, _ = api.clip_adam_(
            parameter,
            ours_gradient,
            exp_avg,
            exp_avg_sq,
            step,
            lr=lr,
            eps=1e-5,
            max_grad_norm=max_norm,
        )
        return parameter, norm

    def torch_adam(start: Tensor, gradient: Tensor) -> Run:
        weights = torch.nn.Parameter(start.clone())
        optimizer = torch.optim.Adam([weights], lr=lr, eps=1e-5, fused=True)

        def run() -> tuple[Tensor, ...]:
            # a fresh gradient costs the copy that a backward pass would have written
            weights.grad = gradient.clone()
            norm = torch.nn.utils.clip_grad_norm_([weights], max_norm, foreach=True)
            optimizer.step()
            return weights.detach(), norm

        return run

    def ours_with_fresh_gradient() -> tuple[Tensor, ...]:
        ours_gradient.copy_(gradient)
        return ours()

    return Work(
        ours=ours_with_fresh_gradient,
        textbook=torch_adam(start, gradient),
        compilable=None,
        with_function=lambda _: torch_adam(start, gradient),
        oracle=torch_adam(start.double(), gradient.double()),
        atol=1e-6,
    )


def _case(
    operation: str,
    shape: dict[str, int | str],
    size: int,
    bytes_moved: int,
    build: Callable[[torch.device], Work],
) -> Case:
    compiles = operation not in NOT_COMPILED
    return Case(operation, tuple(shape.items()), size, bytes_moved, build, compiles)


ROW_BYTES = 4 * 5 + 4
"""Of a loss, besides the policy's: five numbers read, the value's gradient written."""


def cases(device: torch.device, *, quick: bool = False) -> Iterator[Case]:
    """The grid for a device: the CPU's leaves out what only a GPU has the memory speed for.

    Args:
        quick: two shapes per operation, the ends of the grid.
    """
    gpu = device.type == "cuda"

    def some(*grid: int) -> tuple[int, ...]:
        return (grid[0], grid[-1]) if quick else grid

    steps = some(32, 128, 512, 2048)
    envs = some(8, 64, 256, 1024, 4096, *((16384, 65536) if gpu else ()))
    for num_steps in (128,) if quick else steps:
        for num_envs in envs:
            elements = num_steps * num_envs
            if elements > (2**28 if gpu else 2**21):
                continue
            yield _case(
                "gae",
                {"T": num_steps, "N": num_envs},
                elements,
                18 * elements + 4 * num_envs,
                partial(_gae, num_steps, num_envs),
            )
    batches = some(256, 2048, 8192, 65536)
    for width in some(2, 6, 18):
        for batch_size in batches:
            yield _case(
                "categorical",
                {"B": batch_size, "A": width},
                batch_size,
                batch_size * (8 * width + 8 + ROW_BYTES),
                partial(_categorical, batch_size, width, torch.float32),
            )
    tokens = some(1024, 8192) if gpu else (16,)
    vocabularies = [(32768, torch.float32), (131072, torch.bfloat16)]
    for width, dtype in vocabularies[-1:] if quick else vocabularies:
        for batch_size in tokens:
            yield _case(
                "vocabulary",
                {"B": batch_size, "A": width, "dtype": str(dtype).removeprefix("torch.")},
                batch_size * width,
                batch_size * width * 3 * dtype.itemsize,
                partial(_categorical, batch_size, width, dtype),
            )
    for width in some(1, 6, 21):
        for batch_size in batches:
            yield _case(
                "gaussian",
                {"B": batch_size, "D": width},
                batch_size,
                batch_size * (12 * width + ROW_BYTES),
                partial(_gaussian, batch_size, width),
            )
    for batch_size in some(256, 8192):
        yield _case(
            "advantage_stats",
            {"M": 4, "B": batch_size},
            4 * batch_size,
            4 * batch_size * 12,
            partial(_advantage_stats, 4, batch_size),
        )
    for batch_size in some(8, 256, 4096):
        yield _case(
            "act_categorical",
            {"B": batch_size, "A": 6},
            batch_size,
            batch_size * (4 * 6 + 16),
            partial(_act_categorical, batch_size, 6),
        )
        yield _case(
            "act_gaussian",
            {"B": batch_size, "D": 6},
            batch_size,
            batch_size * (8 * 6 + 8),
            partial(_act_gaussian, batch_size, 6),
        )
    for batch_size in some(256, 2048, 16384):
        yield _case(
            "gather_rows",
            {"B": batch_size, "D": 17},
            batch_size,
            batch_size * (2 * (17 * 4 + 4 * 4 + 8 + 1) + 8),
            partial(_gather_rows, 4 * batch_size, batch_size, 17),
        )
    for batch_size in some(8, 64, 256, *((4096,) if gpu else ())):
        dtype = torch.float16 if gpu else torch.float32
        pixels = batch_size * 4 * 84 * 84
        yield _case(
            "gather_frames",
            {"B": batch_size, "dtype": str(dtype).removeprefix("torch.")},
            batch_size,
            pixels * (1 + dtype.itemsize),
            partial(_gather_frames, batch_size, dtype),
        )
    for size in some(9_000, 140_000, 1_700_000):
        yield _case("adam", {"P": size}, size, 28 * size, partial(_adam, size))
