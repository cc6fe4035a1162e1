"""verl's functions on tokens: `python -m fastppo.bench.peers.token_verl` in its own venv."""

from importlib.metadata import version
from typing import Any

from torch import Tensor
from verl.trainer.ppo import core_algos
from verl.utils import torch_functional
from verl.workers.config import ActorConfig, OptimizerConfig

from fastppo.bench.peers.token_child import serve
from fastppo.bench.peers.token_library import CLIP, Library


def _config(total: float | None) -> ActorConfig:
    config = ActorConfig(
        strategy="fsdp",
        rollout_n=1,
        ppo_micro_batch_size_per_gpu=1,
        clip_ratio=CLIP,
        clip_ratio_low=CLIP,
        clip_ratio_high=CLIP,
        optim=OptimizerConfig(lr=1e-6),
    )
    config.global_batch_info.update({} if total is None else {"batch_num_tokens": total})
    return config


def loss(
    log_probs: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    valid: Tensor,
    *,
    total: float | None = None,
    dual_clip: float | None = None,
) -> Tensor:
    """As `token_library.Loss`."""
    found, _ = core_algos.compute_policy_loss_vanilla(
        old_log_probs, log_probs, advantages, valid.float(), "token-mean", _config(total)
    )
    return found  # type: ignore[no-any-return]


def advantages(rewards: Tensor, values: Tensor, valid: Tensor, gamma: float, lam: float) -> Tensor:
    """Before they are whitened: returns less values."""
    _, returns = core_algos.compute_gae_advantage_return(rewards, values, valid.float(), gamma, lam)
    return returns - values  # type: ignore[no-any-return]


def _kl(name: str) -> Any:
    return lambda log_probs, reference, _: core_algos.kl_penalty(log_probs, reference, name)


LIBRARY = Library(
    name="verl",
    version=version("verl"),
    called="core_algos: compute_policy_loss_vanilla, compute_gae_advantage_return, kl_penalty; "
    "torch_functional.logprobs_from_logits",
    log_probs=torch_functional.logprobs_from_logits,
    advantages=advantages,
    loss=loss,
    takes_total=True,
    divergences={
        "k1": _kl("k1"),
        "k2": _kl("k2"),
        "k3": _kl("k3"),
        "k1 corrected": _kl("k1+"),
        "k3 corrected": _kl("k3+"),
    },
)

if __name__ == "__main__":
    serve(LIBRARY)
