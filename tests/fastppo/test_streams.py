"""A mirror never ends a run: whatever becomes of standard output, training goes on and saves."""

import errno
import io
import json
import os
import pty
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastppo import program, streams
from fastppo.config import Config
from fastppo.run import session
from fastppo.run.rundir import RunDir
from fastppo.tracking import trackers as tracking
from fastppo.trainer import Trainer

TRAIN = (
    "train CartPole-v1 --num-envs 4 --num-steps 32 --num-minibatches 2 --update-epochs 1 "
    "--total-timesteps 2560 --checkpoint-interval 100 --backend torch --device cpu --run-dir"
)
ROWS = 20


class Broken(io.StringIO):
    """A stream that takes some characters and fails with the next write."""

    def __init__(self, error: Exception, room: int = 0) -> None:
        super().__init__()
        self._error, self._room = error, room

    def write(self, text: str) -> int:
        if self.tell() + len(text) > self._room:
            raise self._error
        return super().write(text)


FULL, GONE = OSError(errno.ENOSPC, "No space left on device"), BrokenPipeError(errno.EPIPE, "x")


def shell(line: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs a line of bash in which FASTPPO is the command; the exit code is that of its pipe's."""
    line = line.replace("FASTPPO", f"{shlex.quote(sys.executable)} -m fastppo")
    return subprocess.run(
        ["bash", "-c", f"{line}; exit ${{PIPESTATUS[0]}}"],
        capture_output=True,
        text=True,
        errors="replace",
        env=os.environ | variables,
    )


def is_whole(run_dir: Path) -> bool:
    """Whether it has every row and the last checkpoint."""
    rows = (run_dir / "metrics.jsonl").read_text().splitlines()
    last = run_dir / "checkpoints" / f"{ROWS:08d}.pt"
    return len(rows) == ROWS and last.exists()


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        (">/dev/full", "no space left on device"),
        pytest.param(">&-", "it is closed", marks=pytest.mark.slow),
        pytest.param("| head -1", "broken pipe", marks=pytest.mark.slow),
    ],
)
def test_a_run_whose_output_is_lost_trains_to_its_end_and_says_so(
    where: str, reason: str, tmp_path: Path
) -> None:
    done = shell(f"FASTPPO {TRAIN} {tmp_path / 'run'} {where}")

    assert done.returncode == 0
    assert done.stderr == f"fastppo: warning: stdout: {reason}; the run went on without it\n"
    assert is_whole(tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("where", [">&- 2>&-", ">/dev/full 2>/dev/full", "<&- >&- 2>&-"])
def test_a_run_that_can_say_nothing_at_all_trains_to_its_end(where: str, tmp_path: Path) -> None:
    done = shell(f"FASTPPO {TRAIN} {tmp_path / 'run'} {where}")

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert is_whole(tmp_path / "run")
    # the next file must not get the number of a stream, and what libraries print
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["config"]["env_id"] == "CartPole-v1"


def test_a_run_whose_terminal_is_gone_trains_to_its_end(tmp_path: Path) -> None:
    """The live display, under nohup, in a window that is closed."""
    ours, theirs = pty.openpty()
    line = f"trap '' HUP; exec {shlex.quote(sys.executable)} -m fastppo {TRAIN} {tmp_path / 'run'}"
    process = subprocess.Popen(
        ["bash", "-c", line], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    try:
        seen = b""
        while b"CartPole" not in seen:
            seen += os.read(ours, 4096)
        os.close(ours)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()

    assert is_whole(tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize(
    "variables",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    ],
)
def test_a_run_whose_terminal_lacks_a_character_trains_to_its_end(
    variables: dict[str, str], tmp_path: Path
) -> None:
    done = shell(f"FASTPPO {TRAIN} {tmp_path / 'lauf-é'}", **variables)

    assert (done.returncode, done.stderr) == (0, "")
    assert "lauf-" in done.stdout.splitlines()[-1]
    assert is_whole(tmp_path / "lauf-é")


@pytest.fixture
def stdout(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    """Puts a stream in the place of standard output."""
    return lambda stream: monkeypatch.setattr(sys, "stdout", stream)


@pytest.mark.parametrize("code", [0, 1, 3, 4])
def test_a_reader_that_leaves_keeps_the_exit_code(
    code: int, stdout: Callable[[Any], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """`compare a a | head -1` was 1, which means regression."""
    stdout(Broken(GONE))

    def command() -> int:
        print("row")
        return code

    assert program.run(command, is_process=False) == code
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("code", [0, 1])
@pytest.mark.parametrize("is_mirror", [False, True])
def test_output_on_a_full_disk_is_a_failure_only_of_who_has_nothing_else_to_show(
    code: int,
    is_mirror: bool,
    stdout: Callable[[Any], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    stdout(Broken(FULL, room=3))

    def command() -> int:
        if is_mirror:
            streams.mirror()
        print("row 1")
        return code

    assert program.run(command, is_process=False) == (code if code or is_mirror else 3)
    (line,) = capsys.readouterr().err.splitlines()
    assert "stdout: no space left on device; not all was printed" in line


@pytest.mark.parametrize("command", ["doctor", "eval RUN", "train CartPole-v1 --show-config"])
def test_closed_output_is_told_before_the_work_of_who_has_nothing_else_to_show(
    command: str,
    stdout: Callable[[Any], None],
    monkeypatch: pytest.MonkeyPatch,
    command_line: Callable[[str], int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    stdout(None)

    assert command_line(command) == 3
    assert capsys.readouterr().err == (
        "fastppo: error: stdout: it is closed; send it to a file, a pipe or a terminal\n"
    )


@pytest.fixture
def command_line() -> Callable[[str], int]:
    """Calls `fastppo ...` in this process."""
    from fastppo.cli import main

    return lambda line: main(line.split())


@given(st.text(), st.sampled_from(["ascii", "latin-1", "utf-8", "cp1252"]))
def test_text_is_shown_in_any_encoding_and_what_it_lacks_is_escaped(
    text: str, encoding: str
) -> None:
    raw = io.BytesIO()
    guard = streams.Guard(io.TextIOWrapper(raw, encoding=encoding, newline=""))
    guard.write(text)
    guard.flush()

    assert guard.lost is None
    assert raw.getvalue() == text.encode(encoding, "backslashreplace")


class Sudden(BaseException):
    """What no library is expected to raise."""


@pytest.mark.parametrize(
    "error", [MemoryError(), OSError(5, "x"), RuntimeError("EnvPool"), SystemExit(9), Sudden()]
)
@pytest.mark.parametrize("where", ["collect", "log", "show"])
def test_every_way_out_of_the_loop_saves_first(
    error: BaseException,
    where: str,
    tiny: Callable[..., Config],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if where == "show":
        monkeypatch.setattr(session, "make_progress", lambda *_, **__: Showing(error))
    else:
        owner: Any = {"collect": Trainer, "log": RunDir}[where]
        original, calls = getattr(owner, where), 0

        def failing(self: Any, *args: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == 4:
                raise error
            return original(self, *args)

        monkeypatch.setattr(owner, where, failing)
    path = tmp_path / "run"

    with pytest.raises(type(error)):
        session.start(tiny(checkpoint_interval=100), path, quiet=True)

    trained = 3 if where == "collect" else 4
    assert (path / "checkpoints" / f"{trained:08d}.pt").exists()
    assert f"fastppo train --resume {path}" in capsys.readouterr().err
    monkeypatch.undo()
    session.resume(path, quiet=True)
    assert (path / "checkpoints" / "00000006.pt").exists()


class Showing:
    """A display that fails in the fourth update."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __enter__(self) -> "Showing":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, metrics: dict[str, Any]) -> None:
        if metrics["update"] == 4:
            raise self._error


class Failing:
    """A tracker that fails in one of its calls."""

    def __init__(self, call: str) -> None:
        self._call = call
        self.seen: list[str] = []

    def log(self, metrics: dict[str, Any]) -> None:
        self._do("log")

    def close(self, exit_code: int) -> None:
        self._do("close")

    def _do(self, what: str) -> None:
        self.seen.append(what)
        if what == self._call:
            raise ZeroDivisionError("in the library\nof somebody else")


@pytest.mark.parametrize("call", ["log", "close"])
def test_a_tracker_that_raises_anything_is_one_warning_and_the_others_go_on(
    call: str,
    tiny: Callable[..., Config],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bad, good = Failing(call), Failing("nothing")
    monkeypatch.setattr(tracking, "make_tracker", lambda *_, **__: tracking.Trackers((bad, good)))

    session.start(tiny(), tmp_path / "run", quiet=True)

    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("fastppo: warning: failing: in the library; this run is no longer")
    assert good.seen == ["log"] * 6 + ["close"]
    assert bad.seen == (["log"] if call == "log" else good.seen)
    assert (tmp_path / "run" / "checkpoints" / "00000006.pt").exists()
