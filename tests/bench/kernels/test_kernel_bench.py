"""`fastppo bench kernels`: equality before time, and what it leaves."""

import json
import math
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fastppo import cli
from fastppo.bench.kernels import cases as kernel_cases
from fastppo.bench.kernels import command as kernels
from fastppo.bench.report.data import run_of
from fastppo.bench.report.notes import notes
from fastppo.bench.report.tables import tables
from fastppo.bench.report.terminal import print_results
from fastppo.bench.results import result
from fastppo.kernels.gae import op as gae
from fastppo.kernels.tools.case import Case, Work

CPU = torch.device("cpu")
GRID = list(kernel_cases.cases(CPU, quick=True))
SMALL = [case for case in GRID if case.bytes_moved < 2**17]


def a_case(operation: str = "gae") -> Case:
    return next(case for case in SMALL if case.operation == operation)


@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.id)
def test_every_small_case_equals_float64(case: Case) -> None:
    kernels.check(case, case.build(CPU))


def test_the_grid_has_every_operation_once_per_shape() -> None:
    full = list(kernel_cases.cases(CPU))
    gpu = list(kernel_cases.cases(torch.device("cuda")))

    assert len({case.id for case in full}) == len(full)
    assert {case.operation for case in GRID} == {case.operation for case in full}
    assert max(case.size for case in gpu) > 10 * max(case.size for case in full)


@pytest.mark.parametrize("wrong", [1.0 + 1e-2, math.nan])
def test_a_wrong_kernel_is_not_timed(wrong: float, monkeypatch: pytest.MonkeyPatch) -> None:
    right = gae.gae

    def scaled(*args: Any, **kwargs: Any) -> tuple[torch.Tensor, ...]:
        return tuple(wrong * result for result in right(*args, **kwargs))

    monkeypatch.setattr(gae, "gae", scaled)

    with pytest.raises(
        kernels.NotEqual, match=r"gae\[T=128 N=8\]: output 0 is not float64's: it is"
    ):
        list(kernels.time_case(a_case(), CPU, rounds=1))


def test_bytes_moved_of_gae_by_hand() -> None:
    """Per element two floats and two flags in, two floats out; one more row of values."""
    case = a_case()

    assert case.shape == (("T", 128), ("N", 8))
    assert case.bytes_moved == 128 * 8 * (4 + 4 + 1 + 1 + 4 + 4) + 8 * 4


def test_timing_reports_ratios_and_the_share_of_a_copy() -> None:
    samples = {
        kernels.OURS: [2e-6, 4e-6, 3e-6],
        kernels.TEXTBOOK: [20e-6, 40e-6, 30e-6],
        kernels.COPY: [1e-6, 2e-6, 1.5e-6],
    }
    timing = kernels.Timing(a_case(), "wall", samples, {kernels.COMPILED: "ValueError: no"})

    record = kernels.record_of([timing])
    run = run_of(record)
    (table,) = tables(run)

    assert table.rows == [
        ("gae",),
        ("  T=128 N=8", "3 us", "10.0 10.0 to 10.0", "-", "50%"),
    ]
    said = "compile on gae[T=128 N=8] could not be measured: wall: ValueError: no"
    assert said in notes(run)
    (failure,) = record["failures"]
    assert (failure["id"], failure["impl"]) == ("gae[T=128 N=8]", "compile")


@pytest.mark.parametrize("width", [60, 100])
def test_the_table_fits_the_window(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    samples = {kernels.OURS: [2e-6], kernels.TEXTBOOK: [20e-6], kernels.COPY: [1e-6]}

    print_results([kernels.record_of([kernels.Timing(a_case(), "wall", samples)])])

    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= min(width, 80)
    assert "T=128 N=8" in out
    # a narrow window keeps the numbers, and leaves out their intervals
    assert ("10.0 10.0 to 10.0" in out) == (width == 100)


def test_a_baseline_that_fails_is_told_and_the_rest_measured() -> None:
    case = a_case()

    def build(device: torch.device) -> Work:
        work = case.build(device)

        def broken() -> tuple[torch.Tensor, ...]:
            raise RuntimeError("cannot be captured")

        return replace(work, textbook=broken)

    (timing,) = kernels.time_case(replace(case, build=build), CPU, rounds=2)

    assert timing.failed == {"eager": "RuntimeError: cannot be captured"}
    assert len(timing.samples[kernels.OURS]) == 2
    assert kernels.TEXTBOOK not in timing.samples


def test_the_command_writes_samples_and_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], reported: Callable[[Path], str]
) -> None:
    target = tmp_path / "kernels.json"
    command = ["kernels", "gae", "adam", "--quick", "--rounds", "3", "--threads", "1"]

    command += ["--json", str(target), "--html", str(tmp_path / "kernels.html")]

    code = cli.main(["bench", *command, "--pictures", str(tmp_path / "pictures")])

    assert code == 0
    out = capsys.readouterr().out
    assert "x eager" in out
    machine, _, rest = out.partition("\n")
    assert "1 threads" in machine
    printed, _, made = rest.partition("samples: ")
    assert printed == reported(target)
    assert made.startswith(f"{target}\nreport: {tmp_path / 'kernels.html'}\npicture: ")
    assert "kernel-gae-t128" in (tmp_path / "kernels.html").read_text()
    record = json.loads(target.read_text())
    assert (record["schema"], record["kind"]) == ("fastppo.result/1", "kernel")
    assert record["machine"]["cpu"]
    names = {(entry["operation"], entry["impl"]) for entry in record["results"]}
    assert names == {(o, i) for o in ("gae", "adam") for i in ("fastppo", "eager", "copy")}
    assert all(len(entry["launches"][0]["samples"]) == 3 for entry in record["results"])
    pictures = {path.name for path in (tmp_path / "pictures").iterdir()}
    charts = ("kernel-gae-t128", "kernel-adam")
    assert pictures == {f"{name}.{suffix}" for name in charts for suffix in ("png", "svg")}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "operation: 'nothing' matches nothing; there are act_categorical"),
        (["--rounds", "0"], "--rounds: 0 must be at least 1"),
        (["--device", "tpu"], "device: 'tpu'"),
        (["--json", "/no/such/x.json"], "--json: /no/such is not a folder; make it first"),
        (["--json", "/"], "--json: / is a folder; name a file"),
        (["--pictures", "/dev/null"], "--pictures: /dev/null is a file; name a folder"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["bench", "kernels", *arguments]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line


@pytest.mark.parametrize("misaligned", [-1, 0, 1])
@pytest.mark.parametrize("zero_grad", [True, False])
def test_adam_is_checked_at_every_alignment(misaligned: int, zero_grad: bool) -> None:
    label = f"adam P=33 misaligned={misaligned} zero_grad={zero_grad}"

    dict(kernel_cases.checks(torch.device("cpu")))[label]()


def test_a_way_that_was_not_measured_is_exit_code_3(monkeypatch: pytest.MonkeyPatch) -> None:
    case = a_case()

    def build(device: torch.device) -> Work:
        def broken() -> tuple[torch.Tensor, ...]:
            raise RuntimeError("cannot be captured")

        return replace(case.build(device), textbook=broken)

    monkeypatch.setattr(kernels, "cases", lambda *_, **__: [replace(case, build=build)])

    assert cli.main(["bench", "kernels", "--rounds", "1"]) == 3


def test_an_interrupted_grid_keeps_what_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    time_case = kernels.time_case

    def then_cut(*args: Any) -> Iterator[kernels.Timing]:
        yield from time_case(*args)
        os.kill(os.getpid(), signal.SIGHUP)

    monkeypatch.setattr(kernels, "time_case", then_cut)
    target = tmp_path / "kernels.json"

    code = cli.main(["bench", "kernels", "gae", "--quick", "--rounds", "3", "--json", str(target)])

    assert code == 129
    assert {entry["impl"] for entry in result.read(target)["results"]} >= {"fastppo", "copy"}
    out, err = capsys.readouterr()
    assert "x eager" in out
    assert err.endswith("fastppo: interrupted\n")
