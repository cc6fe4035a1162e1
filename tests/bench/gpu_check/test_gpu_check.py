"""`fastppo gpu-check`, rehearsed on a CPU: what it finds, and what a fault leaves on disk."""

import json
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from fastppo import cli
from fastppo.bench.gpu_check import command, stages
from fastppo.bench.gpu_check.stages import StageGroup
from fastppo.bench.kernels import cases as kernel_cases
from fastppo.bench.report import markdown as report
from fastppo.bench.report.data import run_of
from fastppo.bench.results import result
from fastppo.config import Config
from fastppo.kernels import api
from fastppo.trainer import Trainer

GROUPS = (
    StageGroup("train", 0.01, ("train/CartPole-v1-4",)),
    StageGroup("check", 2.0, ("check/gae", "check/adam")),
    StageGroup("kernels", 4.0, ("kernels",)),
    StageGroup("tilings", 1.0, ("tilings",)),
    StageGroup("tests", 1.0, ("tests",)),
)
# a stage's process on one or two small things each, with a fault in it
CHILD = """
import os, sys, time
name = sys.argv[1]
from fastppo.bench.gpu_check import child, stages, training
small = [c for c in stages.cases(stages.torch.device("cpu"), quick=True) if c.bytes_moved < 2**18]
grid = [next(c for c in small if c.operation == operation) for operation in ("gae", "adam")]
stages.cases = lambda *_, **__: grid
checks = stages.checks
stages.checks = lambda device, operation: list(checks(device, operation))[:3]
training.WORKLOADS = {"CartPole-v1-4": ("CartPole-v1", {"num_envs": 4, "num_steps": 8})}
training.SLICE_S = 0.05
FAULT
child.main(sys.argv[1:])
"""
WRONG = """
from fastppo.kernels.gae import op
right = op.gae
def scaled(*args, **kwargs):
    factor = 1.0 if kwargs.get("backend") == "torch" else 1.01
    return tuple(factor * x for x in right(*args, **kwargs))
op.gae = scaled
"""
CRASH = "name == 'check/gae' and os.abort()"
# as torch.cuda.synchronize() raises behind a kernel that read what is not there
STICKY = """
judged, calls = stages._judged, []
def _judged(task, what, check):
    calls.append(what)
    if name == "check/adam" and len(calls) == 2:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")
    return judged(task, what, check)
stages._judged = _judged
"""
HANG = "name == 'kernels' and time.sleep(600)"


@pytest.fixture(scope="module", autouse=True)
def _compiled() -> None:
    """Numba's kernels, which a new machine compiles for a minute: no stage has that long here."""
    api.warmup("cpu")
    sizes: dict[str, Any] = dict(num_envs=4, num_steps=8, total_timesteps=32, num_minibatches=2)
    trainer = Trainer(Config(env_id="CartPole-v1", device="cpu", **sizes))
    trainer.run_update()
    trainer.close()


def plant(monkeypatch: pytest.MonkeyPatch, fault: str = "") -> None:
    child = CHILD.replace("FAULT", fault)
    monkeypatch.setattr(command, "CHILD", (sys.executable, "-c", child))
    monkeypatch.setattr(command, "chosen", partial(stages.chosen, groups=GROUPS))
    monkeypatch.setattr(command, "LATE_S", 150.0)  # two shared cores


def check(folder: Path, *arguments: str, seconds: str = "120") -> int:
    common = ["--out", str(folder), "--device", "cpu", "--quick", "--no-compile"]
    return cli.main(["gpu-check", *common, "--seconds", seconds, *arguments])


def found(folder: Path) -> dict[str, Any]:
    return result.read(folder / "gpu-check.json")


def test_a_rehearsal_fills_every_section(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(monkeypatch)
    again = tmp_path / "again.json"

    assert check(tmp_path, "--json", str(again), "--sha", "f" * 40) == 0

    record = found(tmp_path)
    assert record["kind"] == "gpu-check"
    assert record["complete"] is True
    assert record["code"]["sha"] == "f" * 40
    assert result.read(again)["correctness"] == record["correctness"]
    assert len(record["correctness"]) == 2 * 3 + 2
    assert all(outcome["passed"] for outcome in record["correctness"])
    assert {entry["impl"] for entry in record["results"]} == {"fastppo", "eager", "copy"}
    (run,) = record["training"]
    assert run["env_steps_per_s"] > 0
    assert 0 < run["of_envpool"] < 1
    assert len(run["samples"]["fastppo"]) == len(run["samples"]["reference"])
    assert sum(run["phase_shares"].values()) == pytest.approx(1.0, abs=0.02)
    names = [stage["name"] for stage in record["stages"]]
    assert names == [name for group in GROUPS for name in group.stages]
    text = (tmp_path / "gpu-check.md").read_text()
    assert "8 of 8 kernel checks passed" in text
    assert "| T=128 N=8 |" in text
    assert "| CartPole-v1, 4 environments |" in text
    assert text == report.markdown([run_of(record)])
    assert text in capsys.readouterr().out


@pytest.mark.parametrize(
    ("fault", "code", "lost", "reason"),
    [
        (WRONG, 1, None, ""),
        (CRASH, 3, "check/gae", "exit code -6"),
        (STICKY, 3, "check/adam", "illegal memory access"),
    ],
    ids=["wrong", "crash", "sticky"],
)
def test_a_fault_costs_its_stage_alone(
    fault: str,
    code: int,
    lost: str | None,
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plant(monkeypatch, fault)

    assert check(tmp_path, "--only", "check", "kernels") == code

    record = found(tmp_path)
    assert record["complete"] is True
    assert [failure["id"] for failure in record["failures"]] == ([lost] if lost else [])
    assert all(reason in failure["reason"] for failure in record["failures"])
    checked = [outcome["name"] for outcome in record["correctness"]]
    wrong = [one["name"] for one in record["correctness"] if not one["passed"]]
    timed = {entry["operation"] for entry in record["results"]}
    if fault == WRONG:
        assert all(name.startswith("gae") for name in wrong)
        assert len(wrong) == 4
        assert timed == {"adam"}  # what is wrong is not timed
    else:
        assert not wrong
        assert timed == {"gae", "adam"}
        assert len(checked) == 3 + 2 + (1 if fault == STICKY else 0)


def test_a_stage_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, HANG)
    monkeypatch.setattr(command, "LATE_S", 0.5)

    assert check(tmp_path, "--only", "kernels", "tests", seconds="6") == 3

    record = found(tmp_path)
    assert record["failures"][0]["id"] == "kernels"
    assert record["failures"][0]["reason"].startswith("killed: over its time")
    assert [stage["name"] for stage in record["stages"]] == ["kernels", "tests"]


KILLED = """
import sys
from functools import partial
from fastppo import cli
from fastppo.bench.gpu_check import command, stages
command.CHILD = (sys.executable, "-c", sys.argv[2])
command.LATE_S = 150.0
groups = tuple(stages.StageGroup(*one) for one in GROUPS)
command.chosen = partial(stages.chosen, groups=groups)
common = ["gpu-check", "--device", "cpu", "--quick", "--no-compile", "--seconds", "300"]
sys.exit(cli.main([*common, "--out", sys.argv[1]]))
"""


def test_a_kill_leaves_every_earlier_result(tmp_path: Path) -> None:
    """Of the whole command, in the middle of a stage: as a machine that is taken away."""
    groups = [(group.kind, group.weight, group.stages) for group in GROUPS]
    program = KILLED.replace("GROUPS", repr(groups))
    arguments = [str(tmp_path), CHILD.replace("FAULT", HANG)]
    running = subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    target = tmp_path / "gpu-check.json"
    deadline = time.monotonic() + 250
    while time.monotonic() < deadline:
        if target.is_file() and len(json.loads(target.read_text())["stages"]) == 3:
            break
        assert running.poll() is None
        time.sleep(0.2)
    running.send_signal(signal.SIGKILL)
    running.wait()

    record = found(tmp_path)
    assert record["complete"] is False
    assert [stage["name"] for stage in record["stages"]] == [
        "train/CartPole-v1-4", "check/gae", "check/adam",
    ]  # fmt: skip
    assert len(record["correctness"]) == 6
    assert record["training"][0]["env_steps_per_s"] > 0
    assert (tmp_path / "gpu-check.md").read_text().startswith("**Incomplete")


BARE = """
import sys
for missing in ("rich", "jsonschema", "jinja2", "wandb", "envpool", "gymnasium"):
    sys.modules[missing] = None
"""


def test_kernels_are_checked_without_envpool_and_without_what_only_reports(
    tmp_path: Path,
) -> None:
    groups = [(g.kind, g.weight, g.stages) for g in GROUPS if g.kind in ("train", "check")]
    program = BARE + KILLED.replace("GROUPS", repr(groups)).replace('"300"', '"60"')
    child = BARE + CHILD.replace("FAULT", "")
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path), child],
        capture_output=True,
        text=True,
        timeout=200,
    )

    assert done.returncode == 3, done.stderr
    assert "written without validation: jsonschema is missing" in done.stderr
    record = found(tmp_path)
    assert len(record["correctness"]) == 6
    assert all(outcome["passed"] for outcome in record["correctness"])
    assert "not_measured" in record["training"][0]


def test_only_takes_kinds_and_patterns() -> None:
    def names(*only: str) -> list[str]:
        return [name for group in stages.chosen(only) for name in group.stages]

    assert names("kernels", "tests") == ["kernels", "tests"]
    assert names("train/Breakout*") == ["train/Breakout-v5-8", "train/Breakout-v5-128"]
    assert names("check/g*") == ["check/gae", "check/gather"]
    assert names()[0] == "train/Breakout-v5-8"
    assert names("check")[0].startswith("check/")


def test_cases_come_in_turns() -> None:
    grid = list(kernel_cases.cases(torch.device("cpu"), quick=True))
    order = [case.operation for case in stages.in_turns(grid)]

    assert sorted(case.id for case in stages.in_turns(grid)) == sorted(case.id for case in grid)
    first = order[: len(set(order))]
    assert len(set(first)) == len(first)


def test_bad_arguments_and_no_gpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(tmp_path, "--only", "kernel") == 2
    assert "--only: 'kernel' names no stage; there are train, check" in capsys.readouterr().err
    if not torch.cuda.is_available():
        assert cli.main(["gpu-check", "--out", str(tmp_path / "new")]) == 3
        assert "torch sees no GPU; --device cpu rehearses" in capsys.readouterr().err
        assert not (tmp_path / "new").exists()
    (tmp_path / "file").touch()
    assert cli.main(["gpu-check", "--out", str(tmp_path / "file"), "--device", "cpu"]) == 2
    assert cli.main(["gpu-check", "--out", "/proc/nowhere", "--device", "cpu"]) == 2
    assert "cannot write /proc/nowhere" in capsys.readouterr().err
