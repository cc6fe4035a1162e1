"""Standard output and error as mirrors: what cannot be written is lost, and reported at the end.

A full disk, a reader that went away, a terminal that is gone, a stream that was closed before we
started, or a character that it cannot show must not end a run of hours.
"""

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal, TextIO

from fastppo.errors import MachineError, why
from fastppo.text import print_err

_CLOSED = "it is closed"


Role = Literal["product", "mirror", "run"]
"""What standard output is to a command: its product, a mirror of its result, or of a long run."""


class Guard:
    """A text stream that never fails: after its first error it discards what it is given.

    Args:
        stream: None where it was closed before we started.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self.lost: OSError | None = None
        """Why not all was written."""
        self.role: Role = "product"
        self.was_closed = stream is None
        self._stream = io.StringIO() if stream is None else stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes what can be written; what the encoding lacks is escaped."""
        if self.lost is None:
            try:
                if self.was_closed:
                    raise OSError(errno.EBADF, _CLOSED)
                self._write(text)
            except (OSError, ValueError) as error:  # ValueError: the stream was closed under us
                self._lose(error)
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Writes each."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Writes what is buffered."""
        if self.lost is None:
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:
                self._lose(error)

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
        except UnicodeEncodeError:
            encoding = self._stream.encoding or "ascii"
            self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))

    def _lose(self, error: OSError | ValueError) -> None:
        self.lost = error if isinstance(error, OSError) else OSError(errno.EBADF, _CLOSED)
        # Python flushes what is still buffered when it ends, and would fail again
        with suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            try:
                os.dup2(null, self._stream.fileno())
            finally:
                os.close(null)


def is_guarded() -> bool:
    """Whether a command runs already."""
    return isinstance(sys.stdout, Guard)


@contextmanager
def guarded() -> Iterator[Guard]:
    """Guards both streams for the block, and yields the guard of standard output.

    Inside another such block it is the same guard.
    """
    if isinstance(sys.stdout, Guard):
        yield sys.stdout
        return
    _fill()
    before: Any = sys.stdout, sys.stderr
    out, err = (Guard(stream) for stream in before)
    streams: Any = sys
    streams.stdout, streams.stderr = out, err
    try:
        yield out
    finally:
        out.flush()
        err.flush()
        sys.stdout, sys.stderr = before


def mirror(role: Role = "mirror") -> None:
    """Says that the result of this command is elsewhere than on standard output."""
    if isinstance(sys.stdout, Guard):
        sys.stdout.role = role


def needed() -> None:
    """Called before the work of a command that has nothing to show for it but standard output.

    Raises:
        MachineError: it is closed.
    """
    if not isinstance(sys.stdout, Guard):
        return
    sys.stdout.role = "product"
    if sys.stdout.was_closed:
        raise MachineError(f"stdout: {_CLOSED}; send it to a file, a pipe or a terminal")


def settle(out: Guard, code: int) -> int:
    """Says on standard error that output was lost, if it was.

    A reader that goes away, such as `head`, has seen enough: only a long run reports it.

    Returns:
        The exit code: 3 in place of 0 where standard output was the product.
    """
    out.flush()
    if out.lost is None or (out.lost.errno == errno.EPIPE and out.role != "run"):
        return code
    reason = f"stdout: {why(out.lost)}"
    if out.role == "product" and not code:
        remedy = "not all was printed; free space, or send it elsewhere"
        print_err(f"fastppo: error: {reason}; {remedy}")
        return 3
    rest = "the run went on without it" if out.role == "run" else "not all was printed"
    print_err(f"fastppo: warning: {reason}; {rest}")
    return code


def _fill() -> None:
    """Opens the null device where a standard stream is closed.

    Else the next file would get its number, and with it what libraries print.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            with suppress(OSError):
                os.open(os.devnull, os.O_RDWR)
