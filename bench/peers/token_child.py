"""A library's answers, times and memory: what the programs of the token peers share.

Imports torch alone: it runs in the venv of every peer.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fastppo.bench.peers.token_library import CLIP, WIDE, Library, wide_logits
from fastppo.bench.peers.token_questions import ask


def textbook(logits: Tensor, tokens: Tensor, old: Tensor, advantages: Tensor, valid: Tensor) -> Any:
    """The loss of logits in a few torch operators: what every library's time is a share of."""
    log_probs = logits.float().log_softmax(-1).gather(-1, tokens[..., None])[..., 0]
    ratio = (log_probs - old).exp()
    each = torch.max(-advantages * ratio, -advantages * ratio.clamp(1 - CLIP, 1 + CLIP))
    return torch.where(valid, each, 0.0).sum() / valid.sum()


def linear_textbook(hidden: Tensor, weight: Tensor, *rest: Tensor) -> Any:
    """The same of hidden states: all logits at once."""
    return textbook(hidden @ weight.T, *rest)


def ways(library: Library) -> dict[str, dict[str, Callable[[], Any]]]:
    """Loss and gradient by this library and by the textbook, as calls: `loss`, `linear`."""
    found: dict[str, dict[str, Callable[[], Any]]] = {}
    logits, tokens = wide_logits(4, 32, torch.float32)
    old = logits.log_softmax(-1).gather(-1, tokens[..., None])[..., 0] + 0.05
    valid = torch.ones_like(tokens, dtype=torch.bool)
    advantages = torch.tensor([1.0, -0.5, 2.0, -1.0])
    rows = advantages[:, None].expand_as(old)
    mine = advantages if library.by_sequence else rows

    def composed(logits: Tensor) -> Tensor:
        assert library.log_probs is not None
        assert library.loss is not None
        return library.loss(library.log_probs(logits, tokens), old, mine, valid)

    whole = library.whole
    if whole is not None or (library.log_probs and library.loss):
        ours = composed if whole is None else lambda z: whole(z, tokens, old, mine, valid)
        theirs = lambda z: textbook(z, tokens, old, rows, valid)  # noqa: E731
        found["loss"] = {"library": _step(ours, logits), "eager": _step(theirs, logits)}
    if library.linear is not None:
        linear: Any = library.linear
        g = torch.Generator().manual_seed(1)
        hidden = torch.randn(4, 32, 128, generator=g)
        weight = torch.randn(WIDE, 128, generator=g) / 11.3
        fused = lambda h, w: linear(h, w, tokens, old, mine, valid)  # noqa: E731
        plain = lambda h, w: linear_textbook(h, w, tokens, old, rows, valid)  # noqa: E731
        found["linear"] = {
            "library": _step(fused, hidden, weight),
            "eager": _step(plain, hidden, weight),
        }
    return found


def _step(loss: Callable[..., Any], *leaves: Tensor) -> Callable[[], list[Tensor]]:
    def call() -> list[Tensor]:
        given = [leaf.detach().requires_grad_() for leaf in leaves]
        found = loss(*given)
        found.backward()
        return [found.detach(), *(one.grad for one in given if one.grad is not None)]

    return call


def measure(library: Library, rounds: int) -> dict[str, dict[str, Any]]:
    """Seconds of both ways in turn, and the most memory that each held beyond its inputs.

    Nothing is timed before loss and gradients are equal to the textbook's, to 1e-4 of the largest.
    """
    found = {}
    for name, both in ways(library).items():
        first = {way: call() for way, call in both.items()}
        for ours, theirs in zip(first["library"], first["eager"], strict=True):
            off = float((ours - theirs).abs().max() / theirs.abs().max())
            if not off < 1e-4:
                raise ValueError(f"{name}: off by {off:.1e} from the textbook; nothing was timed")
        del first
        seconds: dict[str, list[float]] = {way: [] for way in both}
        for turn in range(rounds):
            for way in list(both) if turn % 2 else list(both)[::-1]:
                begin = time.perf_counter()
                both[way]()
                seconds[way].append(time.perf_counter() - begin)
        found[name] = {
            "seconds": seconds,
            "peak_bytes": {way: peak_bytes(call) for way, call in both.items()},
        }
    return found


def peak_bytes(call: Callable[[], Any]) -> int:
    """The most that torch held at once of what it allocated within the call."""
    profile: Any = torch.profiler.profile
    with profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as prof:
        call()
    held = most = 0
    for event in prof.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return int(most)


def serve(library: Library) -> None:
    """Answers the request, JSON on standard input, by a line of JSON on standard output.

    It says `threads` of torch and `rounds` of the timing, 0 for none.
    """
    request = json.load(sys.stdin)
    torch.set_num_threads(int(request["threads"]))
    torch.manual_seed(0)
    rounds = int(request["rounds"])
    result = {
        "version": library.version,
        "called": library.called,
        "answers": ask(library),
        "measured": measure(library, rounds) if rounds else {},
    }
    print(json.dumps(result), flush=True)
