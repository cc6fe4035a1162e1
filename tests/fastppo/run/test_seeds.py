"""Several seeds of one setting: a process and a folder each, and what they came to."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pytest

SMALL = (
    "CartPole-v1", "--num-envs", "4", "--num-steps", "32", "--total-timesteps", "1024",
    "--num-minibatches", "2",
)  # fmt: skip


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_every_seed_is_the_run_that_it_is_alone(
    command: Callable[..., Any], tmp_path: Path
) -> None:
    folder, alone = tmp_path / "many", tmp_path / "alone"
    outcome = command("train", *SMALL, "--seed", 5, "--seeds", 2, "--jobs", 2, "--run-dir", folder)
    assert outcome.code == 0, outcome.err
    assert command("train", *SMALL, "--seed", 6, "--run-dir", alone).code == 0

    losses = [[row["loss/value_loss"] for row in rows(path)] for path in (folder / "seed-6", alone)]
    assert losses[0] == losses[1]
    assert command("eval", folder).err == (
        f"fastppo: error: run_dir: {folder} holds no run (no config.json)\n"
    )
    summary = json.loads((folder / "summary.json").read_text())
    assert list(summary["seeds"]) == ["5", "6"]
    returns = [one["return"] for one in summary["seeds"].values()]
    assert summary["mean_return"] == pytest.approx(mean(returns))
    assert summary["std_return"] == pytest.approx(stdev(returns))
    last = outcome.out.splitlines()[-1]
    assert last == (
        f"CartPole-v1: 2 of 2 seeds done, return {mean(returns):.1f} +- {stdev(returns):.1f} "
        f"(last 100 episodes of each), in {folder}"
    )


def test_a_seed_that_fails_fails_the_command_and_no_other_seed(
    command: Callable[..., Any], tmp_path: Path
) -> None:
    # a loss that is not finite: the run stops itself
    outcome = command(
        "train", *SMALL, "--seeds", 2, "--run-dir", tmp_path / "many",
        "--learning-rate", "1e30", "--max-skipped-steps", "1",
    )  # fmt: skip

    assert outcome.code == 3
    assert outcome.err.count("ended with exit code 3: fastppo: error: max_skipped_steps: ") == 2
    assert "0 of 2 seeds done" in outcome.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--seeds", "0"), "seeds: 0 must be above 0"),
        (("--seeds", "2", "--jobs", "0"), "jobs: 0 must be above 0"),
        (("--seeds", "2", "--gamma", "3"), "gamma: 3.0 must be in [0, 1]"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_no_folder(
    words: tuple[str, ...], message: str, command: Callable[..., Any], tmp_path: Path
) -> None:
    outcome = command("train", *SMALL, *words, "--run-dir", tmp_path / "many")

    assert (outcome.code, outcome.err) == (2, f"fastppo: error: {message}\n")
    assert not (tmp_path / "many").exists()


def test_a_folder_that_is_there_is_left_alone(command: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()

    outcome = command("train", *SMALL, "--seeds", 2, "--run-dir", tmp_path)

    assert outcome.code == 2
    assert f"run_dir: {tmp_path} is there already; choose another folder" in outcome.err
    assert list(tmp_path.iterdir()) == [tmp_path / "thesis.tex"]


def test_a_signal_lets_every_seed_save(tmp_path: Path) -> None:
    words = ["train", "CartPole-v1", "--seeds", "3", "--jobs", "2", "--total-timesteps", "9000000"]
    process = subprocess.Popen(
        [sys.executable, "-m", "fastppo", *words, "--run-dir", tmp_path / "many"],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    seeds = [tmp_path / "many" / f"seed-{n}" for n in (1, 2)]
    deadline = time.monotonic() + 120
    while not all((one / "metrics.jsonl").exists() for one in seeds):
        assert time.monotonic() < deadline
        time.sleep(0.1)

    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)

    assert process.returncode == 128 + signal.SIGTERM, err
    for one in seeds:
        newest = max((one / "checkpoints").glob("*.pt"))
        assert int(newest.stem) == rows(one)[-1]["update"] > 0
    assert not (tmp_path / "many" / "seed-3").exists()
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)
