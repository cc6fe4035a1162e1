"""`fastppo compare A.json B.json`: what became faster or slower between two result files.

The two files were measured at different times, so nothing pairs their samples: whatever the machine
did differently in between is in every ratio. The interval covers the noise within the files, not
that drift; what both files measured of the machine alone (EnvPool with random actions, a plain
copy) tells when it was large, and the comparison is void then.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from fastppo import paths
from fastppo.bench.compare.verdicts import CONTROL, IMPROVED, REGRESSION, Row, judge, verdict
from fastppo.bench.report.data import Entry, Run, read
from fastppo.bench.results.statistics import Interval
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
    only_a: list[Entry]
    only_b: list[Entry]
    mismatch: list[str]
    """Differences that were let through by --allow-mismatch."""
    drift: float | None
    """Median ratio of the controls; None where the files hold none."""
    void: str | None
    """Why the comparison says nothing."""

    def having(self, verdict: str) -> list[Row]:
        return [row for row in self.rows if row.verdict == verdict]

    @property
    def exit_code(self) -> int:
        """0 nothing became slower for certain, 1 something did, 4 the machine itself changed."""
        if self.void is not None:
            return 4
        return 1 if self.having(REGRESSION) else 0


def compare(a: Run, b: Run, tolerance: float, *, allow_mismatch: bool = False) -> Comparison:
    """Ratio and verdict of every result that both files have.

    Args:
        tolerance: a slow-down by up to this factor, less one, is none.

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
    rows = [judge(ours[key], theirs[key], tolerance) for key in common]
    drift, moved = _drift(rows, tolerance)
    void = f"the machine alone was {drift:.2f} times as fast in B" if drift and moved else None
    return Comparison(
        a, b, tolerance, rows,
        [entry for key, entry in ours.items() if key not in theirs],
        [entry for key, entry in theirs.items() if key not in ours],
        mismatch, drift, None if allow_mismatch else void,
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


def _drift(rows: Sequence[Row], tolerance: float) -> tuple[float | None, bool]:
    """Median ratio of the controls, and whether more than half of them moved one way for certain.

    Controls run none of the code under test: copies of memory, and EnvPool with random actions.
    """
    controls: dict[str, Interval] = {}
    for row in rows:
        if row.verdict == CONTROL and row.ratio is not None:
            controls[f"{row.a.id} {row.a.clock}"] = row.ratio
        rates = [entry.detail.get("ceilings", {}).get("envpool") for entry in (row.a, row.b)]
        if all(rates):
            # one number, of which no noise is known: twice the tolerance, either way
            slack, value = 1.0 + tolerance, rates[1] / rates[0]
            controls[row.a.id] = Interval(value, value / slack, value * slack)
    if not controls:
        return None, False
    said = [verdict(ratio, tolerance) for ratio in controls.values()]
    most = max(said.count(way) for way in (REGRESSION, IMPROVED))
    return median(ratio.value for ratio in controls.values()), 2 * most > len(controls)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of `fastppo compare`."""
    parser.add_argument(
        "a", type=paths.source, metavar="A.json", help="the result file to compare with"
    )
    parser.add_argument("b", type=paths.source, metavar="B.json", help="the newer result file")
    parser.add_argument(
        "--tolerance", type=float, default=0.05, metavar="T",
        help="slow-downs up to this share are none (default 0.05)",
    )  # fmt: skip
    parser.add_argument(
        "--allow-mismatch", action="store_true",
        help="compare also across machines and different work, and spell the differences out",
    )  # fmt: skip
    parser.add_argument(
        "--md", type=paths.output, metavar="F", help="write the comparison as markdown"
    )


def run(args: argparse.Namespace) -> int:
    """Compares, prints, and writes what was asked for.

    Returns:
        0 nothing regressed, 1 something did, 4 the machine alone changed too much.

    Raises:
        UserError: a file or number is off, or the files cannot be compared.
        MachineError: the markdown cannot be written.
    """
    from fastppo.bench.compare import table as report_compare  # they import what is above
    from fastppo.bench.report import command as report

    if not (0 <= args.tolerance < 1):
        raise UserError(f"--tolerance: {args.tolerance} must be a number from 0 to below 1")
    a, b = (read([path])[0] for path in (args.a, args.b))
    found = compare(a, b, args.tolerance, allow_mismatch=args.allow_mismatch)
    report_compare.print_comparison(found)
    if args.md is not None:
        report.write(args.md, report_compare.markdown(found))
    return found.exit_code
