"""Programs that we start, none of which outlives us: the near end of `supervisor.py`."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Self

from fastppo import signals, supervisor
from fastppo.errors import MachineError

_START_S = 60.0
"""For a supervisor that starts in milliseconds, on a machine that is far too busy."""
_STOP_S = 10.0
"""For a process group to stop, or to die."""
_ENDED = frozenset("ZX")


class Child:
    """A program in a process group of its own. A context manager: leaving it ends the whole tree.

    It and every process that it started, stopped or in a session of its own, end at `close`, and
    when this process is killed (`supervisor.py`). No signal that the terminal sends to our group
    reaches it.

    Args:
        stdin, stdout, stderr, env, pass_fds: as for `subprocess.Popen`.
        grace_s: seconds that the program may go on after this process was killed.

    Raises:
        OSError: the program cannot be started.
        MachineError: its supervisor cannot.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        stdin: int | IO[Any] = subprocess.DEVNULL,
        stdout: int | IO[Any] = subprocess.DEVNULL,
        stderr: int | IO[Any] = subprocess.DEVNULL,
        env: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
        grace_s: float = 0.0,
    ) -> None:
        self.pid = 0
        self._code: int | None = None
        self._supervisor: subprocess.Popen[bytes] | None = None
        # its messages keep their bounds, and no other child inherits our end
        self._link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        arguments = [str(theirs.fileno()), str(grace_s), *command]
        try:
            with theirs:
                self._supervisor = process = subprocess.Popen(
                    [sys.executable, "-I", "-S", supervisor.__file__, *arguments],
                    stdin=stdin,
                    stdout=stdout,
                    stderr=stderr,
                    env=env,
                    start_new_session=True,
                    pass_fds=[theirs.fileno(), *pass_fds],
                )
            self.stdin, self.stdout, self.stderr = process.stdin, process.stdout, process.stderr
            self.pid = self._started()
            signals.add_group(self.pid)
        except BaseException:  # Ctrl-C included
            self.close()
            raise

    def _started(self) -> int:
        self._link.settimeout(_START_S)
        try:
            what, _, number = self._link.recv(64).decode().partition(" ")
        except TimeoutError:
            what = ""
        if what == "refused":
            raise OSError(int(number), os.strerror(int(number)))
        if what != "started":
            raise MachineError(f"{sys.executable}: no child process starts; is it out of memory?")
        return int(number)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fileno(self) -> int:
        """For `select`: readable once the program has ended, though its helpers may go on."""
        return self._link.fileno()

    def wait(self, timeout_s: float | None = None) -> int | None:
        """The exit code, or minus the signal's number; None if it still runs by then."""
        if self._code is None:
            self._link.settimeout(timeout_s)
            try:
                answer = self._link.recv(64)
            except (TimeoutError, BlockingIOError):
                return None
            # no word: somebody killed the supervisor, and the program died with it
            self._code = int(answer.split()[1]) if answer else -signal.SIGKILL
        return self._code

    def signal(self, number: int) -> None:
        """Sends a signal to its process group, and to itself if it has left that."""
        if self.pid:
            for send in (os.killpg, os.kill):
                with suppress(ProcessLookupError):
                    send(self.pid, number)

    def stop(self) -> None:
        """Stops its process group; returns when every thread of the program stands still.

        Raises:
            MachineError: it does not.
        """
        self.signal(signal.SIGSTOP)
        deadline = time.monotonic() + _STOP_S
        while not self._states() <= _ENDED | frozenset("Tt"):
            if time.monotonic() > deadline:
                raise MachineError(f"process {self.pid} cannot be stopped")
            time.sleep(0.0005)

    def _states(self) -> frozenset[str]:
        found = set()
        for stat in Path(f"/proc/{self.pid}/task").glob("*/stat"):
            with suppress(OSError):  # this thread has ended
                found.add(stat.read_text().rpartition(")")[2].split()[0])
        return frozenset(found)

    def close(self) -> None:
        """Ends the program and all that it started, by SIGKILL, and waits until they are gone."""
        self.signal(signal.SIGKILL)
        signals.drop_group(self.pid)
        self.pid = 0  # the number may be another's from here on
        with suppress(OSError):
            self._link.send(supervisor.AT_ONCE)
        self._link.close()
        process = self._supervisor
        if process is None:
            return
        try:
            process.wait(2 * _STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                with suppress(BrokenPipeError):  # of a request that nobody read
                    stream.close()
