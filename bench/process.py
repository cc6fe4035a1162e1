"""A launched implementation: started, paused and watched by the parent, who has the clock."""

import json
import os
import select
import signal
import struct
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from fastppo.bench.contract import CLOCK_VARIABLE, VARIABLE
from fastppo.bench.contract_lines import fault
from fastppo.bench.implementations import Implementation
from fastppo.errors import MachineError, why

SILENCE_S = 600.0
"""Without a line for this long while it runs, an implementation is given up."""


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


def last_line(errors: IO[bytes]) -> str:
    """The last words of a process, from the file that was its stderr."""
    size = errors.seek(0, os.SEEK_END)
    errors.seek(max(0, size - 20_000))
    lines = errors.read().decode(errors="replace").splitlines()
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return last[:300] or "it left no message"


def keep_hangups() -> None:
    """Lets children hear SIGHUP, by which the kernel ends a stopped group whose parent was killed.

    Under nohup it is ignored, and what is ignored is handed on to children; a handler is not.
    """
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: None)


class Launch:
    """One process of an implementation, from its start on. Use it as a context manager.

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
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115, closed in __exit__
        self._clock_file = tempfile.TemporaryFile()  # noqa: SIM115, closed in __exit__
        self._paused_s = 0.0
        self._tell_paused()
        clock = self._clock_file.fileno()
        environment = {
            **os.environ,
            **implementation.environment,
            VARIABLE: json.dumps(request),
            CLOCK_VARIABLE: str(clock),
        }
        self._start = time.monotonic()
        self._paused_at: float | None = None
        self._buffer = b""
        try:
            # A group of its own, so that helpers it starts are paused and killed with it; not a
            # session of its own: if the parent is killed, the kernel wakes a stopped group of the
            # same session with SIGHUP, and nobody is left behind.
            self._process = subprocess.Popen(
                implementation.command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env=environment,
                process_group=0,
                pass_fds=[clock],
            )
        except OSError as error:
            self._close_files()
            reason = why(error)
            program = implementation.command[0]
            raise Failed(f"{self.name}: cannot start {program!r} ({reason})") from None
        assert self._process.stdout is not None
        self._lines = self._process.stdout.fileno()

    def __enter__(self) -> "Launch":
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._close_files()

    def clock(self) -> float:
        """Seconds since the start, pauses left out."""
        now = time.monotonic() if self._paused_at is None else self._paused_at
        return now - self._start - self._paused_s

    def pause(self) -> None:
        """Stops the process group and waits until its leader has stopped."""
        if self._paused_at is not None:
            return
        self._signal(signal.SIGSTOP)
        self._paused_at = time.monotonic()
        with suppress(ChildProcessError):
            os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        """Lets it run on."""
        if self._paused_at is None:
            return
        self._paused_s += time.monotonic() - self._paused_at
        self._paused_at = None
        self._tell_paused()
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """Ends it at once; whoever waits for its next event is told that it died."""
        self._signal(signal.SIGKILL)

    def next_event(self) -> Event | None:
        """Waits for the next line; None once it has ended by itself, with exit code 0.

        Raises:
            Failed: it died, said `error`, fell silent, or printed what is no line of the contract.
        """
        line = self._read_line()
        if line is None:
            return None
        at = self.clock()
        values = self._parse(line)
        kind = values["event"]
        if kind == "error":
            raise Failed(f"{self.name}: {str(values.get('message', 'no message'))[:300]}")
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

    def _close_files(self) -> None:
        self._errors.close()
        self._clock_file.close()

    def _tell_paused(self) -> None:
        """Lets the child's own clock leave pauses out (`contract.Reporter.clock`)."""
        os.pwrite(self._clock_file.fileno(), struct.pack("d", self._paused_s), 0)

    def _read_line(self) -> bytes | None:
        deadline = time.monotonic() + self._silence_s
        while b"\n" not in self._buffer:
            left = deadline - time.monotonic()
            ready, _, _ = select.select([self._lines], [], [], max(0.0, left))
            if not ready:
                raise Failed(f"{self.name}: no line within {self._silence_s:.0f} s; given up")
            chunk = os.read(self._lines, 1 << 16)
            if not chunk:
                self._end()
                return None
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _end(self) -> None:
        """Looks at how it ended: fine after exit code 0."""
        try:
            code = self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            raise Failed(f"{self.name}: closed its output and did not exit") from None
        if code == 0 and not self._buffer.strip():
            return
        raise Failed(f"{self.name}: died ({ending(code)}): {self.last_words()}")

    def last_words(self) -> str:
        """The last line it wrote to stderr."""
        return last_line(self._errors)

    def _parse(self, line: bytes) -> dict[str, Any]:
        try:
            values = json.loads(line)
        except ValueError:
            values = None
        reason = fault(values)
        if reason is not None:
            shown = line[:60].decode(errors="replace")
            raise Failed(f"{self.name}: printed {shown!r}: {reason}; see docs/implementations.md")
        parsed: dict[str, Any] = values
        return parsed

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)
