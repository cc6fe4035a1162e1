"""Two result files, compared row by row: which rows there are, and what the whole comes to.

The two files were measured at different times, so nothing pairs their samples. What the machine did
in between is taken out as far as both files measured the machine alone (EnvPool with random
actions, a plain copy); what that leaves is in every interval (`verdicts.DRIFT`). So two sessions
resolve less than one sitting does, and the output says so.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from fastppo.bench.compare.verdicts import (
    INCONCLUSIVE,
    NOT_MEASURED,
    REGRESSION,
    Row,
    judge,
)
from fastppo.bench.report.data import Entry, Run
from fastppo.errors import UserError

KINDS = ("train", "kernel", "env", "learn")
SAME_DETAIL = {
    "train": ("work", "config", "frame_skip"),
    "learn": ("work", "config", "threshold"),
    "env": ("env_id", "num_envs", "batch_size", "num_threads"),
}
NOT_WORK = ("config.seed", "config.tensorboard", "config.wandb", "config.wandb_project")
"""Settings that change no algorithmic work."""


@dataclass(frozen=True)
class Comparison:
    """Two files, compared."""

    a: Run
    b: Run
    tolerance: float
    rows: list[Row]
    only_b: list[Entry]
    mismatch: list[str]
    """Differences that were let through by --allow-mismatch."""
    drift: float | None
    """How many times as fast the machine alone was in B; None where no control tells."""
    void: str | None
    """Why the comparison says nothing."""

    def having(self, verdict: str) -> list[Row]:
        return [row for row in self.rows if row.verdict == verdict]

    def exit_code(self, *, strict: bool = False) -> int:
        """What was not seen is no pass, and a regression is told before it.

        Args:
            strict: whether what stayed inconclusive counts.

        Returns:
            4 void, else 1 a regression, else 3 something of A was not measured in B, else (strict)
            5 something is inconclusive, else 0.
        """
        if self.void is not None:
            return 4
        if self.having(REGRESSION):
            return 1
        if self.having(NOT_MEASURED):
            return 3
        return 5 if strict and self.having(INCONCLUSIVE) else 0


def compare(a: Run, b: Run, tolerance: float, *, allow_mismatch: bool = False) -> Comparison:
    """Ratio and verdict of every result of A.

    Args:
        tolerance: a slow-down by up to this factor, less one, is none.
        allow_mismatch: compare across machines and different work, too; the machine is then not
            divided out, and nothing is void.

    Raises:
        UserError: the files measured different things, or on different machines.
    """
    for run in (a, b):
        if not any(entry.kind in KINDS for entry in run.entries):
            raise UserError(
                f"{run.name}: kind {run.kind!r} holds no result to compare; measure one"
            )
    ours, theirs = _by_key(a), _by_key(b)
    common = [key for key in ours if key in theirs]
    if not common:
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
    drift = machine_drift([(ours[key], theirs[key]) for key in common])
    machine = 1.0 if drift is None or allow_mismatch else drift
    rows = [
        judge(entry, theirs[key], tolerance, machine)
        if key in theirs
        else Row(entry, None, None, NOT_MEASURED)
        for key, entry in ours.items()
    ]
    void = None
    if abs(math.log(machine)) > math.log1p(tolerance):
        void = f"the machine alone was {machine:.2f} times as fast in B"
    return Comparison(
        a, b, tolerance, rows,
        [entry for key, entry in theirs.items() if key not in ours],
        mismatch, drift, void,
    )  # fmt: skip


def _by_key(run: Run) -> dict[tuple[str, ...], Entry]:
    found: dict[tuple[str, ...], Entry] = {}
    for entry in run.entries:
        key = (entry.kind, entry.id, entry.impl, entry.clock)
        if key in found:
            raise UserError(f"{run.name}: holds {entry.id} of {entry.impl} twice; measure again")
        found[key] = entry
    return found


def machine_differences(a: Run, b: Run) -> list[str]:
    """What the two machines differ in; empty where the fingerprints agree."""
    ours, theirs = a.record["machine"], b.record["machine"]
    if ours["fingerprint"] == theirs["fingerprint"]:
        return []
    # the fingerprint is no fact to read, but a file may hold nothing else that differs
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


def machine_drift(pairs: Sequence[tuple[Entry, Entry]]) -> float | None:
    """Median ratio of the controls, which run none of the code under test; None without one.

    They are plain copies, and EnvPool with random actions: one rate per training task.
    """
    controls: dict[str, float] = {}
    for a, b in pairs:
        ratio = judge(a, b, 0.0).ratio
        if ratio is not None and (a.kind, a.impl) == ("kernel", "copy"):
            controls[f"{a.id} {a.clock}"] = ratio.value
        rates = [entry.detail.get("ceilings", {}).get("envpool") for entry in (a, b)]
        if all(rates):
            controls[a.id] = rates[1] / rates[0]
    return median(controls.values()) if controls else None
