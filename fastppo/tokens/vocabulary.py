"""Text to tokens and back: one token a character."""

from collections.abc import Sequence
from typing import Protocol

from fastppo.errors import UserError

END = "\n"


class Vocabulary(Protocol):
    """Text to tokens and back."""

    def __len__(self) -> int: ...
    @property
    def end(self) -> int:
        """The token that ends a response."""

    def encode(self, text: str) -> list[int]:
        """The tokens of a text."""

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens."""


class Characters:
    """The characters of a text, in order; a newline, which ends a response, is always one.

    Args:
        text: what the model learns from.
    """

    def __init__(self, text: str) -> None:
        self.characters = "".join(sorted(set(text) | {END}))
        self._ids = {character: number for number, character in enumerate(self.characters)}

    def __len__(self) -> int:
        return len(self.characters)

    @property
    def end(self) -> int:
        """The token that ends a response."""
        return self._ids[END]

    def encode(self, text: str) -> list[int]:
        """Its tokens.

        Raises:
            UserError: a character is not in the vocabulary.
        """
        try:
            return [self._ids[character] for character in text]
        except KeyError as error:
            raise UserError(f"text: has no {error}, which the task needs; name another") from None

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens."""
        return "".join(self.characters[token] for token in tokens)
