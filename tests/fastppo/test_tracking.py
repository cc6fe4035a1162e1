"""W&B mirrors metrics.jsonl, without a network here, and can fail without stopping a run."""

import importlib
import json
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import wandb

from fastppo import session
from fastppo.config import Config
from fastppo.tracking import NullTracker, WandbTracker, make_tracker

BLOCK = 32768
HEADER = struct.Struct("<IHB")  # checksum, length, kind
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def records(path: Path) -> Iterator[Any]:
    """The records of W&B's transaction log: LevelDB's log format around protocol buffers."""
    proto: Any = importlib.import_module("wandb.proto.wandb_internal_pb2")
    data = path.read_bytes()
    assert data[:4] == b":W&B"
    offset, parts = 7, b""
    while offset + HEADER.size <= len(data):
        if (left := BLOCK - offset % BLOCK) < HEADER.size:
            offset += left
            continue
        checksum, length, kind = HEADER.unpack_from(data, offset)
        offset += HEADER.size
        payload = data[offset : offset + length]
        if len(payload) < length:
            return  # still being written
        offset += length
        assert zlib.crc32(payload, zlib.crc32(bytes([kind]))) == checksum
        parts = payload if kind in (FULL, FIRST) else parts + payload
        if kind in (FULL, LAST):
            yield proto.Record.FromString(parts)


def items(entries: Any) -> dict[str, Any]:
    return {
        entry.key or "/".join(entry.nested_key): json.loads(entry.value_json) for entry in entries
    }


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def offline_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Config]:
    config = Config(
        env_id="CartPole-v1", total_timesteps=512, num_envs=4, num_steps=32, update_epochs=1,
        hidden_sizes=(8,), device="cpu", backend="torch", wandb="offline", wandb_project="tests",
        seed=3,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("wandb") / "my-run"
    session.start(config, path, quiet=True)
    # W&B's own process writes the log, and may still be at it when `finish` returns
    [log] = (path / "wandb").glob("offline-run-*/*.wandb")
    patience = 600
    while patience and "exit" not in [r.WhichOneof("record_type") for r in records(log)]:
        patience -= 1
        time.sleep(0.05)
    return path, config


def test_offline_run_holds_the_metrics_of_metrics_jsonl(
    offline_run: tuple[Path, Config],
) -> None:
    path, _ = offline_run
    [log] = (path / "wandb").glob("offline-run-*/*.wandb")
    expected = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]

    history = [
        items(record.history.item)
        for record in records(log)
        if record.WhichOneof("record_type") == "history"
    ]

    mirrored = [
        {key: value for key, value in row.items() if not key.startswith("_")} for row in history
    ]
    assert len(expected) == 4
    assert mirrored == expected


def test_offline_run_holds_config_machine_and_names(offline_run: tuple[Path, Config]) -> None:
    path, config = offline_run
    [log] = (path / "wandb").glob("offline-run-*/*.wandb")

    run = next(r.run for r in records(log) if r.WhichOneof("record_type") == "run")

    stored = items(run.config.update)
    assert Config.from_dict({key: stored[key] for key in config.to_dict()}) == config
    assert stored["versions"]["torch"]
    assert stored["machine"]["cores"] >= 1
    assert (run.project, run.run_group, run.job_type) == ("tests", "CartPole-v1", "train")
    assert run.display_name == "my-run"
    assert {"CartPole-v1", config.preset} <= set(run.tags)


def test_curves_are_drawn_over_env_steps_and_rates_over_time(
    offline_run: tuple[Path, Config],
) -> None:
    path, _ = offline_run
    [log] = (path / "wandb").glob("offline-run-*/*.wandb")

    logged = json.loads((path / "metrics.jsonl").read_text().splitlines()[0])

    axes = {
        r.metric.name or r.metric.glob_name: r.metric.step_metric
        for r in records(log)
        if r.WhichOneof("record_type") == "metric"
    }

    for name in logged:
        # patterns that overlap would leave the choice to chance
        [axis] = [axes[pattern] for pattern in axes if fnmatch(name, pattern)]
        if name in ("global_step", "frames", "wall_time"):
            assert axis == ""
        else:
            timed = name.startswith("time/") or name.endswith("_per_s")
            assert axis == ("wall_time" if timed else "global_step"), name


class Broken:
    """A W&B run whose every call fails from the nth on."""

    def __init__(self, fail_from: int) -> None:
        self.left = fail_from
        self.logged: list[dict[str, Any]] = []

    def define_metric(self, *_: Any, **__: Any) -> None:
        pass

    def log(self, metrics: dict[str, Any]) -> None:
        self.left -= 1
        if self.left <= 0:
            raise ConnectionError("the server\nhas gone")
        self.logged.append(metrics)

    def finish(self, **_: Any) -> None:
        raise RuntimeError("finish failed")


def run_with(
    init: Callable[..., Any], config: Config, path: Path, monkeypatch: pytest.MonkeyPatch
) -> int:
    monkeypatch.setattr(wandb, "init", init)
    session.start(config, path, quiet=True)
    return (path / "metrics.jsonl").read_text().count("\n")


@pytest.mark.parametrize("mode", ["online", "offline"])
def test_a_wandb_that_cannot_start_never_stops_training(
    mode: str,
    tiny: Callable[..., Config],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(**settings: Any) -> None:
        assert settings["mode"] == mode
        raise wandb.errors.CommError("no route to host")

    lines = run_with(fail, tiny(wandb=mode), tmp_path / "run", monkeypatch)

    err = capsys.readouterr().err
    assert lines == 6
    assert err.count("\n") == 1
    assert err.startswith("fastppo: warning: wandb: no route to host; this run is no longer")
    assert "metrics.jsonl is complete" in err


@pytest.mark.parametrize("fail_from", [1, 3, 99])
def test_a_wandb_that_breaks_in_mid_run_is_switched_off_with_one_warning(
    fail_from: int,
    tiny: Callable[..., Config],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    broken = Broken(fail_from)

    lines = run_with(lambda **_: broken, tiny(wandb="offline"), tmp_path / "run", monkeypatch)

    err = capsys.readouterr().err
    assert lines == 6
    assert len(broken.logged) == min(fail_from - 1, 6)
    assert err.count("\n") == 1
    assert ("the server" in err) == (fail_from < 7)
    assert ("finish failed" in err) == (fail_from == 99)


def test_disabled_leaves_wandb_alone(
    tiny: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_: Any) -> None:
        raise AssertionError("wandb.init was called")

    monkeypatch.setattr(wandb, "init", fail)

    assert isinstance(make_tracker(tiny(), tmp_path, {}), NullTracker)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("exit_code", [0, 3, 130])
def test_the_exit_code_reaches_wandb(exit_code: int) -> None:
    seen: list[int] = []

    class Run(Broken):
        def finish(self, **settings: Any) -> None:
            seen.append(settings["exit_code"])

    WandbTracker(Run(99)).close(exit_code)

    assert seen == [exit_code]
