"""Liger-Kernel's functions on tokens: `python -m fastppo.bench.peers.token_liger` in its own venv.

Its losses on a CPU are the chunked ones in torch; they take one advantage a sequence.
"""

from importlib.metadata import version

import torch
from liger_kernel.chunked_loss import LigerFusedLinearGRPOLoss
from liger_kernel.chunked_loss.grpo_loss import LigerFusedLinearGRPOFunction, k3_loss_fn
from torch import Tensor

from fastppo.bench.peers.token_child import serve
from fastppo.bench.peers.token_library import CLIP, Library


def loss(
    log_probs: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    valid: Tensor,
    *,
    total: float | None = None,
    dual_clip: float | None = None,
) -> Tensor:
    """As `token_library.Loss`; its `delta` bounds the ratio, as dual clip does."""
    mask = valid.float()
    found, _ = LigerFusedLinearGRPOFunction.ppo_loss_fn(
        log_probs,
        mask,
        advantages,
        mask,
        old_per_token_logps=old_log_probs,
        epsilon_low=CLIP,
        epsilon_high=CLIP,
        beta=0.0,
        delta=dual_clip,
        num_items_in_batch=None if total is None else torch.tensor(total),
    )
    return found  # type: ignore[no-any-return]


def linear(
    hidden: Tensor,
    weight: Tensor,
    tokens: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    valid: Tensor,
) -> Tensor:
    """As `token_library.Library.linear`, not compiled: there is no compiler in every venv."""
    fused = LigerFusedLinearGRPOLoss(
        beta=0.0, compiled=False, use_ref_model=False, epsilon_low=CLIP, epsilon_high=CLIP
    )
    mask = valid.float()
    found, _ = fused(hidden, weight, tokens, mask, advantages, old_per_token_logps=old_log_probs)
    return found  # type: ignore[no-any-return]


LIBRARY = Library(
    name="liger",
    version=version("liger-kernel"),
    called="LigerFusedLinearGRPOLoss (loss type dapo, the default), and its ppo_loss_fn",
    loss=loss,
    takes_total=True,
    takes_dual_clip=True,
    by_sequence=True,
    divergences={
        "k3": lambda p, ref, old: k3_loss_fn(ref, p),
        "k3 corrected": lambda p, ref, old: k3_loss_fn(ref, p) * (p - old).exp(),
    },
    linear=linear,
)

if __name__ == "__main__":
    serve(LIBRARY)
