"""W&B failing or hanging never stops training, and nobody waits longer than was promised."""

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastppo.config import Config
from fastppo.run import session
from fastppo.tracking import trackers as tracking
from fastppo.tracking import wandb_names, wandb_process
from fastppo.tracking.trackers import WandbTracker, make_tracker
from fastppo.tracking.wandb_process import WandbProcess

Calls = Callable[[], list[dict[str, Any]]]
pytestmark = pytest.mark.usefixtures("no_network")


@pytest.fixture(autouse=True)
def _in_an_empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def updates_of(path: Path) -> list[int]:
    return [
        json.loads(line)["update"] for line in (path / "metrics.jsonl").read_text().split("\n")[:-1]
    ]


def done(calls: Calls, what: str) -> list[dict[str, Any]]:
    return [call for call in calls() if call["do"] == what]


def test_every_update_is_logged_once_after_the_axes_and_before_the_end(
    fake_wandb: Calls, tiny: Callable[..., Config], tmp_path: Path
) -> None:
    session.start(tiny(wandb="offline"), tmp_path / "run", quiet=True)

    order = [call["do"] for call in fake_wandb()]
    axes = len(wandb_names.AXES)
    assert order == ["init", *["define_metric"] * axes, *["log"] * 6, "log_artifact", "finish"]
    assert [call["row"]["update"] for call in done(fake_wandb, "log")] == [1, 2, 3, 4, 5, 6]
    assert done(fake_wandb, "finish")[0]["exit_code"] == 0


@pytest.mark.parametrize(
    ("call", "trouble", "reason"),
    [
        ("init", "raise", "the server"),
        ("init", "hang", "did not end within 1 s"),
        ("init", "exit", "its process ended unexpectedly"),
        ("define_metric", "raise", "the server"),
        ("log", "raise", "the server"),
        ("log", "raise@3", "the server"),
        ("log", "hang", "did not end within 1 s"),
        ("log", "hang@6", "did not end within 1 s"),
        ("log", "exit@2", "its process ended unexpectedly"),
        ("log_artifact", "raise", "the server"),
        ("finish", "raise", "the server"),
        ("finish", "hang", "did not end within 1 s"),
    ],
)
def test_trouble_is_one_warning_and_the_run_is_complete(
    call: str,
    trouble: str,
    reason: str,
    fake_wandb: Calls,
    tiny: Callable[..., Config],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(f"FAKE_WANDB_{call.upper()}", trouble)
    if trouble.startswith("hang"):
        monkeypatch.setattr(tracking, "FINISH_SECONDS", {"offline": 1.0})
    path = tmp_path / "run"

    session.start(tiny(wandb="offline"), path, quiet=True)

    err = capsys.readouterr().err
    assert updates_of(path) == [1, 2, 3, 4, 5, 6]
    assert (path / "checkpoints" / "00000006.pt").exists()
    assert err.startswith(f"fastppo: warning: wandb: {reason}; this run is no longer mirrored")
    assert err.count("\n") == 1
    assert f"fastppo track push {path}" in err


def test_training_goes_on_while_wandb_hangs(
    fake_wandb: Calls, tiny: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """W&B is caught inside its first call to log while the updates go by."""
    monkeypatch.setenv("FAKE_WANDB_LOG", "hang")
    monkeypatch.setattr(tracking, "FINISH_SECONDS", {"offline": 1.0})
    updates_while_it_hung = 0
    log = WandbTracker.log

    def logged(tracker: WandbTracker, metrics: dict[str, Any]) -> None:
        nonlocal updates_while_it_hung
        log(tracker, metrics)
        if metrics["update"] == 1:
            while not done(fake_wandb, "log"):
                time.sleep(0.01)
        updates_while_it_hung += 1

    monkeypatch.setattr(WandbTracker, "log", logged)

    session.start(tiny(wandb="offline", total_timesteps=2560), tmp_path / "run", quiet=True)

    assert updates_while_it_hung == 20
    assert len(done(fake_wandb, "log")) == 1


def test_a_wandb_that_never_starts_is_given_up_in_mid_run(
    fake_wandb: Calls,
    tiny: Callable[..., Config],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("FAKE_WANDB_INIT", "hang")
    monkeypatch.setattr(tracking, "START_SECONDS", 0.0)
    tracker = make_tracker(tiny(wandb="offline"), tmp_path, {})

    tracker.log({})
    tracker.log({})

    assert capsys.readouterr().err.count("did not start within 0 s") == 1
    tracker.close(0)
    assert capsys.readouterr().err == ""


def test_a_process_that_never_reads_blocks_nobody(
    fake_wandb: Calls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_WANDB_INIT", "hang")
    monkeypatch.setattr(wandb_process, "BACKLOG", 2**20)
    init = {"id": "x", "dir": str(tmp_path)}
    process = WandbProcess(tmp_path)
    process.send({"op": "start", "settings": {}, "init": init})

    for _ in range(100_000):  # a pipe holds 65536 of them
        process.wake()
    for _ in range(20):
        process.send({"op": "log", "row": {"x": "y" * 2**17}})

    assert process.failure == "does not take any more data"
    assert not process.wait_finished(1, seconds=0.1)
    assert not process.close(0.0)


def test_a_process_that_cannot_be_started_is_one_warning(
    tiny: Callable[..., Config],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(subprocess, "Popen", refuse)

    tracker = make_tracker(tiny(wandb="offline"), tmp_path, {})

    assert tracker.parts == ()
    assert "wandb: Cannot allocate memory; this run" in capsys.readouterr().err


@pytest.mark.parametrize("exit_code", [0, 3, 130])
def test_the_exit_code_reaches_wandb(
    exit_code: int, fake_wandb: Calls, tiny: Callable[..., Config], tmp_path: Path
) -> None:
    make_tracker(tiny(wandb="offline"), tmp_path, {}).close(exit_code)

    assert [call["exit_code"] for call in done(fake_wandb, "finish")] == [exit_code]
