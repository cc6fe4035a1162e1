"""What a gate says of every benchmark: one table, the worst first."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from fastppo.bench.report.data import Entry, Group
from fastppo.bench.report.numbers import amount, mebibytes
from fastppo.bench.report.table import Table

ORDER = ("REGRESSION", "ACCEPTED", "SUSPECT", "FLAKY", "INCONCLUSIVE", "IMPROVED", "PASS")
"""Of the rows."""
FAILED = "REGRESSION"
READING = (
    "cost: median over pairs of fresh processes; times: cost of the head over that of the base, "
    "with 96% bounds; same code: not timed, because both sides run the same."
)


def verdicts(groups: Sequence[Group]) -> Iterable[Table]:
    """A row per benchmark that was measured or counted; those of the same code are a number."""
    entries = [entry for group in groups for entry in group.entries]
    seen = [entry for entry in entries if entry.samples]
    rows = [
        (
            entry.id.removeprefix("gate/"),
            str(entry.detail["verdict"]),  # first: a telephone shows no more than two columns
            _cost(median(entry.detail["base"]), entry.unit),
            _cost(median(entry.samples), entry.unit),
            _change(entry),
            str(entry.detail["pairs"]),
        )
        for entry in sorted(seen, key=lambda e: ORDER.index(e.detail["verdict"]))
    ]
    same = len(entries) - len(seen)
    if same:
        rows.append((f"{same} of the same code", "PASS", "", "", "", ""))
    if rows:
        yield Table("benchmark", ("verdict", "base", "head", "times", "pairs"), rows)


def _cost(value: float, unit: str) -> str:
    large = unit == "bytes" and value >= 2**20
    return mebibytes(value) if large else amount(value, unit)


def _change(entry: Entry) -> str:
    change = entry.detail["change"]
    if change is None:
        return "-"
    if change["low"] is None or change["high"] is None:
        return f"{change['value']:.3f}"
    return f"{change['value']:.3f} [{change['low']:.3f}, {change['high']:.3f}]"


def findings(entries: Iterable[Entry]) -> list[str]:
    """What a gate found, one sentence each: what is worse, by how much, and what would not show."""
    return [
        f"{entry.detail['verdict']}: {entry.id.removeprefix('gate/')} costs {_change(entry)} times "
        f"the base's{_note(entry)}"
        for entry in entries
        if entry.kind == "gate" and entry.detail["verdict"] not in ("PASS", "IMPROVED")
    ]


def own_alarms(found: Mapping[str, Any] | None) -> list[str]:
    """What `fastppo gate self-test` saw on the machine of a gate."""
    if found is None:
        return [
            "this machine was never self-tested: `fastppo gate self-test` shows what it can see."
        ]
    seen = ", ".join(f"{kind} {least:.0%}" for kind, least in found["detectable"].items())
    return [
        f"this machine: {found['gates']} gates of equal sides, {found['regressions']} of "
        f"{found['benchmarks']} verdicts REGRESSION; smallest slow-down that 20 pairs would show: "
        f"{seen or 'not known yet'}."
    ]


def _note(entry: Entry) -> str:
    tolerance, note = entry.detail["tolerance"], entry.detail["note"]
    allowed = f", {tolerance:.0%} allowed" if tolerance else ", none more allowed"
    return f"{allowed}; {note}" if note else allowed
