"""`fastppo gate BASE [HEAD]`: whether HEAD is slower than BASE, or does more.

Both trees are unpacked, and one set of definitions measures them. What runs the same code on both
sides passes without being timed, and some of it is the control. The rest is measured in pairs of
fresh processes (`pairs`) and judged (`rule`); whoever is suspected is measured once more. Operators
of torch and imports at the start are counted exactly: one more is a finding.
"""

import fcntl
import os
import tempfile
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import fastppo
from fastppo import files
from fastppo.bench.gate import alarms, environments, learning, rule
from fastppo.bench.gate.args import GateArgs, GateOptions, matches
from fastppo.bench.gate.entries import confirmed, counted, failures_of, same, timed
from fastppo.bench.gate.own import TASK, TOLERANCE, OwnBenchmarks
from fastppo.bench.gate.pairs import PairedRun, Series, measure
from fastppo.bench.gate.project import ProjectCommand, split
from fastppo.bench.gate.revisions import GateSide, sides
from fastppo.bench.gate.subject import EXACT, Subject
from fastppo.bench.publish import prepared, publish
from fastppo.bench.report import github
from fastppo.bench.results import result
from fastppo.cgroups import available_cores
from fastppo.errors import MachineError, UserError, why
from fastppo.revision import git
from fastppo.text import print_err

TREE = Path(fastppo.__file__).resolve().parent.parent
CONTROLS = 3
"""At most so many benchmarks of unchanged kernels are timed along."""
FEWEST_SEEDS = 8
"""Of each side: with seven, a single odd one keeps every bound of `learning.ALPHA` open."""
Pair = tuple[GateSide, GateSide]


def run(args: GateArgs) -> int:
    """Compares, prints, and writes what was asked for.

    Returns:
        0 nothing became worse; 1 something did; 3 something was not measured; 4 void; 5 with
        --strict, something is inconclusive.

    Raises:
        UserError: a revision or number is off.
        MachineError: another gate runs here, or a side does not run.
    """
    check(args)
    if args.seeds < FEWEST_SEEDS:
        raise UserError(f"--seeds: {args.seeds} show nothing; take {FEWEST_SEEDS} or more")
    if args.learning and args.command:
        raise UserError("--learning: trains fastppo; it does not go with --command")
    if args.screen and args.confirm:
        raise UserError("--confirm: is the second run, and --screen the first; take one of them")
    first = None if args.confirm is None else result.read(args.confirm)
    args = prepared(args, "gate")
    with alone(), unpacked(args, args.base, args.head, worktree=args.worktree) as pair:
        print_err(f"base {pair[0].revision}, head {pair[1].revision}")
        subject = subject_of(environments.made(pair, args), args)
        if first is None:
            record = compare(pair, subject, args, once=args.screen)
            if args.learning:
                record["results"] += _learned(subject, args.seeds)
        else:
            record = confirm(pair, subject, args, first)
    accept(record["results"], args.accept)
    publish(record, args)
    if args.github:
        github.announce(record)
    return _exit_code(record, args)


def check(args: GateOptions) -> None:
    """Raises UserError or MachineError where a number, or the machine, does not do."""
    if args.rounds < rule.SECOND_LOOK:
        raise UserError(
            f"--rounds: {args.rounds} shows no slow-down; take {rule.SECOND_LOOK} or more"
        )
    if args.tolerance is not None and not 0.0 < args.tolerance < 1.0:
        raise UserError(f"--tolerance: {args.tolerance} must lie between 0 and 1, such as 0.05")
    if (args.command is None) != (not args.metrics):
        missing, there = ("--metric", "--command") if args.command else ("--command", "--metric")
        raise UserError(f"{missing}: missing; {there} goes with it")
    if args.prepare and not args.command:
        raise UserError("--prepare: is for --command; fastppo's own benchmarks prepare themselves")
    for option, command in (("--command", args.command), ("--prepare", args.prepare)):
        if command is not None:
            split(command, option)
    if available_cores() < 2 and args.command is None:
        raise MachineError("cores: a gate needs 2, one for EnvPool's threads; this process has 1")


class alone:
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


def unpacked(
    args: GateOptions, base: str, head: str, *, worktree: bool = False
) -> AbstractContextManager[Pair]:
    """Both trees: of fastppo's own repository, or for a command of the one we stand in.

    Raises:
        UserError: as `revisions.sides`.
    """
    own = args.command is None
    return sides(_repository(args), base, head, worktree=worktree, kernels=own)


def _repository(args: GateOptions) -> Path:
    if args.command is None:
        return TREE
    top = git(Path.cwd(), "rev-parse", "--show-toplevel")
    if top is None:
        raise UserError(f"--command: {Path.cwd()} is in no git repository; go to that of the code")
    return Path(os.fsdecode(top.rstrip(b"\n")))


def subject_of(pair: Pair, args: GateOptions, *, again: bool = False) -> Subject:
    """What is gated.

    Args:
        again: measures what is the same on both sides, too.
    """
    if args.command is None:
        return OwnBenchmarks(pair, again=again)
    return ProjectCommand(
        pair,
        args.command,
        args.metrics,
        better=args.better,
        prepare=args.prepare,
        folder=Path.cwd().resolve().relative_to(_repository(args).resolve()),
        again=again,
    )


def compare(
    pair: Pair, subject: Subject, args: GateOptions, *, once: bool = False
) -> dict[str, Any]:
    """The record of a whole gate.

    Args:
        once: leaves what is suspected to another run.

    Raises:
        UserError: nothing has such a name.
        MachineError: a side does not run.
    """
    names = subject.names()
    wanted = [name for name in names if args.chooses(name)]
    if not wanted:
        known = ", ".join(dict.fromkeys(name.partition("/")[0] for name in names))
        raise UserError(f"--only: {args.only!r} matches nothing; there are {known}/...")
    changed = [name for name in wanted if subject.differs(name)]
    unchanged = [name for name in wanted if name not in changed]
    print_err(f"{len(unchanged)} of {len(wanted)} benchmarks run the same code on both sides")
    entries = [same(name) for name in unchanged]
    failed = {("kernel", name): reason for name, reason in subject.missing.items()}
    runs: list[PairedRun] = []
    if changed:
        exact = [name for name in changed if name.startswith(EXACT)]
        costly = [name for name in changed if name not in exact]
        lacking = subject.warm(costly)
        failed |= {(side, name): reason for (name, side), reason in lacking.items()}
        missing = {name for _, name in failed}
        session = _Session(pair, subject, args, unchanged)
        series = [session.series(name) for name in costly if name not in missing]
        first = session.measured(series)
        runs = [first, *([] if once else session.confirmed(series))]
        again = runs[-1].series if len(runs) > 1 else {}
        entries += [timed(one, again.get(one.name), subject.better) for one in series]
        entries += counted(exact, *subject.counts(exact)) if exact else []
        for one in runs:
            failed |= {(side, name): reason for (name, side), reason in one.failures.items()}
    void = next(filter(None, (_void(one, unchanged) for one in runs)), None)
    return _record(pair, args, entries, failures_of(failed), void, runs)


def _learned(subject: Subject, seeds: int) -> list[dict[str, Any]]:
    """Entries of what both sides learn; the same code learns the same."""
    assert isinstance(subject, OwnBenchmarks)
    if not subject.differs(f"train/{TASK}"):
        return [same(name) for name in learning.NAMES]
    first = subject.learned(range(1, seeds + 1))
    if not any(one.verdict == rule.SUSPECT for one in first):
        return [timed(one, None) for one in first]
    again = subject.learned(range(seeds + 1, 2 * seeds + 1))
    entries = []
    for one, other in zip(first, again, strict=True):
        suspected = one.verdict == rule.SUSPECT
        one.verdict = rule.confirm(one.verdict, other.verdict)
        entries.append(timed(one, other if suspected else None))
    return entries


def accept(entries: list[dict[str, Any]], patterns: str) -> None:
    """Makes regressions that are meant ACCEPTED."""
    for entry in entries:
        meant = matches(entry["id"].removeprefix("gate/"), patterns)
        if meant and entry["gate"]["verdict"] == rule.REGRESSION:
            entry["gate"]["verdict"] = rule.ACCEPTED


def confirm(
    pair: Pair, subject: Subject, args: GateOptions, first: Mapping[str, Any]
) -> dict[str, Any]:
    """The record of a gate whose first run another machine took: what it suspected, once more.

    Raises:
        UserError: the first run is of other revisions, or no gate.
    """
    if first["kind"] != "gate":
        raise UserError(f"--confirm: is the result of {first['kind']}, not of a gate")
    for side in pair:
        if (of_first := first[side.name]["sha"]) != side.revision:
            raise UserError(
                f"--confirm: its {side.name} is {of_first}, and here it is {side.revision}"
            )
    suspects = {
        entry["id"].removeprefix("gate/"): entry
        for entry in first["results"]
        if entry["gate"]["verdict"] == rule.SUSPECT
    }
    print_err(f"{len(suspects)} suspected by the first run")
    failures, void, runs = list(first["failures"]), first["void"], []
    entries = list(first["results"])
    if suspects and not void:
        unchanged = [name for name in subject.names() if not subject.differs(name)]
        lacking = subject.warm(list(suspects))
        failures += failures_of({(side, name): why for (name, side), why in lacking.items()})
        session = _Session(pair, subject, args, unchanged)
        again = [Series(name, one["gate"]["tolerance"]) for name, one in suspects.items()]
        runs = [session.measured(again, patient=True)]
        void = _void(runs[0], unchanged)
        by_name = {one.name: one for one in again}
        entries = [
            confirmed(entry, by_name[name])
            if (name := entry["id"].removeprefix("gate/")) in by_name
            else entry
            for entry in entries
        ]
    return _record(pair, args, entries, failures, void, runs)


def _record(
    pair: Pair,
    args: GateOptions,
    entries: list[dict[str, Any]],
    failures: list[dict[str, str]],
    void: str | None,
    runs: list[PairedRun],
) -> dict[str, Any]:
    return result.new(
        "gate",
        entries,
        failures=failures,
        base={"sha": pair[0].revision},
        head={"sha": pair[1].revision},
        void=void,
        steal=[one.steal for one in runs],
        self_test=alarms.summary(args),
    )


class _Session:
    """What the two runs of a gate have in common."""

    def __init__(
        self, pair: Pair, subject: Subject, args: GateOptions, unchanged: list[str]
    ) -> None:
        self._pair, self._subject, self._args = pair, subject, args
        controls = [name for name in unchanged if name.startswith("kernel/")]
        self._controls = controls[:: max(1, len(controls) // CONTROLS)][:CONTROLS]

    def series(self, name: str) -> Series:
        """A benchmark, with its tolerance where the user says one."""
        return Series(name, self._args.tolerance or 0.0)

    def measured(self, series: list[Series], *, patient: bool = False) -> PairedRun:
        """One run; the controls are timed along."""
        controls = [self.series(name) for name in self._controls]
        rounds = self._args.rounds
        return measure(
            self._subject, self._pair, series, controls, rounds, print_err, patient=patient
        )

    def confirmed(self, series: list[Series]) -> list[PairedRun]:
        """Measures whoever is suspected once more, in fresh processes; verdicts are final then."""
        suspects = [one for one in series if one.verdict == rule.SUSPECT]
        if not suspects:
            return []
        print_err(f"{len(suspects)} suspected: measured once more")
        again = [Series(one.name, one.tolerance) for one in suspects]
        run = self.measured(again, patient=True)
        for one in suspects:
            one.verdict = rule.confirm(one.verdict, run.series[one.name].verdict)
        return [run]


def _void(run: PairedRun, unchanged: list[str]) -> str | None:
    controls = [one for name, one in run.series.items() if name in unchanged]
    count = min((len(one.base) for one in controls), default=0)
    differences = [one.differences[:count] for one in controls] if count >= rule.FIRST_LOOK else []
    return rule.void(differences, TOLERANCE, measured=run.measured, dropped=run.dropped)


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
