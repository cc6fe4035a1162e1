"""What a language model is trained to do: prompts, a score for each response, what to measure.

Prompts are keyed by (seed, number of the sequence): any split of a batch sees the same ones.
"""

import random
from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from fastppo import randomness
from fastppo.token_config import TokenConfig
from fastppo.tokens import grammar
from fastppo.tokens.vocabulary import END


class Task(Protocol):
    """One task."""

    ends: bool
    """Whether the end token ends a response; else all are equally long."""

    def prompt(self, number: int) -> str:
        """The prompt of a sequence."""

    def scores(self, prompts: Sequence[str], responses: Sequence[str], tokens: Tensor) -> Tensor:
        """[B] float32, of whole responses; `tokens` [B, T] are theirs."""

    def measures(self, responses: Sequence[str], scores: Tensor) -> Mapping[str, float]:
        """What the task is about, as metrics under episode/, from responses and their scores."""


class Bandit:
    """One token, each with a reward of its own: what PPO ends at is known in closed form.

        pi*(a) = pi_ref(a) e^(r(a) / beta) / Z

    Args:
        seed: of the rewards, in [-1, 1].
        vocabulary: number of tokens.
    """

    ends = False

    def __init__(self, seed: int, vocabulary: int) -> None:
        draw = torch.Generator().manual_seed(randomness.hashed("bandit", seed))
        self.rewards = 2.0 * torch.rand(vocabulary, generator=draw) - 1.0

    def prompt(self, number: int) -> str:
        return END  # the beginning of a sentence

    def scores(self, prompts: Sequence[str], responses: Sequence[str], tokens: Tensor) -> Tensor:
        return self.rewards.to(tokens.device)[tokens[:, 0]]

    def measures(self, responses: Sequence[str], scores: Tensor) -> Mapping[str, float]:
        return {}

    def distance(self, log_probs: Tensor, ref_log_probs: Tensor, beta: float) -> float:
        """Total variation between a policy, [V], and the optimum."""
        best = (ref_log_probs + self.rewards.to(log_probs.device) / beta).softmax(-1)
        return float(0.5 * (log_probs.exp() - best).abs().sum())


class Reverse:
    """`abcd>` is to be followed by `dcba` and the end: variable length, an exact reward.

    The score is the share of the answer, end included, that is right up to the first mistake: 1
    for an exact match and for nothing else.
    """

    ends = True
    letters = "abcdefgh"
    longest = 5

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def prompt(self, number: int) -> str:
        return self._word(random.Random(randomness.hashed("reverse", self.seed, number))) + ">"

    def scores(self, prompts: Sequence[str], responses: Sequence[str], tokens: Tensor) -> Tensor:
        pairs = zip(prompts, responses, strict=True)
        return torch.tensor([self._score(*pair) for pair in pairs], device=tokens.device)

    def measures(self, responses: Sequence[str], scores: Tensor) -> Mapping[str, float]:
        return {"exact_match": float((scores == 1.0).float().mean())}

    def text(self) -> str:
        """Lines as the task has them, answered in any order: the form, and not the answer."""
        draw = random.Random(randomness.hashed("reverse text", self.seed))
        lines = []
        for _ in range(LINES):
            word = self._word(draw)
            answer = list(word)
            draw.shuffle(answer)
            lines.append(f"{word}>{''.join(answer)}{END}")
        return "".join(lines)

    def _word(self, draw: random.Random) -> str:
        return "".join(draw.choices(self.letters, k=draw.randint(1, self.longest)))

    def _score(self, prompt: str, response: str) -> float:
        answer = prompt[-2::-1] + END
        right = 0
        for found, wanted in zip(response, answer, strict=False):
            if found != wanted:
                break
            right += 1
        return right / len(answer)


class Lipogram:
    """Text goes on without the letter e: minus one for each, held to the model by its KL."""

    ends = False
    letter = "e"
    before = 16
    """Characters of a prompt."""

    def __init__(self, seed: int, text: str) -> None:
        self.seed = seed
        self._text = text

    def prompt(self, number: int) -> str:
        draw = random.Random(randomness.hashed("lipogram", self.seed, number))
        at = draw.randrange(max(1, len(self._text) - self.before))
        return self._text[at : at + self.before]

    def scores(self, prompts: Sequence[str], responses: Sequence[str], tokens: Tensor) -> Tensor:
        found = [-float(self._count(response)) for response in responses]
        return torch.tensor(found, device=tokens.device)

    def measures(self, responses: Sequence[str], scores: Tensor) -> Mapping[str, float]:
        return {"e_rate": abs(float(scores.sum())) / max(1, sum(map(len, responses)))}

    def _count(self, response: str) -> int:
        return response.lower().count(self.letter)


SENTENCES = 20_000
"""Of the grammar: a megabyte."""
LINES = 50_000


def text_of(config: TokenConfig) -> str:
    """What a model learns first, where the user names no text."""
    if config.env_id == "tokens/reverse":
        return Reverse(config.seed).text()
    return grammar.text(config.seed, SENTENCES)


def make_task(config: TokenConfig, text: str, vocabulary: int) -> Task:
    """The task of a run.

    Args:
        text: what the model has learned.
        vocabulary: number of tokens.
    """
    if config.env_id == "tokens/reverse":
        return Reverse(config.seed)
    if config.env_id == "tokens/bandit":
        return Bandit(config.seed, vocabulary)
    return Lipogram(config.seed, text)
