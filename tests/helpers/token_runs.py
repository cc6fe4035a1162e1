"""Runs of `fastppo tokens` that take a second: a tiny model that has learned next to nothing."""

from typing import Any

import torch

from fastppo.signals import StopRequest
from fastppo.token_config import TASKS, TokenConfig
from fastppo.tokens import command
from fastppo.tokens.trainer import TokenTrainer

TINY: dict[str, Any] = dict(
    env_id="tokens/reverse", num_envs=8, num_steps=4, total_timesteps=6 * 32, num_minibatches=2,
    update_epochs=2, learning_rate=1e-3, layers=1, width=16, heads=2, context=24, pretrain_steps=3,
    pretrain_rows=4, kl_coef=0.1, checkpoint_interval=2, sample_interval=3, device="cpu",
    backend="torch", torch_threads=1,
)  # fmt: skip


def make_config(**changes: Any) -> TokenConfig:
    """Six updates of eight responses."""
    task = TASKS[changes.get("env_id", "tokens/reverse")]
    one_token = {"num_steps": 1, "total_timesteps": 6 * 8, "norm_adv": False}
    fixed = one_token if task["num_steps"] == 1 else {}
    return TokenConfig(**(TINY | fixed | changes))


def make_trainer(**changes: Any) -> TokenTrainer:
    """With a policy that has learned the text."""
    torch.manual_seed(0)
    made = command.Made(make_config(**changes))
    made.learn_text(StopRequest(), quiet=True)
    return made.trainer(StopRequest())
