"""What every PPO loss is given besides the policy's outputs."""

from typing import NamedTuple

from torch import Tensor

LOG_RATIO_MAX = 80.0
"""Bound of the log-ratio: e^80 is finite in float32, also times an advantage of 6000."""


class Rows(NamedTuple):
    """Constants of each row, [B]; rows where `valid` is False may hold anything."""

    old_log_probs: Tensor
    advantages: Tensor
    returns: Tensor
    old_values: Tensor
    valid: Tensor | None
    """bool; None means all."""
    advantage_stats: Tensor | None = None
    """[4], from `api.advantage_stats`; None computes it from these rows."""

    def float(self) -> "Rows":
        """The same rows in float32."""
        return Rows(
            self.old_log_probs.float(),
            self.advantages.float(),
            self.returns.float(),
            self.old_values.float(),
            self.valid,
            self.advantage_stats,
        )

    def contiguous(self) -> "Rows":
        """The same rows, dense in memory."""
        return Rows(
            self.old_log_probs.contiguous(),
            self.advantages.contiguous(),
            self.returns.contiguous(),
            self.old_values.contiguous(),
            None if self.valid is None else self.valid.contiguous(),
            None if self.advantage_stats is None else self.advantage_stats.contiguous(),
        )


class Terms(NamedTuple):
    """Which terms the loss has, and their weights; None turns an optional one off."""

    clip_coef: float
    vf_coef: float
    ent_coef: float
    clip_vloss: float | None
    dual_clip: float | None
    norm_adv: bool
    normalizer: float | Tensor | None
    """What sums over rows are divided by; None for the number of valid rows."""
