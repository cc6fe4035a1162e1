"""What the trainer asks of a language model."""

from typing import Any

from torch import Tensor, nn


class LanguageModel(nn.Module):
    """Logits of the next token, and a value, at every place that is asked for.

    Rows may be padded on either side. Row b begins at column `start[b]`; what stands before that,
    or behind the last token that was read, is never attended to.
    """

    context: int | None
    """The most tokens of a row; None where there is no such limit."""

    def forward(self, tokens: Tensor, start: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """Reads whole rows.

        Args:
            tokens: [B, L] int64.
            start: [B] int64, the first column of each row.
            places: [B, T] int64, columns.

        Returns:
            Logits [B, T, V] and values [B, T] of these columns.
        """
        raise NotImplementedError

    def open(self, tokens: Tensor, start: Tensor, first: Tensor) -> tuple[Tensor, Any]:
        """Reads prompts into a cache that has room for the responses.

        Args:
            tokens: [B, L], prompts and room.
            first: [B], the column of each row's first response token.

        Returns:
            Logits of that token, [B, V], and the cache.
        """
        raise NotImplementedError

    def step(self, tokens: Tensor, columns: Tensor, start: Tensor, cache: Any) -> Tensor:
        """Reads one token of each row, [B], at columns [B]; logits of the next one, [B, V]."""
        raise NotImplementedError
