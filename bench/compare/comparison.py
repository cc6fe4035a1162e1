"""Two result files side by side: whether they compare, their rows, and what follows from them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from fastppo.bench.compare import drift
from fastppo.bench.compare.drift import INCONCLUSIVE, REGRESSION, Side
from fastppo.bench.compare.verdicts import (
    NOT_MEASURED,
    ComparedRow,
    control_of,
    is_control,
    judge,
    row_of,
)
from fastppo.bench.report.data import Entry, ResultFile
from fastppo.errors import UserError

KINDS = ("train", "kernel", "env", "learn")
SAME_DETAIL = {
    "train": ("work", "config", "frame_skip"),
    "learn": ("work", "config", "threshold"),
    "env": ("env_id", "num_envs", "batch_size", "num_threads"),
}
NOT_WORK = (
    "config.seed", "config.tensorboard", "config.wandb", "config.wandb_project",
    "config.wandb_entity", "config.wandb_name", "config.wandb_group", "config.wandb_tags",
    "config.metric_names", "config.eval_interval", "config.eval_episodes",
)  # fmt: skip
"""Settings that change no algorithmic work."""

Key = tuple[str, str, str, str]
"""Kind, id, implementation and clock."""


@dataclass(frozen=True)
class Comparison:
    """Two files, compared."""

    a: ResultFile
    b: ResultFile
    tolerance: float
    rows: list[ComparedRow]
    """Of everything in A, and of what only B could not measure."""
    only_b: list[Entry]
    mismatch: list[str]
    """Differences that were let through by --allow-mismatch."""
    controls: list[float]
    """How many times faster the machine alone was in B, by task; empty where that is unknown."""
    void: str | None
    """Why the comparison says nothing."""

    def having(self, *verdicts: str) -> list[ComparedRow]:
        return [row for row in self.rows if row.verdict in verdicts]

    def exit_code(self, *, strict: bool) -> int:
        """The first that applies of: void 4, regression 1, not measured 3, inconclusive 5, 0.

        Args:
            strict: whether an inconclusive row is not a pass.
        """
        if self.void is not None:
            return 4
        if self.having(REGRESSION):
            return 1
        if self.having(NOT_MEASURED):
            return 3
        return 5 if strict and self.having(INCONCLUSIVE) else 0


def compare(
    a: ResultFile, b: ResultFile, tolerance: float, *, allow_mismatch: bool = False
) -> Comparison:
    """Ratio and verdict of every result of A.

    Args:
        tolerance: a slow-down by up to this factor, less one, is none.
        allow_mismatch: compare what differs, by raw ratios: other machines have other controls.

    Raises:
        UserError: the files measured different things, or on different machines.
    """
    _refuse_empty(a, b)
    ours, theirs = _by_key(a), _by_key(b)
    common = [key for key in ours if key in theirs]
    failed = _failures(b, but=a)
    if not common and not any((entry.id, entry.impl) in failed for entry in ours.values()):
        remedy = "name two files of the same benchmark"
        raise UserError(f"{a.name} and {b.name}: have no result in common; {remedy}")
    mismatch = machine_differences(a, b)
    for key in common:
        mismatch += work_differences(ours[key], theirs[key])
    if mismatch and not allow_mismatch:
        more = f" (and {len(mismatch) - 1} more)" if len(mismatch) > 1 else ""
        raise UserError(
            f"{a.name} and {b.name}: differ in {mismatch[0]}{more}; measure both alike, or compare "
            "all the same with --allow-mismatch"
        )
    controls = {} if allow_mismatch else _controls(ours, theirs, common)
    rows = [_row(entry, theirs.get(key), tolerance, controls.get(key), _failures(b))
            for key, entry in ours.items()]  # fmt: skip
    seen = {(row.id, row.impl) for row in rows}
    rows += [ComparedRow(*name, "wall", NOT_MEASURED, remark=reason)
             for name, reason in failed.items() if name not in seen]  # fmt: skip
    speeds = _by_task(controls)
    return Comparison(
        a, b, tolerance, rows,
        [entry for key, entry in theirs.items() if key not in ours],
        mismatch, speeds, _void(speeds, tolerance),
    )  # fmt: skip


def _refuse_empty(a: ResultFile, b: ResultFile) -> None:
    for run in (a, b):
        # B may have measured nothing that it was meant to, and say so
        told_why = run is b and run.kind == a.kind and run.failures
        if not told_why and not any(entry.kind in KINDS for entry in run.entries):
            raise UserError(
                f"{run.name}: kind {run.kind!r} holds no result to compare; measure one"
            )


def _by_key(run: ResultFile) -> dict[Key, Entry]:
    found: dict[Key, Entry] = {}
    for entry in run.entries:
        key = (entry.kind, entry.id, entry.impl, entry.clock)
        if key in found:
            raise UserError(f"{run.name}: holds {entry.id} of {entry.impl} twice; measure again")
        found[key] = entry
    return found


def _failures(run: ResultFile, but: ResultFile | None = None) -> dict[tuple[str, str], str]:
    """Reasons by id and implementation, without those of another file."""
    known = {(one["id"], one["impl"]) for one in but.failures} if but else set()
    by_row: dict[tuple[str, str], list[str]] = {}
    for one in run.failures:
        by_row.setdefault((str(one["id"]), str(one["impl"])), []).append(str(one["reason"]))
    return {name: "; ".join(reasons) for name, reasons in by_row.items() if name not in known}


def _row(
    a: Entry,
    b: Entry | None,
    tolerance: float,
    controls: tuple[Side, Side] | None,
    failed: dict[tuple[str, str], str],
) -> ComparedRow:
    """What B could not measure does not pass, even where B holds part of it."""
    reason = failed.get((a.id, a.impl))
    if b is None:
        return row_of(a, None, NOT_MEASURED, remark=reason or "B does not hold it")
    row = judge(a, b, tolerance, controls)
    if reason is None or row.verdict == REGRESSION:
        return row
    return replace(row, verdict=NOT_MEASURED, remark=reason)


def _controls(
    ours: dict[Key, Entry], theirs: dict[Key, Entry], common: Sequence[Key]
) -> dict[Key, tuple[Side, Side]]:
    """What both files measured of the machine alone, for every result that has it in both."""
    copies = [
        {(entry.id, entry.clock): entry for entry in entries.values() if is_control(entry)}
        for entries in (ours, theirs)
    ]
    found = {}
    for key in common:
        a, b = control_of(ours[key], copies[0]), control_of(theirs[key], copies[1])
        if a is not None and b is not None:
            found[key] = a, b
    return found


def _by_task(controls: dict[Key, tuple[Side, Side]]) -> list[float]:
    """Ratio of the controls of every task: the implementations of one share theirs."""
    tasks = {(key[1], key[3]): pair for key, pair in controls.items()}
    return [math.exp(float(drift.moved(*pair))) for pair in tasks.values()]


def _void(speeds: Sequence[float], tolerance: float) -> str | None:
    """Of the middle of all controls: a copy of a few bytes may be off by itself."""
    middle = median(speeds) if speeds else 1.0
    if not drift.void(math.log(middle), tolerance):
        return None
    return f"the machine alone was {middle:.2f} times as fast in B"


def machine_differences(a: ResultFile, b: ResultFile) -> list[str]:
    """What the two machines differ in; empty where the fingerprints agree."""
    ours, theirs = a.record["machine"], b.record["machine"]
    if ours["fingerprint"] == theirs["fingerprint"]:
        return []
    # nobody can read a fingerprint, but a file may hold nothing else that differs
    found = differences(ours, theirs, "machine")
    return [line for line in found if not line.startswith("machine.fingerprint")] or found


def work_differences(a: Entry, b: Entry) -> list[str]:
    """In which settings two results of one id differ."""
    names: Sequence[str] = SAME_DETAIL.get(a.kind, ())
    ours, theirs = ({name: e.detail.get(name) for name in names} for e in (a, b))
    if a.kind == "kernel":
        names = ("shape", "size", "bytes")
        ours, theirs = ({name: e.raw.get(name) for name in names} for e in (a, b))
    found = differences({**ours, "unit": a.unit}, {**theirs, "unit": b.unit})
    kept = [line for line in found if line.partition(" ")[0] not in NOT_WORK]
    return [f"{a.id} {a.impl}: {line}" for line in kept]


def differences(ours: Any, theirs: Any, name: str = "") -> list[str]:
    """Every leaf in which two values differ: `num_envs 8 and 64`."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        keys = [*ours, *(key for key in theirs if key not in ours)]
        return [
            line
            for key in keys
            for line in differences(ours.get(key), theirs.get(key), f"{name}.{key}".lstrip("."))
        ]
    return [] if ours == theirs else [f"{name} {ours!r} and {theirs!r}"]
