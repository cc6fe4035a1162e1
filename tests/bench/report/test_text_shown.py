"""Other people's text, at the edge of every medium: it is shown, never obeyed."""

import ast
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.table import Table

import fastppo
from fastppo import cli, program
from fastppo.bench.report import junit as report_junit
from fastppo.bench.report import markdown as report_markdown
from fastppo.bench.report.data import run_of
from fastppo.bench.report.escape import code, escape
from fastppo.bench.report.table import Table as ReportTable
from fastppo.bench.report.terminal import print_table
from fastppo.console import PlainConsole
from fastppo.errors import UserError

TREE = Path(fastppo.__file__).resolve().parent.parent
FORGED = "\nfastppo: error: forged"
STEERING = st.sampled_from([
    "\x1b[2J", "\x9b31m", "\x07", "\r", "\u202e", "\u2066", "\ud800", "\u2028", "\x85", "\x00",
    "\ufffe", FORGED, "[red]", "[/]", "[bold", ":smile:", "|", "`",
])  # fmt: skip
HOSTILE = st.lists(st.text(max_size=8) | STEERING, max_size=6).map("".join)
CALM = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@CALM
@given(HOSTILE)
def test_an_error_is_one_line_whatever_it_quotes(
    capsys: pytest.CaptureFixture[str], told: str
) -> None:
    def command() -> int:
        raise UserError(f"impl: {told}")

    assert program.run(command, is_process=False) == 2

    error = capsys.readouterr().err
    assert error.endswith("\n")
    assert error[:-1].isprintable()


@CALM
@given(HOSTILE, HOSTILE)
def test_a_table_shows_its_cells_as_they_are(one: str, other: str) -> None:
    for fill in (False, True):
        console = PlainConsole(file=io.StringIO(), width=400, color_system=None)
        if fill:
            print_table(ReportTable(one, ("rate",), [(one, other), (other,)]), console)
        else:
            table = Table(title=other)
            table.add_column(one)
            table.add_row(other)
            console.print(table)
            console.print(one)

        lines = console.file.getvalue().split("\n")  # type: ignore[attr-defined]
        assert all(line.isprintable() for line in lines)
        assert not any(line.startswith("fastppo: error") for line in lines)


def test_brackets_are_no_markup() -> None:
    console = PlainConsole(file=io.StringIO(), width=80, force_terminal=True)
    console.print("a [red]b[/red] [/] :smile: [link=http://x]y")

    assert console.file.getvalue() == "a [red]b[/red] [/] :smile: [link=http://x]y\n"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "words", [["report", "--x\x1b[2J" + FORGED], ["track", "push", "a", "--\x1b"],
              ["eval", "\x1b[2J" + FORGED], ["train", "--x\u202e"], ["gpu-check", "\x1b"]]
)  # fmt: skip
def test_an_argument_that_is_refused_steers_no_terminal(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = cli.main(words)
    except SystemExit as left:
        code = int(str(left.code))

    assert code == 2
    error = capsys.readouterr().err
    assert error.replace("\n", "").isprintable()
    assert FORGED not in error


@CALM
@given(HOSTILE)
def test_markdown_shows_text_and_breaks_no_table(told: str) -> None:
    escaped = escape(told)

    assert escaped.isprintable()
    assert not re.search(r"(?<!\\)(\\\\)*\|", escaped)
    assert not re.search(r"www\.|GH-\d|@\w|#\d{1,3}(?!\d*;)|://", escaped, re.IGNORECASE)
    assert not re.search(r"\b(?=\d*[a-f])[0-9a-f]{7,40}\b", escaped, re.IGNORECASE)
    assert code(told).isprintable()
    row = report_markdown.table(ReportTable("x", ("a",), [(told, told)]))[-1]
    assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", row)) == 3


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("see www.evil.com", "see www<!-- -->.evil.com"),
        ("GH-12 and a/b#12", "GH-<!-- -->12 and a/b\\#<!-- -->12"),
        ("@you, me@host.org", "@<!-- -->you, me@<!-- -->host.org"),
        ("revision 30cce966b1d2", "revision 30cce9<!-- -->66b1d2"),
        (":+1: 10:30", ":<!-- -->+1: 10:30"),
        ("&#35;5 http://x.y", "&amp;\\#<!-- -->35;5 http&#58;//x.y"),
        ("1. first", "1\\. first"),
        ("- [x] done", "\\- [x] done"),
        ("[ ] open", "\\[ ] open"),
        ("1.83 -0.5 1234567", "1.83 -0.5 1234567"),
    ],
)
def test_github_links_nothing(text: str, shown: str) -> None:
    assert escape(text) == shown


@CALM
@given(HOSTILE)
def test_junit_is_xml_whatever_it_quotes(train_record: Callable[..., Any], told: str) -> None:
    record = train_record(names=("fastppo", "reference"))
    record["results"][0]["impl"] = told
    record["failures"] = [{"id": told, "impl": told, "reason": told}]

    root = ElementTree.fromstring(report_junit.junit([run_of(record, told)]))

    assert all(value.isprintable() for element in root.iter() for value in element.attrib.values())


def test_text_is_printed_in_one_place_per_medium() -> None:
    """An f-string may quote anybody: only `print_out`, `print_err` and PlainConsole show one."""
    allowed = {"fastppo/text.py", "fastppo/console.py"}
    for package in ("fastppo", "bench"):
        for file in (TREE / package).rglob("*.py"):
            name = str(file.relative_to(TREE))
            if name in allowed or name.startswith(("fastppo/bench", "fastppo/kernels")):
                continue
            for call in ast.walk(ast.parse(file.read_text())):
                if isinstance(call, ast.Call) and isinstance(call.func, ast.Name):
                    assert call.func.id != "Console", name
                    quotes = any(isinstance(a, ast.JoinedStr) for a in call.args)
                    assert not (call.func.id == "print" and quotes), (name, call.lineno)
