"""A comparison of two result files as a terminal table and as markdown."""

from collections.abc import Sequence

from rich.console import Console

from fastppo.bench.compare.command import Comparison
from fastppo.bench.compare.verdicts import CONTROL, IMPROVED, INCONCLUSIVE, PASS, REGRESSION, Row
from fastppo.bench.report.console import make_console
from fastppo.bench.report.data import Entry
from fastppo.bench.report.escape import code, escape
from fastppo.bench.report.markdown import details, table
from fastppo.bench.report.numbers import amount, ratio, with_interval
from fastppo.bench.report.tables import Table
from fastppo.bench.report.terminal import NARROW, print_table, say

ORDER = (REGRESSION, INCONCLUSIVE, IMPROVED, PASS, CONTROL)
UNPAIRED = (
    "Unpaired: the files were measured at different times, and drift between the two runs is in "
    "every ratio. Above 1, B is better. Intervals: 95%, seeded bootstrap of the medians' ratio."
)


def sentence(found: Comparison) -> str:
    """The verdict on the whole, first what went wrong."""
    if found.void is not None:
        return f"VOID: {found.void}; measure both files in one sitting."
    judged = [row for row in found.rows if row.verdict != CONTROL]
    counts = [(found.having(verdict), verdict) for verdict in ORDER[:4]]
    said = ", ".join(f"{len(rows)} {verdict}" for rows, verdict in counts if rows)
    first = found.having(REGRESSION) or found.having(INCONCLUSIVE) or found.having(IMPROVED)
    verdict = first[0].verdict if first else PASS
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
    print_table(rows(found.rows, narrow=console.width < NARROW), console, red=(REGRESSION,))
    say(console, *notes(found))


def rows(compared: Sequence[Row], *, narrow: bool = False) -> Table:
    """A row per result, under the name of what was measured."""
    cells: list[tuple[str, ...]] = []
    last = ""
    for row in compared:
        heading = f"{row.a.id} {row.a.clock}" if row.a.clock != "wall" else row.a.id
        if heading != last:
            cells.append((heading,))
            last = heading
        middles = [amount(e.value.value, e.unit) if e.value else "-" for e in (row.a, row.b)]
        found = row.ratio
        told = "-" if found is None else with_interval(found.value, found.low, found.high)
        if found is not None and narrow:
            told = ratio(found.value)
        cells.append((f"  {row.a.impl}", *middles, told, row.verdict))
    units = {row.a.unit for row in compared} - {"s"}
    first = f"result, {units.pop()}" if len(units) == 1 else "result"
    return Table(first, ("A", "B", "ratio" if narrow else "ratio [95%]", "verdict"), cells)


def notes(found: Comparison) -> list[str]:
    """How to read the table, and what it cannot show."""
    lines = [UNPAIRED]
    if found.drift is not None:
        lines.append(f"The machine alone (controls) was {ratio(found.drift)} times as fast in B.")
    few = [row for row in found.rows if min(len(row.a.samples), len(row.b.samples)) < 6]
    if few:
        lines.append(
            f"{len(few)} results have fewer than 6 samples: intervals are rough or missing."
        )
    lines += [f"mismatch: {line}" for line in found.mismatch]
    for name, entries in (("A", found.only_a), ("B", found.only_b)):
        lines += [f"only in {name}: {name_of(entry)}" for entry in entries]
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
