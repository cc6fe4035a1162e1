"""Issue 10, 19: what looks like a secret reaches no file, no report and no W&B run."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastppo import machine
from fastppo.bench.report import command as report
from fastppo.bench.results import result
from fastppo.bench.track import runs as track_runs

Make = Callable[..., dict[str, Any]]
SECRET = "S3cr3t-Qx7"


def test_a_record_keeps_no_secret_and_only_variables_that_move_a_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["fastppo", "bench", "--impl", f"x=mine --token={SECRET}"])
    for name in ("OMP_TOKEN", "NUMBA_SECRET", "TRITON_CACHE_DIR", "MKL_NOTE", "CUDA_VISIBLE_X"):
        monkeypatch.setenv(name, SECRET)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")

    record = result.new("kernel", [])
    result.write(tmp_path / "a.json", record)

    assert SECRET not in (tmp_path / "a.json").read_text()
    assert record["conditions"]["env"]["OMP_NUM_THREADS"] == "3"
    assert set(record["conditions"]["env"]) <= set(machine.VARIABLES)
    assert SECRET not in json.dumps(machine.record())


def test_no_report_and_no_run_shows_a_secret_of_a_file_or_of_a_failure(
    train_record: Make, tmp_path: Path
) -> None:
    record = train_record()
    record["command"] += ["--impl", f"x=mine --api-key {SECRET}"]
    record["conditions"]["env"]["OMP_PLACES"] = f"https://user:{SECRET}@host"
    reason = f"x: died: usage: mine --password '{SECRET}'"
    record["failures"] = [{"id": "train/Pong-v5/8x128", "impl": "x", "reason": reason}]
    record["results"][0]["train"]["info"]["notes"] = f"Authorization: Bearer {SECRET}"

    result.write(tmp_path / "a.json", record)
    plans = track_runs.planned(record, tmp_path / "a.json", against=None, traces=())

    assert SECRET not in (tmp_path / "a.json").read_text()
    assert SECRET not in str(plans)
    for text in (report.html([record]), report.markdown([record]), report.junit([record])):
        assert SECRET not in text
        assert "***" in text or r"\*\*\*" in text


def test_the_page_lists_the_variables_that_are_kept() -> None:
    page = (Path(__file__).parents[3] / "docs" / "surroundings.md").read_text()

    assert [name for name in machine.VARIABLES if f"`{name}`" not in page] == []
