"""The numbers that sum up a run, and the W&B run of an evaluation."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastppo.tracking.summary import RunSummary
from fastppo.tracking.wandb_eval import record_eval
from fastppo.tracking.wandb_names import model_name

Calls = Callable[[], list[dict[str, Any]]]
pytestmark = pytest.mark.usefixtures("no_network")


def rows(returns: list[float | None]) -> list[dict[str, Any]]:
    """Updates of 100 env steps in 2 s, slower by half at first; 50 episodes each, or none."""
    made = []
    for index, score in enumerate(returns):
        row: dict[str, Any] = {
            "global_step": 100 * (index + 1), "wall_time": 2.0 * (index + 1), "env_steps": 100,
            "time/total": 4.0 if index < len(returns) // 2 else 2.0,
            "episode/count": 0 if score is None else 50,
        }  # fmt: skip
        made.append(row | ({} if score is None else {"episode/return": score}))
    return made


def summed(returns: list[float | None], threshold: float | None) -> dict[str, Any]:
    summary = RunSummary(threshold)
    for row in rows(returns):
        summary.add(row)
    return summary.values()


def test_rates_are_steps_over_time_and_the_steady_one_is_of_the_second_half() -> None:
    values = summed([None] * 4, None)

    assert values == {
        "total_env_steps_per_s": pytest.approx(400 / 12),
        "steady_env_steps_per_s": pytest.approx(50),
    }


def test_the_return_is_that_of_the_last_hundred_episodes() -> None:
    assert summed([0.0, 0.0, 10.0, 30.0], None)["final_return"] == 20.0


def test_the_threshold_counts_once_a_hundred_episodes_reach_it() -> None:
    values = summed([100.0, 0.0, 60.0, 60.0, 10.0], 50.0)

    # the first 50 episodes were above it, and are too few
    assert values["steps_to_threshold"] == 200
    assert values["seconds_to_threshold"] == 4.0
    assert values["threshold_reached"] is True


def test_a_run_that_never_gets_there_is_censored_and_not_left_out() -> None:
    values = summed([10.0] * 4, 50.0)

    assert (values["threshold"], values["threshold_reached"]) == (50.0, False)
    assert not {"steps_to_threshold", "seconds_to_threshold"} & set(values)


def test_a_run_without_a_row_has_no_rates() -> None:
    assert summed([], None) == {}


def evaluated() -> dict[str, Any]:
    return {"mean_return": 12.0, "env_id": "CartPole-v1", "global_step": 768, "returns": [12.0]}


def test_an_evaluation_is_a_run_that_uses_the_checkpoint(
    run_copy: Path, tiny: Callable[..., Any], fake_wandb: Calls
) -> None:
    config = tiny()

    folder = record_eval(
        config, run_copy, run_copy / "checkpoints" / "00000004.pt", evaluated(), "auto"
    )

    calls = [call for call in fake_wandb() if call["do"] != "define_metric"]
    assert [call["do"] for call in calls] == ["init", "use_offline", "log", "finish"]
    assert (calls[0]["job_type"], calls[0]["mode"]) == ("eval", "offline")
    assert calls[1]["name"] == model_name(config.to_dict())
    assert calls[2]["row"] == {
        "eval/mean_return": 12.0,
        "eval/global_step": 768,
        "global_step": 768,
    }
    # an agent that was only watched did not fail to reach a threshold
    assert "threshold_reached" not in calls[3]["summary"]
    assert folder is not None
    assert folder.is_dir()


def test_an_evaluation_outlives_a_wandb_that_fails(
    run_copy: Path,
    tiny: Callable[..., Any],
    fake_wandb: Calls,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("FAKE_WANDB_LOG", "raise")
    checkpoint = run_copy / "checkpoints" / "00000004.pt"

    assert record_eval(tiny(), run_copy, checkpoint, evaluated(), "offline") is None
    assert record_eval(tiny(), run_copy, checkpoint, evaluated(), "disabled") is None

    err = capsys.readouterr().err
    assert err == "fastppo: warning: wandb: the server; the evaluation is not recorded\n"
