"""A causal model of Hugging Face's, from a local folder, in place of the GPT."""

import inspect
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastppo.errors import UserError
from fastppo.tokens.model import LanguageModel


class Tokenizer:
    """The tokenizer in the folder of a model."""

    def __init__(self, tokenizer: Any, size: int) -> None:
        self._tokenizer = tokenizer
        self._size = size

    def __len__(self) -> int:
        return self._size

    @property
    def end(self) -> int:
        """The token that ends a response."""
        end: int = self._tokenizer.eos_token_id
        return end

    def encode(self, text: str) -> list[int]:
        """The tokens of a text; of none, or of a line's end, the end token."""
        found: list[int] = self._tokenizer.encode(text.strip("\n"), add_special_tokens=False)
        return found or [self.end]

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens, with a line's end for the end token."""
        ended = bool(tokens) and tokens[-1] == self.end
        kept = list(tokens[:-1] if ended else tokens)
        text: str = self._tokenizer.decode(kept, skip_special_tokens=True)
        return text + "\n" if ended else text


class HuggingFaceModel(LanguageModel):
    """The model, with a head for values on its last hidden states. Prompts are padded left."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.context = getattr(model.config, "max_position_embeddings", None)
        self.value = nn.Linear(model.config.hidden_size, 1)
        nn.init.zeros_(self.value.weight)
        nn.init.zeros_(self.value.bias)
        # in transformers 5 it has another name
        known = inspect.signature(model.forward).parameters
        self._cache = "cache" if "cache" in known else "past_key_values"

    def forward(self, tokens: Tensor, start: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """As `LanguageModel.forward`; all rows have the same places."""
        out = self._read(tokens, start, 0, None, output_hidden_states=True)
        hidden = _at(out.hidden_states[-1], places)
        values: Tensor = self.value(hidden.float()).squeeze(-1)
        return _at(out.logits, places), values

    def open(self, tokens: Tensor, start: Tensor, first: Tensor) -> tuple[Tensor, Any]:
        """As `LanguageModel.open`."""
        length = int(first[0])
        out = self._read(tokens[:, :length], start, 0, None, use_cache=True)
        return out.logits[:, -1], [out[self._cache]]

    def step(self, tokens: Tensor, columns: Tensor, start: Tensor, cache: Any) -> Tensor:
        """As `LanguageModel.step`."""
        first = int(columns[0])
        out = self._read(tokens[:, None], start, first, cache[0], use_cache=True)
        cache[0] = out[self._cache]
        logits: Tensor = out.logits[:, -1]
        return logits

    def _read(self, tokens: Tensor, start: Tensor, first: int, past: Any, **options: Any) -> Any:
        """The model's output for tokens [B, S] at columns `first` and the next ones."""
        columns = torch.arange(first + tokens.shape[1], device=tokens.device)
        seen = (columns >= start[:, None]).long()
        positions = (columns - start[:, None]).clamp(min=0)[:, first:]
        return self.model(
            input_ids=tokens,
            attention_mask=seen,
            position_ids=positions,
            **({} if past is None else {self._cache: past}),
            **options,
        )


def load(folder: str) -> tuple[HuggingFaceModel, Tokenizer]:
    """Reads a model and its tokenizer; nothing is fetched, and no code of the folder is run.

    Raises:
        UserError: transformers is not installed, or the folder holds no causal model with a
            tokenizer.
    """
    try:
        transformers: Any = import_module("transformers")
    except ImportError:
        raise UserError(
            "model: needs transformers; `pip install fastppo[tokens]`, or leave model out"
        ) from None
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    if not (Path(folder) / "config.json").is_file():
        raise UserError(f"model: {folder} holds no model (no config.json); name its folder")
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model = transformers.AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, dtype=torch.float32
        )
    except Exception as error:  # of transformers, which raises whatever its parts do
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise UserError(f"model: {folder} holds no causal model and tokenizer ({reason})") from None
    if tokenizer.eos_token_id is None:
        raise UserError(f"model: the tokenizer in {folder} has no end token; set its eos_token")
    model.eval()  # no dropout: a policy is scored as it is trained
    return HuggingFaceModel(model), Tokenizer(tokenizer, model.config.vocab_size)


def _at(values: Tensor, places: Tensor) -> Tensor:
    """Values [B, L, X] at places [B, T], the same ones in every row."""
    return values[:, places[0]]
