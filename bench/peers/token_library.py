"""The functions that a library of token-level PPO offers, under one name each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

WIDE = 32_768
CLIP = 0.2


class Loss(Protocol):
    """The policy's loss of a library."""

    def __call__(
        self,
        log_probs: Tensor,
        old_log_probs: Tensor,
        advantages: Tensor,
        valid: Tensor,
        /,
        *,
        total: float | None = None,
        dual_clip: float | None = None,
    ) -> Tensor:
        """A number, differentiable in the log-probabilities [B, T].

        Args:
            valid: [B, T] bool.
            total: the valid tokens of the whole batch, where the library takes such a number.
            dual_clip: where it takes one; None for its default.
        """


Divergence = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(log-probs, those of the reference, those of the policy that drew) -> an estimate for each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """The functions of one library; None where it has none to call."""

    name: str
    version: str
    called: str
    """Which functions these are."""
    log_probs: Callable[[Tensor, Tensor], Tensor] | None = None
    """logits [B, T, V], tokens [B, T] -> [B, T]"""
    rewards: Callable[[Tensor, Tensor], Tensor] | None = None
    """scores [B], valid [B, T] -> rewards [B, T] without any divergence"""
    advantages: Callable[[Tensor, Tensor, Tensor, float, float], Tensor] | None = None
    """rewards, values, valid [B, T], gamma, lambda -> advantages [B, T], not whitened"""
    loss: Loss | None = None
    takes_total: bool = False
    takes_dual_clip: bool = False
    by_sequence: bool = False
    """Whether its advantages are one number a sequence."""
    divergences: Mapping[str, Divergence] = field(default_factory=dict)
    """By name; `corrected` is behind one whose gradient the library mends."""
    whole: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor] | None = None
    """logits, tokens, old log-probs, advantages, valid -> loss, where not by way of the others"""
    linear: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], Tensor] | None = None
    """hidden [B, T, H], weight [V, H], tokens, old log-probs, advantages, valid -> loss"""


def wide_logits(rows: int, steps: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The same logits [B, T, WIDE] and tokens [B, T] for every library."""
    g = torch.Generator().manual_seed(0)
    logits = (3.0 * torch.randn(rows, steps, WIDE, generator=g)).to(dtype)
    return logits, torch.randint(WIDE, (rows, steps), generator=g)
