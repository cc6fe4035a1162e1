"""Our functions on tokens, and ways in plain torch: `python -m fastppo.bench.tokens.own NAME`."""

import sys
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from fastppo import __version__
from fastppo.bench.peers.token_child import linear_textbook, serve, textbook
from fastppo.bench.peers.token_library import CLIP, Library
from fastppo.kernels import api

CHUNK = 32
"""Rows of logits at a time, of the linear losses."""


def loss(
    log_probs: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    valid: Tensor,
    *,
    total: float | None = None,
    dual_clip: float | None = None,
) -> Tensor:
    """As `token_library.Loss`: ours takes logits, here of two tokens, the first one drawn."""
    other = torch.log1p(-log_probs.exp())
    return whole(
        torch.stack([log_probs, other], -1),
        torch.zeros(log_probs.shape, dtype=torch.int64),
        old_log_probs,
        advantages,
        valid,
        normalizer=total,
        dual_clip=dual_clip,
    )


def whole(
    logits: Tensor,
    tokens: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    valid: Tensor,
    **options: Any,
) -> Tensor:
    """The actor's loss alone."""
    found, _ = api.categorical_ppo_loss(
        logits,
        None,
        tokens,
        old_log_probs,
        advantages.contiguous(),
        None,
        None,
        valid,
        clip_coef=CLIP,
        vf_coef=0.0,
        ent_coef=0.0,
        norm_adv=False,
        **options,
    )
    return found


def linear(
    hidden: Tensor,
    weight: Tensor,
    tokens: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    valid: Tensor,
) -> Tensor:
    """The same of hidden states."""
    found, _ = api.linear_token_ppo_loss(
        hidden,
        weight,
        tokens,
        old_log_probs,
        advantages.contiguous(),
        valid,
        clip_coef=CLIP,
        chunk=CHUNK,
    )
    return found


def rewards(scores: Tensor, valid: Tensor) -> Tensor:
    """Of no divergence."""
    nothing = torch.zeros(valid.shape)
    return api.shape_rewards(scores, nothing, nothing, valid, 0.0)


def advantages(rewards: Tensor, values: Tensor, valid: Tensor, gamma: float, lam: float) -> Tensor:
    """With nothing behind the last token."""
    never = torch.zeros_like(valid)
    found, _ = api.gae(
        rewards,
        torch.nn.functional.pad(values, (0, 1)),
        never,
        never,
        gamma=gamma,
        gae_lambda=lam,
        valid=valid,
        layout="NT",
    )
    return found


def _estimate(name: str) -> Any:
    return lambda p, ref, old: api.kl_estimate(p, ref, name, old_log_probs=old)


def chunked(
    hidden: Tensor,
    weight: Tensor,
    tokens: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    valid: Tensor,
) -> Tensor:
    """Plain torch, some rows at a time, whose logits are computed again by backward."""
    rows = [hidden.flatten(0, 1), *(one.flatten() for one in (tokens, old_log_probs, advantages))]
    total = valid.sum()
    found = torch.zeros(())
    parts = zip(*(one.split(CHUNK) for one in (*rows, valid.flatten())), strict=True)
    for hidden_part, tokens_part, old, adv, ok in parts:
        arguments = (hidden_part, weight, tokens_part, old, adv, ok)
        mean: Any = checkpoint(linear_textbook, *arguments, use_reentrant=False)
        found = found + mean * (ok.sum() / total)
    return found


def fastppo() -> Library:
    """Ours."""
    return Library(
        name="fastppo",
        version=__version__,
        called="kernels.api: token_log_probs, shape_rewards, gae, categorical_ppo_loss, "
        "kl_estimate, linear_token_ppo_loss",
        log_probs=api.token_log_probs,
        rewards=rewards,
        advantages=advantages,
        loss=loss,
        takes_total=True,
        takes_dual_clip=True,
        divergences={
            **{name: _estimate(name) for name in ("k1", "k2", "k3")},
            "k3 corrected": _estimate("k3_is"),
        },
        whole=whole,
        linear=linear,
    )


def plain(name: str) -> Library:
    """A way in plain torch: `chunked`, or `compile`."""
    if name == "chunked":
        called = f"torch, {CHUNK} rows of logits at a time, checkpointed"
        return Library(name=name, version=torch.__version__, called=called, linear=chunked)
    return Library(
        name=name,
        version=torch.__version__,
        called="torch.compile of the textbook",
        whole=torch.compile(textbook, dynamic=False),
        linear=torch.compile(linear_textbook, dynamic=False),
    )


OWN = ("fastppo", "chunked", "compile")

if __name__ == "__main__":
    serve(fastppo() if sys.argv[1] == "fastppo" else plain(sys.argv[1]))
