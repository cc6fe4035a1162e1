"""Results on the terminal: at most 80 columns, plain ASCII where it is not a terminal."""

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from fastppo.bench.report.console import make_console
from fastppo.bench.report.data import ResultFile, run_of
from fastppo.bench.report.notes import findings, notes
from fastppo.bench.report.table import Table
from fastppo.bench.report.tables import tables
from fastppo.bench.report.tables_gate import FAILED
from fastppo.bench.report.tables_static import FAIL
from fastppo.text import printable

NARROW = 76
"""Below so many columns intervals and minor columns are left out."""
WIDEST = 200
"""More columns than any wide table needs."""
LONGEST = 18
"""Characters of a name that are never folded."""


def print_results(records: Sequence[dict[str, Any]], console: Console | None = None) -> None:
    """Prints every record: rates or times, phases, and what must be known to read them.

    Args:
        records: result files, as `result.new` makes and `result.read` returns them.
        console: where to; standard output by default.
    """
    print_runs([run_of(record) for record in records], console or make_console())


def print_runs(runs: Sequence[ResultFile], console: Console) -> None:
    """The same for files that were read."""
    for run in runs:
        facts = run.facts()
        heading = f"{run.kind} {run.name}".rstrip()
        say(console, f"{heading}: {facts['machine']}", f"{facts['date']}  $ {facts['command']}", "")
        for table in tables(run, narrow=console.width < NARROW):
            print_table(table, console, red=(FAIL, FAILED))
        for finding in findings(run):
            say(console, finding, "")
        kept = (f"{name}: {facts[name]}" for name in ("versions", "load before") if name in facts)
        say(console, *notes(run), *kept, "")


def print_table(table: Table, console: Console, *, red: Sequence[str] = ()) -> None:
    """Names to the left, numbers to the right; lines and colours only on a terminal.

    Args:
        red: cells with this text stand out.
    """
    framed = console.is_terminal
    gap = 2 if console.width >= NARROW else 1
    names = max([len(row[0]) for row in table.rows] or [0])
    drawn = RichTable(
        box=box.SIMPLE_HEAD if framed else None, pad_edge=False, padding=(0, gap, 0, 0)
    )
    drawn.add_column(table.heading, overflow="fold", min_width=min(names, LONGEST))
    for column in table.columns:
        drawn.add_column(column, justify="right", overflow="fold")
    for row in table.rows:
        style = "bold" if len(row) == 1 else ""
        drawn.add_row(
            *(Text(printable(cell), "bold red" if cell in red else style) for cell in row)
        )
    width = console.width
    if table.is_wide:
        console.width = max(width, WIDEST)
    console.print(drawn)
    console.width = width
    if not framed:
        console.print()


def say(console: Console, *lines: str) -> None:
    """Lines of text, wrapped at the width of the console."""
    for line in lines:
        console.print(Text(printable(line)))
