"""Every setting of a training run, resolved once and never changed afterwards.

Names are CleanRL's where CleanRL has one. `Options` is what a user may type, `Config` the same
fields checked, with the sizes derived from them; `presets.py` holds the defaults per environment.
What `fastppo tokens` has in their place is in `token_config.py`: `RunOptions` and `RunConfig` are
what both have.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Annotated, Any, ClassVar, Literal, Self

import tyro

from fastppo import field_types
from fastppo.errors import UserError

Backend = Literal["auto", "triton", "numba", "torch"]
Engine = Literal["auto", "eager", "graph", "mlp"]
Network = Literal["auto", "mlp", "nature_cnn"]
WandbMode = Literal["auto", "online", "offline", "disabled"]
PositiveInts = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """Settings of any run as typed: PPO's own, the machine, and where results go."""

    groups: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """For --help: each group, with the fields that one of its parts begins at."""
    hidden: ClassVar[frozenset[str]] = frozenset()
    """Fields that the command has no use for."""

    env_id: Annotated[
        str, tyro.conf.Positional, tyro.conf.arg(metavar="ENV_ID", help_behavior_hint="")
    ] = ""
    """EnvPool task, such as CartPole-v1, HalfCheetah-v4 or Pong-v5."""
    seed: int = 1
    """Seed of weights, environments, actions and shuffles."""

    total_timesteps: int = 500_000
    """Environment steps of the whole run, reset rows included; whole updates only."""

    num_envs: int = 8
    """Parallel environments (N)."""
    num_steps: int = 128
    """Steps per environment in one rollout (T)."""
    num_minibatches: int = 4
    """Minibatches per epoch; must divide num_envs * num_steps."""
    update_epochs: int = 4
    """Passes over each rollout (K)."""

    learning_rate: float = 2.5e-4
    """Adam's step size at the start."""
    anneal_lr: bool = True
    """Lower the learning rate linearly to zero over the run."""
    adam_eps: float = 1e-5
    """Adam's epsilon."""
    gamma: float = 0.99
    """Discount."""
    gae_lambda: float = 0.95
    """Lambda of generalized advantage estimation."""
    norm_adv: bool = True
    """Normalise advantages within each minibatch."""
    clip_coef: float = 0.2
    """Clip range of the probability ratio."""
    anneal_clip: bool = False
    """Lower the clip range linearly to zero over the run."""
    clip_vloss: bool = True
    """Clip the value update by clip_coef."""
    dual_clip: float | None = None
    """Bound c > 1 of the objective where the advantage is negative (arXiv 1912.09729)."""
    ent_coef: float = 0.0
    """Weight of the entropy bonus."""
    vf_coef: float = 0.5
    """Weight of the value loss."""
    max_grad_norm: float = 0.5
    """Global gradient norm is clipped to this; 0 turns clipping off."""
    target_kl: float | None = None
    """Skip the remaining epochs of an update once an epoch's mean approximate KL exceeds this."""

    device: str = "auto"
    """cpu, cuda, cuda:1 ...; auto takes a GPU where there is one."""
    backend: Backend = "auto"
    """Kernels: Triton on a GPU, numba on a CPU, torch as the specification."""
    torch_threads: int = 0
    """torch's CPU threads; 0 lets the thread plan decide."""

    checkpoint_interval: int = 50
    """Updates between checkpoints; one is always written at the end."""
    keep_checkpoints: int = 3
    """Newest checkpoints to keep."""
    max_skipped_steps: int = 10
    """Stop the run after this many optimizer steps skipped for a non-finite loss or gradient."""
    wandb: WandbMode = "disabled"
    """Mirror metrics to Weights & Biases; auto: online where there is an API key, else offline."""
    wandb_project: str = "fastppo"
    """Weights & Biases project."""
    wandb_entity: str | None = None
    """Weights & Biases user or team; None takes the key's own."""
    wandb_name: str | None = None
    """Name of the run there; None for fastppo-<env>-s<seed>."""
    wandb_group: str | None = None
    """Group of the run there; None for one of all seeds of the same settings."""
    wandb_tags: tuple[str, ...] = ()
    """Tags, beside those of task, preset, revision and machine."""
    metric_names: Literal["fastppo", "cleanrl", "sb3"] = "fastppo"
    """What metrics are called there and in TensorBoard: as here, or as another library does."""
    tensorboard: bool = False
    """Mirror metrics to a TensorBoard event file in the run's folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(RunOptions):
    """Settings of one run as typed; not yet checked against each other."""

    groups: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "task": ("env_id", "preset"),
        "algorithm": ("num_envs",),
        "network": ("network",),
        "normalisation": ("norm_obs",),
        "atari": ("episodic_life",),
        "machine": ("device", "engine"),
        "logging": ("eval_interval", "checkpoint_interval"),
    }

    preset: Literal["auto", "classic", "classic-continuous", "mujoco", "atari"] = "auto"
    """Set of defaults; auto picks by the kind of environment."""
    max_episode_steps: int | None = None
    """Time limit of an episode in env steps; None keeps the environment's own."""

    network: Network = "auto"
    """Nature CNN or MLP; auto takes the CNN for images of at least 36x36 pixels."""
    hidden_sizes: PositiveInts = (64, 64)
    """Widths of the MLP's hidden layers."""
    activation: Literal["tanh", "relu", "elu", "silu"] = "tanh"
    """Activation of the MLP."""
    shared_trunk: bool = False
    """One trunk for actor and critic instead of two."""
    log_std_init: float = 0.0
    """Initial log standard deviation of a Gaussian policy, the same in every state."""

    norm_obs: bool = False
    """Normalise observations by their running mean and variance."""
    obs_clip: float = 10.0
    """Normalised observations are clipped to +- this."""
    norm_reward: bool = False
    """Divide rewards by the running standard deviation of the discounted return."""
    reward_clip: float = 10.0
    """Normalised rewards are clipped to +- this."""
    sign_reward: bool = False
    """Learn from the sign of the reward; the reported return stays raw."""

    episodic_life: bool = False
    """Atari: a lost life ends the episode for learning, not for the reported return."""
    noop_max: int = 30
    """Atari: at most this many no-op steps after a reset."""
    fire_reset: bool = True
    """Atari: press FIRE after a reset where the game waits for it."""
    frame_skip: int = 4
    """Atari: frames per env step, with the maximum over the last two."""
    frame_stack: int = 4
    """Atari: frames per observation."""
    repeat_action_probability: float = 0.0
    """Atari: sticky actions."""

    engine: Engine = "auto"
    """What acts and updates: torch op by op, CUDA graphs, or (mlp, on a CPU) one call each."""
    precision: Literal["auto", "float32", "tf32"] = "auto"
    """Of products on a GPU: tf32 rounds their factors to 10 bits; auto does where a CNN reads."""
    env_threads: int = 0
    """EnvPool's threads; 0 lets the thread plan decide."""

    eval_interval: int = 0
    """Updates between evaluations, off the clock of the rates; 0 for none. The best is kept."""
    eval_episodes: int = 10
    """Episodes of an evaluation, played in environments of its own."""


POSITIVE = ("total_timesteps", "num_envs", "num_steps", "num_minibatches", "update_epochs",
            "learning_rate", "adam_eps", "obs_clip", "reward_clip", "frame_skip", "frame_stack",
            "eval_episodes", "checkpoint_interval", "keep_checkpoints",
            "max_skipped_steps")  # fmt: skip
NOT_NEGATIVE = ("seed", "clip_coef", "ent_coef", "vf_coef", "max_grad_norm", "noop_max",
                "env_threads", "torch_threads", "eval_interval")  # fmt: skip
FRACTIONS = ("gamma", "gae_lambda", "repeat_action_probability")


def require(ok: bool, field: str, value: object, remedy: str) -> None:
    if not ok:
        raise UserError(f"{field}: {value!r} {remedy}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig(RunOptions):
    """Checked settings of any run.

    Raises:
        UserError: a field is out of range, or sizes do not divide.
    """

    def __post_init__(self) -> None:
        # the command line gives the right types; config.json and Python callers may not
        kinds = field_types.of(type(self))
        for name, kind in kinds.items():
            value = getattr(self, name)
            ok = field_types.fits(value, kind)
            require(ok, name, value, f"must be {field_types.describe(kind)}")
            if isinstance(value, float):
                require(math.isfinite(value), name, value, "must be a finite number")
        for name in kinds.keys() & POSITIVE:
            require(getattr(self, name) > 0, name, getattr(self, name), "must be above 0")
        for name in kinds.keys() & NOT_NEGATIVE:
            require(getattr(self, name) >= 0, name, getattr(self, name), "must not be negative")
        for name in kinds.keys() & FRACTIONS:
            require(0 <= getattr(self, name) <= 1, name, getattr(self, name), "must be in [0, 1]")
        require(self.env_id != "", "env_id", self.env_id, "must name a task")
        require(self.seed < 2**63, "seed", self.seed, "must be below 2**63")
        if self.target_kl is not None:
            require(self.target_kl > 0, "target_kl", self.target_kl, "must be above 0")
        if self.dual_clip is not None:
            require(self.dual_clip > 1, "dual_clip", self.dual_clip, "must be above 1")
        self._check_sizes()

    def _check_sizes(self) -> None:
        batch = f"num_envs * num_steps = {self.num_envs} * {self.num_steps} = {self.batch_size}"
        require(
            self.batch_size % self.num_minibatches == 0,
            "num_minibatches",
            self.num_minibatches,
            f"does not divide {batch}; choose a divisor, such as {self._nearest_divisor()}",
        )
        require(
            self.total_timesteps >= self.batch_size,
            "total_timesteps",
            self.total_timesteps,
            f"is less than one rollout ({batch}); raise it, or lower num_steps or num_envs",
        )

    def _nearest_divisor(self) -> int:
        asked = min(self.num_minibatches, self.batch_size)
        near = (n for distance in range(asked) for n in (asked - distance, asked + distance))
        return next(n for n in near if self.batch_size % n == 0)

    @property
    def batch_size(self) -> int:
        """Rows of one rollout, T * N."""
        return self.num_envs * self.num_steps

    @property
    def minibatch_size(self) -> int:
        """Rows of one minibatch, valid or not."""
        return self.batch_size // self.num_minibatches

    @property
    def num_updates(self) -> int:
        """Whole rollouts that fit into total_timesteps."""
        return self.total_timesteps // self.batch_size

    def learning_rate_at(self, update: int) -> float:
        """Step size of an update: annealed linearly to zero after the last, or constant."""
        return self.learning_rate * (self._remaining(update) if self.anneal_lr else 1.0)

    def clip_coef_at(self, update: int) -> float:
        """Clip range of an update: annealed linearly to zero after the last, or constant."""
        return self.clip_coef * (self._remaining(update) if self.anneal_clip else 1.0)

    def _remaining(self, update: int) -> float:
        return 1.0 - update / self.num_updates

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for config.json."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of `to_dict`; an unknown or missing field is a UserError."""
        known = {field.name for field in fields(cls)}
        if set(values) != known:
            odd = sorted(set(values) ^ known)
            raise UserError(f"config: unknown or missing fields {odd}; written by another version?")
        tuples = {name: tuple(v) for name, v in values.items() if isinstance(v, list)}
        return cls(**values | tuples)  # JSON has lists


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(Options, RunConfig):
    """Checked settings of one run of `fastppo train`.

    Raises:
        UserError: a field is out of range, or sizes do not divide.
    """

    def __post_init__(self) -> None:
        RunConfig.__post_init__(self)
        if self.max_episode_steps is not None:
            ok = self.max_episode_steps > 0
            require(ok, "max_episode_steps", self.max_episode_steps, "must be above 0")
        ok = bool(self.hidden_sizes) and min(self.hidden_sizes) > 0
        require(ok, "hidden_sizes", self.hidden_sizes, "must be one or more widths above 0")
