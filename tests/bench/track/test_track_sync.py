"""`fastppo track sync`: offline runs are uploaded in the right order, once."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastppo import arguments
from fastppo.bench.track import sync as track
from fastppo.bench.track.args import SyncArgs
from fastppo.config import Config
from fastppo.errors import MachineError, UserError
from fastppo.run.rundir import RunDir
from fastppo.tracking.wandb_run import MARKER

Calls = Callable[[], list[dict[str, Any]]]
pytestmark = pytest.mark.usefixtures("no_network")


def track_command(*args: object) -> int:
    words = [str(arg) for arg in args]
    return track.run(arguments.read(SyncArgs, words, "fastppo track"))


def offline_part(run: Path, run_id: str, part: int, *, synced: bool = False) -> Path:
    folder = run / "wandb" / f"offline-run-20261123_12000{9 - part}-{run_id}"
    folder.mkdir(parents=True)
    (folder / f"run-{run_id}.wandb").touch()
    (folder / MARKER).write_text(json.dumps({"id": run_id, "part": part}))
    if synced:
        (folder / f"run-{run_id}.wandb.synced").touch()
    return folder


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)


def synced(calls: Calls) -> list[str]:
    return [call["folder"] for call in calls() if call["do"] == "sync"]


@pytest.mark.usefixtures("key")
def test_parts_are_uploaded_in_their_order_and_once(
    fake_wandb: Calls, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By number: the clock of the folders' names runs backwards here."""
    parts = [offline_part(tmp_path / "a", "one", part) for part in (1, 2, 3)]
    other = offline_part(tmp_path / "b", "two", 1, synced=True)
    stranger = offline_part(tmp_path / "c", "three", 1)
    (stranger / MARKER).unlink()

    assert track_command(tmp_path) == 0

    told = capsys.readouterr().out
    assert synced(fake_wandb) == [str(part) for part in parts]
    assert f"two part 1  uploaded before  {other}" in told
    assert f"one part 2  uploaded  {parts[1]}" in told
    assert "1 offline runs of other programs left alone" in told
    assert track_command(tmp_path) == 0
    assert len(synced(fake_wandb)) == 3


@pytest.mark.usefixtures("key")
def test_after_a_failure_the_later_parts_wait_and_other_runs_go_on(
    fake_wandb: Calls,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    parts = [offline_part(tmp_path / "a", "one", part) for part in (1, 2, 3)]
    other = offline_part(tmp_path / "b", "two", 1)
    monkeypatch.setenv("FAKE_WANDB_REFUSE", parts[1].name)

    with pytest.raises(MachineError, match="sync: 1 runs could not be uploaded"):
        track_command(tmp_path)

    assert synced(fake_wandb) == [str(parts[0]), str(parts[1]), str(other)]
    assert "part 2  failed: wandb: ERROR the server has gone" in capsys.readouterr().out


@pytest.mark.usefixtures("key")
def test_an_older_part_never_replaces_a_newer_one(fake_wandb: Calls, tmp_path: Path) -> None:
    offline_part(tmp_path / "a", "one", 1)
    offline_part(tmp_path / "a", "one", 2, synced=True)
    last = offline_part(tmp_path / "a", "one", 3)

    track_command(tmp_path)

    assert synced(fake_wandb) == [str(last)]


@pytest.mark.usefixtures("key")
def test_a_run_that_is_still_training_is_left_alone(
    tmp_path: Path, fake_wandb: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    held = RunDir.create(run_dir, Config(env_id="CartPole-v1"), {})
    offline_part(run_dir, "one", 1)

    track_command(run_dir)
    while_training = synced(fake_wandb)
    held.close()
    track_command(run_dir)

    assert while_training == []
    assert "left out: still training" in capsys.readouterr().out
    assert len(synced(fake_wandb)) == 1


@pytest.mark.usefixtures("key")
def test_an_upload_that_hangs_is_cut(
    fake_wandb: Calls,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    offline_part(tmp_path / "a", "one", 1)
    monkeypatch.setenv("FAKE_WANDB_SYNC", "hang")

    with pytest.raises(MachineError):
        track_command(tmp_path, "--timeout", 0.5)

    assert "failed: not done after" in capsys.readouterr().out


def test_sync_without_a_key_uploads_nothing_and_asks_nothing(
    fake_wandb: Calls, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    offline_part(tmp_path / "a", "one", 1)

    with pytest.raises(UserError, match="sync: needs an API key"):
        track_command(tmp_path)
    assert track_command(tmp_path, "--dry-run") == 0
    with pytest.raises(UserError, match="is not a folder"):
        track_command(tmp_path / "none")

    assert "one part 1  would upload" in capsys.readouterr().out
    assert synced(fake_wandb) == []
