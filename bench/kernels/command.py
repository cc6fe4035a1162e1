"""`fastppo bench kernels`: every kernel at real shapes, next to eager and compiled torch.

Nothing is timed before it is shown equal to float64. Ways take turns; medians and paired ratios
are reported, and each time is compared with the time that this machine, in the same rounds, takes
to copy as many bytes as the operation must move.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from typing import Any

import torch

from fastppo import machine, signals
from fastppo.bench.kernels.args import Args
from fastppo.bench.kernels.cases import cases
from fastppo.bench.kernels.clocks import (
    ColdClock,
    Measure,
    cpu_clock,
    graph_clock,
    keep_freed_memory,
)
from fastppo.bench.publish import prepared, publish
from fastppo.bench.results import result
from fastppo.bench.results.paired import interleave
from fastppo.errors import MachineError, UserError
from fastppo.kernels.tools.case import Case, Work, difference, poisoned
from fastppo.text import print_err, print_out

ROUNDS, QUICK_ROUNDS = 21, 9
OURS, TEXTBOOK, COMPILED, COPY = "fastppo", "eager", "compile", "copy"


class NotEqual(MachineError):
    """A kernel's result is not the oracle's: there is nothing to time."""


@dataclass(frozen=True, slots=True)
class Timing:
    """One case by one clock."""

    case: Case
    clock: str
    """wall (CPU), cold (events, empty L2) or graph (replay, warm L2)."""
    samples: dict[str, list[float]]
    """Seconds per call by name; one position is one round."""
    failed: dict[str, str] = field(default_factory=dict)
    """Names that could not be measured, and why."""

    def record(self) -> list[dict[str, Any]]:
        """Entries of a result file's `results`."""
        return [
            {
                "id": self.case.id,
                "operation": self.case.operation,
                "shape": dict(self.case.shape),
                "size": self.case.size,
                "bytes": self.case.bytes_moved,
                "impl": name,
                "unit": "s",
                "better": "lower",
                "clock": self.clock,
                "launches": [{"order": 0, "samples": samples}],
            }
            for name, samples in self.samples.items()
        ]


def check(case: Case, work: Work) -> None:
    """Compares our result with float64; memory that it does not write is NaN.

    Raises:
        NotEqual: they differ by more than the case allows; the message says by how much.
    """
    with poisoned():
        ours = work.comparable(work.ours())
    for i, (actual, expected) in enumerate(zip(ours, work.oracle(), strict=True)):
        wrong = difference(actual, expected, work.rtol)
        if wrong:
            raise NotEqual(f"{case.id}: output {i} is not float64's: {wrong}; nothing was timed")


def _copy(num_bytes: int, device: torch.device) -> Callable[[], Any]:
    """Moves `num_bytes` in all: half of them read, half written."""
    source = torch.zeros(max(1, num_bytes // 2), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def _ways(
    case: Case, work: Work, device: torch.device, *, compiled: bool
) -> dict[str, Callable[[], Any]]:
    ways: dict[str, Callable[[], Any]] = {OURS: work.ours, TEXTBOOK: work.textbook}
    if compiled and work.compilable is not None:
        torch.compiler.reset()
        ways[COMPILED] = work.with_function(torch.compile(work.compilable, dynamic=False))
    ways[COPY] = _copy(case.bytes_moved, device)
    return ways


def time_case(case: Case, device: torch.device, rounds: int) -> Iterable[Timing]:
    """Checks the case, then times it by every clock of the device.

    Raises:
        NotEqual: our result is not the oracle's.
    """
    work = case.build(device)
    check(case, work)
    yield from time_work(case, work, device, rounds)


def time_work(
    case: Case, work: Work, device: torch.device, rounds: int, *, compiled: bool = True
) -> Iterable[Timing]:
    """Times work that is shown to be right by every clock of the device.

    Args:
        compiled: whether torch.compile's version takes part, where there is one.
    """
    clocks: dict[str, Callable[[Callable[[], Any]], Measure]]
    if device.type == "cuda":
        clocks = {"cold": ColdClock(device), "graph": graph_clock}
    else:
        clocks = {"wall": cpu_clock}
    ways = _ways(case, work, device, compiled=compiled)
    for name, clock in clocks.items():
        measures, failed = {}, {}
        for way, run in ways.items():
            try:
                measures[way] = clock(run)
            except Exception as error:
                if way == OURS:
                    raise
                # a baseline that cannot be compiled or captured is reported, not hidden
                failed[way] = f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
                if device.type == "cuda":
                    torch.cuda.synchronize()
        yield Timing(case, name, interleave(measures, rounds), failed)


def _chosen(device: torch.device, quick: bool, patterns: Sequence[str]) -> list[Case]:
    grid = list(cases(device, quick=quick))
    if not patterns:
        return grid
    chosen = [case for case in grid if any(fnmatch(case.operation, p) for p in patterns)]
    if not chosen:
        known = ", ".join(dict.fromkeys(case.operation for case in grid))
        raise UserError(f"operation: {patterns[0]!r} matches nothing; there are {known}")
    return chosen


def failures(timings: list[Timing], left_out: Sequence[Case] = ()) -> list[dict[str, str]]:
    """What could not be measured, as a result file holds it.

    Args:
        left_out: cases that there was no time for.
    """
    failed = [
        {"id": timing.case.id, "impl": way, "reason": f"{timing.clock}: {reason}"}
        for timing in timings
        for way, reason in timing.failed.items()
    ]
    return failed + [{"id": one.id, "impl": OURS, "reason": "out of time"} for one in left_out]


def run_grid(
    device: torch.device,
    timings: list[Timing],
    *,
    quick: bool = False,
    operations: Sequence[str] = (),
    rounds: int | None = None,
    deadline: float | None = None,
) -> list[Case]:
    """Times the grid of a device.

    Args:
        timings: what was measured is added here, case by case, and stays there where a signal or an
            error ends it.
        rounds: of interleaved slices; None for the usual number.
        deadline: on time.monotonic's clock; cases that would start later are left out.

    Returns:
        The cases that were left out.

    Raises:
        NotEqual: a kernel computes something else than its oracle.
        UserError: no operation has that name.
    """
    keep_freed_memory()
    rounds = rounds or (QUICK_ROUNDS if quick else ROUNDS)
    chosen = _chosen(device, quick, operations)
    for done, case in enumerate(chosen):
        if deadline is not None and time.monotonic() > deadline:
            print_out(f"out of time: {len(chosen) - done} of {len(chosen)} cases not measured")
            return chosen[done:]
        print_err(f"[{done + 1}/{len(chosen)}] {case.id}")
        timings.extend(time_case(case, device, rounds))
    return []


def record_of(timings: list[Timing], left_out: Sequence[Case] = ()) -> dict[str, Any]:
    """The result file of these timings.

    Args:
        left_out: as for `failures`.
    """
    entries = [entry for timing in timings for entry in timing.record()]
    failed = failures(timings, left_out)
    return result.new("kernel", entries, failures=failed, threads=torch.get_num_threads())


def run(args: Args) -> int:
    """Times the grid, prints the table, and writes what was asked for.

    Returns:
        0, or 3 if a way to do a case could not be measured.

    Raises:
        UserError: a name or number is off.
        MachineError: the device is not there, or a kernel is wrong.
    """
    from fastppo.devices import resolve_device

    for name in ("rounds", "threads"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UserError(f"--{name}: {value} must be at least 1")
    args = prepared(args, "kernel")
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    where = resolve_device(args.device)
    facts = machine.machine()
    gpus = ", ".join(facts["gpus"]) or "no GPU"
    threads = torch.get_num_threads()
    print_out(f"{facts['cpu']}, {facts['cores']} cores, {threads} threads, {gpus}")
    timings: list[Timing] = []
    try:
        run_grid(where, timings, quick=args.quick, operations=args.operations, rounds=args.rounds)
    finally:  # an interrupt keeps what was measured, and so does a kernel that is wrong
        if timings:
            with signals.held():
                _publish(args, timings)
    return 3 if failures(timings) else 0


def _publish(args: Args, timings: list[Timing]) -> None:
    record = record_of(timings)
    publish(record, args)
    if args.pictures is not None:
        from fastppo.bench.report.command import pictures  # takes rich, which a GPU host may lack

        for path in pictures([record], args.pictures):
            print_out(f"picture: {path}")
