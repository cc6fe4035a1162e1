"""What a library computes from tokens, asked of its functions: the questions, and the same tensors.

A question that a library has no function for is left out, and shown so; no answer is guessed, all
are computed here.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fastppo.bench.peers.token_library import Divergence, Library, Loss, wide_logits

GAMMA, LAMBDA = 0.9, 0.8


@dataclass(frozen=True, slots=True)
class Answer:
    """What was found."""

    text: str
    value: float | None = None


def log_prob_error(library: Library, dtype: torch.dtype) -> Answer | None:
    """The largest difference from float64, of 64 tokens of a wide vocabulary."""
    if library.log_probs is None:
        return None
    logits, tokens = wide_logits(1, 64, dtype)
    wanted = logits.double().log_softmax(-1).gather(-1, tokens[..., None])[..., 0]
    error = float((library.log_probs(logits, tokens).double() - wanted).abs().max())
    return Answer(f"{error:.0e}", error)


def reward_place(library: Library) -> Answer | None:
    """Where the score of a sequence goes that ends before its row does."""
    if library.rewards is None:
        return None
    valid = torch.tensor([[True, True, True, False, False]])
    found = library.rewards(torch.ones(1), valid)[0].nonzero().flatten().tolist()
    known = {(2,): "last token", (3,): "behind the end token"}
    return Answer(known.get(tuple(found), f"places {found}"))


def holes(library: Library) -> Answer | None:
    """What GAE makes of a place inside a sequence that is no token of the policy."""
    if library.advantages is None:
        return None
    valid = torch.tensor([[True, True, False, True, True]])
    rewards = torch.tensor([[0.0, 0.1, 0.0, 0.2, 1.0]])
    values = torch.tensor([[0.5, -0.3, 0.0, 0.8, 0.4]])
    found = library.advantages(rewards, values, valid, GAMMA, LAMBDA)[valid].double()
    cut = _gae(rewards[valid], values[valid])
    through = _gae(rewards[0], values[0])[valid[0]]
    if _near(found, cut):
        return Answer("cut out")
    text = "a step of value 0" if _near(found, through) else "another rule"
    worst = float((found - cut).abs().max())
    return Answer(f"{text}: off by {worst:.2f}", worst)


def aggregation(library: Library) -> Answer | None:
    """What the loss of two sequences of 1 and 3 tokens is the mean of."""
    if library.loss is None:
        return None
    valid, advantages, log_probs = _two_sequences(library)
    spread = advantages[:, None] if library.by_sequence else advantages
    each = torch.where(valid, -spread, 0.0)  # the ratio is 1
    loss = float(library.loss(log_probs, log_probs.clone(), advantages, valid))
    means = each.sum(1) / valid.sum(1)
    known = {
        "tokens": float(each.sum() / valid.sum()),
        "sequences of their tokens' means": float(means.mean()),
        "sequences of their tokens' sums": float(each.sum() / 2),
        "all places, padding too": float(each.sum() / valid.numel()),
    }
    named = [name for name, value in known.items() if abs(value - loss) < 1e-5]
    return Answer(named[0] if named else f"something else: {loss:.4f}")


def micro_batches(library: Library) -> Answer | None:
    """Whether the gradients of two micro-batches are together that of the whole."""
    if library.loss is None:
        return None
    valid, advantages, log_probs = _two_sequences(library)
    loss: Loss = library.loss
    total = float(valid.sum()) if library.takes_total else None

    def gradient(rows: list[slice], share: float) -> Tensor:
        given = log_probs.clone().requires_grad_()
        for row in rows:
            part = (given[row], log_probs[row], advantages[row], valid[row])
            (share * loss(*part, total=total)).backward()
        assert given.grad is not None
        return given.grad

    whole = gradient([slice(0, 2)], 1.0)
    # without the whole batch's number: the mean of the two means, as trainers accumulate
    parts = gradient([slice(0, 1), slice(1, 2)], 1.0 if library.takes_total else 0.5)
    off = float((parts - whole)[valid].abs().max() / whole[valid].abs().max())
    if off < 1e-5:
        text = "the same, given the whole batch's number" if library.takes_total else "the same"
        return Answer(text, off)
    return Answer(f"mean of means: off by {off:.0%}", off)


def divergence_gradient(estimate: Divergence) -> Answer:
    """Of what an estimate in the loss has the gradient, on average over the policy's tokens."""
    g = torch.Generator().manual_seed(5)
    logits = torch.randn(8, generator=g, dtype=torch.float64)
    reference = torch.randn(8, generator=g, dtype=torch.float64).log_softmax(0)

    def gradient(value: Callable[[Tensor], Tensor]) -> Tensor:
        given = logits.clone().requires_grad_()
        value(given.log_softmax(0)).backward()
        assert given.grad is not None
        return given.grad

    drawn = logits.log_softmax(0)
    slope = gradient(lambda p: (drawn.exp() * estimate(p, reference, drawn)).sum())
    known = {
        "that of KL(policy, reference)": gradient(lambda p: (p.exp() * (p - reference)).sum()),
        "that of KL(reference, policy)": gradient(
            lambda p: (reference.exp() * (reference - p)).sum()
        ),
        "nothing": torch.zeros_like(slope),
    }
    named = [name for name, wanted in known.items() if _near(slope, wanted, 1e-5)]
    return Answer(named[0] if named else "neither")


def dual_clip(library: Library) -> Answer | None:
    """What a token costs whose ratio is 10 and whose advantage is -1: 10, or a bound."""
    if library.loss is None:
        return None
    now, advantages = torch.full((1, 1), -0.5), -torch.ones(1, 1)
    old, valid = now - math.log(10.0), torch.ones(1, 1, dtype=torch.bool)
    loss = float(library.loss(now, old, advantages, valid))
    usual = "none" if abs(loss - 10.0) < 1e-3 else f"always, at {loss:.3g}"
    if usual == "none" and library.takes_dual_clip:
        asked = float(library.loss(now, old, advantages, valid, dual_clip=3.0))
        usual = "on request" if abs(asked - 3.0) < 1e-4 else f"on request: {asked:.3g} for 3"
    return Answer(usual, loss)


def far_ratio(library: Library) -> Answer | None:
    """The loss and its gradient where the log-ratio is 100 and the advantage -1."""
    if library.loss is None:
        return None
    now = torch.full((1, 1), -0.5).requires_grad_()
    valid = torch.ones(1, 1, dtype=torch.bool)
    loss = library.loss(now, now.detach() - 100.0, -torch.ones(1, 1), valid)
    loss.backward()
    slope = 0.0 if now.grad is None else float(now.grad.abs().max())
    return Answer(f"loss {_told(float(loss.detach()))}, gradient {_told(slope)}")


def padding(library: Library) -> Answer | None:
    """Whether NaN in what is no token changes the loss, or a gradient."""
    if library.loss is None:
        return None
    valid, advantages, log_probs = _two_sequences(library)
    loss: Loss = library.loss

    def results(filler: float) -> tuple[Tensor, Tensor]:
        given = torch.where(valid, log_probs, filler).requires_grad_()
        mine = advantages if library.by_sequence else torch.where(valid, advantages, filler)
        found = loss(given, torch.where(valid, log_probs - 0.1, filler), mine, valid)
        found.backward()
        assert given.grad is not None
        return found.detach(), torch.where(valid, given.grad, 0.0)

    (usual, slope), (other, other_slope) = results(0.0), results(math.nan)
    if torch.equal(usual, other) and torch.equal(slope, other_slope):
        return Answer("changes no bit")
    spreads = not (other.isfinite().all() and other_slope.isfinite().all())
    return Answer("NaN spreads" if spreads else "changes the result")


QUESTIONS: dict[str, Callable[[Library], Answer | None]] = {
    "log-prob error, bfloat16": lambda one: log_prob_error(one, torch.bfloat16),
    "log-prob error, float32": lambda one: log_prob_error(one, torch.float32),
    "the score's place": reward_place,
    "a hole in GAE": holes,
    "the loss is a mean over": aggregation,
    "two micro-batches": micro_batches,
    "dual clip": dual_clip,
    "log-ratio of 100": far_ratio,
    "NaN in the padding": padding,
}
"""In the order of the table."""


def _of_divergence(name: str, library: Library) -> Answer:
    return divergence_gradient(library.divergences[name])


def ask(library: Library) -> dict[str, dict[str, Any]]:
    """Every question; an answer that raised is told as such."""
    found: dict[str, dict[str, Any]] = {}
    questions = QUESTIONS | {
        f"{name} in the loss has the gradient": partial(_of_divergence, name)
        for name in library.divergences
    }
    for name, question in questions.items():
        try:
            answer = question(library)
        except Exception as error:  # of the library, which raises what it likes
            said = (str(error).strip().splitlines() or [""])[0][:100]
            answer = Answer(f"raises {type(error).__name__}: {said}")
        if answer is not None:
            found[name] = {"text": answer.text, "value": answer.value}
    return found


def _two_sequences(library: Library) -> tuple[Tensor, Tensor, Tensor]:
    """valid [2, 4], advantages [2, 4] or [2], log-probs [2, 4]: sequences of 1 and 3 tokens."""
    valid = torch.tensor([[True, False, False, False], [True, True, True, False]])
    log_probs = torch.tensor([[-1.0, -1.0, -1.0, -1.0], [-0.5, -2.0, -1.5, -1.0]])
    advantages = torch.tensor([2.0, -1.0])
    spread = advantages[:, None].expand_as(log_probs).clone()
    return valid, advantages if library.by_sequence else spread, log_probs


def _gae(rewards: Tensor, values: Tensor) -> Tensor:
    """Of one sequence that ends, in float64."""
    running, after, found = 0.0, 0.0, []
    for reward, value in zip(rewards.tolist()[::-1], values.tolist()[::-1], strict=True):
        running = reward + GAMMA * after - value + GAMMA * LAMBDA * running
        after = value
        found.append(running)
    return torch.tensor(found[::-1], dtype=torch.float64)


def _near(found: Tensor, wanted: Tensor, limit: float = 1e-4) -> bool:
    return bool(((found - wanted).abs() < limit).all())


def _told(number: float) -> str:
    return f"{number:.0e}" if math.isfinite(number) and abs(number) >= 1000 else f"{number:.3g}"
