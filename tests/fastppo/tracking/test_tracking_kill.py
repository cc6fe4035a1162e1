"""A run that is killed leaves its metrics complete, and a W&B file that can be read."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastppo.bench.track import wandb_log

pytestmark = pytest.mark.usefixtures("no_network")


def rows_of(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def logs_of(run_dir: Path) -> list[Path]:
    return sorted((run_dir / "wandb").glob("offline-run-*/*.wandb"))


def trained_in_a_process(path: Path) -> "subprocess.Popen[bytes]":
    """A run that would take minutes, once it has logged a few updates."""
    command = (
        "from fastppo.cli import main; main(['train', 'CartPole-v1', '--quiet', '--run-dir', "
        f"{str(path)!r}, '--num-envs', '4', '--num-steps', '32', '--device', 'cpu', '--backend',"
        " 'torch', '--wandb', 'offline', '--total-timesteps', '90000000'])"
    )
    process = subprocess.Popen([sys.executable, "-c", command])
    wait_for(lambda: logs_of(path) and len(rows_of(path)) > 20)
    return process


def wait_for(happened: Callable[[], Any], tries: int = 600) -> None:
    while not happened():
        tries -= 1
        assert tries, "it never happened"
        time.sleep(0.05)


def children_of(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found]


def test_a_killed_run_is_mirrored_to_its_last_update(tmp_path: Path) -> None:
    path = tmp_path / "run"
    process = trained_in_a_process(path)

    process.kill()
    process.wait()

    [log] = logs_of(path)
    wait_for(lambda: wandb_log.read(log).is_whole)  # its own process ends it
    rows = rows_of(path)
    assert [row["update"] for row in rows] == list(range(1, len(rows) + 1))
    assert wandb_log.read(log).history == rows
    assert wandb_log.read(log).exit_code == 1


@pytest.mark.slow
def test_a_machine_that_goes_down_leaves_a_log_that_is_readable_to_its_torn_tail(
    tmp_path: Path,
) -> None:
    path = tmp_path / "run"
    process = trained_in_a_process(path)
    [recorder] = children_of(process.pid)
    for pid in (process.pid, recorder, *children_of(recorder)):
        os.kill(pid, signal.SIGSTOP)  # so that none ends what another leaves open
    family = (process.pid, *children_of(recorder), recorder)

    for pid in family:
        os.kill(pid, signal.SIGKILL)
    process.wait()

    [file] = logs_of(path)
    log = wandb_log.read(file)
    rows = rows_of(path)
    assert not log.is_whole
    assert log.history == rows[: len(log.history)]
    assert [row["update"] for row in rows] == list(range(1, len(rows) + 1))
