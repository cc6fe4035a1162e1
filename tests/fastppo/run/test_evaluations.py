"""Evaluations while a run trains say what `fastppo eval` says, and change nothing of the run."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import pytest

import fastppo
from fastppo import checkpoint
from fastppo.config import Config
from fastppo.errors import UserError
from fastppo.run import session


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def evaluated(tiny: Callable[..., Config], tmp_path: Path) -> Path:
    config = tiny(eval_interval=2, eval_episodes=3, total_timesteps=5 * 128, norm_obs=True, seed=4)
    return session.start(config, tmp_path / "evaluated", quiet=True)


def test_they_say_what_the_command_says(evaluated: Path, command: Callable[..., Any]) -> None:
    by_update = {row["update"]: row for row in rows(evaluated) if "eval/mean_return" in row}
    assert list(by_update) == [2, 4, 5]  # the last one always

    for update in (4, 5):
        name = evaluated / "checkpoints" / f"{update:08d}.pt"
        words = ("--checkpoint", name, "--episodes", 3, "--seed", 4, "--json")
        result = json.loads(command("eval", evaluated, *words).out)
        assert result["mean_return"] == by_update[update]["eval/mean_return"]
        assert result["std_return"] == by_update[update]["eval/std_return"]
        assert result["mean_length"] == by_update[update]["eval/mean_length"]


def test_the_best_is_kept(evaluated: Path, command: Callable[..., Any]) -> None:
    returns = [row["eval/mean_return"] for row in rows(evaluated) if "eval/mean_return" in row]
    words = ("--checkpoint", "best", "--episodes", 3, "--seed", 4, "--json")

    result = json.loads(command("eval", evaluated, *words).out)

    assert result["mean_return"] == max(returns)
    # and it is never taken for the newest
    assert checkpoint.newest(evaluated / "checkpoints").name == "00000005.pt"
    assert fastppo.load_policy(evaluated, checkpoint="best").update == result["update"]


def test_learning_is_the_same_with_and_without(
    evaluated: Path, tiny: Callable[..., Config], tmp_path: Path
) -> None:
    config = tiny(total_timesteps=5 * 128, norm_obs=True, seed=4)
    plain = session.start(config, tmp_path / "plain", quiet=True)

    for ours, theirs in zip(rows(evaluated), rows(plain), strict=True):
        for name in ("loss/policy_loss", "global_step", "episode/count"):
            assert ours[name] == theirs[name]


def test_their_time_is_in_no_rate(
    tiny: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An evaluation that takes seconds leaves the run's clock alone."""
    import time

    from fastppo.run import evaluations

    def slow(*_: Any, **__: Any) -> dict[str, float]:
        time.sleep(0.5)
        return {name: 0.0 for name in evaluations.LOGGED}

    monkeypatch.setattr(evaluations, "evaluate", slow)
    begin = time.monotonic()
    run = session.start(tiny(eval_interval=1), tmp_path / "run", quiet=True)
    elapsed = time.monotonic() - begin

    assert rows(run)[-1]["wall_time"] < elapsed - 6 * 0.5


def test_a_resumed_run_knows_its_best(evaluated: Path) -> None:
    best = evaluated / "checkpoints" / "best.pt"
    state = checkpoint.load(best)
    checkpoint.save(best, {k: v for k, v in state.items() if k not in ("format", "digest")}
                    | {"mean_return": 1e9})  # fmt: skip
    (evaluated / "checkpoints" / "00000005.pt").unlink()

    session.resume(evaluated, quiet=True)

    assert checkpoint.load(best)["mean_return"] == 1e9


def test_without_them_there_is_no_best(finished_run: Path, command: Callable[..., Any]) -> None:
    outcome = command("eval", finished_run, "--checkpoint", "best")

    assert outcome.code == 2
    assert "best.pt is not there; train with --eval-interval to have one" in outcome.err


def test_environments_of_ones_own_need_others_to_be_evaluated_in(tmp_path: Path) -> None:
    def envs() -> Any:
        return gymnasium.make_vec("CartPole-v1", num_envs=2)

    small: Any = {"num_steps": 32, "total_timesteps": 128, "num_minibatches": 2}
    with pytest.raises(UserError, match="eval_interval: 1 needs eval_envs"):
        fastppo.train(envs=envs(), eval_interval=1, run_dir=tmp_path / "run", **small)

    run = fastppo.train(
        envs=envs(), eval_envs=envs(), eval_interval=1, eval_episodes=2, run_dir=tmp_path / "run",
        **small,
    )  # fmt: skip
    assert [row["eval/episodes"] for row in run.metrics()] == [2, 2]
