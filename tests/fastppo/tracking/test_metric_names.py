"""Mirrors may use another library's names; numbers that it defines otherwise are converted."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastppo.config import Config
from fastppo.run import session
from fastppo.tracking import metric_names, wandb_names

ROW = {
    "update": 2, "global_step": 200, "wall_time": 4.0, "episode/return": 7.0, "episode/count": 1,
    "loss/value_loss": 3.0, "loss/entropy": 0.5, "loss/clip_frac": 0.25, "loss/grad_norm": 1.5,
    "learning_rate": 1e-3, "time/total": 2.0, "eval/mean_return": 9.0,
}  # fmt: skip


def test_ours_are_ours() -> None:
    assert metric_names.mirrored(ROW, "fastppo") == ROW


def test_cleanrl() -> None:
    assert metric_names.mirrored(ROW, "cleanrl") == {
        "update": 2, "global_step": 200, "wall_time": 4.0, "charts/episodic_return": 7.0,
        "episode/count": 1, "losses/value_loss": 3.0, "losses/entropy": 0.5,
        "losses/clipfrac": 0.25, "loss/grad_norm": 1.5, "charts/learning_rate": 1e-3,
        "time/total": 2.0, "eval/mean_return": 9.0, "charts/SPS": 50,
    }  # fmt: skip


def test_sb3() -> None:
    """Its value loss lacks the half, and its entropy loss is minus the entropy."""
    assert metric_names.mirrored(ROW, "sb3") == {
        "time/iterations": 2, "global_step": 200, "time/time_elapsed": 4.0,
        "rollout/ep_rew_mean": 7.0, "episode/count": 1, "train/value_loss": 6.0,
        "train/entropy_loss": -0.5, "train/clip_fraction": 0.25, "loss/grad_norm": 1.5,
        "train/learning_rate": 1e-3, "time/total": 2.0, "eval/mean_reward": 9.0, "time/fps": 50,
    }  # fmt: skip


@pytest.mark.parametrize("names", metric_names.NAMES)
def test_every_name_that_is_renamed_is_one_of_ours_and_has_an_axis(
    names: str, tiny: Callable[..., Config], tmp_path: Path
) -> None:
    config = tiny(eval_interval=1, eval_episodes=1, total_timesteps=4096)
    run = session.start(config, tmp_path / "run", quiet=True)
    lines = (run / "metrics.jsonl").read_text().splitlines()
    row = {name: value for line in lines for name, value in json.loads(line).items()}
    axes = metric_names.axes(names, wandb_names.AXES)

    assert set(metric_names.NAMES[names]) <= set(row)
    for name in metric_names.mirrored(row, names):
        matching = [one for one in axes if name == one or name.startswith(one.rstrip("*"))]
        assert [one for one in matching if one == name or one.endswith("*")], name
    for axis in filter(None, axes.values()):
        assert axis in metric_names.mirrored(row, names)


def test_tensorboard_has_the_names_and_the_settings(
    tiny: Callable[..., Config], tmp_path: Path
) -> None:
    from importlib import import_module

    config = tiny(tensorboard=True, metric_names="cleanrl")
    run = session.start(config, tmp_path / "run", quiet=True)

    reader: Any = import_module("tensorboard.backend.event_processing.event_accumulator")
    events = reader.EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    tags = events.Tags()["scalars"]
    assert {"charts/episodic_return", "charts/SPS", "losses/policy_loss"} <= set(tags)
    assert "loss/policy_loss" not in tags
    data = events.SummaryMetadata("_hparams_/session_start_info").plugin_data
    parsed: Any = import_module("tensorboard.plugins.hparams.metadata")
    info = parsed.parse_session_start_info_plugin_data(data.content)
    assert info.hparams["learning_rate"].number_value == config.learning_rate
    assert info.hparams["env_id"].string_value == "CartPole-v1"
    assert info.hparams["hidden_sizes"].string_value == "(16,)"
