"""A comparison of two result files as a terminal table and as markdown: the same rows and notes."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console

from fastppo import files
from fastppo.bench.compare.comparison import Comparison
from fastppo.bench.compare.drift import (
    DRIFT,
    FEWEST,
    IMPROVED,
    INCONCLUSIVE,
    LAUNCH,
    PASS,
    REGRESSION,
)
from fastppo.bench.compare.verdicts import CONTROL, NOT_MEASURED, ComparedRow
from fastppo.bench.report.console import make_console
from fastppo.bench.report.data import Entry, ResultFile
from fastppo.bench.report.escape import code, escape
from fastppo.bench.report.markdown import details, table
from fastppo.bench.report.numbers import amount, ratio, with_ends
from fastppo.bench.report.table import Table
from fastppo.bench.report.terminal import NARROW, print_table, say
from fastppo.bench.results.intervals import COVERS
from fastppo.bench.results.statistics import FEWEST_RUNS

ORDER = (REGRESSION, NOT_MEASURED, INCONCLUSIVE, IMPROVED, PASS)
QUIET = (PASS, CONTROL)
VOID = "void"
SCHEMA = "fastppo.compare/1"
SESSIONS = (
    f"Two sessions: {DRIFT:.1%} (standard deviation) between them, which no sample shows, is in "
    "every interval; so equal code passes from about 15% tolerance, and slow-downs show from about "
    "20%. To see smaller ones, measure both in one sitting: `fastppo bench train --impl` with a "
    "command of each revision."
)
READING = "ratio: above 1, B is better."


def sentence(found: Comparison) -> str:
    """The verdict on the whole, first what went wrong."""
    if found.void is not None:
        return f"VOID: {found.void}; measure both files in one sitting."
    judged = [row for row in found.rows if row.verdict != CONTROL]
    counts = [(found.having(verdict), verdict) for verdict in ORDER]
    said = ", ".join(f"{len(rows)} {verdict}" for rows, verdict in counts if rows)
    worst = next((verdict for rows, verdict in counts if rows), PASS)
    return (
        f"{worst}: of {len(judged)} results {said or 'none'}, at {found.tolerance:.0%} tolerance."
    )


def print_comparison(found: Comparison, console: Console | None = None) -> None:
    """Prints the verdict, the table and everything that limits it."""
    console = console or make_console()
    for name, run in (("A", found.a), ("B", found.b)):
        facts = run.facts()
        say(console, f"{name}: {run.name}, {facts['date']}, {facts['code']}")
    say(console, "", sentence(found), "")
    drawn = rows(found.rows, narrow=console.width < NARROW, void=found.void is not None)
    print_table(drawn, console, red=(REGRESSION, NOT_MEASURED))
    say(console, *notes(found))


def rows(compared: Sequence[ComparedRow], *, narrow: bool = False, void: bool = False) -> Table:
    """A row per result, under the name of what was measured.

    Args:
        void: the comparison says nothing, so no row passes or fails.
    """
    cells: list[tuple[str, ...]] = []
    last = ""
    for row in compared:
        heading = f"{row.id} {row.clock}" if row.clock != "wall" else row.id
        if heading != last:
            cells.append((heading,))
            last = heading
        cells.append((f"  {row.impl}", *map(_middle, (row.a, row.b)), ratio_of(row, narrow=narrow),
                      verdict_of(row, void=void)))  # fmt: skip
    units = {entry.unit for row in compared for entry in (row.a, row.b) if entry} - {"s"}
    first = f"result, {units.pop()}" if len(units) == 1 else "result"
    sure = any(map(_has_interval, compared))
    heading = f"ratio [{COVERS}]" if sure and not narrow else "ratio"
    return Table(first, ("A", "B", heading, "verdict"), cells)


def verdict_of(row: ComparedRow, *, void: bool) -> str:
    """Of one row; in a void comparison only what was not measured has one."""
    return VOID if void and row.verdict not in (NOT_MEASURED, CONTROL) else row.verdict


def _middle(entry: Entry | None) -> str:
    return "-" if entry is None or entry.value is None else amount(entry.value.value, entry.unit)


def ratio_of(row: ComparedRow, *, narrow: bool = False) -> str:
    """With its interval, where there is one that is known to cover."""
    found = row.ratio
    return ratio(found.value if found else None) if narrow else with_ends(found)


def _has_interval(row: ComparedRow) -> bool:
    return row.ratio is not None and not math.isnan(row.ratio.low)


def notes(found: Comparison) -> list[str]:
    """How to read the table, and what it cannot show."""
    rated = [row for row in found.rows if row.ratio is not None]
    speeds = [row for row in rated if not _of_learning(row)]
    lines = [SESSIONS, READING] if speeds else [READING]
    sure = {_of_learning(row) for row in rated if _has_interval(row)}
    methods = {False: "t over launches", True: "bootstrap over seeds"}
    lines += [f"Intervals: {COVERS}, {methods[learning]}." for learning in sorted(sure)]
    if found.controls:
        factors = ", ".join(map(ratio, sorted(found.controls)))
        if len(found.controls) > 4:
            factors = f"{ratio(min(found.controls))} to {ratio(max(found.controls))}"
        lines.append(
            f"The machine alone (EnvPool, a copy) was {factors} times as fast in B; the ratios of "
            "a task are over its own."
        )
    elif speeds:
        lines.append("Nothing of the machine alone is divided out: more drift is in every ratio.")
    lines += _doubts(found)
    lines += [f"mismatch: {line}" for line in found.mismatch]
    lines += [f"only in B: {name_of(entry)}" for entry in found.only_b]
    lines += [
        f"not measured in A: {f['impl']} on {f['id']}: {f['reason']}" for f in found.a.failures
    ]
    versions = [run.record["versions"] for run in (found.a, found.b)]
    moved = [k for k in {**versions[0], **versions[1]} if versions[0].get(k) != versions[1].get(k)]
    lines += [f"version of {k}: {versions[0].get(k)} and {versions[1].get(k)}" for k in moved]
    return lines


def _of_learning(row: ComparedRow) -> bool:
    return row.a is not None and row.a.kind == "learn"


def _doubts(found: Comparison) -> list[str]:
    """Why rows have no interval, no verdict or no measurement."""
    few = [row for row in found.rows if row.few]
    seeds = sum(map(_of_learning, few))
    lines = []
    if launches := len(few) - seeds:
        lines.append(
            f"Fewer than {FEWEST} launches on a side, so no interval, in {launches} of "
            f"{len(found.rows)} results: launches are taken to differ by {LAUNCH:.0%}, and only "
            "what lies outside even so gets a verdict."
        )
    if seeds:
        lines.append(
            f"Fewer than {FEWEST_RUNS} seeds on a side, so no interval, in {seeds} of "
            f"{len(found.rows)} results."
        )
    return lines + [
        f"{'not measured in B' if row.verdict == NOT_MEASURED else 'cannot tell'}: "
        f"{name_of(row)}: {row.remark}"
        for row in found.rows
        if row.remark
    ]


def name_of(one: Entry | ComparedRow) -> str:
    clock = "" if one.clock == "wall" else f" ({one.clock})"
    return f"{one.impl} on {one.id}{clock}"


def as_json(found: Comparison, *, strict: bool) -> str:
    """Verdict, rows and notes, for a program to read."""

    def side(run: ResultFile) -> dict[str, Any]:
        return {"file": run.name, **run.facts()}

    def row(one: ComparedRow) -> dict[str, Any]:
        middles = {
            name: None if entry is None or entry.value is None else entry.value.value
            for name, entry in (("a", one.a), ("b", one.b))
        }
        return {
            "id": one.id,
            "impl": one.impl,
            "clock": one.clock,
            "unit": next((entry.unit for entry in (one.a, one.b) if entry), None),
            **middles,
            "ratio": one.ratio and asdict(one.ratio),
            "verdict": verdict_of(one, void=found.void is not None),
            "remark": one.remark,
        }

    whole = {
        "schema": SCHEMA,
        "a": side(found.a),
        "b": side(found.b),
        "tolerance": found.tolerance,
        "void": found.void,
        "verdict": sentence(found),
        "exit_code": found.exit_code(strict=strict),
        "rows": [row(one) for one in found.rows],
        "notes": notes(found),
    }
    return json.dumps(files.finite(whole), indent=1, allow_nan=False) + "\n"


def html(found: Comparison) -> str:
    """One page that opens offline."""
    from fastppo.bench.report import html as report  # takes matplotlib, which a table does without

    a, b = ({"file": run.name, **run.facts()} for run in (found.a, found.b))
    shared: dict[str, str] = {}
    for key in a:
        if a[key] == b[key]:
            shared[key] = a[key]
        else:
            shared |= {f"A: {key}": a[key], f"B: {key}": b[key]}
    drawn = rows(found.rows, void=found.void is not None)
    section = report.Section(
        "comparison", "Comparison", f"{found.a.name} and {found.b.name}", shared, [drawn], [], [],
        notes(found),
    )  # fmt: skip
    return report.page([sentence(found)], [section], shared)


def markdown(found: Comparison) -> str:
    """For a pull request: the verdict, what is not a PASS, and the rest to unfold."""
    void = found.void is not None
    loud = [row for row in found.rows if row.verdict not in QUIET or void]
    quiet = [row for row in found.rows if row.verdict in QUIET and not void]
    lines = [f"**{escape(sentence(found))}**", ""]
    if loud:
        lines += [*table(rows(loud, void=void)), ""]
    if quiet:
        lines += [
            *details(f"{len(quiet)} results that passed or are controls", table(rows(quiet))),
            "",
        ]
    lines += [f"- {escape(line)}" for line in notes(found)]
    for name, run in (("A", found.a), ("B", found.b)):
        facts = run.facts()
        lines += [
            "",
            f"{name}: {code(run.name)}, {escape(facts['date'])}, {escape(facts['code'])},",
        ]
        lines += [f"{escape(facts['machine'])}: {code(facts['command'])}"]
    return "\n".join(lines) + "\n"
