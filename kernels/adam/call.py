"""What one call of clip_adam_ is made of: the record goes from the public function to a backend."""

from typing import NamedTuple

from torch import Tensor


class AdamCall(NamedTuple):
    """Arguments of one step, in the order of the registered operation but for `lr`."""

    param: Tensor
    """[P], updated, as are the two moments."""
    grad: Tensor
    """[P], zeroed if `zero_grad`."""
    exp_avg: Tensor
    exp_avg_sq: Tensor
    step: Tensor
    """0-d float32, the steps taken so far, advanced."""
    lr: float | Tensor
    """A number, or a 0-d float32 tensor on the device."""
    beta1: float
    beta2: float
    eps: float
    max_grad_norm: float | None
    skip: Tensor | None
    """0-d bool, or None for false."""
    zero_grad: bool
