"""Where the time of an update goes: host clocks on a CPU, CUDA events on a GPU."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

PHASES = ("env", "policy", "copy", "gae", "update")


class PhaseTimer:
    """Seconds per phase since the last `drain`.

    On a GPU the host clock only sees launches, so the device phases are timed by events, which
    `drain` resolves; call it after the update's metrics have crossed to the host.

    Args:
        clock: seconds on the host; a benchmark's clock stands still while others have their turn.
    """

    def __init__(
        self, device: torch.device, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._clock = clock
        self._on_gpu = device.type == "cuda"
        self._seconds = dict.fromkeys(PHASES, 0.0)
        self._events: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []
        self._start = self._clock()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Books the time of the block under `name`."""
        if self._on_gpu and name != "env":
            begin = torch.cuda.Event(enable_timing=True)
            end = torch.cuda.Event(enable_timing=True)
            begin.record()
            yield
            end.record()
            self._events.append((name, begin, end))
            return
        start = self._clock()
        yield
        self._seconds[name] += self._clock() - start

    def drain(self) -> dict[str, float]:
        """Seconds per phase, and `other` and `total`, since the last call.

        On a GPU the phases overlap where the host runs ahead; `other` is then 0.
        """
        if self._events:
            self._events[-1][2].synchronize()
        for name, begin, end in self._events:
            self._seconds[name] += begin.elapsed_time(end) / 1000.0
        now = self._clock()
        seconds = self._seconds | {"total": now - self._start}
        seconds["other"] = max(0.0, seconds["total"] - sum(self._seconds.values()))
        self._seconds = dict.fromkeys(PHASES, 0.0)
        self._events.clear()
        self._start = now
        return seconds
