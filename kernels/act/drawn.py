"""What acting writes: the record goes from the public function to a backend."""

from typing import NamedTuple

from torch import Tensor


class Drawn(NamedTuple):
    """Tensors that the draws of a batch are written to, contiguous."""

    actions: Tensor
    """[B], [B, heads] or [B, D]."""
    log_probs: Tensor
    """[B]."""
    entropy: Tensor | None = None
    """[B], or None where nobody asks for it."""
