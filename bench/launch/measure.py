"""Implementations side by side on one task: fresh processes that take turns, A B C, C B A, ...

A round is one slice of whole updates of each, taken next to each other, and what drifts on a shared
machine hits both halves of a pair of rounds alike. Whoever does not have its turn is stopped.
"""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from fastppo import threads
from fastppo.bench.contract import CEILINGS, PHASES, manifest
from fastppo.bench.launch.implementations import Implementation, ours
from fastppo.bench.launch.process import SILENCE_S, Event, Failed, Launch
from fastppo.bench.launch.steady import steady_index
from fastppo.cgroups import available_cores
from fastppo.config import Config
from fastppo.devices import resolve_device
from fastppo.tasks import spec_of
from fastppo.text import print_err


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure."""

    seconds: float
    """Least length of one slice; the update in progress is finished."""
    rounds: int
    """Rounds, and so ratios, in all."""
    launches: int
    """Fresh processes of each implementation that the rounds are spread over."""
    warmup_s: float
    """Longest wait for a steady state; at least two updates are always waited for, one of them with
    the threads that were chosen."""
    tune: bool
    """Whether each implementation tries one torch thread and all cores, and keeps the better."""


FULL = Effort(seconds=1.0, rounds=8, launches=4, warmup_s=8.0, tune=True)
BRIEF = Effort(seconds=0.3, rounds=3, launches=1, warmup_s=0.5, tune=False)


@dataclass(frozen=True, slots=True)
class Slice:
    """Whole updates of one implementation, between two pauses."""

    round: int
    at: float
    """Seconds since the task's measurement began."""
    updates: int
    env_steps: int
    seconds: float
    phases: dict[str, float] | None
    """Seconds, as the implementation booked them; None unless every update reported them."""

    @property
    def env_steps_per_s(self) -> float:
        return self.env_steps / self.seconds


@dataclass(slots=True)
class Run:
    """One process of one implementation, and what was seen of it."""

    work: dict[str, Any]
    info: dict[str, Any]
    durations: list[float] = field(default_factory=list)
    """Of every update, on the clock without pauses; the first one reaches back to `ready`."""
    first_measured: int = 0
    """Updates before this one were warm-up, or tried thread counts."""
    slices: list[Slice] = field(default_factory=list)
    cold_start_s: float = 0.0
    """From the start of the process to the end of its first update."""
    total_s: float = 0.0
    torch_threads: int | None = None
    tried: dict[str, float] = field(default_factory=dict)
    """env steps/s by number of torch threads."""
    peak_memory_bytes: int = 0
    device_memory_bytes: int | None = None


class Measurement:
    """One task, measured; what was measured stays readable if `run` is interrupted.

    Args:
        base: the implementation that the others are compared with.
        allow_mismatch: measure implementations that do different work, too.
    """

    def __init__(
        self,
        config: Config,
        implementations: Sequence[Implementation],
        effort: Effort,
        *,
        base: str,
        allow_mismatch: bool = False,
    ) -> None:
        self.config = config
        self.effort = effort
        self.base = base
        self.runs: dict[str, list[Run]] = {one.name: [] for one in implementations}
        self.mismatch: dict[str, list[str]] = {}
        self.failures: dict[str, str] = {}
        self.ceilings: dict[str, list[list[float]]] = {name: [] for name in CEILINGS}
        """env steps/s by launch and, within one, by round."""
        self._implementations = list(implementations)
        self._allow_mismatch = allow_mismatch
        self._base_work: dict[str, Any] | None = None
        self._open: dict[str, tuple[Launch, Run]] = {}
        spec = spec_of(config)
        self._plan = plan = threads.plan(config, spec)
        cores = available_cores()
        torch_threads = sorted({1, cores}) if effort.tune else [plan.torch_threads]
        self._first_torch_threads = torch_threads[0]
        self.request: dict[str, Any] = {
            "env_id": config.env_id,
            "seed": config.seed,
            "device": str(resolve_device(config.device)),
            "config": config.to_dict(),
            "env_threads": plan.env_threads,
            "torch_threads": torch_threads,
        }

    def run(self) -> None:
        """All launches and rounds. A failed implementation is dropped, the others go on."""
        self._began = time.monotonic()
        effort = self.effort
        for launch in range(effort.launches):
            rounds = range(launch, effort.rounds, effort.launches)
            if rounds:
                with ExitStack() as stack:
                    self._start_all(stack, launch)
                    try:
                        for turn, number in enumerate(rounds):
                            self._round(number, backwards=(launch + turn) % 2 == 1)
                    finally:
                        self._finish()

    def _start_all(self, stack: ExitStack, launch: int) -> None:
        """One after the other, so that no start disturbs another: the base first, for its work."""
        self._open = {}
        alive = [one for one in self._implementations if one.name not in self.failures]
        others = [one for one in alive if one.name != self.base]
        if launch % 2:
            others.reverse()
        for one in [*(one for one in alive if one.name == self.base), *others]:
            _tell(f"{self._title}: starting {one.name}")
            try:
                process = stack.enter_context(Launch(one, self.request))
            except Failed as failure:
                self._drop(one.name, str(failure))
                continue
            try:
                self._warm_up(one.name, process)
            except Failed as failure:
                process.kill()  # it must not run while the others do
                self._drop(one.name, str(failure))
        if self._open:
            _tell(f"{self._title}: starting the ceilings")
            try:
                request = self.request | {"torch_threads": [self._ceiling_threads()]}
                three = stack.enter_context(Launch(ours("ceilings", "ceilings"), request))
                self._ceilings = three
                for launches in self.ceilings.values():
                    launches.append([])
                self._ceiling_slice(keep=False)
            except Failed as failure:
                self._drop("ceilings", str(failure))

    def _warm_up(self, name: str, process: Launch) -> None:
        """Runs updates until their times are steady or `warmup_s` is over; then pauses it."""
        ready = _expect(process, "ready")
        work = ready.values["work"]
        self._check_work(name, work)
        run = Run(work=work, info=dict(ready.values.get("info", {})))
        self.runs[name].append(run)
        self._open[name] = process, run
        tuning = bool(ready.values.get("tunes"))
        if not tuning:
            run.torch_threads = run.info.get("torch_threads", self._first_torch_threads)
        previous = begin = ready.at
        while True:
            event = _expect(process, "update", "tuned")
            if event.kind == "tuned":
                tuning = False
                run.first_measured, begin = len(run.durations), event.at
                run.torch_threads = event.values["torch_threads"]
                run.tried = event.values["rates"]
                continue
            if tuning and event.at - ready.at > SILENCE_S:
                raise Failed(f"{name}: still tries threads after {SILENCE_S:.0f} s; given up")
            self._book(run, event, previous)
            previous = event.at
            seen = run.durations[run.first_measured :]
            patient = process.clock() - begin < self.effort.warmup_s
            enough = len(run.durations) >= 2 and len(seen) >= 1 and not tuning
            if enough and (not patient or steady_index(seen) is not None):
                break
        process.pause()
        steady = steady_index(run.durations[run.first_measured :])
        run.first_measured += steady if steady is not None else len(seen)

    def _check_work(self, name: str, work: dict[str, Any]) -> None:
        if self._base_work is None:
            self._base_work = work
        odd = manifest.differences(work, self._base_work)
        if odd and not self._allow_mismatch:
            raise Failed(
                f"{name}: does different work: {'; '.join(odd)}; --allow-mismatch measures it"
            )
        self.mismatch[name] = odd

    def _round(self, number: int, *, backwards: bool) -> None:
        _tell(f"{self._title}: round {number + 1} of {self.effort.rounds}")
        names = list(self._open)
        for name in reversed(names) if backwards else names:
            process, run = self._open[name]
            try:
                run.slices.append(self._slice(number, process, run))
            except Failed as failure:
                self._drop(name, str(failure))
        if "ceilings" not in self.failures and self._open:
            try:
                self._ceiling_slice(keep=True)
            except Failed as failure:
                self._drop("ceilings", str(failure))

    def _slice(self, number: int, process: Launch, run: Run) -> Slice:
        at = time.monotonic() - self._began
        begin = previous = process.clock()
        first, env_steps, phases = len(run.durations), 0, dict.fromkeys(PHASES, 0.0)
        all_booked = True
        process.resume()
        while previous - begin < self.effort.seconds:
            event = _expect(process, "update")
            env_steps += event.values["env_steps"]
            self._book(run, event, previous)
            previous = event.at
            all_booked = all_booked and event.values.get("phases") is not None
            for phase, seconds in (event.values.get("phases") or {}).items():
                phases[phase] += seconds
        process.pause()
        updates = len(run.durations) - first
        return Slice(
            number, at, updates, env_steps, previous - begin, phases if all_booked else None
        )

    def _book(self, run: Run, event: Event, previous: float) -> None:
        if not run.durations:
            run.cold_start_s = event.at
        run.durations.append(event.at - previous)
        device = event.values.get("device_memory_bytes")
        if device is not None:
            run.device_memory_bytes = max(run.device_memory_bytes or 0, int(device))

    def _ceiling_slice(self, *, keep: bool) -> None:
        """Until each of the three has had its turn."""
        process = self._ceilings
        process.resume()
        seen: set[str] = set()
        if not keep:
            _expect(process, "ready")
        previous = process.clock()
        while len(seen) < len(CEILINGS):
            event = _expect(process, "update")
            name = event.values.get("ceiling")
            if name is None:
                raise Failed("ceilings: an update that names none")
            # the first update after a resume may have begun before the pause
            if keep and event.at > previous:
                self.ceilings[name][-1].append(event.values["env_steps"] / (event.at - previous))
            seen.add(name)
            previous = event.at
        process.pause()

    def _ceiling_threads(self) -> int:
        """The torch threads fastppo has chosen in this launch, or would be given untuned."""
        run = self._open["fastppo"][1] if "fastppo" in self._open else None
        chosen = self._plan.torch_threads if run is None else run.torch_threads or 1
        return min(chosen, available_cores())

    def _finish(self) -> None:
        for process, run in self._open.values():
            run.peak_memory_bytes = process.peak_memory_bytes()
            run.total_s = process.clock()

    def _drop(self, name: str, reason: str) -> None:
        _tell(f"{self._title}: {reason}", mark="fastppo: warning: ")
        self.failures[name] = reason
        self._open.pop(name, None)

    @property
    def _title(self) -> str:
        return f"{self.config.env_id} {self.config.num_envs}x{self.config.num_steps}"


def _expect(process: Launch, *kinds: str) -> Event:
    """The next event, which must be of one of these kinds."""
    event = process.next_event()
    if event is None:
        raise Failed(f"{process.name}: ended before it was asked to; {process.last_words()}")
    if event.kind not in kinds:
        raise Failed(f"{process.name}: said {event.kind!r} where {' or '.join(kinds)} was due")
    return event


def _tell(text: str, mark: str = "") -> None:
    print_err(f"{mark}{text}")
