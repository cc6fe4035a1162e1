"""What is asked of a library: right answers for a right one, others for each known fault."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from fastppo.bench.peers import token_child
from fastppo.bench.peers.token_library import CLIP, Library
from fastppo.bench.peers.token_questions import ask
from fastppo.bench.tokens import own


def clipped(log_probs: Tensor, old: Tensor, advantages: Tensor) -> Tensor:
    ratio = (log_probs - old).exp()
    return torch.max(-advantages * ratio, -advantages * ratio.clamp(1 - CLIP, 1 + CLIP))


def right_loss(
    log_probs: Tensor,
    old: Tensor,
    advantages: Tensor,
    valid: Tensor,
    *,
    total: float | None = None,
    dual_clip: float | None = None,
) -> Tensor:
    rows = [torch.where(valid, one, 0.0) for one in (log_probs, old, advantages)]
    each = clipped(*rows)
    if dual_clip is not None:
        each = torch.where(rows[2] < 0, torch.min(each, -dual_clip * rows[2]), each)
    return torch.where(valid, each, 0.0).sum() / (valid.sum() if total is None else total)


def right_advantages(r: Tensor, v: Tensor, valid: Tensor, gamma: float, lam: float) -> Tensor:
    found = torch.zeros_like(r)
    for row in range(len(r)):
        running, after = 0.0, 0.0
        for t in reversed(valid[row].nonzero().flatten().tolist()):
            delta = float(r[row, t]) + gamma * after - float(v[row, t])
            running = delta + gamma * lam * running
            after = float(v[row, t])
            found[row, t] = running
    return found


def right_rewards(scores: Tensor, valid: Tensor) -> Tensor:
    found = torch.zeros(valid.shape)
    found[range(len(scores)), valid.sum(1) - 1] = scores
    return found


RIGHT = Library(
    name="right",
    version="1",
    called="nothing",
    log_probs=lambda z, a: z.float().log_softmax(-1).gather(-1, a[..., None])[..., 0],
    rewards=right_rewards,
    advantages=right_advantages,
    loss=right_loss,
    takes_total=True,
    takes_dual_clip=True,
    divergences={
        "k1": lambda p, ref, old: p - ref,
        "k2": lambda p, ref, old: 0.5 * (p - ref) ** 2,
        "k3": lambda p, ref, old: (ref - p).exp() - 1 + p - ref,
    },
)
EXPECTED = {
    "the score's place": "last token",
    "a hole in GAE": "cut out",
    "the loss is a mean over": "tokens",
    "two micro-batches": "the same, given the whole batch's number",
    "dual clip": "on request",
    "NaN in the padding": "changes no bit",
    "k1 in the loss has the gradient": "nothing",
    "k2 in the loss has the gradient": "that of KL(policy, reference)",
    "k3 in the loss has the gradient": "that of KL(reference, policy)",
}


def texts(library: Library) -> dict[str, str]:
    return {name: answer["text"] for name, answer in ask(library).items()}


def test_a_right_library_is_found_right() -> None:
    found = texts(RIGHT)

    assert {name: found[name] for name in EXPECTED} == EXPECTED
    assert ask(RIGHT)["log-prob error, bfloat16"]["value"] < 1e-5


def test_ours_is_right_and_keeps_a_large_ratio() -> None:
    """The conformance table's own column, and what docs/tokens.md says of it."""
    library, found = own.fastppo(), texts(own.fastppo())

    assert {name: found[name] for name in EXPECTED} == EXPECTED
    corrected = "k3 corrected in the loss has the gradient"
    assert found[corrected] == "that of KL(policy, reference)"
    for dtype in ("bfloat16", "float32"):
        assert ask(library)[f"log-prob error, {dtype}"]["value"] < 1e-5
    assert found["log-ratio of 100"].startswith("loss ")
    assert "gradient 0" not in found["log-ratio of 100"]


def mean_of_all_places(p: Tensor, old: Tensor, a: Tensor, valid: Tensor, **_: Any) -> Tensor:
    return torch.where(valid, clipped(p, old, a), 0.0).mean()


def mean_of_means(p: Tensor, old: Tensor, a: Tensor, valid: Tensor, **_: Any) -> Tensor:
    each = torch.where(valid, clipped(p, old, a), 0.0)
    return (each.sum(1) / valid.sum(1)).mean()


def times_the_mask(p: Tensor, old: Tensor, a: Tensor, valid: Tensor, **_: Any) -> Tensor:
    return (clipped(p, old, a) * valid).sum() / valid.sum()


def always_dual(p: Tensor, old: Tensor, a: Tensor, valid: Tensor, **_: Any) -> Tensor:
    return right_loss(p, old, a, valid, dual_clip=3.0)


def clamped(p: Tensor, old: Tensor, a: Tensor, valid: Tensor, **_: Any) -> Tensor:
    return right_loss((p - old).clamp(-20, 20), torch.zeros_like(old), a, valid)


def through_holes(r: Tensor, v: Tensor, valid: Tensor, gamma: float, lam: float) -> Tensor:
    everywhere = torch.ones_like(valid)
    return right_advantages(r * valid, v * valid, everywhere, gamma, lam)


def behind(scores: Tensor, valid: Tensor) -> Tensor:
    found = torch.zeros(valid.shape)
    found[range(len(scores)), valid.sum(1)] = scores
    return found


def raises(*_: Any, **__: Any) -> Tensor:
    raise RuntimeError("no GPU\nsecond line")


def rounded(z: Tensor, a: Tensor) -> Tensor:
    return z.log_softmax(-1).gather(-1, a[..., None])[..., 0]


@pytest.mark.parametrize(
    ("changes", "question", "answer"),
    [
        ({"loss": mean_of_all_places}, "the loss is a mean over", "all places, padding too"),
        ({"loss": mean_of_means}, "the loss is a mean over", "sequences of their tokens' means"),
        ({"takes_total": False}, "two micro-batches", "mean of means: off by 100%"),
        ({"loss": times_the_mask}, "NaN in the padding", "NaN spreads"),
        ({"loss": always_dual}, "dual clip", "always, at 3"),
        ({"loss": clamped}, "log-ratio of 100", "loss 5e+08, gradient 0"),
        ({"loss": right_loss, "takes_dual_clip": False}, "dual clip", "none"),
        ({"advantages": through_holes}, "a hole in GAE", "a step of value 0: off by 0.24"),
        ({"rewards": behind}, "the score's place", "behind the end token"),
        ({"rewards": raises}, "the score's place", "raises RuntimeError: no GPU"),
    ],
)
def test_a_fault_is_told(changes: dict[str, Any], question: str, answer: str) -> None:
    assert texts(replace(RIGHT, **changes))[question] == answer


def test_bfloat16_log_probs_are_told_by_their_error() -> None:
    found = ask(replace(RIGHT, log_probs=rounded))["log-prob error, bfloat16"]

    assert found["value"] > 1e-2
    assert found["text"] == f"{found['value']:.0e}"


def test_a_question_without_a_function_is_left_out() -> None:
    nothing = Library(name="none", version="1", called="nothing")

    assert ask(nothing) == {}


@pytest.mark.parametrize("make", [own.fastppo, lambda: own.plain("chunked")])
def test_what_is_timed_is_equal_to_the_textbook_first(make: Callable[[], Library]) -> None:
    library = make()
    found = token_child.measure(library, 1)

    assert "linear" in found
    for one in found.values():
        assert {way: len(seconds) for way, seconds in one["seconds"].items()} == {
            "library": 1,
            "eager": 1,
        }
        assert one["peak_bytes"]["library"] <= one["peak_bytes"]["eager"] * 1.01
    linear: Any = library.linear
    wrong = replace(library, whole=None, log_probs=None, linear=lambda *a: 1.1 * linear(*a))
    with pytest.raises(ValueError, match=r"linear: off by 1\.0e-01 from the textbook"):
        token_child.measure(wrong, 1)


def test_one_wrong_number_in_a_gradient_is_noticed() -> None:
    def nudged(p: Tensor, old: Tensor, a: Tensor, valid: Tensor, **_: Any) -> Tensor:
        return right_loss(p, old, a, valid) + 1e-3 * (p[0, 0] - p[0, 0].detach())

    with pytest.raises(ValueError, match="loss: off by"):
        token_child.measure(replace(RIGHT, loss=nudged), 1)


def test_memory_is_the_most_that_was_held_at_once() -> None:
    def call() -> None:
        for _ in range(3):
            torch.zeros(2**20)

    assert token_child.peak_bytes(call) == pytest.approx(4 * 2**20, rel=0.01)
    assert math.isfinite(token_child.peak_bytes(lambda: None))
