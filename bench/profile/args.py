"""What may be typed behind `fastppo profile`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from fastppo.bench.publish import Outputs
from fastppo.config import Options
from fastppo.paths import Folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Args(Options, Outputs):
    """Profile a few updates of `fastppo train` with the same settings, and say what bounds them."""

    groups: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "result": ("json",),
        **Options.groups,
        "profile": ("updates",),
    }
    hidden: ClassVar[frozenset[str]] = frozenset({
        "eval_interval", "eval_episodes", "checkpoint_interval", "keep_checkpoints",
        "max_skipped_steps", "wandb_project", "wandb_entity", "wandb_name", "wandb_group",
        "wandb_tags", "metric_names", "tensorboard",
    })  # fmt: skip

    updates: int = 3
    """Updates under the profiler, and as many without it."""
    out: Folder = None
    """Of the trace and, without --json, profile.json; default: runs/profile-<env>-<stamp>."""
