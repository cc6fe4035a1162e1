"""What a run leaves behind, who may write to it, and what a full disk does to it."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastppo.checkpoint import load
from fastppo.config import Config
from fastppo.envs import VecEnv
from fastppo.errors import Diverged, MachineError, UserError
from fastppo.run import session
from fastppo.run.rundir import RunDir
from fastppo.trainer import Trainer


def rows_of(run: Path) -> list[dict[str, Any]]:
    """metrics.jsonl, read as strictly as JSON is defined: no NaN, no Infinity."""

    def refuse(token: str) -> None:
        raise AssertionError(f"{token} is not JSON")

    text = (run / "metrics.jsonl").read_text()
    assert text.endswith("\n")
    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def contents(run: Path) -> dict[str, bytes]:
    """Every file of a run but the lock and metrics.jsonl."""
    return {
        str(path.relative_to(run)): path.read_bytes()
        for path in run.rglob("*")
        if path.is_file() and path.name not in (".lock", "metrics.jsonl")
    }


def test_a_finished_run_holds_config_metrics_and_the_newest_checkpoints(finished_run: Path) -> None:
    names = {path.name for path in finished_run.iterdir()}
    checkpoints = sorted(path.name for path in (finished_run / "checkpoints").iterdir())

    assert names == {"config.json", "metrics.jsonl", "checkpoints", ".lock"}
    assert checkpoints == ["00000002.pt", "00000004.pt", "00000006.pt"]


def test_config_json_holds_every_setting_machine_and_versions(finished_run: Path) -> None:
    record = json.loads((finished_run / "config.json").read_text())

    assert Config.from_dict(record["config"]) == RunDir.open(finished_run).read_config()
    assert {"cpu", "cores", "memory_gb", "os", "gpus"} <= set(record["machine"])
    assert {"python", "fastppo", "torch", "envpool", "numpy"} <= set(record["versions"])
    assert all(record["versions"][name] for name in ("torch", "envpool"))
    assert record["backend"] == "torch"
    assert record["device"] == "cpu"
    assert record["threads"] == {"env": 1, "torch": 1}


def test_metrics_hold_one_strict_json_line_per_update(finished_run: Path) -> None:
    rows = rows_of(finished_run)
    steps = [row["global_step"] for row in rows]

    assert [row["update"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert steps == sorted(set(steps))
    assert sum(row["env_steps"] for row in rows) == steps[-1] <= 768
    assert all(row["frames"] == row["global_step"] for row in rows)
    assert {"loss/policy_loss", "loss/approx_kl", "time/env", "learning_rate"} <= set(rows[0])


def test_checkpoints_count_what_the_metrics_count(finished_run: Path) -> None:
    rows = rows_of(finished_run)

    for update in (2, 4, 6):
        state = load(finished_run / "checkpoints" / f"{update:08d}.pt")
        assert state["update"] == update
        assert state["global_step"] == rows[update - 1]["global_step"]


def test_the_newest_checkpoints_are_kept(tiny: Callable[..., Config], tmp_path: Path) -> None:
    config = tiny(checkpoint_interval=1, keep_checkpoints=2, total_timesteps=5 * 128)

    session.start(config, tmp_path / "run", quiet=True)

    kept = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert kept == ["00000004.pt", "00000005.pt"]


def test_values_that_are_not_finite_become_null(
    tiny: Callable[..., Config], tmp_path: Path
) -> None:
    run = RunDir.create(tmp_path / "run", tiny(), {})
    run.log({"update": 1, "loss": float("nan"), "deep": {"x": [float("inf"), 2.0]}})
    run.close()

    assert rows_of(run.path) == [{"update": 1, "loss": None, "deep": {"x": [None, 2.0]}}]


def test_a_logged_line_is_on_disk_at_once(tiny: Callable[..., Config], tmp_path: Path) -> None:
    run = RunDir.create(tmp_path / "run", tiny(), {})

    run.log({"update": 1})

    assert len(rows_of(run.path)) == 1
    run.close()


def test_default_folders_name_environment_and_seed_and_never_collide(
    tiny: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("time.strftime", lambda _: "20260101-000000")

    runs = [RunDir.create(None, tiny(seed=7), {}) for _ in range(3)]

    for run in runs:
        run.close()
    stem = "runs/CartPole-v1-7-20260101-000000"
    assert [str(run.path) for run in runs] == [stem, f"{stem}-2", f"{stem}-3"]


def test_folder_of_another_run_is_refused_and_left_alone(
    run_copy: Path, tiny: Callable[..., Config]
) -> None:
    before = contents(run_copy)

    with pytest.raises(UserError) as caught:
        RunDir.create(run_copy, tiny(), {})

    assert str(caught.value) == (
        f"run_dir: {run_copy} holds another run; go on with `fastppo train --resume {run_copy}`"
        " or choose another folder"
    )
    assert contents(run_copy) == before


@pytest.mark.parametrize("name", ["notes.txt", "checkpoints/00000001.pt"])
def test_folder_with_other_things_in_it_is_refused(
    name: str, tiny: Callable[..., Config], tmp_path: Path
) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()

    with pytest.raises(UserError, match="is not empty and no run; choose another folder"):
        RunDir.create(tmp_path, tiny(), {})


def test_file_in_place_of_the_folder_is_refused(
    tiny: Callable[..., Config], tmp_path: Path
) -> None:
    (tmp_path / "run").touch()

    with pytest.raises(UserError, match="is a file; name a folder"):
        RunDir.create(tmp_path / "run", tiny(), {})


def test_empty_folder_is_taken(tiny: Callable[..., Config], tmp_path: Path) -> None:
    run = RunDir.create(tmp_path, tiny(), {})
    run.close()

    assert RunDir.open(tmp_path).read_config() == tiny()


@pytest.mark.parametrize(
    ("path", "reason"),
    [("file/run", "not a directory"), ("x" * 300, "file name too long")],
)
def test_folder_that_cannot_be_made_is_the_machines_fault(
    path: str, reason: str, tiny: Callable[..., Config], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(MachineError, match=rf"run_dir: cannot write .* \({reason}\)"):
        RunDir.create(tmp_path / path, tiny(), {})


def test_opening_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(UserError, match="holds no run"):
            RunDir.open(path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "Expecting value"),
        ('{"config": {', "Expecting"),
        ("[]", "no field 'config'"),
        ("{}", "no field 'config'"),
        ('{"config": {}}', "unknown or missing fields"),
        ('{"config": 5}', "no field 'config'"),
        ('{"config": ' + "[" * 100_000, "nested too deeply"),
        ('{"config": {"gamma": 1e999}}', "beyond a double"),
        ("\x00\x01", "Expecting value"),
    ],
)
def test_damaged_config_is_refused(text: str, reason: str, run_copy: Path) -> None:
    (run_copy / "config.json").write_text(text)

    with pytest.raises(UserError) as caught:
        RunDir.open(run_copy).read_config()

    message = str(caught.value)
    assert message.startswith(f"run_dir: {run_copy / 'config.json'} cannot be read (")
    assert reason in message
    assert message.endswith("; restore the file, or train into a new run_dir")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("gamma", "0.9", "gamma: '0.9' must be float"),
        ("num_envs", 4.0, "num_envs: 4.0 must be int"),
        ("hidden_sizes", 16, "hidden_sizes: 16 must be a tuple of int"),
        ("activation", "gelu", "activation: 'gelu' must be one of tanh, relu, elu, silu"),
        ("learning_rate", -1, "learning_rate: -1 must be above 0"),
        ("learning_rate", float("nan"), "learning_rate: nan must be a finite number"),
    ],
)
def test_edited_config_is_refused_by_field(
    field: str, value: Any, reason: str, run_copy: Path
) -> None:
    record = json.loads((run_copy / "config.json").read_text())
    record["config"][field] = value
    (run_copy / "config.json").write_text(json.dumps(record))

    with pytest.raises(UserError) as caught:
        RunDir.open(run_copy).read_config()

    assert reason in str(caught.value)


@pytest.mark.parametrize(
    "tail", ["", '{"update": 5, "glob', '\x00\x00\x00\n{"update": 5}\n', "7\n"]
)
def test_resuming_drops_what_was_logged_after_the_checkpoint(tail: str, run_copy: Path) -> None:
    metrics = run_copy / "metrics.jsonl"
    lines = metrics.read_text().splitlines(keepends=True)
    metrics.write_text("".join(lines[:4]) + tail if tail else "".join(lines))
    run = RunDir.open(run_copy)

    run.resume(4)

    run.close()
    assert metrics.read_text() == "".join(lines[:4])


def test_a_resumed_run_logs_every_update_once(stopped_run: Path) -> None:
    """The crash came after line 6 was written and before checkpoint 6 was."""
    first = rows_of(stopped_run)

    session.resume(stopped_run, quiet=True)

    rows = rows_of(stopped_run)
    steps = [row["global_step"] for row in rows]
    assert [row["update"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert rows[:4] == first[:4]
    assert rows[4:] != first[4:]
    assert steps == sorted(set(steps))
    assert (stopped_run / "checkpoints" / "00000006.pt").exists()


def test_a_run_that_diverged_logs_its_last_update_and_can_go_on(
    tiny: Callable[..., Config],
    tmp_path: Path,
    command: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "run"
    step = VecEnv.step

    def poisoned(env: VecEnv, actions: Any) -> Any:
        return step(env, actions)._replace(rewards=np.full(4, np.nan, np.float32))

    with monkeypatch.context() as patch:
        patch.setattr(VecEnv, "step", poisoned)
        with pytest.raises(Diverged, match=r"max_skipped_steps: 4 .* lower learning_rate"):
            session.start(tiny(max_skipped_steps=4), path, quiet=True)

    rows = rows_of(path)
    assert [(row["update"], row["skipped_steps"]) for row in rows] == [(1, 4)]
    assert load(path / "checkpoints" / "00000001.pt")["update"] == 1
    assert command("train", "--resume", path, "--quiet").code == 0
    assert [row["update"] for row in rows_of(path)] == [1, 2, 3, 4, 5, 6]


def test_a_run_that_ended_before_its_first_checkpoint_begins_with_resume(
    tiny: Callable[..., Config], tmp_path: Path, command: Callable[..., Any]
) -> None:
    """A killed write leaves its part, too; `train` and `--resume` do not point at each other."""
    path = tmp_path / "run"
    RunDir.create(path, tiny(), {}).close()
    part = path / "checkpoints" / ".fastppo-0123456789abcdef.part"
    part.write_bytes(b"half a checkpoint")

    outcome = command("train", "--resume", path, "--quiet")

    assert (outcome.code, outcome.out) == (0, "")
    assert outcome.err == f"{path} has no checkpoint yet: from the beginning\n"
    assert [row["update"] for row in rows_of(path)] == [1, 2, 3, 4, 5, 6]
    assert not part.exists()


def test_a_run_that_ended_before_its_config_can_be_started_again(
    tiny: Callable[..., Config], tmp_path: Path
) -> None:
    path = tmp_path / "run"
    (path / "checkpoints").mkdir(parents=True)
    (path / ".lock").touch()
    (path / ".fastppo-0123456789abcdef.part").write_bytes(b"half a config")

    session.start(tiny(), path, quiet=True)

    assert len(rows_of(path)) == 6


@pytest.mark.parametrize("moment", range(6))
def test_a_run_that_is_killed_while_it_is_made_can_be_had_again(
    tiny: Callable[..., Config], tmp_path: Path, command: Callable[..., Any], moment: int
) -> None:
    """Killed at one rename or sync after the other: SIGKILL runs nobody's `finally`."""
    path = tmp_path / "run"
    pid = os.fork()
    if pid == 0:
        calls = iter(range(100))

        def die_at_the_moment(real: Any) -> Any:
            def call(*args: Any, **kwargs: Any) -> Any:
                if next(calls) == moment:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*args, **kwargs)

            return call

        os.fsync = die_at_the_moment(os.fsync)
        os.rename = os.replace = die_at_the_moment(os.replace)
        try:
            run = RunDir.create(path, tiny(), {})
            run.save(0, {"nothing": 0}, 1)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    for saved in (path / "checkpoints").glob("*.pt"):
        saved.unlink()  # whole, but not of a run

    if (path / "config.json").exists():
        assert command("train", "--resume", path, "--quiet").code == 0
    else:
        session.start(tiny(), path, quiet=True)

    assert len(rows_of(path)) == 6
    assert not list(path.rglob("*.part"))


def test_a_run_whose_checkpoints_are_lost_keeps_its_metrics(
    run_copy: Path, command: Callable[..., Any]
) -> None:
    shutil.rmtree(run_copy / "checkpoints")
    before = (run_copy / "metrics.jsonl").read_bytes()

    outcome = command("train", "--resume", run_copy)

    assert outcome.code == 2
    assert "metrics.jsonl holds updates" in outcome.err
    assert (run_copy / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b'{"update": 2',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"update": 1e999}',
        b'{"update": "2"}',
        b'{"update": true}',
        b"[2]",
        b'{"update": 1}',
        b"",
    ],
)
def test_a_damaged_line_costs_that_line_and_is_kept(
    stopped_run: Path, command: Callable[..., Any], line: bytes
) -> None:
    source = stopped_run / "metrics.jsonl"
    lines = source.read_bytes().splitlines()
    source.write_bytes(b"\n".join([lines[0], line, *lines[2:], b""]))

    outcome = command("train", "--resume", stopped_run, "--quiet")

    assert outcome.code == 0
    assert outcome.err == f"fastppo: {source}: 1 damaged line moved to metrics.damaged-1.jsonl\n"
    assert (stopped_run / "metrics.damaged-1.jsonl").read_bytes() == line + b"\n"
    assert [row["update"] for row in rows_of(stopped_run)] == [1, 3, 4, 5, 6]
    assert source.read_bytes().splitlines()[:3] == [lines[0], lines[2], lines[3]]


@pytest.mark.parametrize("gone", ["", "metrics.jsonl", "moved"])
def test_a_run_that_is_deleted_while_it_trains_does_not_say_done(
    tiny: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone: str
) -> None:
    path, update = tmp_path / "run", Trainer.run_update

    def run_update(trainer: Trainer) -> dict[str, Any]:
        if trainer.update == 3:
            if gone == "moved":
                path.rename(tmp_path / "elsewhere")
            elif gone:
                (path / gone).unlink()
            else:
                shutil.rmtree(path)
        return update(trainer)

    monkeypatch.setattr(Trainer, "run_update", run_update)

    with pytest.raises(MachineError, match="was deleted or moved"):
        session.start(tiny(), path, quiet=True)

    assert path.exists() == (gone == "metrics.jsonl")  # nothing is made again behind one's back


@pytest.mark.parametrize("command_line", ["train --resume", "eval"])
@pytest.mark.parametrize("closed", ["", "checkpoints"])
def test_a_folder_that_may_not_be_read_is_one_line(
    run_copy: Path, command_line: str, closed: str
) -> None:
    """As another user, because root may read everything."""
    program = (
        "import os, sys; from fastppo.cli import main; import fastppo.run.session\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    if os.geteuid() != 0:
        pytest.skip("becoming another user needs root")
    for folder in (run_copy.parent.parent.parent, run_copy.parent.parent, run_copy.parent):
        folder.chmod(0o755)
    (run_copy / closed).chmod(0o700)

    done = subprocess.run(
        [sys.executable, "-c", program, *command_line.split(), str(run_copy)],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip

    assert done.returncode in (2, 3), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("fastppo: error: ")
    assert "permission denied" in done.stderr


def test_a_finished_run_has_nothing_to_resume(
    run_copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(run_copy)

    session.resume(run_copy, quiet=False)

    assert "is complete: 6 updates" in capsys.readouterr().out
    assert contents(run_copy) == before


def test_checkpoint_of_another_run_is_not_resumed(stopped_run: Path) -> None:
    record = json.loads((stopped_run / "config.json").read_text())
    record["config"]["gamma"] = 0.5
    (stopped_run / "config.json").write_text(json.dumps(record))

    with pytest.raises(UserError, match="belongs to another run than config"):
        session.resume(stopped_run, quiet=True)


@pytest.fixture
def holder(stopped_run: Path) -> Iterator[Path]:
    """The run while another process holds it."""
    code = (
        "import fcntl, sys; file = open(sys.argv[1], 'w'); "
        "fcntl.flock(file, fcntl.LOCK_EX); print('held', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(stopped_run / ".lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield stopped_run
        process.terminate()


def test_a_run_that_another_process_writes_to_is_refused(holder: Path) -> None:
    metrics = (holder / "metrics.jsonl").read_bytes()
    before = contents(holder)

    with pytest.raises(UserError, match="is in use by another process; wait for it to end"):
        session.resume(holder, quiet=True)

    assert contents(holder) == before
    assert (holder / "metrics.jsonl").read_bytes() == metrics


def test_a_run_is_free_again_after_its_process_died(stopped_run: Path) -> None:
    run = RunDir.open(stopped_run)
    run.resume(4)
    run.close()

    again = RunDir.open(stopped_run)
    again.resume(4)
    again.close()


class FullDisk:
    """Lets os.fsync fail from the nth call on, as a full disk may."""

    def __init__(self, fail_from: int) -> None:
        self.fail_from = fail_from
        self.calls = 0
        self._fsync = os.fsync

    def __call__(self, descriptor: int) -> None:
        self.calls += 1
        if self.calls >= self.fail_from:
            raise OSError(errno.ENOSPC, "No space left on device")
        self._fsync(descriptor)


def test_a_new_run_that_cannot_be_written_can_be_started_again(
    tiny: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", FullDisk(1))
        with pytest.raises(MachineError, match=r"no space left on device\); free space"):
            RunDir.create(tmp_path / "run", tiny(), {})
    assert not (tmp_path / "run" / "config.json").exists()

    RunDir.create(tmp_path / "run", tiny(), {}).close()

    assert RunDir.open(tmp_path / "run").read_config() == tiny()


def test_resuming_on_a_full_disk_damages_nothing(
    stopped_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, metrics = contents(stopped_run), (stopped_run / "metrics.jsonl").read_bytes()
    monkeypatch.setattr(os, "fsync", FullDisk(1))

    with pytest.raises(MachineError, match="no space left on device"):
        session.resume(stopped_run, quiet=True)

    assert contents(stopped_run) == before
    assert (stopped_run / "metrics.jsonl").read_bytes() == metrics


def mount(folder: Path, size: str) -> bool:
    if os.geteuid() != 0 or shutil.which("mount") is None:
        return False
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    return mounted.returncode == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if not mount(folder, "256k"):
        pytest.skip("needs the right to mount a tmpfs")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_truly_full_disk_stops_the_run_and_damages_nothing(
    small_disk: Path, command: Callable[..., Any], tiny: Callable[..., Config]
) -> None:
    """Fills the disk up behind the first checkpoints, then lets the run go on until it fails."""
    path = small_disk / "run"
    run = RunDir.create(path, tiny(total_timesteps=128 * 500, keep_checkpoints=100), {})
    run.close()
    config = RunDir.open(path).read_config()
    first = Trainer(config)
    run.save(0, first.state(), 100)
    first.close()

    code, out, err = command("train", "--resume", path, "--quiet")

    assert (code, out) == (3, "")
    assert len(err.splitlines()) == 1
    assert err.startswith("fastppo: error: ")
    assert "no space left on device" in err.lower()
    assert f"fastppo train --resume {path}" in err
    assert RunDir.open(path).read_config() == config
    checkpoints = sorted((path / "checkpoints").iterdir())
    assert len(checkpoints) >= 2
    for number, checkpoint in enumerate(checkpoints):
        assert checkpoint.suffix == ".pt"
        assert load(checkpoint)["update"] == 2 * number


def test_a_disk_that_may_not_be_written_exits_with_3_and_one_line(
    small_disk: Path, finished_run: Path, command: Callable[..., Any]
) -> None:
    """Read-only for root as well, whom permission bits do not stop."""
    path = small_disk / "run"
    shutil.copytree(finished_run, path)
    (path / "checkpoints" / "00000006.pt").unlink()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)

    resumed = command("train", "--resume", path, "--quiet")
    started = command("train", "CartPole-v1", "--backend", "torch", "--run-dir", small_disk / "new")
    played = command("eval", path, "--episodes", "1")

    for outcome, name in ((resumed, "run_dir"), (started, "--run-dir")):
        assert (outcome.code, outcome.out) == (3, "")
        assert outcome.err.count("\n") == 1
        assert outcome.err.startswith(f"fastppo: error: {name}: cannot write {small_disk}")
        assert "(read-only file system); free space" in outcome.err
    assert played.code == 0


@pytest.mark.parametrize("fail_from", [1, 2, 3])
def test_a_full_disk_exits_with_3_and_one_line(
    fail_from: int,
    stopped_run: Path,
    command: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first sync is that of metrics.jsonl, the others those of a checkpoint and its folder."""
    before = contents(stopped_run)
    disk = FullDisk(fail_from)
    monkeypatch.setattr(os, "fsync", disk)

    code, out, err = command("train", "--resume", stopped_run, "--quiet")

    assert (code, out) == (3, "")
    assert err.count("\n") == 1
    assert err.startswith("fastppo: error: ")
    assert "(no space left on device)" in err
    assert disk.calls >= fail_from
    after = contents(stopped_run)
    assert {name: after[name] for name in before} == before
    assert not [name for name in after if name.endswith(".part")]
