"""Tables of results as text, for the terminal, for markdown and for the page alike."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from fastppo.bench.contract import PHASES
from fastppo.bench.report.data import (
    CEILINGS,
    Entry,
    Group,
    Run,
    interval_of,
    mismatches,
)
from fastppo.bench.report.numbers import (
    amount,
    count,
    ends,
    mebibytes,
    of_ceiling,
    ratio,
    seconds,
    share,
    until,
    with_ends,
)
from fastppo.bench.results.intervals import Interval, heading, median_interval
from fastppo.bench.results.paired import speedup
from fastppo.bench.results.survival import to_threshold

WAITS = {"steps": count, "seconds": seconds}
"""What is waited for until a threshold, and how it is written."""
ABOVE = (0.5, 0.75, 0.9, 1.0)
"""Scores of the performance profile that the table shows."""


@dataclass(frozen=True, slots=True)
class Table:
    """Cells of text. A row of one cell names the rows below it."""

    heading: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, ...]]
    marked: frozenset[tuple[int, int]] = frozenset()
    """Row and column, both from 0, of cells that differ from the base's."""


def tables(run: Run, *, narrow: bool = False) -> Iterable[Table]:
    """Every table of a file; `narrow` leaves the intervals out."""
    by_kind: dict[str, list[Group]] = {}
    for group in run.groups:
        by_kind.setdefault(group.kind, []).append(group)
    if run.kind == "gpu-check":
        yield _gpu_training(run)
    for kind, groups in by_kind.items():
        if kind == "train":
            yield _rates(groups, narrow)
            yield from _phases(groups)
            yield _costs(groups, narrow)
        elif kind == "learn":
            yield from _learning(groups, narrow)
            yield from _parity(run)
            yield from _profile(run)
        elif kind == "kernel":
            yield _kernels(groups, narrow)
        else:
            yield _others(groups, narrow)


def _rates(groups: Sequence[Group], narrow: bool) -> Table:
    bases = {
        entry.detail["ratio"]["base"] for g in groups for entry in g.entries if has_ratio(entry)
    }
    over = f"x {bases.pop()}" if len(bases) == 1 else "ratio"
    labels = heading(e.ratio.label for g in groups for e in g.entries if e.ratio)
    columns = ["env steps/s", over if narrow else f"{over} [{labels}]", "of EnvPool"]
    columns += [] if narrow else ["learning"]
    rows: list[tuple[str, ...]] = []
    for group in groups:
        rows.append((title(group),))
        for entry in group.entries:
            found = entry.ratio
            middle = ratio(found.value if found else None)
            rows.append(
                (
                    f"  {entry.impl}{'*' if mismatches(entry) else ''}",
                    count(entry.value.value) if entry.value else "-",
                    middle if narrow else with_ends(found),
                    of_ceiling(entry.detail["shares"].get("envpool")),
                    *(() if narrow else (entry.detail["learning"],)),
                )
            )
        rows += [
            (f"  {CEILINGS.get(name, name)}", count(rate))
            for name, rate in (group.entries[0].detail["ceilings"] if group.entries else {}).items()
        ]
        rows += [(f"  {failure['impl']}", "not measured") for failure in group.failures]
    return Table("training", columns, rows)


def _phases(groups: Sequence[Group]) -> Iterable[Table]:
    rows: list[tuple[str, ...]] = []
    for group in groups:
        split = [entry for entry in group.entries if entry.detail.get("phases")]
        if split:
            rows.append((title(group),))
        for entry in split:
            told = entry.detail["phases"]
            wall = told["wall"] or 1.0
            rows.append((f"  {entry.impl}", *(share(told[phase] / wall) for phase in PHASES)))
    if rows:
        yield Table("wall time by phase", PHASES, rows)


def _costs(groups: Sequence[Group], narrow: bool) -> Table:
    columns = ("cold start", "compile", "peak memory", *(() if narrow else ("threads env, torch",)))
    rows: list[tuple[str, ...]] = []
    for group in groups:
        rows += [(title(group),)] if group.entries else []
        for entry in group.entries:
            wall, threads = entry.detail["wall"], entry.detail["threads"]
            rows.append(
                (
                    f"  {entry.impl}",
                    seconds(wall["cold_start_s"]),
                    seconds(wall["compile_s"]),
                    mebibytes(entry.detail["memory"]["process_peak_bytes"]),
                    *(() if narrow else (f"{threads['env'] or '?'}, {threads['torch'] or '?'}",)),
                )
            )
    return Table("costs", columns, rows)


def _learning(groups: Sequence[Group], narrow: bool) -> Iterable[Table]:
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
            times.append((f"  {entry.impl}", time, seconds(median(whole) if whole else None)))
        rows += [(f"  {failure['impl']}", "not measured") for failure in group.failures]
    yield Table("learning", (returns, "reached", "median steps to threshold"), rows)
    if any(waits):
        yield Table("wall time", ("median time to threshold", "median time of a run"), times)


def _goal(group: Group) -> str:
    """The task and its threshold."""
    goal = group.entries[0].detail.get("threshold") if group.entries else None
    return title(group) if goal is None else f"{title(group)}, threshold {count(goal)}"


def until_threshold(entry: Entry, what: str) -> Interval | None:
    """Median steps or seconds to the threshold, from the curves; None where there is none."""
    if entry.detail["threshold"] is None:
        return None
    return to_threshold(entry.detail["curves"], what)


def _reached(entry: Entry) -> str:
    """How many of the seeds."""
    curves = entry.detail["curves"]
    there = sum(curve["steps_to_threshold"] is not None for curve in curves)
    return f"{'-' if entry.detail['threshold'] is None else there} of {len(curves)}"


def _parity(run: Run) -> Iterable[Table]:
    wins = {
        one["impl"]: interval_of(one, one.get("tasks", 0))
        for one in run.comparison.get("improvement", ())
    }
    rows: list[tuple[str, ...]] = []
    for told in run.parity:
        name = str(told.get("id", "")).removeprefix("learn/")
        found = wins.get(told["impl"])
        row = (_points(told), with_ends(found), _verdict(told))
        rows.append((f"{told['impl']} {name}".rstrip(), *row))
    if rows:
        label = heading(found.label for found in wins.values() if found)
        columns = ("there and stayed [95%]", f"P(ends above the base) [{label}]", "verdict")
        yield Table("learning parity", columns, rows)


def _profile(run: Run) -> Iterable[Table]:
    """Shares of the runs above a few scores; the chart has the curve."""
    told = run.comparison.get("profile") or {}
    taus: Sequence[float] = told.get("taus", ())
    places = [min(range(len(taus)), key=lambda i: abs(taus[i] - tau)) for tau in ABOVE if taus]
    rows = [
        (str(curve["impl"]), *(share(curve["fractions"][i]) for i in places))
        for curve in told.get("curves", ())
    ]
    if rows:
        yield Table("performance profile", [f">{share(tau)}" for tau in ABOVE], rows)


def _points(told: Mapping[str, Any]) -> str:
    """The difference of the shares of seeds that succeed."""
    check = told.get("success_share")
    if check is None:
        return "not judged"
    found = check["estimate"]
    if found is None:
        return "-"
    value, low, high = (f"{100 * found[end]:+.0f}" for end in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def _verdict(told: Mapping[str, Any]) -> str:
    """With a mark where the older rule gave it, which a reservation explains."""
    return str(told["verdict"]) + ("" if told.get("success_share") else "*")


def _gpu_training(run: Run) -> Table:
    rows: list[tuple[str, ...]] = []
    for told in run.record.get("training", ()):
        if "not_measured" in told:
            rows.append((str(told["env_id"]), "not measured"))
            continue
        phases = ", ".join(f"{name} {share(part)}" for name, part in told["phase_shares"].items())
        rows.append((str(told["env_id"]), count(told["env_steps_per_s"]), phases))
    return Table("training on the device", ("env steps/s", "wall time by phase"), rows)


def _kernels(groups: Sequence[Group], narrow: bool) -> Table:
    counts = [len(e.samples) for g in groups for e in g.entries if e.impl == "fastppo"]
    label = heading(median_interval([1.0] * n).label for n in counts)
    rivals = [rival if narrow else f"{rival} [{label}]" for rival in ("x eager", "x compile")]
    columns = ["time", *rivals, "of copy"]
    rows: list[tuple[str, ...]] = []
    for group in groups:
        rows.append((group.title,))
        for (label, _), ways in cases(group).items():
            if "fastppo" in ways:
                rows.append((f"  {label}", *kernel_cells(ways, narrow)))
    return Table("kernel", columns, rows)


def cases(group: Group) -> dict[tuple[str, str], dict[str, list[float]]]:
    """Samples by implementation, for each shape and clock of an operation."""
    found: dict[tuple[str, str], dict[str, list[float]]] = {}
    for entry in group.entries:
        shape = " ".join(f"{k}={v}" for k, v in entry.raw.get("shape", {}).items()) or entry.id
        clock = "" if entry.clock == "wall" else f" {entry.clock}"
        found.setdefault((shape + clock, entry.clock), {})[entry.impl] = entry.samples
    return found


def kernel_cells(ways: dict[str, list[float]], narrow: bool) -> list[str]:
    """Our time, how many times less it is than each rival's, and the share of the copy's speed."""
    cells = [seconds(sorted(ways["fastppo"])[len(ways["fastppo"]) // 2])]
    for rival in ("eager", "compile", "copy"):
        if len(ways.get(rival, ())) != len(ways["fastppo"]):
            cells.append("-")
            continue
        found = speedup(ways, "fastppo", rival)
        if rival == "copy":
            cells.append(of_ceiling(found.value))
        else:
            cells.append(ratio(found.value) if narrow else with_ends(found))
    return cells


def _others(groups: Sequence[Group], narrow: bool) -> Table:
    rows: list[tuple[str, ...]] = []
    for group in groups:
        rows.append((group.title,))
        ranked = sorted(group.entries, key=lambda e: -(e.value.value if e.value else 0.0))
        for entry in ranked:
            value, unit = entry.value, entry.unit
            reach = ends(value, lambda x, u=unit: amount(x, u))
            name = entry.id.rpartition("/")[2] if entry.kind == "env" else entry.id
            text = f"{amount(value.value, unit)}" if value else "-"
            rows.append((f"  {name} {entry.impl}", text, *([] if narrow else [reach]), unit))
        rows += [(f"  {f['impl']}", "not measured") for f in group.failures]
    columns = ["median", *([] if narrow else [label_of(groups)]), "unit"]
    return Table("setting", columns, rows)


def label_of(groups: Iterable[Group]) -> str:
    """What the ends of these results' intervals are."""
    return heading(e.value.label for group in groups for e in group.entries if e.value)


def title(group: Group) -> str:
    """train/Pong-v5/8x128 as Pong-v5 8x128."""
    return " ".join(group.title.split("/")[1:]) or group.title


def has_ratio(entry: Entry) -> bool:
    return bool(entry.detail.get("ratio"))
