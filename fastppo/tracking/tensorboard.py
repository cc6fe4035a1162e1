"""Writes a run's metrics and settings to a TensorBoard event file."""

import time
from importlib import import_module
from pathlib import Path
from typing import Any

from fastppo.config import RunConfig
from fastppo.errors import why
from fastppo.text import print_err
from fastppo.tracking.metric_names import mirrored


class TensorBoardTracker:
    """Every metric over `global_step`, and the settings for TensorBoard's table of them.

    Args:
        config: of the run; its `metric_names` says what metrics are called.
        after_step: `global_step` of the checkpoint that the run goes on from; TensorBoard hides
            what earlier event files say about later steps. 0 for a new run.
    """

    def __init__(self, folder: Path, config: RunConfig, *, after_step: int = 0) -> None:
        # not torch.utils.tensorboard: that imports half a plotting stack for a scalar; and by
        # name, because it ships no types
        writer: Any = import_module("tensorboard.summary.writer.event_file_writer")
        proto: Any = import_module("tensorboard.compat.proto.event_pb2")
        self._event: Any = proto.Event
        self._summary: Any = import_module("tensorboard.compat.proto.summary_pb2").Summary
        self._names = config.metric_names
        self._writer: Any = None
        try:
            self._writer = writer.EventFileWriter(str(folder))
            if after_step:
                begin = proto.SessionLog(status=proto.SessionLog.START)
                self._add(step=after_step + 1, session_log=begin)
            self._add(step=0, summary=_hyper_parameters(config))
        except OSError as error:
            self._give_up(error)

    def log(self, metrics: dict[str, Any]) -> None:
        """Writes the numbers of one update."""
        if self._writer is None:
            return
        summary = self._summary()
        for name, value in mirrored(metrics, self._names).items():
            if isinstance(value, int | float):
                summary.value.add(tag=name, simple_value=float(value))
        try:
            self._add(step=metrics["global_step"], summary=summary)
            self._writer.flush()
        except OSError as error:
            self._give_up(error)

    def close(self, exit_code: int) -> None:
        """Closes the file."""
        if self._writer is None:
            return
        try:
            self._writer.close()
        except OSError as error:
            self._give_up(error)

    def _add(self, **what: Any) -> None:
        self._writer.add_event(self._event(wall_time=time.time(), **what))

    def _give_up(self, error: OSError) -> None:
        self._writer = None
        print_err(
            f"fastppo: warning: tensorboard: {why(error)}; this run is "
            "no longer written for TensorBoard (metrics.jsonl is complete)"
        )


def _hyper_parameters(config: RunConfig) -> Any:
    """The settings as TensorBoard's HParams tab reads them: numbers, flags and text."""
    plugin: Any = import_module("tensorboard.plugins.hparams.summary_v2")
    plain = (int, float, str, bool)
    settings = config.to_dict().items()
    return plugin.hparams_pb(
        {name: value if isinstance(value, plain) else str(value) for name, value in settings}
    )
