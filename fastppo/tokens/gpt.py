"""A small GPT in plain torch: pre-norm blocks, learned positions, a cache of keys and values."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastppo.tokens.model import LanguageModel


class Cache(NamedTuple):
    """Keys and values of the columns read so far, [layers, B, heads, L, width / heads]."""

    keys: Tensor
    values: Tensor


class Block(nn.Module):
    """Attention and a two-layer perceptron, each added to what it reads."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.projection = nn.Linear(width, width)
        self.before_mlp = nn.LayerNorm(width)
        self.widen = nn.Linear(width, 4 * width)
        self.narrow = nn.Linear(4 * width, width)

    def forward(
        self, x: Tensor, visible: Tensor | None, columns: Tensor, cache: Cache | None
    ) -> Tensor:
        """Of [B, S, width] tokens; with a cache of one layer, theirs join it at their columns."""
        rows, length, width = x.shape
        heads = self.query_key_value(self.before_attention(x)).view(rows, length, 3, self.heads, -1)
        query, key, value = heads.permute(2, 0, 3, 1, 4)  # [B, heads, S, width / heads] each
        if cache is not None:
            row = torch.arange(rows, device=x.device)[:, None]
            for kept, new in zip(cache, (key, value), strict=True):
                kept[row, :, columns] = new.transpose(1, 2)
            key, value = cache
        mixed = F.scaled_dot_product_attention(
            query, key, value, attn_mask=visible, is_causal=visible is None
        )
        x = x + self.projection(mixed.transpose(1, 2).reshape(rows, length, width))
        deeper: Tensor = self.narrow(F.gelu(self.widen(self.before_mlp(x))))
        return x + deeper


class GPT(LanguageModel):
    """The policy, with a head for its values beside that for its logits.

    Args:
        vocabulary: number of tokens.
        context: the most tokens of a row.
    """

    def __init__(
        self, vocabulary: int, *, layers: int, width: int, heads: int, context: int
    ) -> None:
        super().__init__()
        self.width, self.heads, self.context = width, heads, context
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(context, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.last_norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.value = nn.Linear(width, 1)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.ndim == 2:
                # what is added to the residual stream starts smaller (Radford et al., 2019, 2.3)
                deep = name.endswith(("projection.weight", "narrow.weight"))
                nn.init.normal_(parameter, std=0.02 / (2 * layers) ** 0.5 if deep else 0.02)
        nn.init.zeros_(self.value.weight)

    def forward(self, tokens: Tensor, start: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """As `LanguageModel.forward`."""
        columns = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
        hidden = self._read(tokens, columns, start, None)
        hidden = hidden.gather(1, places[..., None].expand(-1, -1, self.width))
        return self.head(hidden), self.value(hidden).squeeze(-1)

    def open(self, tokens: Tensor, start: Tensor, first: Tensor) -> tuple[Tensor, Cache]:
        """As `LanguageModel.open`."""
        rows, length = tokens.shape
        shape = (len(self.blocks), rows, self.heads, length, self.width // self.heads)
        weight = self.head.weight
        cache = Cache(weight.new_zeros(shape), weight.new_zeros(shape))
        prompts = tokens[:, : int(first.max())]
        columns = torch.arange(prompts.shape[1], device=tokens.device).expand_as(prompts)
        hidden = self._read(prompts, columns, start, cache)
        return self.head(hidden[torch.arange(rows, device=tokens.device), first - 1]), cache

    def step(self, tokens: Tensor, columns: Tensor, start: Tensor, cache: Cache) -> Tensor:
        """As `LanguageModel.step`."""
        logits: Tensor = self.head(self._read(tokens[:, None], columns[:, None], start, cache))
        return logits[:, 0]

    def _read(self, tokens: Tensor, columns: Tensor, start: Tensor, cache: Cache | None) -> Tensor:
        x = self.tokens(tokens) + self.positions((columns - start[:, None]).clamp(min=0))
        visible = _visible(tokens, columns, start, cache)
        for layer, block in enumerate(self.blocks):
            x = block(x, visible, columns, cache and Cache(*(one[layer] for one in cache)))
        normed: Tensor = self.last_norm(x)
        return normed


def _visible(tokens: Tensor, columns: Tensor, start: Tensor, cache: Cache | None) -> Tensor | None:
    """[B, 1, S, L] bool: what each token attends to; None where it is all before it."""
    if cache is None and not start.any():
        return None
    length = tokens.shape[1] if cache is None else cache.keys.shape[3]
    other = torch.arange(length, device=tokens.device)
    before = other <= columns[..., None]
    inside = other >= start[:, None, None]
    itself = other == columns[..., None]  # padding sees itself: nothing at all would be NaN
    return ((before & inside) | itself)[:, None]
