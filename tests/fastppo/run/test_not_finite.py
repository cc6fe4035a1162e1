"""A run and an evaluation on environments that emit numbers that are not finite (issue 10, 21)."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastppo import checkpoint, envs, pools
from fastppo.config import Config
from fastppo.errors import Diverged
from fastppo.run import session
from fastppo.trainer import Trainer

Sick = Callable[..., None]


@pytest.fixture
def sick(monkeypatch: pytest.MonkeyPatch, public_step: None) -> Sick:
    """Makes EnvPool's environment 1 answer every `period`-th step with a number not finite."""

    def infect(value: float, where: str, period: int = 20) -> None:
        make_pool = pools.make_pool

        def make(*args: Any, **kwargs: Any) -> Any:
            pool = make_pool(*args, **kwargs)
            step, count = pool.step, 0

            def sick_step(*step_args: Any) -> Any:
                nonlocal count
                count += 1
                obs, rewards, *rest = step(*step_args)
                if count % period == 0:
                    obs, rewards = obs.copy(), rewards.copy()
                    (obs if where == "obs" else rewards)[1] = value
                return obs, rewards, *rest

            pool.step = sick_step
            return pool

        monkeypatch.setattr(envs, "make_pool", make)

    return infect


def strictly(line: str) -> Any:
    def refuse(token: str) -> None:
        raise AssertionError(f"{token} is not JSON")

    return json.loads(line, parse_constant=refuse)


@pytest.mark.parametrize("where", ["obs", "reward"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_run_goes_on_tells_once_and_its_checkpoint_resumes(
    where: str,
    value: float,
    tiny: Callable[..., Config],
    tmp_path: Path,
    sick: Sick,
    command: Callable[..., Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    sick(value, where)
    run = tmp_path / "run"

    session.start(tiny(norm_obs=True, norm_reward=True), run, quiet=False)

    out, err = capsys.readouterr()
    rows = [strictly(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    counts = [row["env/non_finite_rows"] for row in rows]
    # 192 steps; a number in an observation costs the step to it and the one on it; resets are none
    assert 0 < counts[0] <= counts[-1] <= 9 * (2 if where == "obs" else 1)
    assert counts == sorted(counts)
    assert [row["skipped_steps"] for row in rows] == [0] * 6
    assert all(np.isfinite(row.get("episode/return", 0.0)) for row in rows)
    assert err.count("\n") == 1
    assert err.startswith(f"fastppo: warning: {counts[0]} steps of environment 1 had a reward or")
    assert f"env steps in {run}, {counts[-1]} that were not finite left out" in out
    assert f"not finite {counts[-1]}" in out

    (run / "checkpoints" / "00000006.pt").unlink()
    assert command("train", "--resume", run, "--quiet").code == 0
    assert checkpoint.load(run / "checkpoints" / "00000006.pt")["update"] == 6


def test_a_clean_run_says_nothing_of_it(
    tiny: Callable[..., Config], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session.start(tiny(), tmp_path / "run", quiet=False)

    out, err = capsys.readouterr()
    assert "not finite" not in out + err
    assert '"env/non_finite_rows": 0' in (tmp_path / "run" / "metrics.jsonl").read_text()


def test_statistics_that_are_not_finite_are_never_saved(
    tiny: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However they came there: the last line of defence."""
    run_update = Trainer.run_update

    def spoil(trainer: Trainer) -> dict[str, Any]:
        metrics = run_update(trainer)
        if trainer.update == 4:
            assert trainer.obs_normalizer is not None
            trainer.obs_normalizer.moments.var[2] = torch.inf
        return metrics

    monkeypatch.setattr(Trainer, "run_update", spoil)
    run = tmp_path / "run"

    with pytest.raises(Diverged) as caught:
        session.start(tiny(norm_obs=True), run, quiet=True)

    assert str(caught.value).startswith(
        "checkpoint: obs_normalizer.moments.var holds numbers that are not finite, so "
        f"{run / 'checkpoints' / '00000004.pt'} is not written; go on from the one before with "
    )
    assert checkpoint.newest(run / "checkpoints").name == "00000002.pt"
    monkeypatch.setattr(Trainer, "run_update", run_update)
    session.resume(run, quiet=True)
    assert checkpoint.newest(run / "checkpoints").name == "00000006.pt"


@pytest.mark.parametrize("where", ["obs", "reward"])
def test_an_evaluation_leaves_such_steps_out_and_says_so(
    where: str, finished_run: Path, sick: Sick, command: Callable[..., Any]
) -> None:
    sick(np.nan, where, period=5)

    ended = command("eval", finished_run, "--episodes", 4, "--json")

    result = strictly(ended.out)
    assert ended.code == 0
    assert result["non_finite_rows"] > 0
    assert all(np.isfinite(result["returns"]))
    assert ended.err.count("\n") == 1
    assert f"{result['non_finite_rows']} steps of environment 1 had a reward or" in ended.err


def test_an_evaluation_without_a_finite_step_ends_in_one_line(
    finished_run: Path, sick: Sick, command: Callable[..., Any]
) -> None:
    sick(np.nan, "reward", period=1)

    ended = command("eval", finished_run, "--episodes", 4)

    assert ended.code == 3
    assert ended.err == (
        "fastppo: error: env_id: environment 1 of CartPole-v1 played an episode without one finite "
        "step, so no return is known; look at its rewards and observations\n"
    )
