"""EnvPool alone: what is counted, which settings are tried, what is said, and bad input."""

import io
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from fastppo import arguments
from fastppo.bench.env import command as env_grid
from fastppo.bench.env import rounds as env_rounds
from fastppo.bench.env.args import Args
from fastppo.bench.env.rounds import Grid, config_of, plan_of
from fastppo.bench.launch.pools import PoolSlice, Setting, Stepper
from fastppo.bench.report import command as report
from fastppo.bench.report.data import run_of
from fastppo.bench.report.notes import findings
from fastppo.bench.report.terminal import print_results
from fastppo.bench.results import result
from fastppo.errors import UserError
from fastppo.tasks import spec_of


def test_the_grid_has_the_plan_and_no_impossible_setting() -> None:
    config = config_of("CartPole-v1")
    settings = env_grid.make_grid(config, [2, 8], [4, 8], [2, 16])

    assert set(settings) == {
        plan_of(config, 2)[0],
        plan_of(config, 8)[0],
        Setting(8, 8, 2),
        Setting(8, 4, 2),
    }


def test_the_default_grid_tries_sync_half_and_quarter() -> None:
    settings = env_grid.make_grid(config_of("Pong-v5"), [8], None, [1])

    assert {s.batch_size for s in settings} == {8, 4, 2}


def test_pools_that_do_not_fit_together_run_one_number_of_environments_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = config_of("CartPole-v1")
    settings = [Setting(2, 2, 1), Setting(4, 4, 1), Setting(4, 2, 1), Setting(64, 64, 1)]
    grid = Grid(config, spec_of(config), {})
    monkeypatch.setattr(env_rounds, "bytes_per_env", lambda _: 10)

    monkeypatch.setattr(env_rounds, "available_bytes", lambda: 2000)
    assert env_rounds._fitting(grid, settings) == [settings]
    assert grid.failures == []

    monkeypatch.setattr(env_rounds, "available_bytes", lambda: 200)
    assert env_rounds._fitting(grid, settings) == [settings[:1], settings[1:3]]
    assert [failure["id"] for failure in grid.failures] == ["env/CartPole-v1/n64-b64-t1"]


def advised(grid: Grid) -> list[str]:
    """What the report says of it."""
    return findings(run_of(result.new("env", grid.entries())))


def grid_of(rates: dict[Setting, float], env_id: str = "HalfCheetah-v4") -> Grid:
    config = config_of(env_id)
    wobble = [1.0, 1.01, 0.99, 1.02, 0.98, 1.0, 1.01, 0.99, 1.0]
    slices = {s: [PoolSlice(int(r * w), int(r * w), 1.0) for w in wobble] for s, r in rates.items()}
    return Grid(config, spec_of(config), slices)


def test_a_plan_that_is_not_the_best_is_told_with_its_loss_and_the_flag(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fastppo.cgroups.available_cores", lambda: 4)
    grid = grid_of({Setting(8, 8, 4): 1000, Setting(8, 8, 2): 1250, Setting(8, 4, 2): 2500})

    assert advised(grid) == [
        "HalfCheetah-v4, train --num-envs 8: EnvPool 4 threads, torch 1, 1,000 env steps/s; "
        "not the best: it loses 20%; `--env-threads 2` gives 1.25 (1.25 to 1.25) times that; "
        "async: batch 4, 2 threads gives 2.00 (2.00 to 2.00) times the best of those; train "
        "cannot use it"
    ]


def test_noise_is_not_called_a_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastppo.cgroups.available_cores", lambda: 4)
    grid = grid_of({Setting(8, 8, 4): 1000, Setting(8, 8, 2): 1001})
    grid.slices[Setting(8, 8, 2)].reverse()

    (told,) = advised(grid)

    assert (
        "no synchronous setting is better beyond noise (2 threads: 1.00 (0.98 to 1.02) times that)"
        in told
    )


@pytest.mark.parametrize("terminal", [False, True])
def test_the_table_fits_80_columns(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastppo.cgroups.available_cores", lambda: 128)
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=80, color_system=None)
    settings = {
        Setting(1024, 1024, 128): 1_234_567.0,
        Setting(1024, 1024, 64): 2_345_678.0,
        Setting(1024, 256, 128): 3_456_789.0,
    }

    print_results([result.new("env", grid_of(settings).entries())], console)

    assert max(len(line.rstrip()) for line in out.getvalue().splitlines()) <= 80
    assert "6,172,835" in out.getvalue()  # frames/s: five frames to a step
    assert terminal or out.getvalue().isascii()


def read(*words: str) -> Args:
    return arguments.read(Args, words, "fastppo bench env")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["CartPole-v9"], "'CartPole-v9' is no EnvPool task"),
        (["CartPole-v1", "CartPole-v1"], "'CartPole-v1' is named twice"),
        (["CartPole-v1", "--threads", "0"], "--threads: 0 must be at least 1"),
        (["CartPole-v1", "--num-envs", "8,x"], "--num-envs: '8,x' must be whole numbers"),
        (["CartPole-v1", "--num-envs", "8", "--batch-sizes", "9"], "9 is more than the 8"),
        (["CartPole-v1", "--seconds", "nan"], "--seconds: nan"),
        (["CartPole-v1", "--rounds", "0"], "--rounds: 0"),
    ],
)
def test_bad_input_is_told_before_anything_is_measured(
    words: list[str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(env_grid, "measure", lambda *_, **__: pytest.fail("measured"))

    with pytest.raises(UserError) as error:
        env_grid.run(read(*words))

    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_a_real_run_writes_a_valid_record(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], reported: Callable[[Path], str]
) -> None:
    path, page = tmp_path / "env.json", tmp_path / "env.md"
    words = ["CartPole-v1", "--num-envs", "4", "--threads", "1", "--rounds", "2"]
    words += ["--seconds", "0.2", "--json", str(path), "--md", str(page)]

    assert env_grid.run(read(*words)) == 0

    record = result.read(path)
    assert record["kind"] == "env"
    assert [entry["id"] for entry in record["results"]] == [
        f"env/CartPole-v1/n4-b{batch}-t1" for batch in (4, 2, 1)
    ]
    for entry in record["results"]:
        (launch,) = entry["launches"]
        assert len(launch["samples"]) == 2
        for rate, steps, seconds in zip(
            launch["samples"], launch["env_steps"], launch["seconds"], strict=True
        ):
            assert rate == pytest.approx(steps / seconds)
    assert sum(entry["env"]["is_train_plan"] for entry in record["results"]) == 1
    out = capsys.readouterr().out
    assert out == f"{reported(path)}samples: {path}\nreport: {page}\n"
    assert page.read_text() == report.markdown([record])
    assert "train --num-envs 4: EnvPool 1 thread" in out
    assert "train --num-envs 4: EnvPool 1 thread" in report.html([record])


def test_an_interrupt_keeps_what_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "env.json"
    run_slice = Stepper.run
    taken = 0

    def interrupted(self: Stepper, seconds: float) -> PoolSlice:
        nonlocal taken
        taken += 1
        if taken == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return run_slice(self, seconds)

    monkeypatch.setattr(Stepper, "run", interrupted)
    words = ["CartPole-v1", "Acrobot-v1", "--num-envs", "4", "--seconds", "1", "--json", str(path)]

    assert env_grid.run(read(*words)) == 130

    entries = result.read(path)["results"]
    assert sum(len(entry["launches"][0]["samples"]) for entry in entries) == 2
    assert all(entry["env"]["env_id"] == "CartPole-v1" for entry in entries)
    assert "what was measured is kept" in capsys.readouterr().err
    assert json.loads(path.read_text())["failures"] == []
