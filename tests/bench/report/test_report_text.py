"""Results on the terminal, as markdown and as JUnit, whatever the names and numbers."""

import io
import re
from collections.abc import Callable
from html import unescape
from typing import Any
from xml.etree import ElementTree

import pytest
from rich.console import Console

from fastppo.bench.report import command as report
from fastppo.bench.report.data import run_of
from fastppo.bench.report.escape import code, escape
from fastppo.bench.report.html import html
from fastppo.bench.report.junit import junit
from fastppo.bench.report.markdown import markdown
from fastppo.bench.report.numbers import count, ratio, seconds, share

Record = dict[str, Any]
Make = Callable[..., Record]
HOSTILE = "<script>alert(1)</script>&a|b$c`d"


def test_the_terminal_fits_80_and_60_columns_in_ascii(
    every_kind: list[Record], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for width in (80, 60):
        monkeypatch.setenv("COLUMNS", str(width))
        report.print_results(every_kind)
        out = capsys.readouterr().out
        assert max(map(len, out.splitlines())) <= width
        assert out.isascii()
        for said in ("  fastppo", "7,877", "EnvPool alone", "not measured", "43.2 s"):
            assert said in out, (width, said)
    assert "2.30 [2.2" not in out


def test_a_terminal_gets_lines_and_no_sequence_of_a_name(train_record: Make) -> None:
    target = io.StringIO()
    record = train_record(names=("fastppo", "reference"))
    record["results"][0]["impl"] = "fast\x1b[31mppo"

    report.print_results([record], Console(file=target, force_terminal=True, width=80))

    assert r"fast\x1b[31mppo" in target.getvalue()


def test_markdown_begins_with_the_verdict_and_ends_with_the_command(
    every_kind: list[Record],
) -> None:
    text = report.markdown(every_kind)

    assert text.startswith(
        "**fastppo trains 2.30 times as fast as reference: for certain faster in 2"
    )
    assert "| sb3\\* | 2,081 | 0.61 [0.59, 0.63] | 10% | not verified |" in text
    assert text.count("<details>") == text.count("</details>") > 4
    assert "<script" not in text
    assert "`fastppo bench train Pong-v5`" in text.splitlines()[-5]
    for line in text.splitlines():
        if line.startswith("| "):
            cells = len(re.findall(r"(?<!\\)\|", line))
            assert cells in (4, 5, 6, 7, 9), line


def test_markdown_calls_nobody_and_breaks_no_table() -> None:
    assert escape("a|b @you <i> _x_ my_name") == "a\\|b @<!-- -->you &lt;i&gt; \\_x\\_ my_name"
    assert code("a`b``c") == "``` a`b``c ```"


def test_junit_has_a_case_per_result(every_kind: list[Record]) -> None:
    text = report.junit(every_kind)
    root = ElementTree.fromstring(text)

    cases = root.findall(".//testcase")
    names = {(case.get("classname"), case.get("name")): case for case in cases}
    assert len(names) == len(cases)
    failed = {(c.get("classname"), c.get("name")) for c in cases if c.find("failure") is not None}
    assert failed == {
        ("train/Pong-v5/8x128", "cleanrl"),
        ("train/Walker2d-v4/8x128", "sb3"),
        ("train/HalfCheetah-v4", "fastppo"),
        ("correctness/adam P=33", "fastppo"),
    }
    ours = names["train/Pong-v5/8x128", "fastppo"]
    told = {p.get("name"): p.get("value") for p in ours.findall("properties/property")}
    assert told["ratio"] == "2.3"
    assert float(told["low"] or 0) < 2.3 < float(told["high"] or 0)
    assert names["parity/learn/CartPole-v1/8x128", "sb3"].find("skipped") is not None
    suite = root.findall("testsuite")[0]
    assert int(suite.get("tests") or 0) == len(suite.findall("testcase"))
    assert suite.get("failures") == "2"
    assert ("train/Pong-v5/8x128", HOSTILE) in names


def test_what_settles_nothing_is_skipped(train_record: Make) -> None:
    record = train_record({"fastppo": 1 / 2.3}, names=("fastppo", "reference"))
    root = ElementTree.fromstring(report.junit([record]))

    (first, *_) = root.findall(".//skipped")
    assert "neither faster nor slower than reference" in str(first.get("message"))


@pytest.mark.parametrize(
    ("write", "value", "text"),
    [
        (count, 1234.5, "1,234"),
        (count, 0.0, "0"),
        (count, None, "-"),
        (count, float("nan"), "-"),
        (count, 2e-5, "2e-05"),
        (ratio, 1.834, "1.83"),
        (ratio, 12.345, "12.3"),
        (ratio, 0.0123, "0.012"),
        (share, 0.004, "0.4%"),
        (share, 1e-9, "<0.1%"),
        (seconds, 4.2e-5, "42 us"),
        (seconds, 0.0045, "4.5 ms"),
        (seconds, 600.0, "10.0 min"),
    ],
)
def test_numbers_say_their_unit(write: Callable[[Any], str], value: Any, text: str) -> None:
    assert write(value) == text


def test_a_record_with_nothing_in_it_is_reported(train_record: Make) -> None:
    empty = train_record() | {"results": []}

    assert "nothing was measured" in report.html([empty])
    assert report.markdown([empty]).startswith("**nothing was measured.**")
    failed = ElementTree.fromstring(report.junit([empty])).findall(".//failure")
    assert [one.get("message") for one in failed] == ["nothing was measured"]
    report.print_results([empty])


def shown(record: Record) -> list[str]:
    """The record in every medium: terminal, markdown, HTML, JUnit."""
    target = io.StringIO()
    report.print_results([record], Console(file=target, width=120))
    runs = [run_of(record)]
    return [target.getvalue(), markdown(runs), html(runs), junit(runs)]


def test_a_rate_above_its_ceiling_is_remarked_on_everywhere(
    train_record: Callable[..., Any],
) -> None:
    record = train_record(names=("fastppo", "reference"))
    for one in record["results"]:
        one["train"]["shares"]["envpool"] = 1.07 if one["impl"] == "fastppo" else 0.4
    for text in shown(record)[:3]:
        plain = " ".join(unescape(text).replace("\\", "").split())
        assert "107%!" in plain
        assert "40%!" not in plain
        assert "above its ceiling, which was measured too low" in plain


def test_three_rounds_promise_nothing(train_record: Callable[..., Any]) -> None:
    """In no renderer: a file of three rounds holds no 95%."""
    record = train_record(names=("fastppo", "reference"), rounds=3)
    for text in shown(record):
        assert "range of 3 rounds" in " ".join(text.split())
        assert "95%" not in text


def test_a_file_of_nothing_is_a_failing_case(train_record: Make) -> None:
    suite = ElementTree.fromstring(junit([run_of(train_record() | {"results": []})]))[0]

    assert (suite.get("tests"), suite.get("failures")) == ("1", "1")
