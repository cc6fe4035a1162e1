"""Ctrl-C and SIGTERM ask a run to stop at the next safe point; a second Ctrl-C stops at once."""

import signal
from types import FrameType, TracebackType
from typing import Any, Self

from fastppo.errors import Interrupted


class StopRequest:
    """Remembers a signal while active; `check` raises where stopping is safe."""

    def __init__(self) -> None:
        self._signal: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._remember)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Raises Interrupted once a signal has come."""
        if self._signal is not None:
            raise Interrupted(self._signal)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if self._signal is not None:
            raise KeyboardInterrupt
        self._signal = number
