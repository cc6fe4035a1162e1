"""The process that owns W&B: `python -m fastppo.tracking.wandb_run PARENT_PID`, reads JSON lines.

W&B lives in a process of its own so that whatever it does (raise, hang, wait for a network, hook
`sys.exit`) cannot reach the training process. It reads the rows of a run from metrics.jsonl by
itself, so that nothing is queued, nothing is dropped, and a killed run is mirrored to its end.
Standard library and wandb only. Messages on stdin:

    {"op": "start", "init": {...}, "settings": {...}, "axes": {name: step metric | null},
     "follow": path | null, "names": of `metric_names`, "threshold": number | null,
     "marker": {...}}
    an empty line                                      look for new rows in `follow`
    {"op": "log", "row": {...}}
    {"op": "table", "key": ..., "columns": [...], "rows": [[...]]}
    {"op": "artifact", "name", "type", "files": [...], "aliases": [...], "metadata": {},
     "use": bool}
    {"op": "finish", "exit_code": 0, "summary": {...}}

A run may follow another. The end of stdin in mid-run ends it with exit code 1. Answers on stdout:
{"event": "started" | "finished", "folder": ...} and {"event": "failed", "message": ...}.
"""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from fastppo.follower import Follower
from fastppo.tracking.metric_names import mirrored
from fastppo.tracking.summary import RunSummary

ORPHAN_SECONDS = 60.0
"""How long a run may still take to end once the training process is gone."""
MARKER = "fastppo.json"


class Recorder:
    """One W&B run, from start to finish."""

    def __init__(self, message: dict[str, Any]) -> None:
        import wandb

        self._wandb: Any = wandb
        fields = getattr(wandb.Settings, "model_fields", {})
        # an older wandb lacks some of them; none is needed for the record to be right
        settings = {key: value for key, value in message["settings"].items() if key in fields}
        self.run: Any = wandb.init(**message["init"], settings=wandb.Settings(**settings))
        self.folder = Path(self.run.dir).parent
        (self.folder / MARKER).write_text(json.dumps(message["marker"]) + "\n")
        for name, axis in message["axes"].items():
            self.run.define_metric(name, **({} if axis is None else {"step_metric": axis}))
        self._offline = message["init"]["mode"] == "offline"
        self._follower = Follower(Path(message["follow"])) if message["follow"] else None
        self._summary = RunSummary(message["threshold"])
        self._names: str = message.get("names", "fastppo")

    def catch_up(self) -> None:
        """Logs the rows that metrics.jsonl has gained."""
        for row in self._follower.rows() if self._follower else ():
            self.run.log(mirrored(row, self._names))
            self._summary.add(row)

    def table(self, message: dict[str, Any]) -> None:
        """Logs a table."""
        table = self._wandb.Table(columns=message["columns"], data=message["rows"])
        self.run.log({message["key"]: table})

    def artifact(self, message: dict[str, Any]) -> None:
        """Logs files as an artifact of this run, or declares them as its input."""
        made = self._wandb.Artifact(
            message["name"], type=message["type"], metadata=message["metadata"]
        )
        for file in message["files"]:
            made.add_file(file)
        aliases = message["aliases"]
        if not message["use"]:
            self.run.log_artifact(made, aliases=aliases)
        elif not self._offline:
            self.run.use_artifact(made, aliases=aliases)
        else:
            # `use_artifact` refuses offline; this is what it does with new files once online:
            # the server knows a version by its content, so no second one comes of it
            self.run._log_artifact(
                made, aliases=aliases, is_user_created=True, use_after_commit=True
            )

    def finish(self, exit_code: int, summary: dict[str, Any]) -> None:
        """Logs what is left, writes the summary and ends the run."""
        self.catch_up()
        self.run.summary.update(self._summary.values() | summary)
        self.run.finish(exit_code=exit_code)
        if self._follower is not None:
            self._follower.close()


def serve(lines: Iterator[bytes], tell: Callable[[dict[str, Any]], None]) -> None:
    """Does what the messages ask for, until they end."""
    recorder: Recorder | None = None
    for line in lines:
        message: dict[str, Any] = json.loads(line) if line.strip() else {"op": "wake"}
        if message["op"] == "start":
            recorder = Recorder(message)
            tell({"event": "started", "folder": str(recorder.folder)})
            continue
        assert recorder is not None
        recorder.catch_up()
        if message["op"] == "log":
            recorder.run.log(message["row"])
        elif message["op"] == "table":
            recorder.table(message)
        elif message["op"] == "artifact":
            recorder.artifact(message)
        elif message["op"] == "finish":
            recorder.finish(message["exit_code"], message["summary"])
            tell({"event": "finished", "folder": str(recorder.folder)})
            recorder = None
    if recorder is not None:
        recorder.finish(1, {})


def main() -> int:
    """Serves stdin; a failure of W&B is reported in one line and ends the process."""
    os.nice(10)  # where cores are short, training comes first
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the training process
    parent = int(sys.argv[1])
    threading.Thread(target=_outlive_briefly, args=(parent,), daemon=True).start()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what W&B prints must not get between the answers

    def tell(event: dict[str, Any]) -> None:
        with suppress(OSError):  # the training process is gone; the run is still to be ended
            print(json.dumps(event), file=answers, flush=True)

    try:
        serve(iter(sys.stdin.buffer.readline, b""), tell)
    except Exception as error:  # whatever W&B raises, the training process hears of it and goes on
        lines = str(error).strip().splitlines() or [type(error).__name__]
        tell({"event": "failed", "message": lines[0]})
        os._exit(1)  # its exit hooks may hang as well
    return 0


def _outlive_briefly(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    time.sleep(ORPHAN_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
