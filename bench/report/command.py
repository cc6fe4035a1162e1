"""`fastppo report FILES...`: result files as a terminal table, markdown, JUnit, HTML, pictures."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fastppo.bench.report import junit as report_junit
from fastppo.bench.report import markdown as report_markdown
from fastppo.bench.report.args import Args
from fastppo.bench.report.console import make_console
from fastppo.bench.report.data import ResultFile, read, run_of
from fastppo.bench.report.terminal import print_results, print_runs
from fastppo.bench.results import result
from fastppo.errors import MachineError, UserError, why
from fastppo.text import print_out

__all__ = [
    "html",
    "junit",
    "markdown",
    "pictures",
    "print_results",
    "run",
]


def html(records: Sequence[dict[str, Any]]) -> str:
    """One page that opens offline."""
    return _page(_runs(records))


def markdown(records: Sequence[dict[str, Any]]) -> str:
    """A pull-request comment."""
    return report_markdown.markdown(_runs(records))


def junit(records: Sequence[dict[str, Any]]) -> str:
    """A JUnit file."""
    return report_junit.junit(_runs(records))


def pictures(records: Sequence[dict[str, Any]], folder: Path) -> Iterator[Path]:
    """Writes every chart into the folder as PNG and SVG.

    Raises:
        UserError: it is not a folder.
        MachineError: it cannot be written.
    """
    yield from _pictures(_runs(records), folder)


def run(args: Args) -> int:
    """Writes what was asked for; with no option, prints the table.

    Returns:
        0

    Raises:
        UserError: a file is off, or an output has no place.
        MachineError: an output cannot be written.
    """
    if not args.files:
        raise UserError(
            "FILE: missing; name a run directory, or a result file such as one of `bench train "
            "--json`"
        )
    outputs = {
        "html": _page,
        "md": report_markdown.markdown,
        "junit": report_junit.junit,
    }
    asked = {name: path for name in outputs if (path := getattr(args, name)) is not None}
    runs = read(args.files)
    for name, path in asked.items():
        result.write_text(path, outputs[name](runs), f"--{name}")
        print_out(f"{name}: {path}")
    if args.pictures is not None:
        for picture in _pictures(runs, args.pictures):
            print_out(f"picture: {picture}")
    if not asked and args.pictures is None:
        print_runs(runs, make_console())
    return 0


def _runs(records: Sequence[dict[str, Any]]) -> list[ResultFile]:
    return [run_of(record) for record in records]


def _page(runs: Sequence[ResultFile]) -> str:
    from fastppo.bench.report import html  # takes matplotlib, which a table does without

    return html.html(runs)


def _pictures(runs: Sequence[ResultFile], folder: Path) -> Iterator[Path]:
    from fastppo.bench.report import html as report_html

    try:
        folder.mkdir(parents=True, exist_ok=True)
        for chart in report_html.charts(runs):
            yield from chart.write(folder)
    except OSError as error:
        reason = why(error)
        raise MachineError(
            f"report: cannot write {folder} ({reason}); free space or name another folder"
        ) from None
