"""What a child prints: stdout by lines, the last words of stderr, and neither without bounds."""

import os
import select
import time
from typing import IO

from fastppo.children import Child
from fastppo.text import printable

_CHUNK = 1 << 16
_LAST_WORDS = 20_000
"""Bytes of stderr that are kept."""
_LAST_READS = 16
"""A pipe holds so many chunks at most; a child that floods it is not followed for ever."""


class TooLong(Exception):
    """A line goes on beyond the limit."""


class Output:
    """The output of a child, whose stdout and stderr are pipes.

    Args:
        longest: bytes of a line.
    """

    def __init__(self, child: Child, longest: int) -> None:
        assert child.stdout is not None
        assert child.stderr is not None
        self._child = child
        self._longest = longest
        self._lines, self._errors = child.stdout, child.stderr
        for stream in (self._lines, self._errors):
            os.set_blocking(stream.fileno(), False)
        self._open: list[IO[bytes] | Child] = [self._lines, self._errors, child]
        self._buffer = bytearray()
        self._seen = 0
        self._words = bytearray()

    def line(self, timeout_s: float) -> bytes | None:
        """The next line without its end; None at the end of the output.

        The output ends with the program, also where a helper of it still holds the pipe.

        Raises:
            TimeoutError: no whole line came in time, whatever else came.
            TooLong: more than `longest` bytes came without an end of line.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            end = self._buffer.find(b"\n", self._seen)
            if max(end, len(self._buffer) if end < 0 else 0) > self._longest:
                raise TooLong
            if end >= 0:
                line = bytes(self._buffer[:end])
                del self._buffer[: end + 1]
                self._seen = 0
                return line
            self._seen = len(self._buffer)
            if self._lines not in self._open:
                return None
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self._wait(left)

    @property
    def rest(self) -> bytes:
        """What came after the last end of line."""
        return bytes(self._buffer)

    def last_words(self) -> str:
        """The last line on stderr, fit to be shown."""
        for _ in range(_LAST_READS):
            if self._errors in self._open and select.select([self._errors], [], [], 0)[0]:
                self._read_errors()
        lines = self._words.decode(errors="replace").splitlines()
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return str(printable(last[:300])) or "it left no message"

    def _wait(self, seconds: float) -> None:
        """Reads what there is, or waits for it."""
        ready, _, _ = select.select(self._open, [], [], seconds)
        if self._errors in ready:
            self._read_errors()
        if self._lines in ready:
            self._buffer += self._read(self._lines)
        if self._child in ready:  # it has ended: what the pipe holds is all that it printed
            for _ in range(_LAST_READS):
                if self._lines in self._open and select.select([self._lines], [], [], 0)[0]:
                    self._buffer += self._read(self._lines)
            self._open = [one for one in self._open if one is self._errors]

    def _read_errors(self) -> None:
        self._words += self._read(self._errors)
        del self._words[:-_LAST_WORDS]

    def _read(self, stream: IO[bytes]) -> bytes:
        """A chunk; at its end the stream is closed."""
        data = os.read(stream.fileno(), _CHUNK)
        if not data:
            self._open.remove(stream)
        return data
