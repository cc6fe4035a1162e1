"""Run directories as a report: returns, rates, curves; seeds of one setting together."""

import json
import shutil
import xml.etree.ElementTree as xml
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from fastppo.bench.report import run_dirs
from fastppo.cli import main
from fastppo.config import Config
from fastppo.returns import ReturnWindow
from fastppo.run import session

SMALL: dict[str, Any] = dict(
    env_id="CartPole-v1", total_timesteps=2048, num_envs=4, num_steps=32, num_minibatches=2,
    update_epochs=1, hidden_sizes=(8,), backend="torch",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seeds of one setting, and a run of another."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in (1, 2, 10):
        config = Config(**SMALL, seed=seed, eval_interval=8, eval_episodes=1)
        session.start(config, folder / "many" / f"seed-{seed}", quiet=True)
    session.start(Config(**SMALL | {"num_steps": 64}), folder / "other", quiet=True)
    return folder


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def final_return(path: Path) -> float:
    window = ReturnWindow()
    for row in rows(path):
        window.add(row["episode/count"], row.get("episode/return"))
    assert window.mean is not None
    return window.mean


def test_seeds_of_a_setting_are_one_result(folder: Path) -> None:
    record = run_dirs.record([folder / "many", folder / "other"])

    three, one = record["results"]
    assert [curve["seed"] for curve in three["run"]["curves"]] == [1, 2, 10]
    assert (three["impl"], one["impl"]) == ("num_steps=32", "num_steps=64")
    finals = [launch["samples"][0] for launch in three["launches"]]
    assert finals == [final_return(folder / "many" / f"seed-{seed}") for seed in (1, 2, 10)]
    curve, logged = one["run"]["curves"][0], rows(folder / "other")
    assert curve["env_steps"] == logged[-1]["global_step"]
    total = sum(row["time/total"] for row in logged)
    assert curve["env_steps_per_s"] == pytest.approx(logged[-1]["global_step"] / total)
    assert curve["phases"]["env"] == pytest.approx(sum(r["time/env"] for r in logged) / total)
    assert curve["best_eval"] is None
    best = max(row.get("eval/mean_return", 0) for row in rows(folder / "many" / "seed-2"))
    assert three["run"]["curves"][1]["best_eval"] == best


def test_the_same_run_twice_counts_once(folder: Path) -> None:
    record = run_dirs.record([folder / "many", folder / "many" / "seed-2"])

    assert len(record["results"][0]["run"]["curves"]) == 3


def test_long_runs_are_thinned_to_means(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr(run_dirs, "POINTS", 5)
    logged = rows(folder / "other")
    series = run_dirs.record([folder / "other"])["results"][0]["run"]["curves"][0]["series"]

    kept = series["loss/entropy"]
    size = -(-len(logged) // 5)
    assert len(kept["value"]) == len(kept["global_step"]) <= 5
    assert kept["value"][0] == pytest.approx(
        sum(row["loss/entropy"] for row in logged[:size]) / size
    )
    assert kept["wall_time"] == sorted(kept["wall_time"])


def test_every_output(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = {"--html": "p.html", "--md": "p.md", "--junit": "p.xml", "--pictures": "pictures"}
    outputs = [str(word) for flag, name in names.items() for word in (flag, tmp_path / name)]

    assert main(["report", str(folder / "many"), str(folder / "other"), *outputs]) == 0

    page = (tmp_path / "p.html").read_text()
    finals = [final_return(folder / "many" / f"seed-{seed}") for seed in (1, 2, 10)]
    said = f"CartPole-v1 with num_steps=32: return {median(finals):.1f} after "
    assert said in page
    assert said in (tmp_path / "p.md").read_text()
    for title in ("Return against environment steps", "Return against seconds", "Value loss",
                  "Explained variance", "share of the time", "best evaluation"):  # fmt: skip
        assert title in page
    assert page.count("<svg") == 11
    assert xml.parse(tmp_path / "p.xml").getroot().find("testsuite/testcase") is not None
    pictures = {path.name for path in (tmp_path / "pictures").iterdir()}
    assert "run-cartpole-v1-episode-return-wall-time.png" in pictures
    capsys.readouterr()


@pytest.mark.parametrize("width", ["80", "45"])
def test_on_the_terminal(
    width: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", width)

    assert main(["report", str(folder / "many")]) == 0

    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= int(width)
    assert "final" in out
    finals = [final_return(folder / "many" / f"seed-{seed}") for seed in (1, 2, 10)]
    assert f"{median(finals):.1f}" in out


def test_a_run_that_goes_on_is_said_to(folder: Path, tmp_path: Path, capsys: Any) -> None:
    copy = shutil.copytree(folder / "other", tmp_path / "run")
    lines = (copy / "metrics.jsonl").read_text().splitlines(keepends=True)
    (copy / "metrics.jsonl").write_text("".join(lines[:4]) + '{"cut')

    assert main(["report", str(copy)]) == 0

    said = "".join(capsys.readouterr().out.split())  # wherever the lines are wrapped
    assert f"{copy} is at 50% of its updates".replace(" ", "") in said


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: (run / "metrics.jsonl").unlink(), "holds no run that has logged an update"),
        (lambda run: (run / "metrics.jsonl").write_text(""), "has logged no update yet"),
        (lambda run: (run / "config.json").unlink(), "holds no run (no config.json)"),
        (lambda run: (run / "config.json").write_text("{"), "config.json cannot be read"),
        (
            lambda run: (run / "config.json").write_text(
                json.dumps({"config": json.loads((run / "config.json").read_text())["config"]})
            ),
            "code, command, created, machine, variables, versions is missing",
        ),
    ],
)
def test_what_is_no_run_is_one_line(
    damage: Callable[[Path], Any], message: str, folder: Path, tmp_path: Path, capsys: Any
) -> None:
    copy = shutil.copytree(folder / "other", tmp_path / "run")
    damage(copy)

    assert main(["report", str(copy)]) == 2

    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert message in err
