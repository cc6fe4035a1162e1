"""SIGINT, SIGTERM and SIGHUP, by one rule for every command.

The first one asks the command to stop; the exit code is 128 + its number, whatever comes later.
Where a run must reach a safe point the request is remembered (`StopRequest`, `held`); where
unwinding keeps what was measured it is raised (`unwinding`); where there is nothing to keep, as
during imports, the process ends. A second one ends the process at once, with its children.
SIGHUP that is ignored, as under nohup, stays ignored.
"""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import Any, NoReturn, Self

from fastppo.errors import Interrupted
from fastppo.text import print_err

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
ECHO_S = 0.3
"""Seconds within which a second signal belongs to the first request: a closing terminal, `timeout`
and systemd send two at a time."""


class _State:
    """What the handler of this process knows."""

    def __init__(self) -> None:
        self.previous: dict[int, Any] = {}
        self.is_program = False
        self.asked: int | None = None
        self.asked_at = 0.0
        self.said = False
        self.holds = 0
        self.unwinds = 0


_state = _State()
_groups: set[int] = set()


@contextmanager
def handled(*, to_the_end: bool = False) -> Iterator[None]:
    """Installs the handler of a command for the block; inside another such block, does nothing.

    Args:
        to_the_end: keep it beyond the block: what is left is the end of the process.
    """
    global _state
    if _state.previous or threading.current_thread() is not threading.main_thread():
        yield
        return
    _state.is_program = True
    _install()
    try:
        yield
    finally:
        if not to_the_end:
            _remove()


@contextmanager
def unwinding() -> Iterator[None]:
    """Raises `Interrupted` in the main thread when a signal comes, wherever it is.

    Raises:
        Interrupted: also at the end of the block, for a library that swallowed it.
    """
    state = _state
    state.unwinds += 1
    try:
        yield
    finally:
        state.unwinds -= 1
    if state.asked is not None:
        raise Interrupted(state.asked)


@contextmanager
def held() -> Iterator[None]:
    """Lets the block finish; a signal that comes meanwhile takes effect after it.

    Raises:
        Interrupted: at the end, under `unwinding`.
    """
    state = _state
    if not state.previous or threading.current_thread() is not threading.main_thread():
        yield
        return
    asked_before = state.asked
    state.holds += 1
    try:
        yield
    finally:
        state.holds -= 1
    if state.asked is not None and asked_before is None and not state.holds:
        _act(state, state.asked)


class StopRequest:
    """Remembers a signal while active; `check` raises where stopping is safe.

    Outside of a command it installs a handler of its own, with which a second signal raises
    KeyboardInterrupt and does not end the process, which is not ours.
    """

    def __enter__(self) -> Self:
        # only the main thread may handle signals, and it is the one that gets them
        in_main = threading.current_thread() is threading.main_thread()
        self._is_owner = in_main and not _state.previous
        if self._is_owner:
            _install()
        _state.holds += 1
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _state.holds -= 1
        if self._is_owner:
            _remove()

    def check(self) -> None:
        """Raises Interrupted once a signal has come."""
        if _state.asked is not None:
            raise Interrupted(_state.asked)


def tell(text: str) -> None:
    """Says on stderr how the command stopped, in place of the usual word."""
    _state.said = True
    print_err(text)


def tell_unless_told() -> None:
    """Says that the command was interrupted, if it has not said more."""
    if not _state.said:
        tell("fastppo: interrupted")


def add_group(pid: int) -> None:
    """Has a process group of a child killed where this process ends at once."""
    _groups.add(pid)


def drop_group(pid: int) -> None:
    """Forgets a group that has ended: its number may become another's."""
    _groups.discard(pid)


def _install() -> None:
    for number in SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            _state.previous[number] = signal.signal(number, _handle)


def _remove() -> None:
    global _state
    for number, handler in _state.previous.items():
        # None: it was installed from outside of Python
        signal.signal(number, signal.SIG_DFL if handler is None else handler)
    _state = _State()


def _handle(number: int, frame: FrameType | None) -> None:
    state = _state
    if state.asked is not None:
        if not state.is_program:
            raise KeyboardInterrupt
        if time.monotonic() - state.asked_at > ECHO_S:
            _end(state.asked)
        return
    state.asked, state.asked_at = number, time.monotonic()
    if not state.holds:
        _act(state, number)


def _act(state: _State, number: int) -> NoReturn:
    if state.unwinds:
        raise Interrupted(number)
    _end(number)


def _end(number: int) -> NoReturn:
    """Ends this process and its children, without an exception, which a library might swallow."""
    for group in tuple(_groups):
        with suppress(OSError):
            os.killpg(group, signal.SIGKILL)
    if not _state.said:
        with suppress(OSError):
            os.write(2, b"fastppo: interrupted\n")
    os._exit(128 + number)
