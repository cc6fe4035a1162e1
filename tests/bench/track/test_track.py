"""`fastppo track push`: results and run directories become W&B runs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastppo import arguments
from fastppo.bench.results import result
from fastppo.bench.track import command as track
from fastppo.bench.track import wandb_log
from fastppo.bench.track.args import PushArgs
from fastppo.bench.track.runs import JOB_TYPES, TRAIN_COLUMNS, planned, table_of
from fastppo.config import Config
from fastppo.errors import MachineError, UserError
from fastppo.run import session

Calls = Callable[[], list[dict[str, Any]]]
pytestmark = pytest.mark.usefixtures("no_network")
WORK = dict(
    parameters=1, forward_flops=2, rows_per_update=1024, minibatch_rows=256, epochs=4,
    gradient_steps_per_update=16, precision="float32", obs_bytes=16, trains_on_reset_rows=False,
    wrappers=[], network="mlp 64-64 tanh, two trunks",
)  # fmt: skip


def train_entry(impl: str, env_id: str, rate: float) -> dict[str, Any]:
    ours = impl == "fastppo"
    ratio = {"base": "reference", "value": 1.5, "low": 1.4, "high": 1.6, "rounds": 5}
    return {
        "id": f"train/{env_id}/8x128", "impl": impl, "unit": "env_steps/s", "better": "higher",
        "clock": "wall",
        "launches": [{"order": 0, "samples": [rate, None, rate], "seconds": [1.0, 1.0, 1.0],
                      "at": [3.0, 4.0, 5.0]}],
        "train": {
            "env_id": env_id, "recipe": "paper", "frame_skip": 4, "seed": 1,
            "config": Config(env_id=env_id).to_dict(), "work": WORK, "info": {"version": "1"},
            "mismatch": [] if ours else ["epochs 4 and 10", "network"],
            "env_steps_per_s": {"value": rate, "low": rate * 0.5, "high": rate * 2},
            "frames_per_s": rate * 4, "ratio": ratio if ours else None,
            "ceilings": {"envpool": rate * 4}, "shares": {"envpool": 0.25}, "phases": None,
            "wall": {"cold_start_s": 1.0, "compile_s": None, "cold_total_s": 9.0},
            "amortised": {"1000000": rate}, "steady": {"reached": True, "index": 2},
            "memory": {"process_peak_bytes": 7, "device_peak_bytes": None},
            "threads": {"env": 1, "torch": 1, "tried": {"1": rate}}, "learning": "not verified",
        },
    }  # fmt: skip


def learn_entry() -> dict[str, Any]:
    def curve(seed: int, reached: int | None) -> dict[str, Any]:
        return {
            "seed": seed, "env_steps": [100, 200], "wall_s": [1.0, 2.0], "returns": [None, 480.0],
            "final_return": 480.0, "steps_to_threshold": reached,
            "seconds_to_threshold": reached and 2.0,
            "total_steps": 200, "total_s": 2.0,
        }  # fmt: skip

    return {
        "id": "learn/CartPole-v1/8x128", "impl": "fastppo", "unit": "return", "better": "higher",
        "clock": "wall",
        "launches": [{"order": seed, "seed": seed, "samples": [480.0]} for seed in (1, 2)],
        "learn": {
            "env_id": "CartPole-v1", "config": Config(env_id="CartPole-v1").to_dict(),
            "work": WORK, "threshold": 475.0, "curves": [curve(1, 200), curve(2, None)],
            "final_iqm": {"value": 480.0, "low": 470.0, "high": 490.0},
        },
    }  # fmt: skip


def written(path: Path, record: dict[str, Any]) -> dict[str, Any]:
    result.write(path, record)
    return result.read(path)


def train_record() -> dict[str, Any]:
    pairs = [(impl, env_id) for env_id in ("CartPole-v1", "Pong-v5") for impl in ("fastppo", "sb3")]
    entries = [train_entry(*pair, 1000.0) for pair in pairs]
    failure = {"id": "train/Pong-v5/8x128", "impl": "sbx", "reason": "not installed"}
    return result.new("train", entries, failures=[failure])


def track_command(*args: object) -> int:
    words = [str(arg) for arg in args]
    return track.run(arguments.read(PushArgs, words, "fastppo track"))


@pytest.fixture(scope="module")
def pushed(tmp_path_factory: pytest.TempPathFactory, no_network: list[Any]) -> dict[str, Any]:
    """A result pushed against another, with W&B itself; its runs by name."""
    folder = tmp_path_factory.mktemp("results")
    base = written(folder / "base.json", train_record())
    record = written(folder / "head.json", train_record())
    assert track_command(folder / "head.json", "--against", folder / "base.json") == 0
    logs = {
        path.parent: wandb_log.read(path) for path in folder.glob("wandb/offline-run-*/*.wandb")
    }
    runs = {log.run.display_name: log for log in logs.values()}
    [compare] = [where for where, log in logs.items() if log.run.job_type == "compare"]
    return {"folder": compare, "base": base, "record": record, "runs": runs, "logs": logs}


def test_a_result_becomes_one_run_per_implementation_and_environment(
    pushed: dict[str, Any],
) -> None:
    runs = pushed["runs"]

    assert len(runs) == len(pushed["logs"]) == 5
    assert {log.exit_code for log in runs.values()} == {0}
    run = runs["sb3-Pong-v5-s1"]
    assert run.run.job_type == "train-bench"
    assert run.run.run_group == runs["fastppo-Pong-v5-s1"].run.run_group
    assert run.run.run_group.startswith("Pong-v5/")
    assert {"sb3", "Pong-v5"} <= set(run.run.tags)
    assert run.config["env_id"] == "Pong-v5"
    assert run.config["exp_name"] == run.config["impl"] == "sb3"
    assert run.config["work"] == WORK
    assert run.config["versions"]["torch"]
    assert [row["wall_time"] for row in run.history] == [3.0, 5.0]
    assert [row["frames_per_s"] for row in run.history] == [4000.0, 4000.0]
    assert run.axes["env_steps_per_s"] == "wall_time"
    assert run.summary["env_steps_per_s/low"] == 500.0
    assert run.summary["share/envpool"] == 0.25
    assert run.summary["mismatch"] == "epochs 4 and 10; network"


def test_the_comparison_has_a_row_per_environment_and_implementation(
    pushed: dict[str, Any],
) -> None:
    log = pushed["logs"][pushed["folder"]]

    table = wandb_log.table(log, pushed["folder"], "comparison")
    failures = wandb_log.table(log, pushed["folder"], "failures")

    assert table["columns"] == list(TRAIN_COLUMNS)
    assert table["data"][0] == [
        "train/CartPole-v1/8x128", "fastppo", 1000.0, 500.0, 2000.0, 1.5, 1.4, 1.6, 0.25,
        "not verified", "",
    ]  # fmt: skip
    assert [row[:2] for row in table["data"]] == [
        [f"train/{env_id}/8x128", impl]
        for env_id in ("CartPole-v1", "Pong-v5")
        for impl in ("fastppo", "sb3")
    ]
    assert table["data"][3][5:] == [
        None,
        None,
        None,
        0.25,
        "not verified",
        "epochs 4 and 10; network",
    ]
    assert failures["data"] == [["train/Pong-v5/8x128", "sbx", "not installed"]]


def test_the_comparison_carries_the_file_and_uses_the_one_compared_with(
    pushed: dict[str, Any],
) -> None:
    artifacts = pushed["logs"][pushed["folder"]].artifacts

    used, made = [a for a in artifacts if a.type == "benchmark-result"]

    assert [a.type for a in artifacts].count("run_table") == 2
    assert (used.use_after_commit, made.use_after_commit) == (True, False)
    assert used.name == made.name == f"train-{pushed['record']['machine']['fingerprint']}"
    for artifact, record in ((used, pushed["base"]), (made, pushed["record"])):
        [entry] = artifact.manifest.contents
        assert json.loads(Path(entry.local_path).read_text()) == record
        assert record["run_id"][:12] in artifact.aliases
    assert "latest" in made.aliases


def test_a_seed_of_a_learning_curve_is_a_run(fake_wandb: Calls, tmp_path: Path) -> None:
    record = written(tmp_path / "learn.json", result.new("learn", [learn_entry()]))

    folders = track.push_record(record, tmp_path / "learn.json", "offline")

    calls = fake_wandb()
    names = [call["name"] for call in calls if call["do"] == "init"]
    jobs = [call["job_type"] for call in calls if call["do"] == "init"]
    summaries = [call["summary"] for call in calls if call["do"] == "finish"]
    assert len(folders) == 3
    assert names[:2] == ["fastppo-CartPole-v1-s1", "fastppo-CartPole-v1-s2"]
    assert jobs == ["learn", "learn", "compare"]
    assert summaries[0]["seconds_to_threshold"] == 2.0
    assert summaries[0]["final_return"] == 480.0
    assert summaries[1]["threshold_reached"] is False
    assert "seconds_to_threshold" not in summaries[1]
    columns, (row,) = table_of(record)
    told = dict(zip(columns, row, strict=True))
    # one of two seeds got there, so the median is known and its upper end is not
    assert told["seeds_reached"] == 1
    assert (told["median_steps_to_threshold"], told["median_seconds_to_threshold"]) == (200, 2.0)
    assert (told["median_steps_low"], told["median_steps_high"]) == (200, None)


def test_pushing_a_file_again_gives_the_same_runs(tmp_path: Path) -> None:
    record = written(tmp_path / "r.json", train_record())
    other = written(tmp_path / "o.json", train_record())

    def ids(of: dict[str, Any]) -> list[str]:
        plans = planned(of, tmp_path / "r.json", against=None, traces=())
        return [plan.init["id"] for plan in plans]

    assert ids(record) == ids(record)
    assert len(set(ids(record) + ids(other))) == 10


def test_traces_go_along(fake_wandb: Calls, tmp_path: Path) -> None:
    entry = {**train_entry("fastppo", "CartPole-v1", 1.0), "profile": {"trace": "a.json.gz"}}
    record = written(tmp_path / "p.json", result.new("profile", [entry]))

    track.push_record(record, tmp_path / "p.json", "offline", traces=[tmp_path / "b.json"])

    made = [call["name"] for call in fake_wandb() if call["do"] == "log_artifact"]
    fingerprint = record["machine"]["fingerprint"]
    assert made == [f"profile-{fingerprint}", *[f"trace-{fingerprint}"] * 2]


@pytest.mark.parametrize("trouble", ["raise", "exit"])
def test_wandb_that_fails_costs_a_benchmark_a_warning_and_track_push_its_success(
    trouble: str,
    fake_wandb: Calls,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("FAKE_WANDB_INIT", trouble)
    path = tmp_path / "r.json"
    record = written(path, train_record())

    assert track.push_record(record, path, "offline") == []
    assert capsys.readouterr().err.count("\n") == 1
    with pytest.raises(MachineError, match=r"wandb: (the server|its process ended)"):
        track_command(path)


def test_wandb_that_hangs_is_given_up(
    fake_wandb: Calls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_WANDB_LOG", "hang")
    monkeypatch.setattr(track, "RUN_SECONDS", {"offline": 1.0})
    written(tmp_path / "r.json", train_record())

    with pytest.raises(MachineError, match="wandb: a run took over 1 s"):
        track_command(tmp_path / "r.json")


def test_online_without_a_key_is_refused(fake_wandb: Calls, tmp_path: Path) -> None:
    record = written(tmp_path / "r.json", train_record())

    with pytest.raises(UserError, match="set WANDB_API_KEY"):
        track.push_record(record, tmp_path / "r.json", "online")
    with pytest.raises(UserError, match="set WANDB_API_KEY"):
        track_command("--online", tmp_path / "r.json")
    assert track.push_record(record, tmp_path / "r.json", "disabled") == []
    assert fake_wandb() == []


def test_a_damaged_file_among_several_pushes_nothing(fake_wandb: Calls, tmp_path: Path) -> None:
    written(tmp_path / "a.json", train_record())
    (tmp_path / "b.json").write_text('{"schema": "fastppo.result/1"')

    with pytest.raises(UserError, match=r"b\.json"):
        track_command(tmp_path / "a.json", tmp_path / "b.json")
    with pytest.raises(UserError, match="holds no run"):
        track_command(tmp_path)
    assert fake_wandb() == []


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    config = Config(
        env_id="CartPole-v1", total_timesteps=256, num_envs=4, num_steps=32, device="cpu",
        backend="torch",
    )  # fmt: skip
    session.start(config, tmp_path / "run", quiet=True)
    return tmp_path / "run"


def test_a_run_directory_is_pushed_from_its_metrics(
    run_dir: Path, fake_wandb: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    assert track_command(run_dir) == 0
    assert track_command(run_dir) == 0

    calls = fake_wandb()
    logged = [call["row"] for call in calls if call["do"] == "log"]
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    first, second = (call for call in calls if call["do"] == "init")
    assert logged == 2 * [json.loads(line) for line in lines]
    assert first["id"] == second["id"]
    assert (first["config"]["part"], second["config"]["part"]) == (1, 2)
    assert first["job_type"] == "train"
    assert first["config"]["machine"]["cores"] >= 1
    assert [call["exit_code"] for call in calls if call["do"] == "finish"] == [0, 0]
    assert f"next: fastppo track sync {run_dir}" in capsys.readouterr().out


def test_every_kind_of_result_has_a_job_type() -> None:
    assert set(JOB_TYPES) == set(result.KINDS)
