"""Learns a text, character by character, before PPO begins: the policy, and what it is held to."""

from collections.abc import Callable

import torch
from torch.nn import functional as F

from fastppo import randomness
from fastppo.errors import UserError
from fastppo.token_config import TokenConfig
from fastppo.tokens.gpt import GPT
from fastppo.tokens.vocabulary import Characters

WARM_UP = 20
"""Steps until the full step size."""
CLIP = 1.0
"""Of the gradient's norm."""


def pretrain(
    model: GPT,
    text: str,
    vocabulary: Characters,
    config: TokenConfig,
    *,
    by_line: bool,
    each_step: Callable[[int, float], None],
) -> None:
    """Trains by cross-entropy on windows of `config.context` characters.

    Args:
        by_line: windows begin where lines do, as the prompts of the task then do.
        each_step: called with the number of steps done and the loss, nats per character.

    Raises:
        UserError: the text is too short for one window.
    """
    device = model.head.weight.device
    tokens = torch.tensor(vocabulary.encode(text), device=device)
    length = config.context
    starts = torch.arange(max(0, len(tokens) - length), device=device)
    if by_line and len(starts):
        starts = starts[(tokens[starts - 1] == vocabulary.end) | (starts == 0)]
    if not len(starts):
        raise UserError(f"text: {len(tokens)} characters are fewer than a window of {length + 1}")
    draw = torch.Generator(device).manual_seed(randomness.hashed("pretrain", config.seed))
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01, fused=True)
    rows = config.pretrain_rows
    begin = torch.zeros(rows, dtype=torch.int64, device=device)
    places = torch.arange(length, device=device).expand(rows, length)
    window = torch.arange(length + 1, device=device)
    for step in range(config.pretrain_steps):
        remaining = 1.0 - step / config.pretrain_steps
        rate = config.pretrain_learning_rate * min(1.0, (step + 1) / WARM_UP) * remaining
        optimizer.param_groups[0]["lr"] = rate
        chosen = starts[torch.randint(len(starts), (rows,), generator=draw, device=device)]
        batch = tokens[chosen[:, None] + window]
        logits, _ = model(batch[:, :-1], begin, places)
        loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        each_step(step + 1, float(loss.detach()))
