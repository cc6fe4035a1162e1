"""The parent's end of a worker process: requests out, answers in, and a clear word when it dies."""

import json
import signal
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from fastppo.bench.launch.output import Output, TooLong
from fastppo.bench.launch.process import ending
from fastppo.children import Child
from fastppo.errors import MachineError, why
from fastppo.files import Unreadable, parse_json

# A slice takes seconds. A worker silent for this long hangs, however busy the machine is.
ANSWER_TIMEOUT_S = 600.0
LONGEST_ANSWER = 64 * 2**20
"""Bytes; the assembly of a kernel takes a few millions."""


class RemoteWorker:
    """A child process that speaks the protocol of `worker.py`. A context manager: leaving kills it.

    Args:
        name: of the implementation, for messages.
        command: the program and its arguments.
        timeout_s: longest wait for one answer.
        env: the program's environment; None for ours.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        timeout_s: float = ANSWER_TIMEOUT_S,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self._timeout_s = timeout_s
        try:
            self._process = Child(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=env,
            )
        except OSError as error:
            raise MachineError(f"worker {name}: cannot start ({why(error)})") from None
        self._output = Output(self._process, LONGEST_ANSWER)

    def __enter__(self) -> "RemoteWorker":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.close()

    def kill(self) -> None:
        """Ends it at once; whichever thread waits for its answer learns that it died."""
        self._process.signal(signal.SIGKILL)

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
        try:
            line = self._output.line(self._timeout_s)
        except TimeoutError:
            raise MachineError(
                f"worker {self.name}: no answer within {self._timeout_s:.0f} s"
            ) from None
        except TooLong:
            raise MachineError(f"worker {self.name}: an answer without an end") from None
        if line is None:
            raise self._death()
        try:
            answer = parse_json(line)
        except Unreadable as error:
            raise MachineError(f"worker {self.name}: its answer is no JSON ({error})") from None
        if not isinstance(answer, dict):
            raise MachineError(f"worker {self.name}: its answer is no JSON object")
        return answer

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Sends a request and waits for its answer."""
        self.send(request)
        return self.receive()

    def _death(self) -> MachineError:
        code = self._process.wait(30.0)
        how = "closed its output" if code is None else ending(code)
        return MachineError(f"worker {self.name} died ({how}): {self._output.last_words()}")
