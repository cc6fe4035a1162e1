"""`fastppo compare`: what A has and B could not measure is no pass, and is seen everywhere."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as xml

import pytest

Record = dict[str, Any]
Make = Callable[..., Record]
Compare = Callable[..., int]
Capture = pytest.CaptureFixture[str]
SMALL = ("fastppo", "reference")
WIDE = ("--tolerance", "0.25")
"""At which equal code passes."""
PONG = "train/Pong-v5/8x128"


def failure(impl: str, where: str = PONG) -> Record:
    return {"id": where, "impl": impl, "reason": "crashed: exit code -9"}


def without(record: Record, impl: str, where: str = PONG) -> Record:
    kept = deepcopy(record)
    kept["results"] = [e for e in kept["results"] if (e["impl"], e["id"]) != (impl, where)]
    return kept


@pytest.fixture
def record(train_record: Make, launched: Make) -> Record:
    return launched(train_record(names=SMALL))


def test_what_b_lacks_is_a_row_and_exit_code_3(
    run: Compare, record: Record, tmp_path: Path, capsys: Capture
) -> None:
    outputs = [tmp_path / "c.md", tmp_path / "c.xml"]
    options = ("--md", str(outputs[0]), "--junit", str(outputs[1]))

    assert run(record, without(record, "reference"), *WIDE, *options) == 3

    out = capsys.readouterr().out
    assert "NOT MEASURED: of 4 results 1 NOT MEASURED, 3 PASS" in out
    row = next(line for line in out.splitlines() if line.startswith("  reference"))
    assert row.split() == ["reference", "3,309", "-", "-", "NOT", "MEASURED"]
    assert "| reference | 3,309 | - | - | NOT MEASURED |" in outputs[0].read_text()
    (failed,) = xml.parse(outputs[1]).getroot().findall(".//failure")
    assert failed.get("type") == "NotMeasured"
    assert failed.get("message") == "NOT MEASURED; B does not hold it"


def test_what_b_lists_as_failed_is_told_with_its_reason(
    run: Compare, record: Record, capsys: Capture
) -> None:
    lost = without(record, "reference") | {"failures": [failure("reference")]}

    assert run(record, lost, *WIDE) == 3

    out = " ".join(capsys.readouterr().out.split())
    assert f"not measured in B: reference on {PONG}: crashed: exit code -9" in out


def test_a_failure_beside_a_result_is_no_pass(run: Compare, record: Record) -> None:
    """As of learning, where some seeds crash: those that are left say nothing of the others."""
    assert run(record, record | {"failures": [failure("reference")]}, *WIDE) == 3


def test_a_failure_that_a_does_not_have_is_no_pass(
    run: Compare, record: Record, capsys: Capture
) -> None:
    lost = record | {"failures": [failure("ceilings")]}

    assert run(record, lost, *WIDE) == 3
    assert "1 NOT MEASURED, 4 PASS" in capsys.readouterr().out
    assert run(lost, lost, *WIDE) == 0
    assert run(lost, record, *WIDE) == 0
    assert f"not measured in A: ceilings on {PONG}" in " ".join(capsys.readouterr().out.split())


def test_a_b_in_which_everything_failed_is_no_pass(run: Compare, record: Record) -> None:
    names = [(e["impl"], e["id"]) for e in record["results"]]
    lost = record | {"results": [], "failures": [failure(*name) for name in names]}

    assert run(record, lost) == 3


def test_samples_that_were_all_lost_are_no_pass(run: Compare, record: Record) -> None:
    lost = deepcopy(record)
    for launch in lost["results"][0]["launches"]:
        launch["samples"] = [None] * len(launch["samples"])

    assert run(record, lost, *WIDE) == 3


def test_kernels_that_b_lacks_are_no_pass(run: Compare, kernel_record: Make) -> None:
    record = kernel_record()

    assert run(record, without(record, "copy", "gae[T=128 N=8]")) == 3


def test_what_only_b_has_is_listed(run: Compare, record: Record, capsys: Capture) -> None:
    assert run(without(record, "reference"), record, *WIDE) == 0
    assert f"only in B: reference on {PONG}" in " ".join(capsys.readouterr().out.split())


def test_the_worst_decides(
    run: Compare, record: Record, train_record: Make, launched: Make, capsys: Capture
) -> None:
    """Void 4, then regression 1, not measured 3, inconclusive 5 if strict, 0."""
    slower = launched(train_record({"fastppo": 0.6}, names=SMALL))
    lost = without(slower, "reference")
    void = launched(train_record({"fastppo": 0.6}, names=SMALL), machine=0.7)

    assert run(record, without(void, "reference"), "--strict") == 4
    assert run(record, lost, "--strict") == 1
    assert run(record, without(record, "reference"), "--strict") == 3
    assert run(record, record, "--strict") == 5
    assert run(record, record) == 0
    capsys.readouterr()
    # a failure beside a slow-down that is certain does not hide it
    assert run(record, slower | {"failures": [failure("fastppo")]}) == 1
    assert "1 NOT MEASURED" not in capsys.readouterr().out


def test_junit_fails_where_the_exit_code_does(
    run: Compare, record: Record, train_record: Make, launched: Make, tmp_path: Path
) -> None:
    slower = launched(train_record({"fastppo": 0.6}, names=SMALL))
    void = launched(train_record(names=SMALL), machine=0.7)

    def kinds(b: Record, *options: str) -> tuple[int, list[str | None], str | None]:
        path = tmp_path / "c.xml"
        code = run(record, b, "--junit", str(path), *options)
        (suite,) = xml.parse(path).getroot()
        return code, [one.get("type") for one in suite.iter("failure")], suite.get("skipped")

    assert kinds(slower) == (1, ["Regression"] * 2, "2")
    assert kinds(void) == (4, ["Void"], "4")
    assert kinds(record) == (0, [], "4")
    assert kinds(record, "--strict") == (5, ["Inconclusive"] * 4, "0")
    assert kinds(record, *WIDE) == (0, [], "0")
