"""The TensorBoard event file holds the numbers of metrics.jsonl over `global_step`."""

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from fastppo.config import Config
from fastppo.run import session
from fastppo.tracking.tensorboard import TensorBoardTracker


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard would draw."""
    # by name: it ships no types
    reader: Any = import_module("tensorboard.backend.event_processing.event_accumulator")
    events = reader.EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def rows_of(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def assert_same(run_dir: Path) -> None:
    rows = rows_of(run_dir)
    read = scalars(run_dir / "tensorboard")

    assert set(read) == {name for row in rows for name in row}
    for name, points in read.items():
        expected = [(row["global_step"], row[name]) for row in rows if name in row]
        assert [step for step, _ in points] == [step for step, _ in expected]
        assert [v for _, v in points] == pytest.approx([v for _, v in expected], rel=1e-6)


def test_event_file_holds_every_metric_of_every_update(
    tiny: Callable[..., Config], tmp_path: Path
) -> None:
    session.start(tiny(tensorboard=True), tmp_path / "run", quiet=True)

    assert len(rows_of(tmp_path / "run")) == 6
    assert_same(tmp_path / "run")


def test_a_resumed_run_hides_what_came_after_the_checkpoint(
    tiny: Callable[..., Config], tmp_path: Path
) -> None:
    path = tmp_path / "run"
    session.start(tiny(tensorboard=True), path, quiet=True)
    (path / "checkpoints" / "00000006.pt").unlink()

    session.resume(path, quiet=True)

    assert_same(path)


def test_a_file_that_cannot_be_written_is_one_warning(
    tmp_path: Path, tiny: Callable[..., Config], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()

    tracker = TensorBoardTracker(tmp_path / "file" / "tensorboard", tiny())
    tracker.log({"global_step": 1})
    tracker.close(0)

    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert err.startswith("fastppo: warning: tensorboard: not a directory; this run is no longer")
