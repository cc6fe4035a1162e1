"""Responses, drawn token by token, and where they stand in their rows.

A draw is keyed by (seed, sequence, step), as that of an environment is: neither the side that
prompts are padded on nor the rows beside it change it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fastppo.kernels import api
from fastppo.tokens.model import LanguageModel


class Rows(NamedTuple):
    """Prompts with room for their responses, padded on one side."""

    tokens: Tensor  # [B, L] int64
    start: Tensor  # [B]: column of the first token of the prompt
    first: Tensor  # [B]: column of the first token of the response

    def columns(self, steps: int) -> Tensor:
        """[B, T], where response tokens stand."""
        return self.first[:, None] + torch.arange(steps, device=self.first.device)

    @property
    def read(self) -> Tensor:
        """[B, L - 1]: nothing is decided on the last token."""
        return self.tokens[:, :-1]

    def take(self, rows: Tensor) -> "Rows":
        """Some of the rows."""
        return Rows(*(one[rows] for one in self))


class Responses(NamedTuple):
    """What was drawn behind each prompt."""

    tokens: Tensor  # [B, T] int64
    valid: Tensor  # [B, T] bool: up to and with the end token


def lay_out(prompts: Sequence[Sequence[int]], steps: int, side: str, device: torch.device) -> Rows:
    """Puts prompts into rows that have room for `steps` tokens more, padded left or right."""
    longest = max(map(len, prompts))
    tokens = torch.zeros(len(prompts), longest + steps, dtype=torch.int64)
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    start = longest - lengths if side == "left" else torch.zeros_like(lengths)
    for row, (prompt, at) in enumerate(zip(prompts, start.tolist(), strict=True)):
        tokens[row, at : at + len(prompt)] = torch.tensor(prompt)
    return Rows(tokens.to(device), start.to(device), (start + lengths).to(device))


@torch.no_grad()
def sample(
    model: LanguageModel,
    rows: Rows,
    steps: int,
    *,
    key: int,
    first_step: int,
    temperature: float,
    end: int | None,
    backend: str,
) -> Responses:
    """Draws up to `steps` tokens behind each prompt, and writes them into `rows.tokens`.

    Args:
        key, first_step: of the noise (`api.act_categorical`).
        temperature: tokens are drawn from softmax(logits / temperature).
        end: the token that ends a response; None where all are `steps` tokens long.
    """
    count, device = len(rows.tokens), rows.tokens.device
    drawn = torch.zeros(count, steps, dtype=torch.int64, device=device)
    valid = torch.zeros(count, steps, dtype=torch.bool, device=device)
    running = torch.ones(count, dtype=torch.bool, device=device)
    row, columns = torch.arange(count, device=device), rows.columns(steps)
    logits, cache = model.open(*rows)
    for t in range(steps):
        scaled = logits.float() / temperature
        tokens, _, _ = api.act_categorical(scaled, first_step + t, key=key, backend=backend)
        drawn[:, t], valid[:, t] = tokens, running
        rows.tokens[row, columns[:, t]] = tokens
        if end is not None:
            running = running & (tokens != end)
        if t + 1 == steps or not running.any():
            break
        logits = model.step(tokens, columns[:, t], rows.start, cache)
    return Responses(drawn, valid)
