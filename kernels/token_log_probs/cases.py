"""Cases of token_log_probs: the rows that a model of today's vocabularies scores."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fastppo.kernels.token_log_probs import op
from fastppo.kernels.tools import case
from fastppo.kernels.tools.case import Case, Check, Draw, Run, Work, name_of, some


def _textbook(logits: Tensor, tokens: Tensor) -> tuple[Tensor]:
    """Logits in half precision are widened first."""
    wide = torch.promote_types(logits.dtype, torch.float32)
    log_p = torch.nn.functional.log_softmax(logits, -1, dtype=wide)
    return (log_p.gather(1, tokens[:, None])[:, 0],)


def _work(rows: int, width: int, dtype: torch.dtype, device: torch.device) -> Work:
    draw = Draw(device)
    logits, tokens = draw.normal(rows, width).to(dtype), draw.integers(width, rows)

    def run(function: Callable[..., Any]) -> Run:
        return lambda: function(logits, tokens)

    def ours(logits: Tensor, tokens: Tensor) -> tuple[Tensor]:
        return (op.token_log_probs(logits, tokens),)

    return Work(
        ours=run(ours),
        textbook=run(_textbook),
        compilable=_textbook,
        with_function=run,
        oracle=lambda: _textbook(logits.double(), tokens),
    )


def benchmarks(device: torch.device, quick: bool) -> Iterator[Case]:
    rows = some(quick, 1024, 8192) if device.type == "cuda" else (16,)
    vocabularies = [(32768, torch.float32), (131072, torch.bfloat16)]
    for width, dtype in vocabularies[-1:] if quick else vocabularies:
        for count in rows:
            named = (("B", count), ("V", width), ("dtype", name_of(dtype)))
            size = count * width
            build = partial(_work, count, width, dtype)
            yield Case("token_log_probs", named, size, dtype.itemsize * size, build)


def _check(draw: Draw, rows: int, width: int, dtype: torch.dtype, masked: bool) -> None:
    logits, tokens = draw.normal(rows, width).to(dtype), draw.integers(width, rows)
    valid = draw.flags(rows, chance=0.7) if masked else None
    weights = draw.normal(2, rows)

    def run(logits: Tensor, backend: str) -> dict[str, Tensor]:
        leaf = logits.detach().requires_grad_()
        options: dict[str, Any] = {"valid": valid, "temperature": 0.8, "backend": backend}
        scored, entropy = op.token_log_probs(leaf, tokens, with_entropy=True, **options)
        total = (scored * weights[0]).sum() + (entropy * weights[1]).sum()
        (grad,) = torch.autograd.grad(total, leaf)
        return {"log_probs": scored.detach(), "entropy": entropy.detach(), "grad": grad}

    first, again, oracle = run(logits, "auto"), run(logits, "auto"), run(logits.double(), "torch")
    for name, value in first.items():
        rounded = name == "grad" and dtype == torch.bfloat16
        case.require_close(name, value, oracle[name], 3e-2 if rounded else 1e-4)
        case.require_same(name, value, again[name])


def checks(device: torch.device) -> Iterator[Check]:
    for rows, width in ((1, 1), (7, 31), (33, 1000), (5, 50257), (3, 151936)):
        for dtype in (torch.float32, torch.bfloat16):
            for masked in (False, True):
                name = f"token_log_probs B={rows} V={width} {dtype} masked={masked}"
                yield case.check(name, _check, device, rows, width, dtype, masked)
