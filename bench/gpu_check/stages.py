"""The stages of a GPU check: names, order, shares of the time, and what each does in its process.

A stage writes its findings after each of them, so that a crash or a kill costs one at most.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from functools import partial
from itertools import chain, zip_longest
from pathlib import Path
from time import monotonic
from typing import Any

import torch

from fastppo import files
from fastppo.bench.gpu_check import tilings, training
from fastppo.bench.kernels import command as kernels
from fastppo.bench.kernels.cases import cases, checks
from fastppo.bench.kernels.clocks import keep_freed_memory
from fastppo.errors import UserError
from fastppo.kernels.backends import OPERATIONS
from fastppo.kernels.tools.case import Case
from fastppo.text import print_err

PARTS = ("correctness", "results", "failures", "training", "tilings")
TESTS = Path(__file__).resolve().parents[2] / "tests"


@dataclass(frozen=True, slots=True)
class Task:
    """What a stage is given."""

    device: torch.device
    quick: bool
    compile: bool
    deadline: float
    """On time.monotonic's clock; nothing begins behind it."""
    target: Path
    """Gets the findings."""
    found: dict[str, list[Any]] = field(default_factory=lambda: {name: [] for name in PARTS})

    def keep(self, **findings: list[Any]) -> None:
        """Adds to the findings, and writes them all."""
        for name, values in findings.items():
            self.found[name].extend(values)
        files.write(self.target, json.dumps(files.finite(self.found)))

    def fail(self, name: str, reason: str) -> None:
        """Keeps that something could not be measured."""
        self.keep(failures=[{"id": name, "impl": kernels.OURS, "reason": reason}])


@dataclass(frozen=True, slots=True)
class StageGroup:
    """Stages that run side by side; all but checks have the machine to themselves."""

    kind: str
    weight: float
    """Share of the time, among the groups that are still to come."""
    stages: tuple[str, ...]


GROUPS = (
    *(StageGroup("train", 3.0, (f"train/{name}",)) for name in training.WORKLOADS),
    StageGroup("check", 4.0, tuple(f"check/{name}" for name in OPERATIONS)),
    StageGroup("kernels", 8.0, ("kernels",)),
    StageGroup("tilings", 2.0, ("tilings",)),
    StageGroup("tests", 4.0, ("tests",)),
)


def chosen(only: tuple[str, ...], groups: tuple[StageGroup, ...] = GROUPS) -> list[StageGroup]:
    """The groups with the stages that a pattern names, by their kind or in full.

    Raises:
        UserError: a pattern names none.
    """
    for pattern in only:
        names = [name for group in groups for name in (group.kind, *group.stages)]
        if not any(fnmatch(name, pattern) for name in names):
            known = ", ".join(dict.fromkeys(group.kind for group in groups))
            raise UserError(f"--only: {pattern!r} names no stage; there are {known}")

    def taken(group: StageGroup, name: str) -> bool:
        return not only or any(fnmatch(group.kind, p) or fnmatch(name, p) for p in only)

    kept = (StageGroup(g.kind, g.weight, tuple(s for s in g.stages if taken(g, s))) for g in groups)
    return [group for group in kept if group.stages]


def run(name: str, task: Task) -> None:
    """Does the work of one stage."""
    kind, _, what = name.partition("/")
    works: dict[str, Callable[[str, Task], None]] = {
        "train": _train, "check": _check, "kernels": _kernels, "tilings": _tilings, "tests": _tests,
    }  # fmt: skip
    task.keep()
    works[kind](what, task)


def _train(name: str, task: Task) -> None:
    def keep(record: dict[str, Any]) -> None:
        task.found["training"].clear()
        task.keep(training=[record])

    training.measure(name, task.device, task.deadline, keep)


def _judged(task: Task, name: str, check: Callable[[], None]) -> bool:
    """Keeps whether a check passes; a line on stderr where it does not."""
    reason = None
    try:
        check()
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:400]
        print_err(f"WRONG {name}: {reason}")
    task.keep(correctness=[{"name": name, "passed": reason is None, "reason": reason}])
    if task.device.type == "cuda":
        torch.cuda.synchronize()  # a sticky error ends the stage here: nothing behind it would hold
    return reason is None


def _check(operation: str, task: Task) -> None:
    """Every kernel of an operation against float64, at awkward shapes."""
    for name, check in checks(task.device, operation):
        if monotonic() > task.deadline:
            task.fail(f"check/{operation}", f"out of time before {name}")
            return
        _judged(task, name, check)


def in_turns(grid: list[Case]) -> Iterator[Case]:
    """One case of each operation, then the next of each: what is cut off is cut off evenly."""
    by_operation: dict[str, list[Case]] = {}
    for case in grid:
        by_operation.setdefault(case.operation, []).append(case)
    turns = zip_longest(*by_operation.values())
    return (case for case in chain.from_iterable(turns) if case is not None)


def _kernels(_: str, task: Task) -> None:
    """The kernel grid; of a kernel that is wrong nothing is timed."""
    keep_freed_memory()
    rounds = kernels.QUICK_ROUNDS if task.quick else kernels.ROUNDS
    for case in in_turns(list(cases(task.device, quick=task.quick))):
        if monotonic() > task.deadline:
            task.fail(case.id, "out of time")
            continue
        work = case.build(task.device)
        if not _judged(task, case.id, partial(kernels.check, case, work)):
            continue
        try:
            timings = list(
                kernels.time_work(case, work, task.device, rounds, compiled=task.compile)
            )
        except Exception as error:
            task.fail(case.id, f"{type(error).__name__}: {error}"[:400])
            continue
        entries = [entry for timing in timings for entry in timing.record()]
        task.keep(results=entries, failures=kernels.failures(timings))


def _tilings(_: str, task: Task) -> None:
    if task.device.type != "cuda":
        return  # numba's kernels have none
    for finding in tilings.sweep(task.device):
        task.keep(tilings=[finding])
        if monotonic() > task.deadline:
            return


def _tests(_: str, task: Task) -> None:
    """The tests that need a GPU, where this is a checkout."""
    if task.device.type != "cuda":
        return
    if not TESTS.is_dir():
        task.fail("tests", f"there is no {TESTS}")
        return
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider"]
    done = subprocess.run([*command, str(TESTS / "fastppo")], stdout=2, check=False)
    _judged(task, "pytest -m gpu", lambda: _require_zero(done.returncode))


def _require_zero(code: int) -> None:
    if code:
        raise AssertionError(f"exit code {code}")
