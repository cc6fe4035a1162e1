"""A comparison of two result files as a terminal table, as markdown and as JUnit XML."""

import math
from collections.abc import Sequence
from xml.etree import ElementTree as xml

from rich.console import Console

from fastppo.bench.compare.comparison import Comparison
from fastppo.bench.compare.verdicts import (
    CONTROL,
    DRIFT,
    FEWEST,
    IMPROVED,
    INCONCLUSIVE,
    LAUNCH,
    NOT_MEASURED,
    PASS,
    REGRESSION,
    Row,
)
from fastppo.bench.report import junit as report_junit
from fastppo.bench.report.console import make_console
from fastppo.bench.report.data import Entry
from fastppo.bench.report.markdown import code, details, escape, table
from fastppo.bench.report.numbers import amount, ratio, with_ends
from fastppo.bench.report.tables import Table
from fastppo.bench.report.terminal import NARROW, print_table, say
from fastppo.bench.results.intervals import heading, quantile

ORDER = (REGRESSION, NOT_MEASURED, INCONCLUSIVE, IMPROVED, PASS, CONTROL)
UNPAIRED = (
    "Unpaired: the files were measured at different times, and drift between the two runs is in "
    "every ratio. What the controls show of it is divided out; {drift:.0%} (standard deviation) "
    "is assumed to be left, so slow-downs below some {seen:.0%} stay unseen. To see less, measure "
    "both in one sitting (fastppo bench train). Above 1, B is better. Intervals: 95%, Student's "
    "over launches."
)


def sentence(found: Comparison) -> str:
    """The verdict on the whole, first what went wrong."""
    if found.void is not None:
        return f"VOID: {found.void}; measure both files in one sitting."
    judged = [row for row in found.rows if row.verdict != CONTROL]
    counts = [(len(found.having(verdict)), verdict) for verdict in ORDER[:-1]]
    said = ", ".join(f"{number} {verdict}" for number, verdict in counts if number)
    verdict = next((verdict for number, verdict in counts if number), PASS)
    return (
        f"{verdict}: of {len(judged)} results {said or 'none'}, at {found.tolerance:.0%} tolerance."
    )


def print_comparison(found: Comparison, console: Console | None = None) -> None:
    """Prints the verdict, the table and everything that limits it."""
    console = console or make_console()
    for name, run in (("A", found.a), ("B", found.b)):
        facts = run.facts()
        say(console, f"{name}: {run.name}, {facts['date']}, {facts['code']}")
    say(console, "", sentence(found), "")
    red = (REGRESSION, NOT_MEASURED)
    print_table(rows(found.rows, narrow=console.width < NARROW), console, red=red)
    say(console, *notes(found))


def rows(compared: Sequence[Row], *, narrow: bool = False) -> Table:
    """A row per result, under the name of what was measured."""
    cells: list[tuple[str, ...]] = []
    last = ""
    for row in compared:
        name = f"{row.a.id} {row.a.clock}" if row.a.clock != "wall" else row.a.id
        if name != last:
            cells.append((name,))
            last = name
        middles = [
            amount(e.value.value, e.unit) if e is not None and e.value else "-"
            for e in (row.a, row.b)
        ]
        found = row.ratio
        told = ratio(found.value if found else None) if narrow else with_ends(found)
        cells.append((f"  {row.a.impl}", *middles, told, row.verdict))
    units = {row.a.unit for row in compared} - {"s"}
    first = f"result, {units.pop()}" if len(units) == 1 else "result"
    label = heading(row.ratio.label for row in compared if row.ratio)
    return Table(first, ("A", "B", "ratio" if narrow else f"ratio [{label}]", "verdict"), cells)


def notes(found: Comparison) -> list[str]:
    """How to read the table, and what it cannot show."""
    seen = 1.0 - math.exp(-math.log1p(found.tolerance) - quantile(math.inf) * DRIFT)
    lines = [UNPAIRED.format(drift=DRIFT, seen=seen)]
    if found.drift is not None:
        lines.append(f"The machine alone (controls) was {ratio(found.drift)} times as fast in B.")
    sides = [(row.a, row.b) for row in found.rows if row.b is not None]
    few = sum(min(len(a.launches), len(b.launches)) < FEWEST for a, b in sides)
    if few:
        lines.append(
            f"{few} results have fewer than {FEWEST} launches: that launches differ by "
            f"{LAUNCH:.0%} is assumed."
        )
    lines += [f"mismatch: {line}" for line in found.mismatch]
    lines += [f"only in A: {name_of(row.a)}" for row in found.having(NOT_MEASURED)]
    lines += [f"only in B: {name_of(entry)}" for entry in found.only_b]
    for name, run in (("A", found.a), ("B", found.b)):
        lines += [
            f"not measured in {name}: {f['impl']} on {f['id']}: {f['reason']}" for f in run.failures
        ]
    versions = [run.record["versions"] for run in (found.a, found.b)]
    moved = [k for k in {**versions[0], **versions[1]} if versions[0].get(k) != versions[1].get(k)]
    lines += [f"version of {k}: {versions[0].get(k)} and {versions[1].get(k)}" for k in moved]
    return lines


def name_of(entry: Entry) -> str:
    clock = "" if entry.clock == "wall" else f" ({entry.clock})"
    return f"{entry.impl} on {entry.id}{clock}"


def markdown(found: Comparison) -> str:
    """For a pull request: the verdict, what is not a PASS, and the rest to unfold."""
    loud = [row for row in found.rows if row.verdict not in (PASS, CONTROL)]
    quiet = [row for row in found.rows if row.verdict in (PASS, CONTROL)]
    lines = [f"**{escape(sentence(found))}**", ""]
    if loud:
        lines += [*table(rows(loud)), ""]
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


def junit(found: Comparison) -> str:
    """A test case per result of A: a regression or what B lacks fails, the undecided is skipped."""
    root = xml.Element("testsuites", name="fastppo")
    suite = xml.SubElement(root, "testsuite", name=f"compare {found.a.name} {found.b.name}")
    reasons = {(f["id"], f["impl"]): str(f["reason"]) for f in found.b.failures}
    cases = []
    if found.void is not None:
        cases.append(report_junit.named(suite, "controls", "machine"))
        xml.SubElement(cases[0], "failure", message=sentence(found), type="Void")
    for row in found.rows:
        case = report_junit.named(suite, row.a.id, row.a.impl)
        message = f"{row.verdict}: {with_ends(row.ratio)} times as good as before"
        if row.verdict == NOT_MEASURED:
            reason = reasons.get((row.a.id, row.a.impl), "it is in A alone")
            xml.SubElement(case, "failure", message=reason, type="NotMeasured")
        elif row.verdict == REGRESSION and found.void is None:
            xml.SubElement(case, "failure", message=message, type="Regression")
        elif row.verdict == INCONCLUSIVE or found.void is not None:
            xml.SubElement(case, "skipped", message=message)
        else:
            xml.SubElement(case, "system-out").text = message
        cases.append(case)
    report_junit.count(suite, cases)
    return report_junit.text(root)
