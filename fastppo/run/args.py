"""What may be typed behind `fastppo train`, `eval` and `doctor`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from fastppo.config import Options, WandbMode
from fastppo.paths import Folder, Role


@dataclass(frozen=True, kw_only=True)  # no slots: beside a base that has fields, too
class RunArgs:
    """What every command takes that trains."""

    run_dir: Folder = None
    """Folder of the run; default: runs/<task>-<seed>-<stamp>."""
    resume: Annotated[Path | None, Role.SOURCE, tyro.conf.arg(metavar="RUN_DIR")] = None
    """Go on from the newest checkpoint of this run; takes no task and no settings."""
    config: Annotated[Path | None, Role.SOURCE, tyro.conf.arg(metavar="F")] = None
    """Settings from a TOML, YAML or JSON file, such as a run's config.json; flags go before it."""
    seeds: int = 1
    """Train so many seeds, --seed and the next ones, each in a folder and process of its own."""
    jobs: int = 1
    """Seeds that train side by side."""
    quiet: bool = False
    """Show no progress."""
    show_config: bool = False
    """Print every resolved setting as JSON and stop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainArgs(Options, RunArgs):
    """Train PPO on an EnvPool task. Defaults are those of the preset that fits the environment."""

    groups: ClassVar[Mapping[str, tuple[str, ...]]] = {**Options.groups, "run": ("run_dir",)}


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalArgs:
    """Play whole episodes with a trained policy, with statistics frozen and raw returns."""

    run_dir: Annotated[Path, Role.SOURCE, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_DIR")]
    """Folder of the run."""
    episodes: int = 20
    """Episodes to play, shared evenly over up to 16 environments."""
    seed: int = 1
    """Seed of the evaluation's environments; they differ from the training's at every value."""
    stochastic: bool = False
    """Draw actions instead of taking the most likely one."""
    checkpoint: Annotated[Path | None, Role.SOURCE, tyro.conf.arg(metavar="F")] = None
    """Evaluate this checkpoint instead of the run's newest."""
    device: str = "cpu"
    """cpu, cuda or auto."""
    video: Annotated[Path | None, Role.OUTPUT, tyro.conf.arg(metavar="F")] = None
    """Film the episodes of the first environment into this .mp4 or .gif."""
    json: bool = False
    """Print one JSON object."""
    wandb: WandbMode = "disabled"
    """Record the result in Weights & Biases, with the checkpoint as its input."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorArgs:
    """Show what is installed, which kernels serve, cores, GPU and thread plan."""

    envs: bool = False
    """List every EnvPool task as served, or refused with the reason."""
    env_id: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="[ENV_ID]")] = (
        "HalfCheetah-v4"
    )
    """Task to show the thread plan for."""
