"""Tables of a learning benchmark: returns, time to the threshold, parity, performance profile."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from fastppo.bench.report.data import Entry, Group, ResultFile, interval_of
from fastppo.bench.report.numbers import count, seconds, share, until, with_ends
from fastppo.bench.report.table import Table, label_of, title
from fastppo.bench.results.intervals import Interval, heading
from fastppo.bench.results.survival import from_first_update, to_threshold

WAITS = {"steps": count, "seconds": seconds}
"""What is waited for until a threshold, and how it is written."""
ABOVE = (0.5, 0.75, 0.9, 1.0)
"""Scores of the performance profile that the table shows."""


def learning(run: ResultFile, groups: Sequence[Group], narrow: bool) -> Iterable[Table]:
    """Of one file: per task, then over all tasks."""
    yield from _returns(groups, narrow)
    yield from _parity(run)
    yield from _profile(run)


def _returns(groups: Sequence[Group], narrow: bool) -> Iterable[Table]:
    waits = [until_threshold(e, what) for g in groups for e in g.entries for what in WAITS]
    returns = "final return" + ("" if narrow else f" [{label_of(groups)}]")
    rows: list[tuple[str, ...]] = []
    times: list[tuple[str, ...]] = []
    for group in groups:
        rows.append((_goal(group),))
        times.append((title(group),))
        for entry in group.entries:
            text = count(entry.value.value) if entry.value else "-"
            steps, time = (
                until(until_threshold(entry, what), write, narrow=narrow)
                for what, write in WAITS.items()
            )
            middle = text if narrow else with_ends(entry.value, count)
            rows.append((f"  {entry.impl}", middle, _reached(entry), steps))
            whole = [curve["total_s"] for curve in entry.detail["curves"]]
            warm = until(from_start(entry), seconds, narrow=narrow)
            middle = seconds(median(whole) if whole else None)
            times.append((f"  {entry.impl}", time, warm, middle))
        rows += [(f"  {failure['impl']}", "not measured") for failure in group.failures]
    yield Table("learning", (returns, "reached", "median steps to threshold"), rows)
    if any(waits):
        columns = ("median time to threshold", "from the first update", "median time of a run")
        yield Table("wall time", columns, times)


def _goal(group: Group) -> str:
    """The task and its threshold."""
    goal = group.entries[0].detail.get("threshold") if group.entries else None
    return title(group) if goal is None else f"{title(group)}, threshold {count(goal)}"


def until_threshold(entry: Entry, what: str) -> Interval | None:
    """Median steps or seconds to the threshold, from the curves; None where there is none."""
    if entry.detail["threshold"] is None:
        return None
    return to_threshold(entry.detail["curves"], what)


def from_start(entry: Entry) -> Interval | None:
    """Median seconds to the threshold from the end of the first update."""
    if entry.detail["threshold"] is None:
        return None
    return to_threshold(from_first_update(entry.detail["curves"]), "seconds")


def _reached(entry: Entry) -> str:
    """How many of the seeds."""
    curves = entry.detail["curves"]
    there = sum(curve["steps_to_threshold"] is not None for curve in curves)
    return f"{'-' if entry.detail['threshold'] is None else there} of {len(curves)}"


def _parity(run: ResultFile) -> Iterable[Table]:
    wins = {
        one["impl"]: interval_of(one, one.get("tasks", 0))
        for one in run.comparison.get("improvement", ())
    }
    rows: list[tuple[str, ...]] = []
    for pair in run.parity:
        name = str(pair.get("id", "")).removeprefix("learn/")
        found = wins.get(pair["impl"])
        row = (_points(pair), with_ends(found), _verdict(pair))
        rows.append((f"{pair['impl']} {name}".rstrip(), *row))
    if rows:
        label = heading(found.label for found in wins.values() if found)
        columns = ("there and stayed [95%]", f"P(ends above the base) [{label}]", "verdict")
        yield Table("learning parity", columns, rows)


def _profile(run: ResultFile) -> Iterable[Table]:
    """Shares of the runs above a few scores; the chart has the curve."""
    profile = run.comparison.get("profile") or {}
    taus: Sequence[float] = profile.get("taus", ())
    places = [min(range(len(taus)), key=lambda i: abs(taus[i] - tau)) for tau in ABOVE if taus]
    rows = [
        (str(curve["impl"]), *(share(curve["fractions"][i]) for i in places))
        for curve in profile.get("curves", ())
    ]
    if rows:
        yield Table("performance profile", [f">{share(tau)}" for tau in ABOVE], rows)


def _points(pair: Mapping[str, Any]) -> str:
    """The difference of the shares of seeds that succeed."""
    check = pair.get("success_share")
    if check is None:
        return "not judged"
    found = check["estimate"]
    if found is None:
        return "-"
    value, low, high = (f"{100 * found[end]:+.0f}" for end in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def _verdict(pair: Mapping[str, Any]) -> str:
    """With a mark where the older rule gave it, which a reservation explains."""
    return str(pair["verdict"]) + ("" if pair.get("success_share") else "*")
