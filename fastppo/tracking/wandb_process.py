"""The training process's end of `wandb_run.py`: no call here waits longer than its timeout."""

import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from fastppo import signals

# set by W&B for its own children, by sweeps and by users; our arguments say what is right
FOREIGN = ("WANDB_DISABLED", "WANDB_MODE", "WANDB_RESUME", "WANDB_RUN_ID", "WANDB_SERVICE")
BACKLOG = 16 * 2**20
"""Bytes that may wait for a W&B process that does not read."""


class WandbProcess:
    """Starts the W&B process and speaks to it without ever blocking.

    Args:
        data_dir: folder for copies of artifact files until they are uploaded.

    Raises:
        OSError: the process cannot be started.
    """

    def __init__(self, data_dir: Path) -> None:
        env = {key: value for key, value in os.environ.items() if key not in FOREIGN}
        env |= {"WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"}
        env.setdefault("WANDB_DATA_DIR", str(data_dir.absolute()))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "fastppo.tracking.wandb_run", str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=env,
            # a Ctrl-C in the terminal is not for it, and no signal to our group is
            start_new_session=True,
        )
        signals.add_group(self._process.pid)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to = self._process.stdin.fileno()
        self._from = self._process.stdout.fileno()
        os.set_blocking(self._to, False)
        os.set_blocking(self._from, False)
        self._unsent = b""
        self._unread = b""
        self._ended = False
        self.failure: str | None = None
        """Why W&B is not recording, once it is known."""
        self.folders: list[Path] = []
        """Folders of the runs started so far."""
        self.finished = 0
        """Runs that were ended and are on disk, or uploaded."""

    def send(self, message: dict[str, Any]) -> None:
        """Hands over one message, or keeps it until the process reads again."""
        if len(self._unsent) > BACKLOG:
            self.failure = self.failure or "does not take any more data"
        else:
            self._unsent += json.dumps(message, default=str).encode() + b"\n"
        self.pump()

    def wake(self) -> None:
        """Says that metrics.jsonl has grown."""
        if not self._unsent:  # else a message that does the same is on its way
            self._unsent = b"\n"
        self.pump()

    def pump(self) -> None:
        """Writes and reads what can be written and read at once."""
        try:
            if self._unsent:
                self._unsent = self._unsent[os.write(self._to, self._unsent) :]
        except BlockingIOError:
            pass
        except OSError:
            self._unsent = b""  # it has ended; its last words follow
        self._read()

    def wait_finished(self, count: int, seconds: float) -> bool:
        """Waits until `count` runs are finished, for a bounded time; False if they are not."""
        end = time.monotonic() + seconds
        while self.finished < count and not self._ended and self.failure is None:
            left = end - time.monotonic()
            if left <= 0:
                return False
            select.select([self._from], [self._to] if self._unsent else [], [], min(left, 0.5))
            self.pump()
        return self.finished >= count

    def close(self, seconds: float) -> bool:
        """Ends the process, by force after a bounded time; False if force was needed."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        try:
            process.wait(seconds)
            in_time = True
        except subprocess.TimeoutExpired:
            in_time = False
        finally:  # also on a second Ctrl-C
            if process.poll() is None:
                process.kill()
                process.wait()
            process.stdout.close()
            signals.drop_group(process.pid)
        return in_time

    def _read(self) -> None:
        try:
            while data := os.read(self._from, 65536):
                self._unread += data
            self._ended = True
        except BlockingIOError:
            pass
        *lines, self._unread = self._unread.split(b"\n")
        for line in lines:
            event = json.loads(line)
            if event["event"] == "failed":
                self.failure = event["message"]
            elif event["event"] == "started":
                self.folders.append(Path(event["folder"]))
            else:
                self.finished += 1
        if self._ended and self.failure is None and self.finished < max(1, len(self.folders)):
            self.failure = "its process ended unexpectedly"
