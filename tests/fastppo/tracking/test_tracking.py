"""W&B holds what metrics.jsonl holds: read back from its offline file, record by record."""

import json
import shutil
from contextlib import closing
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

from fastppo.bench.track import wandb_log
from fastppo.config import Config
from fastppo.follower import Follower
from fastppo.run import session
from fastppo.tracking import wandb_names
from fastppo.tracking.wandb_run import MARKER

pytestmark = pytest.mark.usefixtures("no_network")


def rows_of(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def logs_of(run_dir: Path) -> list[Path]:
    return sorted((run_dir / "wandb").glob("offline-run-*/*.wandb"))


@pytest.fixture(scope="module")
def offline_run(
    tmp_path_factory: pytest.TempPathFactory, no_network: list[Any]
) -> tuple[Path, Config]:
    config = Config(
        env_id="CartPole-v1", preset="classic", total_timesteps=768, num_envs=4, num_steps=32,
        update_epochs=1, hidden_sizes=(8,), device="cpu", backend="torch", wandb="offline",
        wandb_project="tests", seed=3, checkpoint_interval=2,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("wandb") / "my-run"
    session.start(config, path, quiet=True)
    return path, config


@pytest.fixture(scope="module")
def log(offline_run: tuple[Path, Config]) -> wandb_log.WandbLog:
    [path] = logs_of(offline_run[0])
    return wandb_log.read(path)


def test_offline_run_holds_the_metrics_of_metrics_jsonl(
    offline_run: tuple[Path, Config], log: wandb_log.WandbLog
) -> None:
    expected = rows_of(offline_run[0])

    assert len(expected) == 6
    assert log.history == expected
    assert log.exit_code == 0


def test_offline_run_holds_config_machine_and_names(
    offline_run: tuple[Path, Config], log: wandb_log.WandbLog
) -> None:
    config = offline_run[1]
    run, stored = log.run, log.config

    # W&B has the engine and the precision that run, not that they were to be chosen
    resolved = replace(config, engine="eager", precision="float32")
    assert Config.from_dict({key: stored[key] for key in config.to_dict()}) == resolved
    assert stored["versions"]["torch"]
    assert stored["machine"]["cores"] >= 1
    assert (stored["exp_name"], stored["impl"], stored["part"]) == ("fastppo", "fastppo", 1)
    assert (run.project, run.job_type) == ("tests", "train")
    assert run.run_group == f"CartPole-v1/{wandb_names.config_hash(config.to_dict())}"
    assert run.display_name == "fastppo-CartPole-v1-s3"
    assert {"CartPole-v1", "classic", "fastppo"} <= set(run.tags)
    assert any(tag.startswith("cpu-") for tag in run.tags)


def test_curves_are_drawn_over_env_steps_and_rates_over_time(
    offline_run: tuple[Path, Config], log: wandb_log.WandbLog
) -> None:
    for name in rows_of(offline_run[0])[0]:
        # patterns that overlap would leave the choice to chance
        [axis] = [log.axes[pattern] for pattern in log.axes if fnmatch(name, pattern)]
        if name in ("global_step", "frames", "wall_time"):
            assert axis == ""
        else:
            timed = name.startswith("time/") or name.endswith("_per_s")
            assert axis == ("wall_time" if timed else "global_step"), name


def test_summary_holds_rates_memory_and_what_became_of_the_threshold(
    offline_run: tuple[Path, Config], log: wandb_log.WandbLog
) -> None:
    rows = rows_of(offline_run[0])
    late = rows[3:]
    steady = sum(row["env_steps"] for row in late) / sum(row["time/total"] for row in late)

    summary = log.summary

    assert summary["steady_env_steps_per_s"] == pytest.approx(steady)
    assert summary["total_env_steps_per_s"] == pytest.approx(
        rows[-1]["global_step"] / rows[-1]["wall_time"]
    )
    assert summary["threshold"] == 475.0
    assert log.config["threshold_source"] == "Gymnasium's registry"
    assert log.config["threshold_window"] == 100
    assert summary["threshold_reached"] is False
    assert "seconds_to_threshold" not in summary
    assert summary["process_peak_bytes"] > 2**20
    assert 5 < summary["final_return"] < 200


def test_the_last_checkpoint_is_an_artifact(
    offline_run: tuple[Path, Config], log: wandb_log.WandbLog
) -> None:
    [model] = log.artifacts

    assert (model.type, model.use_after_commit) == ("model", False)
    assert model.name == wandb_names.model_name(offline_run[1].to_dict())
    assert set(model.aliases) == {"latest", "update-6"}
    [entry] = model.manifest.contents
    assert entry.path == "00000006.pt"
    stored = Path(entry.local_path).read_bytes()
    assert stored == (offline_run[0] / "checkpoints" / "00000006.pt").read_bytes()


def test_logging_is_timed_outside_of_what_the_rates_count(
    offline_run: tuple[Path, Config],
) -> None:
    rows = rows_of(offline_run[0])

    assert rows[0]["time/logging"] == 0
    assert all(row["time/logging"] > 0 for row in rows[1:])
    for row in rows:
        assert row["env_steps_per_s"] == pytest.approx(row["env_steps"] / row["time/total"])
        parts = [v for k, v in row.items() if k.startswith("time/")]
        assert sum(parts) - row["time/total"] - row["time/logging"] == pytest.approx(
            row["time/total"]
        )


def test_a_resumed_run_is_the_same_wandb_run_with_every_update_once(
    offline_run: tuple[Path, Config], tmp_path: Path
) -> None:
    """W&B replaces a run's history by that of a later part, so the later one must hold it all."""
    path = shutil.copytree(offline_run[0], tmp_path / "run", symlinks=True)
    (path / "checkpoints" / "00000006.pt").unlink()  # a crash in the sixth update

    session.resume(path, quiet=True)

    first, second = (wandb_log.read(log) for log in logs_of(path))
    markers = [json.loads((log.parent / MARKER).read_text()) for log in logs_of(path)]
    assert first.run.run_id == second.run.run_id
    assert [(m["part"], m["after_update"]) for m in markers] == [(1, 0), (2, 4)]
    assert json.loads((path / "wandb.json").read_text())["parts"] == markers
    assert [row["update"] for row in second.history] == [1, 2, 3, 4, 5, 6]
    assert second.history == rows_of(path)
    assert second.history[:4] == first.history[:4]
    used, made = second.artifacts
    assert used.use_after_commit
    assert "update-4" in used.aliases
    assert not made.use_after_commit
    assert set(made.aliases) == {"latest", "update-6"}


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.9, 0.999])
def test_a_torn_file_is_read_up_to_the_tear(
    share: float, offline_run: tuple[Path, Config], tmp_path: Path
) -> None:
    data = logs_of(offline_run[0])[0].read_bytes()
    torn = tmp_path / "run.wandb"
    torn.write_bytes(data[: int(len(data) * share)])

    log = wandb_log.read(torn)

    assert not log.is_whole
    assert log.history == rows_of(offline_run[0])[: len(log.history)]
    assert log.history or share < 0.9


def test_a_line_half_written_is_taken_once_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with closing(Follower(path)) as follower:
        assert list(follower.rows()) == []
        path.write_text('{"a": 1}\n{"a"')
        assert list(follower.rows()) == [{"a": 1}]
        with path.open("a") as file:
            file.write(': 2}\n{"a": 3}\n')
        assert list(follower.rows()) == [{"a": 2}, {"a": 3}]
        path.with_suffix(".new").write_text('{"a": 9}\n' * 9)
        path.with_suffix(".new").replace(path)  # as a resumed run does
        assert list(follower.rows()) == []


def test_seeds_and_threads_share_a_group_and_settings_do_not() -> None:
    base = Config(env_id="CartPole-v1").to_dict()
    same = {"seed": 9, "env_threads": 2, "device": "cpu", "wandb": "offline", "backend": "torch"}

    assert wandb_names.group_of(base | same) == wandb_names.group_of(base)
    for change in ({"learning_rate": 1e-3}, {"num_envs": 16}, {"env_id": "Pong-v5"}):
        assert wandb_names.group_of(base | change) != wandb_names.group_of(base)


def test_a_field_that_a_later_version_adds_moves_no_group() -> None:
    config = Config(env_id="CartPole-v1", gamma=0.9).to_dict()
    older = {key: value for key, value in config.items() if key != "dual_clip"}

    assert wandb_names.group_of(older) == wandb_names.group_of(config)
