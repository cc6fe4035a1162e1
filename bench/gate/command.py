"""`fastppo gate BASE [HEAD]`: whether HEAD is slower than BASE, or does more.

Both trees are unpacked; one environment and one set of definitions measures them. What runs the
same code on both sides passes without being timed, and some of it is the control. The rest is
measured in pairs of fresh processes (`pairs`) and judged (`rule`); whoever is suspected is measured
once more. Operators of torch and imports at the start are counted exactly: one more is a finding.
"""

import fcntl
import os
import tempfile
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import fastppo
from fastppo import files
from fastppo.bench.gate import closure, rule
from fastppo.bench.gate.args import GateArgs
from fastppo.bench.gate.entries import counted, failures_of, same, timed
from fastppo.bench.gate.pairs import PairedRun, Series, ask, costs_of, measure
from fastppo.bench.gate.revisions import GateSide, sides
from fastppo.bench.publish import prepared, publish
from fastppo.bench.results import result
from fastppo.cgroups import available_cores
from fastppo.errors import MachineError, UserError, why
from fastppo.text import print_err

TREE = Path(fastppo.__file__).resolve().parent.parent
START = "CartPole-v1"
"""Task of the short run that start, memory and imports are seen in."""
TOLERANCE, RATE_TOLERANCE = 0.05, 0.10
EXACT = ("operators/", "modules/")
"""Kinds that are counted once and not timed."""
CONTROLS = 3
"""At most so many benchmarks of unchanged kernels are timed along."""


def run(args: GateArgs) -> int:
    """Compares, prints, and writes what was asked for.

    Returns:
        0 nothing became worse; 1 something did; 3 something was not measured; 4 void; 5 with
        --strict, something is inconclusive.

    Raises:
        UserError: a revision or number is off.
        MachineError: another gate runs here, or a side does not run.
    """
    if args.rounds < rule.SECOND_LOOK:
        raise UserError(
            f"--rounds: {args.rounds} shows no slow-down; take {rule.SECOND_LOOK} or more"
        )
    if args.tolerance is not None and not 0.0 < args.tolerance < 1.0:
        raise UserError(f"--tolerance: {args.tolerance} must lie between 0 and 1, such as 0.05")
    if available_cores() < 2:
        raise MachineError("cores: a gate needs 2, one for EnvPool's threads; this process has 1")
    args = prepared(args, "gate")
    with _alone(), sides(TREE, args.base, args.head, worktree=args.worktree) as pair:
        print_err(f"base {pair[0].revision}, head {pair[1].revision}")
        record = _compare(pair, args)
    publish(record, args)
    return _exit_code(record, args)


class _alone:
    """For the block in which no other gate of this user runs on this machine."""

    def __enter__(self) -> None:
        path = Path(tempfile.gettempdir()) / f"fastppo-gate-{os.getuid()}.lock"
        try:
            self._file = files.open_lock(path)
        except OSError as error:
            raise MachineError(f"{path}: {why(error)}; remove it") from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise MachineError("gate: another one runs on this machine; wait for its end") from None

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _compare(pair: tuple[GateSide, GateSide], args: GateArgs) -> dict[str, Any]:
    """The record of the whole gate."""
    base, head = pair
    described = _names(head)
    wanted = [name for name in described["names"] if fnmatch(name, args.only)]
    if not wanted:
        known = ", ".join(dict.fromkeys(name.partition("/")[0] for name in described["names"]))
        raise UserError(f"--only: {args.only!r} matches nothing; there are {known}/...")
    changed = [name for name in wanted if _differs(base, head, name)]
    unchanged = [name for name in wanted if name not in changed]
    print_err(f"{len(unchanged)} of {len(wanted)} benchmarks run the same code on both sides")
    entries = [same(name) for name in unchanged]
    failed = {("kernel", name): reason for name, reason in described["missing"].items()}
    runs: list[PairedRun] = []
    if changed:
        print_err("compiling the kernels of both sides ...")
        exact = [name for name in changed if name.startswith(EXACT)]
        costly = [name for name in changed if name not in exact]
        _, lacking = costs_of(pair, costly, seed=0, turns=0)
        failed |= {(side, name): reason for (name, side), reason in lacking.items()}
        missing = {name for _, name in failed}
        series = [_series(name, args) for name in costly if name not in missing]
        first = _measured(pair, series, unchanged, args)
        runs = [first, *_confirm(pair, series, unchanged, args)]
        again = runs[-1].series if len(runs) > 1 else {}
        entries += [timed(one, again.get(one.name)) for one in series]
        entries += counted(exact, *(_counts(side, exact) for side in pair))
        for one in runs:
            failed |= {(side, name): reason for (name, side), reason in one.failures.items()}
    return result.new(
        "gate",
        entries,
        failures=failures_of(failed),
        base={"revision": base.revision},
        head={"revision": head.revision},
        void=next(filter(None, (_void(one, unchanged) for one in runs)), None),
        steal=[one.steal for one in runs],
    )


def _names(head: GateSide) -> dict[str, Any]:
    described = ask(head, {"names": True})
    of_start = [f"{kind}/{START}" for kind in ("start", "memory", "modules")]
    return described | {"names": [*described["names"], *of_start]}


def _differs(base: GateSide, head: GateSide, name: str) -> bool:
    entries = closure.entry_modules(name)
    return closure.digest(base.tree, entries) != closure.digest(head.tree, entries)


def _series(name: str, args: GateArgs) -> Series:
    rate = name.startswith(("train/", "start/"))
    usual = RATE_TOLERANCE if rate else TOLERANCE
    return Series(name, usual if args.tolerance is None else args.tolerance)


def _measured(
    pair: tuple[GateSide, GateSide], series: list[Series], unchanged: list[str], args: GateArgs
) -> PairedRun:
    controls = [name for name in unchanged if name.startswith("kernel/")]
    chosen = controls[:: max(1, len(controls) // CONTROLS)][:CONTROLS]
    return measure(pair, series, [_series(n, args) for n in chosen], args.rounds, print_err)


def _confirm(
    pair: tuple[GateSide, GateSide], series: list[Series], unchanged: list[str], args: GateArgs
) -> list[PairedRun]:
    """Measures whoever is suspected once more, in fresh processes; verdicts are final then."""
    suspects = [one for one in series if one.verdict == rule.SUSPECT]
    if not suspects:
        return []
    print_err(f"{len(suspects)} suspected: measured once more")
    again = [Series(one.name, one.tolerance) for one in suspects]
    run = _measured(pair, again, unchanged, args)
    for one in suspects:
        one.verdict = rule.confirm(one.verdict, run.series[one.name].verdict)
    return [run]


def _void(run: PairedRun, unchanged: list[str]) -> str | None:
    controls = [one for name, one in run.series.items() if name in unchanged]
    count = min((len(one.base) for one in controls), default=0)
    differences = [one.differences[:count] for one in controls] if count >= rule.FIRST_LOOK else []
    return rule.void(differences, TOLERANCE, measured=run.measured, dropped=run.dropped)


def _counts(side: GateSide, names: list[str]) -> dict[str, Any]:
    """Of what is named: operators of one update by task, and what a start imports."""
    tasks = [name.partition("/")[2] for name in names if name.startswith("operators/")]
    found = ask(side, {"count": tasks}) if tasks else {}
    return found | (ask(side, {"start": START}) if f"modules/{START}" in names else {})


def _exit_code(record: Mapping[str, Any], args: GateArgs) -> int:
    verdicts = {entry["gate"]["verdict"] for entry in record["results"]}
    if record["void"]:
        return 4
    if rule.REGRESSION in verdicts:
        return 1
    if record["failures"]:
        return 3
    unsettled = verdicts & {rule.INCONCLUSIVE, rule.FLAKY}
    return 5 if unsettled and args.strict else 0
