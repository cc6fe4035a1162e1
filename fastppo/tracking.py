"""Mirrors a run's metrics to Weights & Biases; metrics.jsonl stays the source of truth.

A tracker that fails is switched off with one warning: it never stops training.
"""

import os
import sys
from pathlib import Path
from typing import Any, Protocol

from fastppo.config import Config

STEP_METRICS = ("global_step", "frames", "wall_time")
# patterns that overlapped would leave the choice of the axis to chance
OVER_STEPS = ("update", "env_steps", "learning_rate", "skipped_steps", "loss/*", "episode/*")
OVER_TIME = ("env_steps_per_s", "frames_per_s", "time/*")


class Tracker(Protocol):
    """Where metrics go besides the run directory."""

    def log(self, metrics: dict[str, Any]) -> None:
        """Records the metrics of one update."""

    def close(self, exit_code: int) -> None:
        """Ends the record; `exit_code` is 0 for a run that finished."""


class NullTracker:
    """Records nothing."""

    def log(self, metrics: dict[str, Any]) -> None:
        """Does nothing."""

    def close(self, exit_code: int) -> None:
        """Does nothing."""


class WandbTracker:
    """One W&B run: every metric against `global_step`, rates against `wall_time`."""

    def __init__(self, run: Any) -> None:
        self._run: Any = run
        for name in STEP_METRICS:
            run.define_metric(name)
        for name in OVER_STEPS:
            run.define_metric(name, step_metric="global_step")
        for name in OVER_TIME:
            run.define_metric(name, step_metric="wall_time")

    def log(self, metrics: dict[str, Any]) -> None:
        """Records the metrics of one update, keyed by `global_step` among them."""
        if self._run is not None:
            self._guard(lambda: self._run.log(metrics))

    def close(self, exit_code: int) -> None:
        """Finishes the W&B run."""
        if self._run is not None:
            self._guard(lambda: self._run.finish(exit_code=exit_code))

    def _guard(self, call: Any) -> None:
        try:
            call()
        except Exception as error:  # whatever W&B raises, training goes on
            _warn(error)
            self._run = None


def make_tracker(config: Config, run_dir: Path, record: dict[str, Any]) -> Tracker:
    """The tracker that `config.wandb` asks for.

    Args:
        run_dir: W&B's files go to its wandb/ folder.
        record: machine and versions, stored in the W&B config.
    """
    if config.wandb == "disabled":
        return NullTracker()
    try:
        import wandb

        os.environ.setdefault("WANDB_SILENT", "true")
        run = wandb.init(
            project=config.wandb_project,
            name=run_dir.name,
            group=config.env_id,
            job_type="train",
            tags=[config.env_id, config.preset],
            dir=str(run_dir),
            mode=config.wandb,
            config={**config.to_dict(), **record},
            settings=wandb.Settings(init_timeout=30, silent=True),
        )
        return WandbTracker(run)
    except Exception as error:  # whatever W&B raises, training goes on
        _warn(error)
        return NullTracker()


def _warn(error: Exception) -> None:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    print(
        f"fastppo: warning: wandb: {lines[0]}; this run is no longer mirrored to W&B "
        "(metrics.jsonl is complete)",
        file=sys.stderr,
    )
