"""Where the time of an update goes: host clocks on a CPU, CUDA events on a GPU."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch

PHASES = ("env", "policy", "copy", "gae", "update")


class _HostBlock(AbstractContextManager[None]):
    """Books the host's time. Made once and entered thousands of times: half a microsecond each."""

    __slots__ = ("_begin", "_clock", "_name", "_timer")

    def __init__(self, timer: "PhaseTimer", name: str, clock: Callable[[], float]) -> None:
        self._timer, self._name, self._clock = timer, name, clock

    def __enter__(self) -> None:
        self._begin = self._clock()

    def __exit__(self, *_: object) -> None:
        self._timer.add(self._name, self._clock() - self._begin)


class _DeviceBlock(AbstractContextManager[None]):
    """Books the device's time."""

    def __init__(self, timer: "PhaseTimer", name: str) -> None:
        self._timer, self._name = timer, name

    def __enter__(self) -> None:
        self._begin = self._timer.event()
        self._begin.record()

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            end = self._timer.event()
            end.record()
            self._timer.add_events(self._name, self._begin, end)


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
        self._seconds = dict.fromkeys(PHASES, 0.0)
        self._events: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []
        self._free: list[torch.cuda.Event] = []  # making one costs more than recording it
        self._on_host = {name: _HostBlock(self, name, clock) for name in PHASES}
        self._blocks: dict[str, AbstractContextManager[None]] = {
            name: _DeviceBlock(self, name)
            if device.type == "cuda" and name != "env"
            else self._on_host[name]
            for name in PHASES
        }
        self._start = self._clock()

    def phase(self, name: str) -> AbstractContextManager[None]:
        """Books the time of the block under `name`."""
        return self._blocks[name]

    def host_phase(self, name: str) -> AbstractContextManager[None]:
        """As `phase`, by the host's clock: of a block that waits for the device before it ends."""
        return self._on_host[name]

    def event(self) -> torch.cuda.Event:
        """An event to record, to be given back by `add_events`."""
        return self._free.pop() if self._free else torch.cuda.Event(enable_timing=True)

    def now(self) -> float:
        """The host's clock."""
        return self._clock()

    def add(self, name: str, seconds: float) -> None:
        """Books host time."""
        self._seconds[name] += seconds

    def add_events(self, name: str, begin: torch.cuda.Event, end: torch.cuda.Event) -> None:
        """Books what lies between two events, once it is known."""
        self._events.append((name, begin, end))

    def drain(self) -> dict[str, float]:
        """Seconds per phase, and `other` and `total`, since the last call.

        On a GPU the phases overlap where the host runs ahead; `other` is then 0.
        """
        if self._events:
            self._events[-1][2].synchronize()
        for name, begin, end in self._events:
            self._seconds[name] += begin.elapsed_time(end) / 1000.0
            self._free += (begin, end)
        now = self._clock()
        seconds = self._seconds | {"total": now - self._start}
        seconds["other"] = max(0.0, seconds["total"] - sum(self._seconds.values()))
        self._seconds = dict.fromkeys(PHASES, 0.0)
        self._events.clear()
        self._start = now
        return seconds
