"""Cases of the losses: minibatches of Atari and MuJoCo, and rows of a vocabulary."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from fastppo.kernels.loss import op
from fastppo.kernels.tools import case
from fastppo.kernels.tools.case import Case, Check, Draw, Run, Work, name_of, some

COEFFICIENTS = {"clip_coef": 0.1, "vf_coef": 0.5, "ent_coef": 0.01, "clip_vloss": 0.1}
ROW_BYTES = 4 * 5 + 4
"""Besides the policy's: five numbers read, the value's gradient written."""


NEAR = 1e-3
"""To a bound: closer to it rounding decides on which side a row lies, and its gradient jumps."""


def _log_probs(
    logits: Tensor, actions: Tensor, nvec: tuple[int, ...], mask: Tensor | None
) -> Tensor:
    """Of the actions [B, heads], in float64."""
    z = logits.double() if mask is None else logits.double().masked_fill(~mask, -math.inf)
    heads = zip(z.split(nvec, 1), actions.unbind(1), strict=True)
    picked = [head.log_softmax(1).gather(1, a[:, None])[:, 0] for head, a in heads]
    return torch.stack(picked).sum(0)


def _clear(
    log_probs: Tensor, values: Tensor, rows: Sequence[Tensor], terms: Mapping[str, float]
) -> list[Tensor]:
    """The rows (old log-probs, advantages, returns, old values), none of them NEAR a clip's bound.

    Args:
        log_probs: float64, of the actions now.
        values: as now.
    """
    old_log_probs, advantages, returns, old_values = rows
    clip, near = terms["clip_coef"], terms["clip_vloss"]
    for ratio in (1 - clip, 1 + clip, terms.get("dual_clip", 1 + clip)):
        at = (log_probs - old_log_probs - math.log(ratio)).abs() < NEAR
        old_log_probs = torch.where(at, old_log_probs + 4 * NEAR, old_log_probs)
    at = ((values - old_values).abs() - near).abs() < NEAR
    old_values = torch.where(at, old_values + 4 * NEAR, old_values)
    clipped = old_values + (values - old_values).clamp(-near, near)
    # of the two squared errors the larger counts: here both are the same
    tie = (((values - returns) ** 2 - (clipped - returns) ** 2).abs() < NEAR) & (clipped != values)
    return [old_log_probs, advantages, torch.where(tie, returns + 1.0, returns), old_values]


def _textbook(
    log_probs: Tensor,
    entropy: Tensor,
    new_values: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    returns: Tensor,
    old_values: Tensor,
) -> tuple[Tensor, Tensor]:
    """The loss and its six statistics [6], operator by operator."""
    clip, near = COEFFICIENTS["clip_coef"], COEFFICIENTS["clip_vloss"]
    log_ratio = log_probs - old_log_probs
    ratio = log_ratio.exp()
    advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    clipped_ratio = torch.clamp(ratio, 1 - clip, 1 + clip)
    policy_loss = torch.max(-advantages * ratio, -advantages * clipped_ratio).mean()
    clipped = old_values + torch.clamp(new_values - old_values, -near, near)
    value_loss = 0.5 * torch.max((new_values - returns) ** 2, (clipped - returns) ** 2).mean()
    mean_entropy = entropy.mean()
    loss = policy_loss - COEFFICIENTS["ent_coef"] * mean_entropy
    loss = loss + COEFFICIENTS["vf_coef"] * value_loss
    with torch.no_grad():
        kl = ((ratio - 1) - log_ratio).mean()
        clip_frac = ((ratio - 1.0).abs() > clip).to(ratio.dtype).mean()
        stats = (policy_loss, value_loss, mean_entropy, kl, (-log_ratio).mean(), clip_frac)
        return loss, torch.stack(stats)


def _textbook_categorical(
    logits: Tensor, new_values: Tensor, actions: Tensor, *rows: Tensor
) -> tuple[Tensor, Tensor]:
    """Logits in half precision are widened first."""
    log_p = log_softmax(logits, -1, dtype=torch.promote_types(logits.dtype, torch.float32))
    log_probs = log_p.gather(1, actions[:, None]).squeeze(1)
    entropy = -(log_p.exp() * log_p).sum(-1)
    return _textbook(log_probs, entropy, new_values, *rows)


def _textbook_gaussian(
    mean: Tensor, log_std: Tensor, new_values: Tensor, actions: Tensor, *rows: Tensor
) -> tuple[Tensor, Tensor]:
    """By way of torch's own distribution."""
    normal = torch.distributions.Normal(mean, log_std.expand_as(mean).exp(), validate_args=False)
    log_probs = normal.log_prob(actions).sum(1)
    return _textbook(log_probs, normal.entropy().sum(1), new_values, *rows)


def _differentiate(function: Callable[..., Any], inputs: list[Tensor], count: int) -> Run:
    """Loss and statistics of `function(*inputs)`, then the gradients of the first `count`."""
    leaves = [t.detach().requires_grad_(i < count) for i, t in enumerate(inputs)]

    def run() -> tuple[Tensor, ...]:
        loss, stats = function(*leaves)
        return loss.detach(), stats, *torch.autograd.grad(loss, leaves[:count])

    return run


def _without_stats(result: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return result[0], *result[2:]


def _work(
    ours: Callable[..., Any],
    textbook: Callable[..., Any],
    inputs: list[Tensor],
    count: int,
    rtol: float,
) -> Work:
    with torch.no_grad():
        doubles = [case.double(tensor) for tensor in inputs]

    def fused(*leaves: Tensor) -> tuple[Tensor, Tensor]:
        loss, stats = ours(*leaves, **COEFFICIENTS)
        return loss, stats["policy_loss"]

    return Work(
        ours=_differentiate(fused, inputs, count),
        textbook=_differentiate(textbook, inputs, count),
        compilable=textbook,
        with_function=lambda function: _differentiate(function, inputs, count),
        oracle=lambda: _without_stats(_differentiate(textbook, doubles, count)()),
        comparable=_without_stats,
        rtol=rtol,
    )


def _categorical_work(
    batch_size: int, width: int, dtype: torch.dtype, device: torch.device
) -> Work:
    draw = Draw(device)
    logits, values = draw.normal(batch_size, width).to(dtype), draw.normal(batch_size)
    actions = draw.integers(width, batch_size)
    rows = [0.3 * draw.normal(batch_size) - math.log(width)]
    rows += [draw.normal(batch_size) for _ in range(3)]
    now = _log_probs(logits, actions[:, None], (width,), None)
    inputs = [logits, values, actions, *_clear(now, values, rows, COEFFICIENTS)]
    rtol = 1e-2 if dtype == torch.bfloat16 else 1e-3
    return _work(op.categorical_ppo_loss, _textbook_categorical, inputs, 2, rtol)


def _gaussian_work(batch_size: int, width: int, device: torch.device) -> Work:
    draw = Draw(device)
    mean, values = draw.normal(batch_size, width), draw.normal(batch_size)
    log_std = torch.full((width,), -0.5, device=device)
    actions = mean + 0.6 * draw.normal(batch_size, width)
    normal = torch.distributions.Normal(mean, log_std.exp().expand_as(mean))
    now = normal.log_prob(actions).sum(1)
    rows = [now + 0.1 * draw.normal(batch_size)]
    rows += [draw.normal(batch_size) for _ in range(3)]
    rows = _clear(now.double(), values, rows, COEFFICIENTS)
    inputs = [mean, log_std, values, actions, *rows]
    return _work(op.gaussian_ppo_loss, _textbook_gaussian, inputs, 3, 1e-3)


def benchmarks(device: torch.device, quick: bool) -> Iterator[Case]:
    batches = some(quick, 256, 2048, 8192, 65536)
    for width in some(quick, 2, 6, 18):
        for batch_size in batches:
            shape = (("B", batch_size), ("A", width))
            moved = batch_size * (8 * width + 8 + ROW_BYTES)
            build = partial(_categorical_work, batch_size, width, torch.float32)
            yield Case("categorical", shape, batch_size, moved, build)
    tokens = some(quick, 1024, 8192) if device.type == "cuda" else (16,)
    vocabularies = [(32768, torch.float32), (131072, torch.bfloat16)]
    for width, dtype in vocabularies[-1:] if quick else vocabularies:
        for batch_size in tokens:
            named = (("B", batch_size), ("A", width), ("dtype", name_of(dtype)))
            logits = batch_size * width
            build = partial(_categorical_work, batch_size, width, dtype)
            yield Case("vocabulary", named, logits, 3 * dtype.itemsize * logits, build)
    for width in some(quick, 1, 6, 21):
        for batch_size in batches:
            shape = (("B", batch_size), ("D", width))
            moved = batch_size * (12 * width + ROW_BYTES)
            yield Case(
                "gaussian", shape, batch_size, moved, partial(_gaussian_work, batch_size, width)
            )


TERMS = {"clip_coef": 0.2, "vf_coef": 0.5, "ent_coef": 0.01, "clip_vloss": 0.2, "dual_clip": 3.0}


def _check(
    function: Callable[..., Any], count: int, inputs: list[Any], tolerance: float, **options: Any
) -> None:
    """Loss, statistics and the gradients of the first `count` inputs."""

    def run(tensors: list[Any], backend: str) -> dict[str, Tensor]:
        leaves = [
            t.detach().clone().requires_grad_() if i < count else t for i, t in enumerate(tensors)
        ]
        loss, stats = function(*leaves, **TERMS, **options, backend=backend)
        grads = torch.autograd.grad(loss, leaves[:count])
        return {"loss": loss.detach(), **stats, **{f"grad {i}": g for i, g in enumerate(grads)}}

    first, again = run(inputs, "auto"), run(inputs, "auto")
    oracle = run([case.double(t) for t in inputs], "torch")
    for name, value in first.items():
        # a gradient is divided by the number of rows
        scale = 1.0 / len(inputs[0]) if name.startswith("grad") else 1.0
        case.require_close(name, value / scale, oracle[name] / scale, tolerance)
        case.require_same(name, value, again[name])


def _rows(draw: Draw, batch_size: int, valid: bool) -> list[Any]:
    """Old log-probs, which the caller replaces, advantages, returns, old values; what is valid."""
    rows: list[Any] = [draw.normal(batch_size) for _ in range(4)]
    return [*rows, draw.flags(batch_size, chance=0.8) if valid else None]


def _check_categorical(
    draw: Draw, batch_size: int, nvec: tuple[int, ...], masked: bool, dtype: torch.dtype
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
    values, rows = draw.normal(batch_size), _rows(draw, batch_size, masked)
    now = _log_probs(logits, actions, nvec, mask)
    rows[0] = now.float() + 0.2 * draw.normal(batch_size)  # else every ratio of a vocabulary is 0
    rows[:4] = _clear(now, values, rows[:4], TERMS)
    single = len(nvec) == 1
    _check(
        op.categorical_ppo_loss,
        2,
        [logits, values, actions[:, 0] if single else actions, *rows],
        1e-3 if dtype == torch.float32 else 3e-2,
        action_mask=mask,
        nvec=None if single else nvec,
    )


def _check_tokens(
    draw: Draw, shape: tuple[int, int, int], dtype: torch.dtype, reduction: str, estimator: str
) -> None:
    """Of [B, T, V]: sequences, temperature, a reference, clips of two sides."""
    *batch, width = shape
    count, temperature = batch[0] * batch[1], 0.8
    logits = draw.normal(count, width).to(dtype)
    actions, valid = draw.integers(width, count), draw.flags(count, chance=0.8)
    now = _log_probs(logits / temperature, actions[:, None], (width,), None)
    values, rows = draw.normal(count), _rows(draw, count, False)
    rows[0] = now.float() + 0.2 * draw.normal(count)
    rows[:4] = _clear(now, values, rows[:4], TERMS)
    reference = now.float() + 0.3 * draw.normal(count)
    tensors = [logits.view(*batch, width), values, actions, *rows[:4], valid]
    tensors = [tensors[0], *(t.view(*batch) for t in tensors[1:])]
    _check(
        op.categorical_ppo_loss,
        2,
        tensors,
        1e-3 if dtype == torch.float32 else 3e-2,
        norm_adv=False,
        temperature=temperature,
        reduction=reduction,
        ref_log_probs=reference.view(*batch),
        kl_coef=0.1,
        kl_estimator=estimator,
    )


def _check_gaussian(draw: Draw, batch_size: int, width: int, shared: bool) -> None:
    mean = draw.normal(batch_size, width)
    log_std = 0.1 * (draw.normal(width) if shared else draw.normal(batch_size, width))
    actions = mean + 0.5 * draw.normal(batch_size, width)
    values, rows = draw.normal(batch_size), _rows(draw, batch_size, not shared)
    normal = torch.distributions.Normal(mean, log_std.exp().expand_as(mean))
    now = normal.log_prob(actions).sum(1)
    rows[0] = now + 0.2 * draw.normal(batch_size)
    rows[:4] = _clear(now.double(), values, rows[:4], TERMS)
    inputs = [mean, log_std, values, actions, *rows]
    _check(op.gaussian_ppo_loss, 3, inputs, 2e-3)


def checks(device: torch.device) -> Iterator[Check]:
    floats, halves = torch.float32, torch.bfloat16
    for batch_size in (1, 2, 33, 257, 5000):
        for nvec in ((2,), (6,), (18,), (31,), (300,), (3, 5, 2)):
            for masked in (False, True):
                name = f"categorical B={batch_size} {nvec} masked={masked}"
                yield case.check(name, _check_categorical, device, batch_size, nvec, masked, floats)
        for width in (1, 6, 17, 21):
            for shared in (True, False):
                name = f"gaussian B={batch_size} D={width} shared={shared}"
                yield case.check(name, _check_gaussian, device, batch_size, width, shared)
    for width, dtype in ((50257, floats), (131072, halves), (131072, floats)):
        for masked in (False, True):
            name = f"vocabulary A={width} {dtype} masked={masked}"
            yield case.check(name, _check_categorical, device, 7, (width,), masked, dtype)
    kinds = (("token", "k2"), ("sequence", "k3"), ("sequence_sum", "k3_is"), ("constant", "k2"))
    for shape in ((2, 5, 31), (3, 40, 1000), (2, 2, 151936)):
        for dtype in (floats, halves):
            for reduction, estimator in kinds:
                name = f"tokens {shape} {dtype} {reduction} {estimator}"
                yield case.check(name, _check_tokens, device, shape, dtype, reduction, estimator)
