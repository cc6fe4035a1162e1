"""The verdict in front: who is fastest and how surely, who is too slow, and a busy machine."""

import xml.etree.ElementTree as xml
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from fastppo import cli
from fastppo.bench.report import command as report
from fastppo.bench.report.data import run_of
from fastppo.bench.report.notes import findings, reservations, sentences
from fastppo.bench.report.ranking import fastest, too_slow
from fastppo.bench.report.tables import tables
from fastppo.bench.results import result

Make = Callable[..., dict[str, Any]]
NAMES = ("fastppo", "reference", "sb3")


def in_launches(record: dict[str, Any], count: int = 4) -> dict[str, Any]:
    """Its rounds spread over several launches, as a full measurement has them."""
    record = deepcopy(record)
    for entry in record["results"]:
        (launch,) = entry["launches"]
        size = len(launch["samples"]) // count
        lists = {name: values for name, values in launch.items() if name != "order"}
        entry["launches"] = [
            {"order": i} | {k: v[i * size : (i + 1) * size] for k, v in lists.items()}
            for i in range(count)
        ]
    return record


def with_ratios(record: dict[str, Any], low: float, high: float) -> dict[str, Any]:
    record = deepcopy(record)
    for entry in record["results"]:
        if entry["impl"] == "fastppo":
            middle = (low + high) / 2
            ends = {"value": middle, "low": low, "high": high, "label": "95%"}
            entry["train"]["ratio"] |= ends
    return record


def test_the_fastest_is_named_with_how_much_and_how_surely(train_record: Make) -> None:
    record = in_launches(train_record(names=NAMES))

    pong, cartpole = fastest(run_of(record).groups)

    assert pong.startswith("Pong-v5 8x128: fastppo is fastest, 2.")
    assert " times as fast as reference (2." in pong
    assert pong.endswith("), for certain.")
    assert cartpole.startswith("CartPole-v1 8x128: fastppo is fastest")
    assert pong in findings(run_of(record))


def test_another_library_may_be_the_fastest(train_record: Make) -> None:
    record = in_launches(train_record({"sb3": 10.0}, names=NAMES))

    assert fastest(run_of(record).groups)[0].startswith("Pong-v5 8x128: sb3 is fastest, 2.")


@pytest.mark.parametrize(("rounds", "certain"), [(8, "not for certain."), (3, "range of 3 rounds")])
def test_a_tie_or_too_few_rounds_are_not_certain(
    rounds: int, certain: str, train_record: Make
) -> None:
    speed = {"fastppo": 1 / 2.3}
    record = train_record(speed, names=("fastppo", "reference"), rounds=rounds, seed=2)
    record = in_launches(record) if rounds == 8 else record

    said = fastest(run_of(record).groups)[0]

    assert certain in said
    assert "95%" not in said


def test_alone_nobody_is_the_fastest(train_record: Make) -> None:
    assert fastest(run_of(train_record(names=("fastppo",))).groups) == []


@pytest.mark.parametrize(
    ("low", "high", "limit", "slow"),
    [(0.8, 0.9, 1.0, True), (0.8, 1.1, 1.0, False), (1.2, 1.3, 1.0, False), (1.2, 1.3, 1.5, True)],
)
def test_slower_than_was_asked_for_is_a_failure_where_it_is_certain(
    low: float, high: float, limit: float, slow: bool, train_record: Make, tmp_path: Path
) -> None:
    record = with_ratios(train_record(names=NAMES[:2]), low, high) | {"fail_below": limit}
    result.write(tmp_path / "r.json", record)

    suite = xml.fromstring(report.junit([record])).find("testsuite")
    assert suite is not None
    failures = suite.findall("testcase/failure")
    assert [one.get("type") for one in failures] == (["TooSlow"] * 2 if slow else [])
    assert bool(too_slow(run_of(record))) == slow
    if slow:
        message = str(failures[0].get("message"))
        assert f"times the rate of reference ({low:.2f} to {high:.2f}, 95%), below" in message
        assert any("below" in line for line in findings(run_of(record)))


def test_without_a_limit_nothing_is_too_slow(train_record: Make) -> None:
    record = with_ratios(train_record(names=NAMES[:2]), 0.1, 0.2)

    assert too_slow(run_of(record)) == []


def test_the_exit_code_is_1_where_one_is_too_slow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A real measurement: no implementation is 1000 times the reference."""
    monkeypatch.chdir(tmp_path)
    words = ["CartPole-v1", "--impl", "fastppo,reference", "--rounds", "2", "--launches", "1",
             "--seconds", "0.1", "--quick", "--junit", "j.xml"]  # fmt: skip

    assert cli.main(["bench", "train", *words, "--fail-below", "1000"]) == 1

    out = " ".join(capsys.readouterr().out.split())
    assert "range of 2 rounds), below 1,000" in out
    assert 'type="TooSlow"' in (tmp_path / "j.xml").read_text()


@pytest.mark.parametrize("limit", ["0", "-1", "nan", "x"])
def test_a_limit_that_is_none_is_refused(limit: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "train", "CartPole-v1", "--fail-below", limit]) == 2

    assert capsys.readouterr().err.startswith("fastppo: error: --fail-below: ")


@pytest.mark.parametrize(("load", "warned"), [(0.9, False), (1.2, True)])
def test_a_busy_machine_is_a_warning(load: float, warned: bool, train_record: Make) -> None:
    record = train_record(names=NAMES)
    record["conditions"]["load"][0] = load

    said = any("the machine was busy before" in line for line in reservations(run_of(record)))

    assert said == warned


@pytest.mark.parametrize(
    ("verdicts", "said"),
    [
        (["PASS", "PASS"], "PASS: all 2 benchmarks."),
        (["PASS", "REGRESSION", "PASS"], "REGRESSION: of 3 benchmarks 1 REGRESSION, 2 PASS."),
        (["IMPROVED", "FLAKY"], "FLAKY: of 2 benchmarks 1 FLAKY, 1 IMPROVED."),
    ],
)
def test_a_gate_says_the_worst_first(verdicts: list[str], said: str, train_record: Make) -> None:
    entries = [
        {
            "id": f"gate/{number}", "impl": "fastppo", "unit": "bytes", "better": "lower",
            "clock": "none", "launches": [{"order": 0, "samples": [2.0**21]}],
            "gate": {"verdict": verdict, "base": [2.0**20], "change": None, "pairs": 1,
                     "tolerance": 0.0, "note": ""},
        }
        for number, verdict in enumerate(verdicts)
    ]  # fmt: skip
    run = run_of(train_record(names=()) | {"kind": "gate", "results": entries, "void": None})

    assert sentences([run])[0] == said
    [table] = tables(run)
    assert table.columns[0] == "verdict"
    assert table.rows[0][1:4] == (said.partition(":")[0], "1 MiB", "2 MiB")
