"""Evaluation plays whole games with statistics frozen, and gives every environment its share."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastppo import randomness, saved_policy
from fastppo.config import Config
from fastppo.envs import VecEnv
from fastppo.errors import UserError
from fastppo.pools import make_pool
from fastppo.run import evaluate as module
from fastppo.run.evaluate import evaluate
from fastppo.run.rundir import RunDir
from fastppo.trainer import Trainer, build_obs_normalizer


def loaded(path: Path) -> tuple[Config, dict[str, Any]]:
    run = RunDir.open(path)
    state = run.load()
    assert state is not None
    return run.read_config(), state


def untrained(config: Config) -> dict[str, Any]:
    """The state of a run before its first update, after the statistics have seen something."""
    trainer = Trainer(config)
    if trainer.obs_normalizer is not None:
        rows = torch.randn(50, *trainer.spec.obs_shape) * 3 + 1
        trainer.obs_normalizer.moments.update(rows, torch.ones(50, dtype=torch.bool))
    trainer.close()
    return trainer.state()


def test_json_is_one_object_with_the_results(
    finished_run: Path, command: Callable[..., Any]
) -> None:
    outcome = command("eval", finished_run, "--episodes", "5", "--json")

    result = json.loads(outcome.out)
    assert outcome.code == 0
    assert outcome.out.count("\n") == 1
    assert result["episodes"] == len(result["returns"]) == 5
    assert result["mean_return"] == pytest.approx(np.mean(result["returns"]))
    assert result["std_return"] == pytest.approx(np.std(result["returns"]))
    assert (result["min_return"], result["max_return"]) == (
        min(result["returns"]),
        max(result["returns"]),
    )
    assert (result["env_id"], result["update"], result["seed"]) == ("CartPole-v1", 6, 1)
    assert result["mean_length"] == pytest.approx(result["mean_return"])  # 1 point a step


@pytest.mark.parametrize("deterministic", [True, False])
def test_same_seed_gives_the_same_returns_and_another_seed_others(
    deterministic: bool, finished_run: Path
) -> None:
    config, state = loaded(finished_run)

    runs = [
        evaluate(config, state, episodes=6, seed=seed, deterministic=deterministic)["returns"]
        for seed in (1, 1, 2)
    ]

    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def test_drawn_actions_differ_from_the_most_likely_ones(finished_run: Path) -> None:
    config, state = loaded(finished_run)

    likely = evaluate(config, state, episodes=6, seed=1)
    drawn = evaluate(config, state, episodes=6, seed=1, deterministic=False)

    assert likely["returns"] != drawn["returns"]
    assert (likely["deterministic"], drawn["deterministic"]) == (True, False)


def test_environments_of_an_evaluation_are_not_those_of_training() -> None:
    for seed in range(5):
        trained = randomness.env_seeds(seed, range(16))
        assert not set(trained) & set(randomness.env_seeds(seed, range(16), purpose="eval"))


def test_statistics_are_used_and_left_as_they_were(
    tiny: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(env_id="Pendulum-v1", norm_obs=True, norm_reward=True, max_episode_steps=20)
    state = untrained(config)
    before = {name: value.clone() for name, value in state["obs_normalizer"].items()}
    built: list[Any] = []

    def build(*args: Any) -> Any:
        built.append(build_obs_normalizer(*args))
        return built[-1]

    monkeypatch.setattr(saved_policy, "build_obs_normalizer", build)

    first = evaluate(config, state, episodes=3, seed=1)

    [normalizer] = built
    for name, value in normalizer.state_dict().items():
        assert torch.equal(value, before[name])
        assert torch.equal(state["obs_normalizer"][name], before[name])
    assert before["moments.count"] == 50
    state["obs_normalizer"]["moments.mean"] += 5.0
    assert evaluate(config, state, episodes=3, seed=1)["returns"] != first["returns"]


def test_every_environment_plays_its_own_share(
    tiny: Callable[..., Config], finished_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Taking the first episodes to finish would give short ones more than their share."""
    config, state = loaded(finished_run)
    num_envs, episodes = module.MAX_ENVS, 37
    played: list[tuple[int, float, int]] = []

    class Spy(VecEnv):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            tracker_drain = self.episodes.drain

            def remember() -> list[tuple[int, float, int]]:
                finished = tracker_drain()
                played.extend(finished)
                return finished

            self.episodes.drain = remember  # type: ignore[method-assign]

    monkeypatch.setattr(module, "VecEnv", Spy)

    returns = evaluate(config, state, episodes=episodes, seed=1, deterministic=False)["returns"]

    by_env = [[total for env, total, _ in played if env == index] for index in range(num_envs)]
    share = [3 if index < 5 else 2 for index in range(num_envs)]  # 37 = 16 * 2 + 5
    expected = [total for own, wanted in zip(by_env, share, strict=True) for total in own[:wanted]]
    assert returns == expected
    assert returns != [total for _, total, _ in played[:episodes]]


def test_games_are_raw_and_their_seeds_are_not_those_of_training(
    tiny: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(env_id="Pong-v5", episodic_life=True, sign_reward=True, network="mlp",
                  num_envs=1, num_steps=2, max_episode_steps=5)  # fmt: skip
    state = untrained(config)
    seen: list[tuple[Config, list[int]]] = []

    def spy(config: Config, env_seeds: list[int], **_: Any) -> VecEnv:
        seen.append((config, env_seeds))
        return VecEnv(config, env_seeds)

    monkeypatch.setattr(module, "VecEnv", spy)
    evaluate(config, state, episodes=2, seed=9)

    [(played, seeds)] = seen
    assert played == dataclasses.replace(config, episodic_life=False, sign_reward=False)
    assert seeds == randomness.env_seeds(9, range(2), purpose="eval")


def test_an_atari_game_is_played_to_its_end_across_lives(tiny: Callable[..., Config]) -> None:
    """Its score is that of the raw game, though the run learned from signs and single lives."""
    config = tiny(
        env_id="Breakout-v5", episodic_life=True, sign_reward=True, max_episode_steps=300,
        network="mlp", num_envs=1, num_steps=2,
    )  # fmt: skip
    state = untrained(config)

    result = evaluate(config, state, episodes=2, seed=1, deterministic=False)

    pool = make_pool(
        dataclasses.replace(config, episodic_life=False),
        randomness.env_seeds(1, range(2), purpose="eval"),
    )
    pool.reset()
    lives = int(pool.step(np.zeros(2, np.int32))[4]["lives"][0])
    pool.close()
    assert lives == 5
    assert result["episodes"] == 2
    # one life lasts about 24 steps where nothing is hit
    assert result["mean_length"] > 3 * 24
    assert all(total == int(total) for total in result["returns"])


def test_a_time_limit_cuts_the_game(tiny: Callable[..., Config]) -> None:
    config = tiny(env_id="Pong-v5", network="mlp", num_envs=1, num_steps=2, max_episode_steps=12)

    result = evaluate(config, untrained(config), episodes=3, seed=1)

    assert result["mean_length"] == 12
    assert result["episodes"] == 3


def test_rewards_are_raw(tiny: Callable[..., Config]) -> None:
    """Pendulum loses up to 16.3 a step: neither a sign nor a scaled reward sums to this."""
    config = tiny(env_id="Pendulum-v1", norm_reward=True, sign_reward=True, max_episode_steps=50)

    result = evaluate(config, untrained(config), episodes=4, seed=1)

    assert result["mean_return"] < -60
    assert result["mean_length"] == 50


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Hopper-v4"])
def test_random_weights_of_other_shapes_are_refused(
    env_id: str, tiny: Callable[..., Config]
) -> None:
    config = tiny(env_id=env_id)
    state = untrained(config)
    state["policy"] = untrained(tiny(env_id=env_id, hidden_sizes=(8, 8)))["policy"]

    with pytest.raises(UserError, match="checkpoint: does not fit the run's config"):
        evaluate(config, state, episodes=1, seed=1)


def test_an_evaluation_leaves_no_trace_in_the_run(
    finished_run: Path, command: Callable[..., Any]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished_run.rglob("*")}

    assert command("eval", finished_run, "--episodes", "1").code == 0

    assert before == {path: path.stat().st_mtime_ns for path in finished_run.rglob("*")}


def test_a_named_checkpoint_is_the_one_evaluated(
    finished_run: Path, command: Callable[..., Any]
) -> None:
    older = finished_run / "checkpoints" / "00000002.pt"

    outcome = command(
        "eval", finished_run, "--checkpoint", older, "--episodes", "1", "--json", "--stochastic"
    )

    result = json.loads(outcome.out)
    assert (result["update"], result["deterministic"]) == (2, False)
