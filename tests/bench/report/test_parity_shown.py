"""Every report shows the share of seeds that got there, and says where an older file lacks it."""

import copy
import io
from collections.abc import Callable
from dataclasses import asdict
from typing import Any
from xml.etree import ElementTree

import pytest
from rich.console import Console

from fastppo.bench.report import command as report
from fastppo.bench.report import html as report_html
from fastppo.bench.report.data import WITHOUT_SHARE, run_of
from fastppo.bench.report.terminal import print_results
from fastppo.bench.results import result
from fastppo.bench.results.parity import Runs, judge
from fastppo.bench.track import runs as track_runs

Record = dict[str, Any]
GOOD = Runs([20.0] * 20, [480.0] * 20, [30e3 + 100 * i for i in range(20)], [True] * 20)
ONE_FAILS = Runs(GOOD.first, GOOD.final, GOOD.steps, [True] * 19 + [False])


@pytest.fixture
def told(learn_record: Record) -> Callable[..., Record]:
    """A learn record whose parity is that of given runs, or what an older rule said."""

    def make(runs: Runs | None, verdict: str = "passed") -> Record:
        record = copy.deepcopy(learn_record)
        (entry,) = record["comparison"]["parity"]
        entry |= {"verdict": verdict, "reasons": ["return as good"]}
        if runs is not None:
            entry |= judge(runs, GOOD, 100e3).to_dict()
        assert result.problem(record) is None
        return record

    return make


def rendered(record: Record) -> dict[str, str]:
    """By format; white space is one blank, as lines are folded."""
    console = Console(width=120, record=True, file=io.StringIO())
    print_results([record], console)
    run = run_of(record)
    pages = {
        "terminal": console.export_text(),
        "markdown": report.markdown([record]),
        "html": report_html.html([run]),
        "junit": report.junit([record]),
    }
    return {name: " ".join(text.split()) for name, text in pages.items()}


def test_a_report_shows_the_share_of_seeds_that_got_there(told: Callable[..., Record]) -> None:
    for name, text in rendered(told(ONE_FAILS)).items():
        assert "got there and stayed: 19 of 20 seeds" in text, name
        assert WITHOUT_SHARE not in text, name
        if name != "junit":
            assert "there and stayed [95%]" in text.replace("\\", ""), name
            assert "-5 [-25, +13]" in text.replace("\\", ""), name


def test_a_pass_is_shown_with_the_share_behind_it(told: Callable[..., Record]) -> None:
    pages = rendered(told(GOOD))

    assert "+0 [-17, +17]" in pages["markdown"].replace("\\", "")
    assert "got there and stayed: 20 of 20 seeds" in pages["junit"]


@pytest.mark.parametrize("verdict", ["passed", "failed", "cannot tell"])
def test_an_older_verdict_is_shown_as_what_it_was(
    told: Callable[..., Record], verdict: str
) -> None:
    for name, text in rendered(told(None, verdict)).items():
        assert f"{verdict}, {WITHOUT_SHARE}" in text, name
        if name != "junit":
            assert "not judged" in text, name


def test_an_older_pass_is_no_passed_test_case(told: Callable[..., Record]) -> None:
    def case(record: Record) -> ElementTree.Element:
        root = ElementTree.fromstring(report.junit([record]))
        return next(one for one in root.iter("testcase") if "parity" in str(one.get("classname")))

    assert case(told(None)).find("skipped") is not None
    assert case(told(None, "failed")).find("failure") is not None
    assert case(told(GOOD)).find("skipped") is None


def test_wandb_gets_the_verdict_and_the_share(told: Callable[..., Record]) -> None:
    def row(record: Record) -> Record:
        columns, rows = track_runs.table_of(record)
        named = [dict(zip(columns, values, strict=True)) for values in rows]
        return next(one for one in named if one["impl"] == "sb3")

    share = asdict(judge(ONE_FAILS, GOOD, 100e3).success_share)["estimate"]
    new, old = row(told(ONE_FAILS)), row(told(None))
    assert new["parity"] == "cannot tell"
    told_as = {"share_difference": "value", "share_low": "low", "share_high": "high"}
    assert {name: new[name] for name in told_as} == {n: share[key] for n, key in told_as.items()}
    assert old["parity"] == f"passed, {WITHOUT_SHARE}"
    assert old["share_difference"] is None
