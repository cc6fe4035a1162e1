"""A signal asks once, politely; a second one does not wait. Real processes, real signals."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from fastppo.cli import main
from fastppo.config import Config
from fastppo.errors import Interrupted
from fastppo.run import session
from fastppo.signals import SIGNALS, StopRequest
from fastppo.trainer import Trainer

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_remembered_until_it_is_checked(number: signal.Signals) -> None:
    with StopRequest() as stop:
        stop.check()
        os.kill(os.getpid(), number)

        with pytest.raises(Interrupted) as caught:
            stop.check()

    assert caught.value.exit_code == 128 + number


def test_a_second_signal_stops_at_once() -> None:
    with StopRequest():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_handlers_are_put_back() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with StopRequest():
        during = [signal.getsignal(number) for number in SIGNALS]

    after = [signal.getsignal(number) for number in SIGNALS]

    assert after == before
    assert during[0] != before[0]


def interrupt_in_update(
    monkeypatch: pytest.MonkeyPatch, update: int, number: signal.Signals
) -> None:
    """Lets the signal come while the trainer collects its nth rollout."""
    collect = Trainer.collect

    def interrupted(trainer: Trainer) -> None:
        if trainer.update == update:
            os.kill(os.getpid(), number)
        collect(trainer)

    monkeypatch.setattr(Trainer, "collect", interrupted)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_interrupted_run_saves_says_how_to_go_on_and_goes_on(
    number: signal.Signals,
    code: int,
    tiny: Callable[..., Config],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Update 3 is no multiple of the checkpoint interval: the checkpoint is owed to the signal."""
    path = tmp_path / "run"
    with monkeypatch.context() as patch:
        interrupt_in_update(patch, 3, number)
        with pytest.raises(Interrupted) as caught:
            session.start(tiny(), path, quiet=True)

    out, err = capsys.readouterr()
    assert caught.value.exit_code == code
    assert out == ""
    assert err == (
        f"stopped after update 3, checkpoint written; go on with: fastppo train --resume {path}\n"
    )
    assert (path / "checkpoints" / "00000003.pt").exists()

    session.resume(path, quiet=True)

    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert [row["update"] for row in rows] == [1, 2, 3, 4, 5, 6]


def test_a_run_interrupted_before_its_first_update_can_be_resumed(
    tiny: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        interrupt_in_update(patch, 0, signal.SIGINT)
        with pytest.raises(Interrupted):
            session.start(tiny(), tmp_path / "run", quiet=True)

    session.resume(tmp_path / "run", quiet=True)

    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 6


def test_a_run_that_is_torn_off_does_not_claim_a_checkpoint_it_did_not_write(
    tiny: Callable[..., Config],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    update = Trainer.run_update

    def torn(trainer: Trainer) -> Any:
        if trainer.update == 3:
            raise KeyboardInterrupt
        return update(trainer)

    monkeypatch.setattr(Trainer, "run_update", torn)
    with pytest.raises(KeyboardInterrupt):
        session.start(tiny(), tmp_path / "run", quiet=True)

    assert "checkpoint written" not in capsys.readouterr().err
    assert not (tmp_path / "run" / "checkpoints" / "00000003.pt").exists()


class Story(NamedTuple):
    """A run that was killed, resumed by a second process, and ended by SIGTERM."""

    path: Path
    saved: int  # newest checkpoint when it was killed
    logged: int  # lines of metrics then
    first: list[dict[str, Any]]  # metrics then
    intruder: tuple[int, str]  # exit code and stderr of a third process, beside the second
    ended: tuple[int, str, str]  # the second's exit code, stdout and stderr


def launch(path: Path, *args: str) -> subprocess.Popen[str]:
    """`python -m fastppo train`, once it has logged some more updates."""
    metrics = path / "metrics.jsonl"
    process = subprocess.Popen(
        [sys.executable, "-m", "fastppo", "train", *args, "--quiet"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    inode = metrics.stat().st_ino if metrics.exists() else None
    # resuming writes the file anew
    while not metrics.exists() or metrics.stat().st_ino == inode or len(rows_of(path)) < 9:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    return process


def rows_of(path: Path) -> list[dict[str, Any]]:
    """Whole lines of metrics.jsonl."""
    lines = (path / "metrics.jsonl").read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def newest(path: Path) -> int:
    return max(int(file.stem) for file in (path / "checkpoints").glob("*.pt"))


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    path = tmp_path_factory.mktemp("story") / "run"
    settings = [
        *("--total-timesteps", "100000000", "--num-envs", "4", "--num-steps", "32"),
        *("--num-minibatches", "2", "--update-epochs", "1", "--checkpoint-interval", "4"),
        *("--backend", "torch", "--device", "cpu"),
    ]
    process = launch(path, "CartPole-v1", "--run-dir", str(path), *settings)
    process.kill()
    process.communicate()
    saved, first = newest(path), rows_of(path)
    process = launch(path, "--resume", str(path))
    try:
        stderr = io.StringIO()
        with redirect_stderr(stderr):
            code = main(["train", "--resume", str(path)])
        process.terminate()
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    return Story(
        path, saved, len(first), first, (code, stderr.getvalue()), (process.returncode, out, err)
    )


def test_kill_loses_at_most_the_updates_since_the_last_checkpoint(story: Story) -> None:
    """The line of an update is written before its checkpoint, and 4 updates lie between two."""
    assert story.saved % 4 == 0
    assert story.saved <= story.logged <= story.saved + 4
    assert rows_of(story.path)[: story.saved] == story.first[: story.saved]


def test_every_update_is_logged_once_over_kill_and_resume(story: Story) -> None:
    rows = rows_of(story.path)
    steps = [row["global_step"] for row in rows]

    assert [row["update"] for row in rows] == list(range(1, len(rows) + 1))
    assert len(rows) > story.saved
    assert steps == sorted(set(steps))


def test_a_second_process_on_the_run_is_turned_away(story: Story) -> None:
    code, err = story.intruder

    assert code == 2
    assert err == (
        f"fastppo: error: run_dir: {story.path} is in use by another process; "
        "wait for it to end, or stop it\n"
    )


def test_sigterm_ends_the_process_with_143_a_checkpoint_and_the_remedy(story: Story) -> None:
    code, out, err = story.ended

    assert code == 143
    assert out == ""
    assert err == (
        f"stopped after update {newest(story.path)}, checkpoint written; go on with: "
        f"{sys.executable} -m fastppo train --resume {story.path}\n"
    )
    assert newest(story.path) == len(rows_of(story.path))
