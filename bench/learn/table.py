"""What `fastppo bench learn` prints: at most 80 columns, plain text where it is not a terminal."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from fastppo.bench.report.console import WIDTH, make_console, make_table
from fastppo.bench.results.parity import MIN_SEEDS, RETURN_MARGIN, SHARE_MARGIN, STEPS_MARGIN

ABOVE = (0.5, 0.75, 0.9, 1.0)
"""Scores of the performance profile that the table shows."""


def render(record: Mapping[str, Any], console: Console | None = None) -> None:
    """Prints a learn record: a table per task, one against the base, and what the numbers mean."""
    console = console or make_console()
    results = record["results"]
    for task in dict.fromkeys(one["id"] for one in results):
        console.print(task.removeprefix("learn/"), markup=False)
        console.print(_task(console, [one for one in results if one["id"] == task]))
        console.print()
    if results:
        console.print(_against(console, record))
        console.print()
    for note in [*(_notes(record) if results else ()), *_failures(record)]:
        indent = " " * (len(note) - len(note.lstrip()) + 2)
        for line in textwrap.wrap(note, min(WIDTH, console.width), subsequent_indent=indent):
            console.print(line, markup=False)


def _task(console: Console, entries: Sequence[Mapping[str, Any]]) -> Table:
    threshold = entries[0]["learn"]["threshold"]
    goal = "threshold" if threshold is None else f"{threshold:g}"
    columns = ("final return", f"env steps to {goal}", "seconds", "there")
    table = make_table(console, ("mean over seeds", *columns))
    for entry in entries:
        detail = entry["learn"]
        table.add_row(
            entry["impl"],
            _interval(detail["final_iqm"], _score),
            *_to_threshold(detail["to_threshold"]),
        )
    return table


def _to_threshold(found: Mapping[str, Any] | None) -> tuple[str, str, str]:
    if found is None:
        return "-", "-", "-"
    # who never got there counts with the whole run, so the mean can only be larger
    least = "" if found["reached"] == found["runs"] else ">="
    seconds = found["seconds"]["restricted_mean"]["value"]
    return (
        least + _interval(found["steps"]["restricted_mean"], _count),
        f"{least}{seconds:,.1f}",
        f"{found['reached']}/{found['runs']}",
    )


def _against(console: Console, record: Mapping[str, Any]) -> Table:
    comparison = record["comparison"]
    improvement = {one["impl"]: one for one in comparison["improvement"]}
    taus = comparison["profile"]["taus"]
    profiles = {one["impl"]: one["fractions"] for one in comparison["profile"]["curves"]}
    columns = ("P(> base)", *(f">{tau:.0%}" for tau in ABOVE), "learning")
    table = make_table(console, ("all tasks", *columns))
    for name in dict.fromkeys(one["impl"] for one in record["results"]):
        better = improvement.get(name)
        shares = ["-"] * len(ABOVE)
        if name in profiles:
            shares = [f"{profiles[name][_nearest(taus, tau)]:.0%}" for tau in ABOVE]
        verdicts = [one["verdict"] for one in comparison["parity"] if one["impl"] == name]
        table.add_row(
            name,
            "-" if better is None else _interval(better, "{:.2f}".format),
            *shares,
            ", ".join(dict.fromkeys(verdicts)),
        )
    return table


def _notes(record: Mapping[str, Any]) -> Iterator[str]:
    results, comparison = record["results"], record["comparison"]
    first = results[0]["learn"]
    yield (
        "final return: interquartile mean over seeds (95% bootstrap interval) of the games that "
        f"ended in the last {first['final_part']:.0%} of the env steps."
    )
    yield (
        f"env steps, seconds: until the mean of the last {first['games']} games is there; mean "
        "over seeds, where one that never got there counts with its whole run (then >=). Seconds "
        "include the start of the process."
    )
    if first["jobs"] > 1:
        yield f"{first['jobs']} processes ran side by side: seconds are not those of one alone."
    yield (
        f"base: {comparison['base']}. P(> base): that a run ends above one of the base; 0.50 is "
        "equal. >90%: part of the runs that end above 90% of the way from the untrained base to "
        "the threshold."
    )
    yield (
        "learning: passed if, with 95% confidence in each, the share of seeds that get there and "
        f"stay is at most {100 * SHARE_MARGIN:g} points below the base's, it loses at most "
        f"{RETURN_MARGIN:.0%} of what the base learned, and it takes at most {STEPS_MARGIN:g} "
        f"times its env steps to the threshold. That takes {MIN_SEEDS} seeds without a failure, or "
        "more. There and stay: at the threshold once, and in the end above half of what the base "
        "learned."
    )
    for one in comparison["parity"]:
        yield f"  {one['id'].removeprefix('learn/')}, {one['impl']}: {one['verdict']}"
        for reason in one["reasons"]:
            yield f"    {reason}"
        if one["too_fast"]:
            yield "    too good to be the same work? compare the curves and the work manifests"
    for entry in results:
        for odd in entry["learn"]["mismatch"]:
            yield f"{entry['id'].removeprefix('learn/')}, {entry['impl']}: other work: {odd}"
    cut = sum(not curve["finished"] for one in results for curve in one["learn"]["curves"])
    if cut:
        yield f"{cut} run{'s' * (cut > 1)} cut short: in env steps and seconds only."


def _failures(record: Mapping[str, Any]) -> list[str]:
    return [f"{one['impl']}: {one['reason']}" for one in record["failures"]]


def _nearest(taus: Sequence[float], tau: float) -> int:
    return min(range(len(taus)), key=lambda i: abs(taus[i] - tau))


def _interval(found: Mapping[str, Any], style: Any) -> str:
    if found["value"] is None:
        return "-"
    return f"{style(found['value'])} ({style(found['low'])}..{style(found['high'])})"


def _score(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.1f}"


def _count(value: float) -> str:
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.1f}{unit}"
    return f"{value:.0f}"
