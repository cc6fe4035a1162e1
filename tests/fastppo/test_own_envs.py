"""Training on a Gymnasium vector environment of the caller's: the same contract as EnvPool's."""

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from numpy.typing import NDArray

import fastppo
from fastppo.config import Config
from fastppo.errors import UserError
from fastppo.own_envs import OwnEnvs
from fastppo.trainer import Trainer

BOX = spaces.Box(-1, 1, (3,), np.float32)


class Scripted(VectorEnv[Any, Any, Any]):
    """Episodes of so many steps; reset rows answer with `poison` as reward.

    Observations are [environment, episode, step of it]. Every action is kept.
    """

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(
        self,
        lengths: list[int],
        *,
        poison: float = 0.0,
        cut: bool = False,
        action: spaces.Space[Any] | None = None,
    ) -> None:
        self.num_envs = len(lengths)
        self.single_observation_space = BOX
        self.single_action_space = action or spaces.Discrete(2)
        self.lengths, self.poison, self.cut = np.array(lengths), poison, cut
        self.actions: list[NDArray[Any]] = []
        self.seeds: Any = None
        self.closed_by_us = False

    def _obs(self) -> NDArray[Any]:
        rows = [np.arange(self.num_envs), self.episodes, self.steps]
        return np.stack(rows, -1).astype(np.float32) / 100

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[Any, Any]:
        self.seeds = seed
        self.steps, self.episodes = np.zeros((2, self.num_envs), np.int64)
        self.done = np.zeros(self.num_envs, np.bool_)
        return self._obs(), {}

    def step(self, actions: Any) -> tuple[Any, ...]:
        self.actions.append(np.array(actions))
        reset = self.done
        self.episodes = self.episodes + reset
        self.steps = np.where(reset, 0, self.steps + 1)
        rewards = np.where(reset, self.poison, 1.0 + self.steps / 10)
        self.done = (self.steps == self.lengths) & ~reset
        none = np.zeros(self.num_envs, np.bool_)
        flags = (none, self.done) if self.cut else (self.done, none)
        return self._obs(), rewards, *flags, {}

    def close(self, **kwargs: Any) -> None:
        self.closed_by_us = True


def config_for(own: OwnEnvs, **changes: Any) -> Config:
    sizes: dict[str, Any] = {
        "num_steps": 16, "num_envs": own.num_envs, "num_minibatches": 2, "total_timesteps": 10_000,
    }  # fmt: skip
    return Config(env_id=own.env_id, **(sizes | changes))


def trained(envs: Scripted, updates: int = 2, **changes: Any) -> tuple[Trainer, list[Any]]:
    own = OwnEnvs(envs)
    trainer = Trainer(config_for(own, **changes), own=own)
    return trainer, [trainer.run_update() for _ in range(updates)]


def test_reset_rows_are_no_transitions() -> None:
    trainer, [row, _] = trained(Scripted([3, 5]))

    # lengths 3 and 5: every 4th and every 6th row is a reset
    expected = np.ones((16, 2), bool)
    expected[3::4, 0] = expected[5::6, 1] = False
    second = np.array([[(t + 16) % 4 != 3, (t + 16) % 6 != 5] for t in range(16)])
    assert row["env_steps"] == expected.sum()
    assert np.array_equal(trainer.rollout.valid.numpy(), second)
    assert row["episode/count"] == 4 + 2
    assert row["episode/length"] == pytest.approx((4 * 3 + 2 * 5) / 6)
    three, five = sum(1 + k / 10 for k in (1, 2, 3)), sum(1 + k / 10 for k in range(1, 6))
    assert row["episode/return"] == pytest.approx((4 * three + 2 * five) / 6)


@pytest.mark.parametrize("engine", ["auto", "eager"])
@pytest.mark.parametrize("poison", [1e6, float("nan"), float("inf")])
def test_what_stands_in_a_reset_row_changes_nothing(poison: float, engine: str) -> None:
    settings = {"engine": engine, "norm_obs": True, "norm_reward": True}
    clean, rows = trained(Scripted([3, 5]), 3, **settings)
    poisoned, other = trained(Scripted([3, 5], poison=poison), 3, **settings)

    for ours, theirs in zip(clean.policy.parameters(), poisoned.policy.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert rows[-1]["loss/value_loss"] == other[-1]["loss/value_loss"]
    assert other[-1]["env/non_finite_rows"] == 0


def test_a_cut_episode_bootstraps_from_its_final_observation() -> None:
    trainer, _ = trained(Scripted([3, 5], cut=True), 1, gamma=0.5, gae_lambda=0.0)
    rollout = trainer.rollout

    assert not rollout.terminated.any()
    assert rollout.truncated[2, 0]
    assert rollout.valid[2, 0]
    # delta alone: r + gamma V(final) - V
    expected = 1.3 + 0.5 * rollout.values[3, 0] - rollout.values[2, 0]
    assert rollout.advantages[2, 0] == pytest.approx(float(expected), abs=1e-6)


@pytest.mark.parametrize(
    ("action", "least", "most", "shape"),
    [
        (spaces.Discrete(3, start=5), 5, 7, (2,)),
        (spaces.MultiDiscrete([2, 3], start=[1, 10]), 1, 12, (2, 2)),
        (spaces.Box(0.25, 0.5, (2, 2), np.float32), 0.25, 0.5, (2, 2, 2)),
        (spaces.Box(-2, 2, (1,), np.float64), -2, 2, (2, 1)),
    ],
)
def test_actions_come_as_the_space_says(
    action: spaces.Space[Any], least: float, most: float, shape: tuple[int, ...]
) -> None:
    envs = Scripted([3, 5], action=action)
    trained(envs, log_std_init=2.0)
    taken = np.array(envs.actions)

    assert taken.shape[1:] == shape
    assert taken.dtype == action.dtype
    assert all(action.contains(row) for rows in envs.actions for row in rows)
    assert taken.min() == least
    assert taken.max() == most


def test_every_environment_has_a_seed_of_its_own() -> None:
    envs = Scripted([3, 5, 7])
    trained(envs, 1, num_minibatches=1)

    assert len(set(envs.seeds)) == 3


def test_environments_that_are_one_batch_take_one_seed() -> None:
    runs = []
    for _ in range(2):
        envs = gymnasium.make_vec("CartPole-v1", 4, vectorization_mode="vector_entry_point")
        own = OwnEnvs(envs)
        trainer = Trainer(config_for(own), own=own)
        runs.append([trainer.run_update()["loss/policy_loss"] for _ in range(3)])
        envs.close()

    assert runs[0] == runs[1]
    assert own.env_id == "own/CartPole-v1"


def make_sync(**options: Any) -> Any:
    return SyncVectorEnv([lambda: gymnasium.make("CartPole-v1")] * 2, **options)


def dict_observations() -> Any:
    envs = Scripted([3])
    envs.single_observation_space = spaces.Dict({"a": BOX})
    return envs


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: gymnasium.make("CartPole-v1"), "is no gymnasium.vector.VectorEnv; make one with"),
        (lambda: [1], "list is no gymnasium.vector.VectorEnv"),
        (lambda: make_sync(autoreset_mode=AutoresetMode.SAME_STEP), "resets by SAME_STEP; make th"),
        (lambda: make_sync(autoreset_mode="Disabled"), "resets by DISABLED"),
        (dict_observations, r"'own/Scripted' is refused: dict observation \(a\)"),
        (
            lambda: Scripted([3], action=spaces.Box(-np.inf, np.inf, (1,))),
            "is refused: unbounded action",
        ),
    ],
)
def test_what_is_not_served_is_refused(make: Any, reason: str) -> None:
    with pytest.raises(UserError, match=rf"^envs: .*{reason}"):
        OwnEnvs(make())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_envs": 4}, "num_envs: 4 is not the 2 of envs"),
        ({"frame_stack": 2}, "frame_stack: 2 is for EnvPool's tasks"),
        ({"max_episode_steps": 9}, "max_episode_steps: 9 is for EnvPool's"),
        ({"resume": "x", "gamma": 0.9}, "resume: takes the run's own settings; leave out gamma"),
    ],
)
def test_settings_that_they_cannot_follow_are_refused(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        fastppo.train(envs=Scripted([3, 5]), **settings)


def test_they_stay_open(tmp_path: Any) -> None:
    envs = Scripted([3, 5])
    run = fastppo.train(
        "mine", envs=envs, run_dir=tmp_path / "run", num_steps=8, total_timesteps=64,
        num_minibatches=2,
    )  # fmt: skip

    assert not envs.closed_by_us
    assert run.config.env_id == "own/mine"
    result = fastppo.evaluate(run.path, envs=Scripted([3, 5]), episodes=4)
    assert result["mean_length"] == 4
    with pytest.raises(UserError, match="envs: obs_shape"):
        fastppo.evaluate(run.path, envs=make_sync(), episodes=1)


def test_a_run_on_them_goes_on_with_them(tmp_path: Any) -> None:
    class Enough(Exception):
        pass

    def stop(row: dict[str, Any]) -> None:
        if row["update"] == 2:
            raise Enough

    with pytest.raises(Enough):
        fastppo.train(
            envs=Scripted([3, 5]), run_dir=tmp_path / "run", num_steps=8, total_timesteps=64,
            num_minibatches=2, on_update=stop,
        )  # fmt: skip
    assert len(fastppo.Run(tmp_path / "run").metrics()) == 2

    run = fastppo.train(envs=Scripted([3, 5]), resume=tmp_path / "run")

    assert [row["update"] for row in run.metrics()] == [1, 2, 3, 4]


def test_the_command_line_says_how_they_are_passed(tmp_path: Any, command: Any) -> None:
    fastppo.train(
        envs=Scripted([3, 5]), run_dir=tmp_path / "run", num_steps=8, total_timesteps=64,
        num_minibatches=2,
    )  # fmt: skip

    outcome = command("eval", tmp_path / "run")

    assert outcome.code == 2
    assert "'own/Scripted' has environments of its own; pass them in Python" in outcome.err
