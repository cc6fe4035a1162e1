"""Mirrors a run's metrics to Weights & Biases and TensorBoard.

metrics.jsonl is the source of truth. A tracker that fails is switched off with one warning: it
never stops training, nor slows it.
"""

import importlib.util
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from fastppo.config import RunConfig
from fastppo.errors import UserError
from fastppo.returns import threshold_of
from fastppo.text import print_err
from fastppo.tracking import metric_names, wandb_names, wandb_settings
from fastppo.tracking.wandb_part import next_part
from fastppo.tracking.wandb_process import WandbProcess

START_SECONDS = 120.0
"""Seconds that W&B may take to start, while training goes on, before it is given up."""
FINISH_SECONDS = {"offline": 30.0, "online": 90.0}
"""How long the end of a run waits for W&B, which may have an upload to finish."""


class Tracker(Protocol):
    """Where metrics go besides metrics.jsonl."""

    def log(self, metrics: dict[str, Any]) -> None:
        """Records the metrics of one update, which metrics.jsonl holds already."""

    def close(self, exit_code: int) -> None:
        """Ends the record; `exit_code` is 0 for a run that finished."""


class Trackers:
    """Several trackers as one; with none of them, records nothing.

    One that raises is dropped with a warning.
    """

    def __init__(self, parts: Sequence[Tracker] = ()) -> None:
        self.parts = tuple(parts)

    def log(self, metrics: dict[str, Any]) -> None:
        """Records the metrics of one update everywhere."""
        for tracker in self.parts:
            self._call(tracker, lambda one: one.log(metrics))

    def close(self, exit_code: int) -> None:
        """Ends every record."""
        for tracker in self.parts:
            self._call(tracker, lambda one: one.close(exit_code))

    def _call(self, tracker: Tracker, do: Callable[[Tracker], None]) -> None:
        try:
            do(tracker)
        except Exception as error:  # a mirror, whose libraries raise what they like
            self.parts = tuple(part for part in self.parts if part is not tracker)
            _warn_failed(type(tracker).__name__, error)


class WandbTracker:
    """One W&B run, kept by a process of its own that reads metrics.jsonl.

    Args:
        start: the message that starts the run (fastppo/tracking/wandb_run.py).

    Raises:
        OSError: the process cannot be started.
    """

    def __init__(self, run_dir: Path, start: dict[str, Any], artifact_name: str) -> None:
        self._run_dir = run_dir
        self._artifact_name = artifact_name
        self._mode: str = start["init"]["mode"]
        self._start_by = time.monotonic() + START_SECONDS
        self._process: WandbProcess | None = WandbProcess(run_dir / "wandb")
        self._process.send(start)
        if start["marker"]["after_update"]:
            newest = newest_checkpoint(run_dir)
            assert newest is not None  # it goes on from there
            self._process.send(model_artifact(newest, artifact_name, use=True))

    def log(self, metrics: dict[str, Any]) -> None:
        """Tells the process that metrics.jsonl has grown; never waits."""
        process = self._process
        if process is None:
            return
        process.wake()
        if not process.folders and time.monotonic() > self._start_by:
            process.failure = process.failure or f"did not start within {START_SECONDS:.0f} s"
        if process.failure is not None:
            self._give_up(process, process.failure)

    def close(self, exit_code: int) -> None:
        """Logs the newest checkpoint and the summary, and waits a bounded time for the end."""
        process = self._process
        if process is None:
            return
        seconds = FINISH_SECONDS[self._mode]
        end = time.monotonic() + seconds
        ended = False
        try:
            newest = newest_checkpoint(self._run_dir)
            if newest is not None:
                process.send(model_artifact(newest, self._artifact_name, use=False))
            summary = _peak_memory()
            process.send({"op": "finish", "exit_code": exit_code, "summary": summary})
            ended = process.wait_finished(1, seconds)
        finally:  # a second Ctrl-C included
            left = max(0.0, end - time.monotonic())
            ended = process.close(left if ended else 0.0) and ended
            self._process = None
        if not ended:
            _warn(process.failure or f"did not end within {seconds:.0f} s", self._run_dir)

    def _give_up(self, process: WandbProcess, reason: str) -> None:
        self._process = None
        process.close(0.0)
        _warn(reason, self._run_dir)


def check(config: RunConfig) -> None:
    """Refuses what cannot be recorded, before anything is built.

    Raises:
        UserError: `online` without a key, or TensorBoard is not installed.
    """
    if not _is_first_rank():
        return
    wandb_names.mode_for(config.wandb)
    if config.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise UserError("tensorboard: not installed; `pip install tensorboard`, or leave it out")


def check_writable(folder: Path) -> None:
    """Refuses a folder that W&B could not write to: it would take a temporary one instead.

    Raises:
        UserError: names the folder.
    """
    if not os.access(folder, os.W_OK):
        raise UserError(
            f"wandb: no permission to write {folder}; copy the file to a folder of yours"
        )


def make_tracker(
    config: RunConfig,
    run_dir: Path,
    record: dict[str, Any],
    *,
    after_update: int = 0,
    after_step: int = 0,
) -> Trackers:
    """The trackers that the config asks for; of several ranks only the first one records.

    Args:
        record: machine, versions, device and threads, stored in the W&B config.
        after_update, after_step: counters of the checkpoint that the run goes on from.
    """
    trackers: list[Tracker] = []
    if not _is_first_rank():
        return Trackers()
    mode = wandb_names.mode_for(config.wandb)
    if mode != config.wandb:
        _tell_mode(mode, run_dir)
    if mode != "disabled":
        try:
            start = start_message(config, run_dir, record, mode, after_update)
            name = wandb_names.model_name(config.to_dict())
            trackers.append(WandbTracker(run_dir, start, name))
        except OSError as error:
            _warn(error.strerror or str(error), run_dir)
    if config.tensorboard:
        from fastppo.tracking.tensorboard import TensorBoardTracker

        try:
            folder = run_dir / "tensorboard"
            trackers.append(TensorBoardTracker(folder, config, after_step=after_step))
        except Exception as error:  # of TensorBoard and protobuf, which may not fit together
            _warn_failed("TensorBoardTracker", error)
    return Trackers(trackers)


def _warn_failed(name: str, error: Exception) -> None:
    reason = str(error).strip().partition("\n")[0][:200] or type(error).__name__
    print_err(
        f"fastppo: warning: {name.removesuffix('Tracker').lower()}: {reason}; this run is no "
        "longer mirrored there (metrics.jsonl is complete)"
    )


def _tell_mode(mode: str, run_dir: Path) -> None:
    usual = wandb_settings.usual_mode()
    by = "no API key" if usual is None or usual[0] == "online" else f"by {usual[1]}"
    said = {
        "online": "recording online",
        "offline": f"recording offline ({by}); upload later with `fastppo track sync {run_dir}`",
        "disabled": f"recording nothing ({by})",
    }
    print_err(f"fastppo: wandb: {said[mode]}")


def start_message(
    config: RunConfig, run_dir: Path, record: dict[str, Any], mode: str, after_update: int
) -> dict[str, Any]:
    """Begins the next W&B part of a run directory (fastppo/tracking/wandb_part.py).

    Raises:
        OSError: wandb.json cannot be written.
    """
    part = next_part(run_dir, mode=mode, after_update=after_update)
    values = {**config.to_dict(), **record}
    init = wandb_names.init_arguments(values, impl="fastppo", job_type="train")
    threshold = threshold_of(config.env_id)
    init["config"] |= {"part": part["part"], **(threshold.facts() if threshold else {})}
    return {
        "op": "start",
        "init": init
        | {
            "project": config.wandb_project,
            "entity": config.wandb_entity,
            "id": part["id"],
            "dir": str(run_dir.absolute()),
            "mode": mode,
        },
        "settings": wandb_names.settings(FINISH_SECONDS[mode]) | {"x_stats_pid": os.getpid()},
        "axes": metric_names.axes(config.metric_names, wandb_names.AXES),
        "names": config.metric_names,
        "follow": str((run_dir / "metrics.jsonl").absolute()),
        "threshold": threshold and threshold.value,
        "marker": part,
    }


def newest_checkpoint(run_dir: Path) -> Path | None:
    """The newest checkpoint of a run that has learned something."""
    found = sorted(p for p in (run_dir / "checkpoints").glob("*.pt") if p.stem.isdigit())
    return found[-1] if found and found[-1].stem != "00000000" else None


def model_artifact(checkpoint: Path, name: str, *, use: bool) -> dict[str, Any]:
    """The message that logs a checkpoint, or declares it as what the run started from."""
    update = checkpoint.stem.lstrip("0") or "0"
    return {
        "op": "artifact",
        "name": name,
        "type": "model",
        "files": [str(checkpoint.absolute())],
        "aliases": [f"update-{update}", *(() if use else ("latest",))],
        "metadata": {"update": update},
        "use": use,
    }


def _is_first_rank() -> bool:
    return os.environ.get("RANK", "0") in ("", "0")


def _peak_memory() -> dict[str, int]:
    """Bytes this process and its device needed at most."""
    import resource

    import torch

    scale = 1 if sys.platform == "darwin" else 1024
    peak = {"process_peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale}
    if torch.cuda.is_initialized():
        peak["device_peak_bytes"] = torch.cuda.max_memory_allocated()
    return peak


def _warn(reason: str, run_dir: Path) -> None:
    print_err(
        f"fastppo: warning: wandb: {reason}; this run is no longer mirrored to W&B (metrics.jsonl "
        f"is complete; `fastppo track push {run_dir}` mirrors it later)"
    )
