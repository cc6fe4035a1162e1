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

    def flat(self) -> "Rows":
        """The same rows, [B], of those that are [...]."""
        return Rows(
            self.old_log_probs.reshape(-1),
            self.advantages.reshape(-1),
            self.returns.reshape(-1),
            self.old_values.reshape(-1),
            None if self.valid is None else self.valid.reshape(-1),
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

    clip_low: float
    """The ratio is clipped to 1 - clip_low .. 1 + clip_high."""
    clip_high: float
    vf_coef: float
    ent_coef: float
    clip_vloss: float | None
    dual_clip: float | None
    norm_adv: bool
    normalizer: float | Tensor | None
    """What sums over rows are divided by; None for the number of valid rows."""

    @property
    def middle(self) -> float:
        """Of the clip range, from which a ratio outside is further away than `reach`."""
        return 1.0 + 0.5 * (float(self.clip_high) - float(self.clip_low))

    @property
    def reach(self) -> float:
        """Half of the clip range's width."""
        return 0.5 * (float(self.clip_low) + float(self.clip_high))


class Tokens(NamedTuple):
    """What the loss of a language model's tokens has besides."""

    temperature: float = 1.0
    """The policy is softmax(logits / temperature)."""
    weights: Tensor | None = None
    """[B], what each row's terms and gradients are multiplied by; None for 1."""
    ref_log_probs: Tensor | None = None
    """[B], of the same actions under the reference policy; None for no such term."""
    kl_coef: float = 0.0
    kl_estimator: str = "k2"
    """One of KL_ESTIMATORS."""


REDUCTIONS = ("token", "sequence", "sequence_sum", "constant")
"""How the terms of tokens add up; what each is: `tokens.shares`."""
KL_ESTIMATORS = ("k2", "k3", "k3_is")
"""Those with a gradient; what each is: `spec.reference_kl`."""
