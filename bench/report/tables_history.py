"""What a history says of every series: where it began, where it is, and its changes."""

from collections.abc import Iterable, Sequence

from fastppo.bench.report.data import Entry, Group
from fastppo.bench.report.numbers import amount
from fastppo.bench.report.table import Table

READING = (
    "each value over that of its control (after x) in the same result, where it has one; changes: "
    "the revision from which on the values differ, and by how much; first and last of the series."
)


def series(groups: Sequence[Group]) -> Iterable[Table]:
    """A row per series, those that changed first."""
    entries = [entry for group in groups for entry in group.entries if entry.samples]
    rows = [
        (
            entry.id.removeprefix("history/"),
            str(len(entry.samples)),
            amount(entry.samples[0], entry.unit),
            amount(entry.samples[-1], entry.unit),
            entry.unit,
            "; ".join(_change(entry, change) for change in entry.detail["changes"]) or "none",
        )
        for entry in sorted(entries, key=lambda e: not e.detail["changes"])
    ]
    if rows:
        yield Table("series", ("results", "first", "last", "unit", "changes"), rows, is_wide=True)


def _change(entry: Entry, change: dict[str, float]) -> str:
    revision = entry.detail["revisions"][int(change["index"])]
    return f"{revision} {change['after'] / change['before'] - 1:+.1%}"


def findings(entries: Iterable[Entry]) -> list[str]:
    """One sentence per change."""
    return [
        f"{entry.id.removeprefix('history/')}: {_change(entry, change)} (p = {change['p']:.3f})"
        for entry in entries
        if entry.kind == "history"
        for change in entry.detail["changes"]
    ]
