"""The parent's end of a worker process: requests out, answers in, and a clear word when it dies."""

import json
import select
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from fastppo.bench.process import ending, last_line
from fastppo.errors import MachineError

# A slice takes seconds. A worker silent for this long hangs, however busy the machine is.
ANSWER_TIMEOUT_S = 600.0


class RemoteWorker:
    """A child process that speaks the protocol of `worker.py`. A context manager: leaving kills it.

    Args:
        name: of the implementation, for messages.
        command: the program and its arguments.
        timeout_s: longest wait for one answer.
    """

    def __init__(
        self, name: str, command: Sequence[str], *, timeout_s: float = ANSWER_TIMEOUT_S
    ) -> None:
        self.name = name
        self._timeout_s = timeout_s
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        # A session of its own: Ctrl-C reaches the parent alone, which then kills its workers.
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,
        )

    def __enter__(self) -> "RemoteWorker":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            assert stream is not None
            # raised for a request that the dead worker never read
            with suppress(BrokenPipeError):
                stream.close()

    def send(self, request: dict[str, Any]) -> None:
        """Sends a request without waiting, so that several workers can start at once."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._death() from None

    def receive(self) -> dict[str, Any]:
        """The answer to the oldest request still open.

        Raises:
            MachineError: the worker died or hangs; names the last line it wrote to stderr.
        """
        assert self._process.stdout is not None
        # one answer per request: nothing can be waiting in the reader's buffer already
        ready, _, _ = select.select([self._process.stdout], [], [], self._timeout_s)
        if not ready:
            raise MachineError(f"worker {self.name}: no answer within {self._timeout_s:.0f} s")
        line = self._process.stdout.readline()
        if not line.endswith(b"\n"):
            raise self._death()
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Sends a request and waits for its answer."""
        self.send(request)
        return self.receive()

    def _death(self) -> MachineError:
        how = ending(self._process.wait())
        return MachineError(f"worker {self.name} died ({how}): {last_line(self._errors)}")
