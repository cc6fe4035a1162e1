"""A launched implementation: started, paused and watched by the parent, who has the clock."""

import json
import os
import signal
import struct
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastppo.bench.contract import CLOCK_VARIABLE, VARIABLE
from fastppo.bench.contract.lines import MAX_LINE, Conversation
from fastppo.bench.launch.implementations import Implementation
from fastppo.bench.launch.output import Output, TooLong
from fastppo.children import Child
from fastppo.errors import MachineError, why
from fastppo.files import Unreadable
from fastppo.text import printable

SILENCE_S = 600.0
"""Without a line for this long while it runs, an implementation is given up."""


_PAGE = "see docs/implementations.md"


class Failed(MachineError):
    """An implementation died, fell silent, or broke the contract; the others can go on."""


@dataclass(frozen=True, slots=True)
class Event:
    """One line of an implementation."""

    kind: str
    """ready, update, tuned or error."""
    at: float
    """When it arrived, on the launch's own clock (`Launch.clock`)."""
    values: dict[str, Any]


def ending(code: int) -> str:
    """What a process's exit code says."""
    return f"killed by signal {-code}" if code < 0 else f"exit code {code}"


class Launch:
    """One process of an implementation, from its start on. Use it as a context manager.

    With it ends all that it started, also if we are killed (`fastppo.children`).

    Its clock counts seconds since the start during which it was allowed to run. While paused
    (SIGSTOP to its whole process group) it has no thread that could disturb the others, not even
    one that spins.

    Args:
        implementation: what to start.
        request: handed over as JSON in FASTPPO_BENCH.
        silence_s: give up after this long without a line.

    Raises:
        Failed: the program is missing or cannot be started.
    """

    def __init__(
        self,
        implementation: Implementation,
        request: Mapping[str, Any],
        silence_s: float = SILENCE_S,
    ) -> None:
        self.name = implementation.name
        if implementation.missing is not None:
            raise Failed(implementation.missing)
        self._silence_s = silence_s
        self._clock_file = os.memfd_create("fastppo-clock")
        self._paused_s = 0.0
        self._tell_paused()
        environment = {
            **os.environ,
            **implementation.environment,
            VARIABLE: json.dumps(request),
            CLOCK_VARIABLE: str(self._clock_file),
        }
        try:
            self._process = Child(
                implementation.command,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
                pass_fds=[self._clock_file],
            )
        except BaseException as error:
            os.close(self._clock_file)
            if not isinstance(error, OSError):
                raise
            program = implementation.command[0]
            raise Failed(f"{self.name}: cannot start {program!r} ({why(error)})") from None
        self._start = time.monotonic()
        self._paused_at: float | None = None
        self._output = Output(self._process, MAX_LINE)
        self._conversation = Conversation()

    def __enter__(self) -> "Launch":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.close()
        os.close(self._clock_file)

    def clock(self) -> float:
        """Seconds since the start, pauses left out."""
        now = time.monotonic() if self._paused_at is None else self._paused_at
        return now - self._start - self._paused_s

    def pause(self) -> None:
        """Stops the process group and waits until its leader has stopped.

        Raises:
            Failed: it does not stop.
        """
        if self._paused_at is not None:
            return
        self._paused_at = time.monotonic()
        try:
            self._process.stop()
        except MachineError as error:
            raise Failed(f"{self.name}: {error}") from None

    def resume(self) -> None:
        """Lets it run on."""
        if self._paused_at is None:
            return
        self._paused_s += time.monotonic() - self._paused_at
        self._paused_at = None
        self._tell_paused()
        self._process.signal(signal.SIGCONT)

    def kill(self) -> None:
        """Ends it at once; whoever waits for its next event learns that it died."""
        self._process.signal(signal.SIGKILL)

    def next_event(self) -> Event | None:
        """Waits for the next line; None once it has ended by itself, with exit code 0.

        Raises:
            Failed: it died, said `error`, fell silent, or printed a line that breaks the contract.
        """
        try:
            line = self._output.line(self._silence_s)
        except TimeoutError:
            raise Failed(f"{self.name}: no line within {self._silence_s:.0f} s; given up") from None
        except TooLong:
            limit = f"{MAX_LINE:,} bytes"
            raise Failed(f"{self.name}: printed a line of more than {limit}; {_PAGE}") from None
        if line is None:
            self._end()
            return None
        at = self.clock()
        try:
            kind, values = self._conversation.read(line)
        except Unreadable as error:
            shown = line[:60].decode(errors="replace")
            raise Failed(f"{self.name}: printed {shown!a}: {error}; {_PAGE}") from None
        if kind == "error":
            raise Failed(f"{self.name}: {printable(values['message'][:300])}")
        return Event(kind, at, values)

    def peak_memory_bytes(self) -> int:
        """Largest resident memory of its processes so far, summed over the group."""
        total = 0
        for status in Path("/proc").glob("[0-9]*/status"):
            with suppress(OSError, ValueError, IndexError):
                if os.getpgid(int(status.parent.name)) != self._process.pid:
                    continue
                for line in status.read_text().splitlines():
                    if line.startswith("VmHWM:"):
                        total += int(line.split()[1]) * 1024
        return total

    def _tell_paused(self) -> None:
        """Lets the child's own clock leave pauses out (`contract.Reporter.clock`)."""
        os.pwrite(self._clock_file, struct.pack("d", self._paused_s), 0)

    def _end(self) -> None:
        """Looks at how it ended: fine after exit code 0."""
        code = self._process.wait(30.0)
        if code is None:
            raise Failed(f"{self.name}: closed its output and did not exit")
        if code != 0 or self._output.rest.strip():
            raise Failed(f"{self.name}: died ({ending(code)}): {self.last_words()}")

    def last_words(self) -> str:
        """The last line it wrote to stderr."""
        return self._output.last_words()
