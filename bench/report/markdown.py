"""Markdown for a pull-request comment: verdict first, the table, and the rest to unfold."""

from collections.abc import Iterable, Sequence

from fastppo.bench.report.data import ResultFile
from fastppo.bench.report.escape import code, escape
from fastppo.bench.report.notes import findings, notes, reservations, sentences
from fastppo.bench.report.table import Table
from fastppo.bench.report.tables import tables


def table(content: Table) -> list[str]:
    """A table; rows of one cell name those below and are bold."""
    width = len(content.columns)
    lines = [
        f"| {' | '.join(escape(cell) for cell in (content.heading, *content.columns))} |",
        f"|---|{'--:|' * width}",
    ]
    for row in content.rows:
        cells = [escape(cell.strip()) for cell in row]
        if len(cells) == 1:
            cells[0] = f"**{cells[0]}**"
        lines.append(f"| {' | '.join(cells + [''] * (1 + width - len(cells)))} |")
    return lines


def details(summary: str, lines: Iterable[str]) -> list[str]:
    """A part to unfold."""
    return ["<details>", f"<summary>{escape(summary)}</summary>", "", *lines, "", "</details>"]


def markdown(runs: Sequence[ResultFile]) -> str:
    """The whole report."""
    first_said, *then = sentences(runs)
    lines = [" ".join([f"**{escape(first_said)}**", *map(escape, then)])]
    for run in runs:
        first, *others = list(tables(run)) or [Table("", (), ())]
        lines += ["", *table(first)] if first.rows else []
        for finding in findings(run):
            lines += ["", escape(finding)]
        doubts = reservations(run)
        if doubts:
            lines += ["", *(f"- {escape(line)}" for line in doubts)]
        for other in others:
            lines += ["", *details(other.heading, table(other))]
        items = [f"- {escape(line)}" for line in notes(run) if line not in doubts]
        lines += ["", *details("how to read this", items)]
    return "\n".join([*lines, "", "---", *_footer(runs)]) + "\n"


def _footer(runs: Sequence[ResultFile]) -> Iterable[str]:
    for run in runs:
        facts = run.facts()
        summary = "; ".join(escape(facts[name]) for name in ("machine", "versions", "code", "date"))
        yield f"<sub>{summary}; {code(facts['command'])}</sub>  "
