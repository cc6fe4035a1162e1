"""Every setting of `fastppo tokens`: what all runs have, and the language model's own.

A token is an env step, a response an episode: the names are those of `fastppo train`, and so are
run directory, metrics and reports.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import tyro

from fastppo.config import Config, RunConfig, RunOptions, require
from fastppo.errors import UserError
from fastppo.paths import Role

PREFIX = "tokens/"
TASKS: dict[str, dict[str, Any]] = {
    "tokens/bandit": dict(
        total_timesteps=200 * 1024, num_envs=1024, num_steps=1, update_epochs=2,
        learning_rate=3e-4, kl_coef=0.5, norm_adv=False, pretrain_steps=150,
    ),
    "tokens/reverse": dict(total_timesteps=240 * 256 * 7, num_steps=7, kl_coef=0.03),
    "tokens/lipogram": dict(total_timesteps=60 * 256 * 32, num_steps=32, kl_coef=0.05),
}  # fmt: skip
"""The defaults of each task, from the runs in docs/results.md."""


def task_name(name: str) -> str:
    """The full name of a task.

    Raises:
        UserError: there is none of that name.
    """
    full = name if name.startswith(PREFIX) else PREFIX + name
    if full not in TASKS:
        known = ", ".join(one.removeprefix(PREFIX) for one in TASKS)
        raise UserError(f"env_id: {name!r} is not one of {known}")
    return full


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenOptions(RunOptions):
    """Settings of one run on tokens as typed; not yet checked against each other."""

    groups: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "task": ("env_id",),
        "algorithm": ("num_envs", "clip_coef_high"),
        "model": ("model",),
        "machine": ("device",),
        "logging": ("sample_interval", "checkpoint_interval"),
    }

    env_id: Annotated[
        str, tyro.conf.Positional, tyro.conf.arg(metavar="TASK", help_behavior_hint="")
    ] = ""
    """bandit, reverse or lipogram."""
    seed: int = 1
    """Seed of text, weights, prompts, tokens and shuffles."""
    total_timesteps: int = 240 * 256 * 7
    """Tokens of the whole run, padding behind short responses included; whole updates only."""
    num_envs: int = 256
    """Responses per update (B)."""
    num_steps: int = 7
    """The most tokens of a response (T)."""
    num_minibatches: int = 2
    """Minibatches per epoch; must divide num_envs."""
    update_epochs: int = 4
    """Passes over each batch of responses."""
    learning_rate: float = 1e-4
    """Adam's step size at the start."""
    gamma: float = 1.0
    """Discount from one token to the next."""
    norm_adv: bool = True
    """Normalise advantages over the whole batch, before it is split (kernels.api.whiten)."""
    vf_coef: float = 0.1
    """Weight of the value loss."""
    clip_vloss: bool = False
    """Clip the value update by clip_coef."""
    max_grad_norm: float = 1.0
    """Global gradient norm is clipped to this; 0 turns clipping off."""

    clip_coef_high: float | None = None
    """Upper clip range of the probability ratio, above clip_coef for one (arXiv 2503.14476)."""
    temperature: float = 1.0
    """Tokens are drawn from, and trained as, softmax(logits / temperature)."""
    reduction: Literal["token", "sequence", "sequence_sum", "constant"] = "token"
    """How tokens add up to a loss; see docs/tokens.md."""
    kl_coef: float = 0.0
    """Weight of the divergence from the model that training began with."""
    kl_estimator: Literal["k1_reward", "k2", "k3", "k3_is"] = "k1_reward"
    """How it is estimated, and where: k1 in the rewards, or another in the loss."""
    padding: Literal["left", "right"] = "left"
    """Side on which short prompts are padded; no result depends on it."""

    model: Annotated[str | None, Role.SOURCE, tyro.conf.arg(metavar="FOLDER")] = None
    """A Hugging Face causal model and its tokenizer in a local folder, in place of the GPT."""
    text: Annotated[str | None, Role.SOURCE, tyro.conf.arg(metavar="FILE")] = None
    """Text to learn from first; None for that of the task's own grammar."""
    layers: int = 4
    """Blocks of the GPT."""
    width: int = 128
    """Width of the GPT."""
    heads: int = 4
    """Attention heads of the GPT; must divide width."""
    context: int = 64
    """The most tokens of prompt and response that the GPT reads."""
    pretrain_steps: int = 600
    """Steps of learning the text, before PPO begins; 0 for none."""
    pretrain_rows: int = 32
    """Windows of text in each of them."""
    pretrain_learning_rate: float = 1e-3
    """Adam's step size there, after a warm-up; falls to zero."""

    sample_interval: int = 50
    """Updates between samples that are shown and kept in samples.jsonl; 0 for none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenConfig(TokenOptions, RunConfig):
    """Checked settings of one run of `fastppo tokens`.

    Raises:
        UserError: a field is out of range, or sizes do not divide.
    """

    def __post_init__(self) -> None:
        RunConfig.__post_init__(self)
        for name in ("temperature", "layers", "width", "heads", "context", "pretrain_rows",
                     "pretrain_learning_rate"):  # fmt: skip
            require(getattr(self, name) > 0, name, getattr(self, name), "must be above 0")
        for name in ("kl_coef", "pretrain_steps", "sample_interval"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "must not be negative")
        require(self.env_id in TASKS, "env_id", self.env_id, f"must be one of {', '.join(TASKS)}")
        high = self.clip_coef_high
        if high is not None:
            require(high >= 0, "clip_coef_high", high, "must not be negative")
        ok = self.num_envs % self.num_minibatches == 0
        why = f"does not divide num_envs = {self.num_envs}"
        require(ok, "num_minibatches", self.num_minibatches, f"{why}; choose a divisor")
        ok = self.width % self.heads == 0
        require(ok, "heads", self.heads, f"does not divide width = {self.width}")
        if self.model is not None:
            require(self.text is None, "text", self.text, "is for the GPT; leave it or model out")
            left = self.padding == "left"
            require(left, "padding", self.padding, "is for the GPT; leave it or model out")
        if self.env_id == "tokens/reverse":
            why = "is not for reverse, which makes its own; leave it out"
            require(self.text is None, "text", self.text, why)
        if self.env_id == "tokens/bandit":
            require(self.num_steps == 1, "num_steps", self.num_steps, "must be 1: a bandit's token")
            require(self.kl_coef > 0, "kl_coef", self.kl_coef, "must be above 0 for a bandit")
            same = not self.norm_adv or self.kl_estimator == "k1_reward"
            why = "scales the rewards and not the divergence in the loss, which moves the optimum"
            require(same, "norm_adv", self.norm_adv, f"{why}; pass --no-norm-adv")

    def clip_range_at(self, update: int) -> tuple[float, float]:
        """Lower and upper clip range of an update."""
        high = self.clip_coef if self.clip_coef_high is None else self.clip_coef_high
        scale = self.clip_coef_at(update) / self.clip_coef if self.clip_coef else 1.0
        return self.clip_coef * scale, high * scale


def command_of(env_id: str) -> str:
    """The command whose runs have this task."""
    return "tokens" if env_id.startswith(PREFIX) else "train"


def config_from(values: dict[str, Any]) -> RunConfig:
    """The settings of a run of any command, from their plain values.

    Raises:
        UserError: a field is unknown, missing or out of range.
    """
    is_tokens = command_of(str(values.get("env_id"))) == "tokens"
    return (TokenConfig if is_tokens else Config).from_dict(values)
