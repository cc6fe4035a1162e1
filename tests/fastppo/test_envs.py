"""EnvPool's autoreset contract, classification and seeds, on EnvPool itself.

Each contract test drives a twin pool with the same seeds and actions through EnvPool's own
interface and works out from it what `VecEnv` ought to say.
"""

import itertools
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pytest
from envpool.registration import registry
from gymnasium import spaces
from numpy.typing import NDArray

from fastppo import envs, pools, randomness, tasks
from fastppo.actions import ActionSpace
from fastppo.config import Config
from fastppo.envs import StepResult, VecEnv
from fastppo.errors import UserError
from fastppo.pools import make_pool
from fastppo.tasks import Refusal, classify, describe, spec_of

SEEDS = [11, 12, 13]
# sticky paddles lose Breakout's five lives in about 150 steps
BREAKOUT: dict[str, Any] = dict(env_id="Breakout-v5", episodic_life=True, sign_reward=True)


def config_of(**settings: Any) -> Config:
    return Config(**settings)


class Row(NamedTuple):
    """One step as `VecEnv` returns it, and the twin's raw answer."""

    step: StepResult
    obs: NDArray[Any]
    rewards: NDArray[Any]
    done: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    info: dict[str, Any]


def some_actions(config: Config, steps: int) -> Iterator[NDArray[Any]]:
    """Random choices, or normal draws within reach of any bound but often beyond it."""
    spec, rng = describe(config.env_id), np.random.default_rng(5)
    for _ in range(steps):
        if spec.nvec is not None:
            yield rng.integers(0, spec.nvec[0], len(SEEDS))
        else:
            yield rng.normal(0, 1.5, (len(SEEDS), spec.action_dim)).astype(np.float32)


class Driven(NamedTuple):
    """A finished drive: its rows, and the episodes that `VecEnv` reported."""

    config: Config
    rows: list[Row]
    episodes: list[tuple[int, float, int]]


def drive(config: Config, steps: int) -> Driven:
    """Steps a `VecEnv` and its twin side by side."""
    env, twin = VecEnv(config, SEEDS), make_pool(config, SEEDS)
    space, rows = twin.action_space, []
    np.testing.assert_array_equal(env.reset(), twin.reset()[0])
    for actions in some_actions(config, steps):
        raw = actions
        if isinstance(space, spaces.Box):
            raw = np.clip(actions, space.low, space.high)
        raw = raw.astype(twin.spec.action_array_spec["action"].dtype)
        obs, rewards, terminated, truncated, info = twin.step(raw)
        info = {key: info[key] for key in ("elapsed_step", "lives") if key in info}
        rows.append(Row(env.step(actions), obs, rewards, terminated | truncated, truncated, info))
    twin.close()
    env.close()
    return Driven(config, rows, env.episodes.drain())


CASES = {
    "cartpole": (config_of(env_id="CartPole-v1"), 120),
    "cartpole cut": (config_of(env_id="CartPole-v1", max_episode_steps=9), 40),
    "pendulum": (config_of(env_id="Pendulum-v1", max_episode_steps=7), 40),
    "hopper": (config_of(env_id="Hopper-v4"), 120),
    "breakout": (config_of(**BREAKOUT), 220),
    "breakout cut": (config_of(**BREAKOUT, max_episode_steps=31), 140),
    "pong": (config_of(env_id="Pong-v5", sign_reward=True, max_episode_steps=60), 130),
}


@cache
def case(name: str) -> Driven:
    return drive(*CASES[name])


@pytest.fixture(params=CASES)
def driven(request: pytest.FixtureRequest) -> Driven:
    return case(request.param)


def test_a_row_is_valid_unless_the_step_before_it_was_done(driven: Driven) -> None:
    rows = driven.rows

    for before, row in itertools.pairwise(rows):
        np.testing.assert_array_equal(row.step.valid, ~before.done)
    assert rows[0].step.valid.all()
    assert sum((~row.step.valid).sum() for row in rows) >= 3  # the run met some resets


def test_a_reset_row_ends_nothing_and_earns_nothing(driven: Driven) -> None:
    rows = driven.rows

    for row in rows:
        reset = ~row.step.valid
        assert not (row.step.terminated | row.step.truncated)[reset].any()
        assert not row.step.rewards[reset].any()


def test_an_episode_end_carries_the_true_final_observation(driven: Driven) -> None:
    """The reset observation comes one row later; both as the twin saw them."""
    rows = driven.rows
    ends = 0

    for before, row in itertools.pairwise(rows):
        np.testing.assert_array_equal(row.step.obs, row.obs)
        for env in np.flatnonzero(before.done):
            ends += 1
            if before.info["elapsed_step"][env] > row.info["elapsed_step"][env]:
                assert (before.step.obs[env] != row.step.obs[env]).any()
    assert ends >= 3


@pytest.mark.parametrize(
    "env_id",
    ["Blackjack-v1", "Catch-v0", "Acrobot-v1", "LunarLander-v2", "BipedalWalker-v3", "Ant-v5",
     "Exit-v0", "AdroitHandDoor-v1"],
)  # fmt: skip
def test_every_family_resets_on_the_step_after_the_end(env_id: str) -> None:
    """Where no lives are lost, EnvPool's own step counter is 0 in reset rows and only there."""
    limit = 6 if classify(env_id).family in pools.TIME_LIMITED else None
    _, rows, games = drive(config_of(env_id=env_id, max_episode_steps=limit), 40)

    for row in rows:
        np.testing.assert_array_equal(row.step.valid, row.info["elapsed_step"] > 0)
        assert not row.step.rewards[~row.step.valid].any()
    assert games


def test_final_state_of_a_fall_lies_outside_the_bounds_of_the_game() -> None:
    """CartPole ends where |x| > 2.4 or |angle| > 12 degrees: a reset observation is inside."""
    rows = case("cartpole").rows
    inside = 0

    for row in rows:
        x, angle = row.step.obs[:, 0], row.step.obs[:, 2]
        outside = (np.abs(x) > 2.4) | (np.abs(angle) > np.deg2rad(12))
        np.testing.assert_array_equal(row.step.terminated, outside)
        inside += int((~row.step.valid & ~outside).sum())
    assert inside >= 3


def test_an_end_is_a_death_or_a_time_out_and_never_both(driven: Driven) -> None:
    rows = driven.rows

    for row in rows:
        assert not (row.step.terminated & row.step.truncated).any()
        np.testing.assert_array_equal(row.step.terminated | row.step.truncated, row.done)
        if "lives" not in row.info:
            np.testing.assert_array_equal(row.step.truncated, row.truncated)


@pytest.mark.parametrize(
    ("name", "deaths", "cuts"),
    [
        ("cartpole", True, False),
        ("pendulum", False, True),
        ("hopper", True, False),
        ("breakout", True, False),
        ("breakout cut", True, True),
        ("pong", False, True),
    ],
)
def test_deaths_and_time_outs_are_told_apart(name: str, deaths: bool, cuts: bool) -> None:
    rows = case(name).rows

    assert any(row.step.terminated.any() for row in rows) == deaths
    assert any(row.step.truncated.any() for row in rows) == cuts


def test_time_out_comes_at_the_limit() -> None:
    rows = case("pendulum").rows  # 7 steps, then one row of reset

    cut = [t for t, row in enumerate(rows) if row.step.truncated[0]]

    assert cut == [6, 14, 22, 30, 38]


def test_learning_sees_the_sign_of_the_reward_and_reports_do_not() -> None:
    """Pac-Man's pellets are worth 10 points each."""
    config = config_of(
        env_id="MsPacman-v5", episodic_life=True, sign_reward=True, max_episode_steps=150
    )

    _, rows, games = drive(config, 151)

    for row in rows:
        np.testing.assert_array_equal(row.step.rewards, np.sign(row.rewards))
    points = [total for _, total, _ in games]
    assert points
    assert max(points) >= 100


def test_reported_return_is_the_raw_score_of_the_whole_game(driven: Driven) -> None:
    """Summed anew from the twin: over lost lives, until the game is over or cut by time."""
    config, rows, reported = driven
    expected, totals, lengths = [], np.zeros(len(SEEDS)), np.zeros(len(SEEDS), int)
    reset_next = np.zeros(len(SEEDS), bool)
    for row in rows:
        for index in range(len(SEEDS)):
            if not reset_next[index]:
                totals[index] += float(row.rewards[index])
                lengths[index] += 1
            over = row.done[index]
            if config.episodic_life:
                # the game goes on after a lost life, unless no life or no time is left
                lives, elapsed = row.info["lives"][index], row.info["elapsed_step"][index]
                over = over and (lives == 0 or elapsed == config.max_episode_steps)
            if over:
                expected.append((index, totals[index], lengths[index]))
                totals[index] = lengths[index] = 0
        reset_next = row.done

    assert len(reported) == len(expected) >= 3
    for (env_a, total_a, length_a), (env_b, total_b, length_b) in zip(
        reported, expected, strict=True
    ):
        assert (env_a, length_a) == (env_b, length_b)
        assert total_a == pytest.approx(total_b)


def test_a_lost_life_ends_the_episode_for_learning_alone() -> None:
    _, rows, games = case("breakout")
    lost = sum(
        int((row.info["lives"] < before.info["lives"]).sum())
        for before, row in itertools.pairwise(rows)
    )

    learned = sum(int(row.step.terminated.sum()) for row in rows)

    assert learned == lost >= 5 * len(games)
    assert len(games) >= 1


def test_without_episodic_life_only_the_game_ends() -> None:
    _, rows, games = drive(config_of(env_id="Breakout-v5"), 220)

    ends = sum(int((row.step.terminated | row.step.truncated).sum()) for row in rows)

    assert ends == len(games) >= 1


class Pool:
    """A pool of 2 environments that remembers the actions it is given."""

    def __init__(self) -> None:
        self.seen: NDArray[Any] = np.zeros(0)

    def step(self, actions: NDArray[Any]) -> tuple[Any, ...]:
        self.seen = actions
        return np.zeros((2, 4)), np.zeros(2, np.float32), np.zeros(2, bool), np.zeros(2, bool), {}


def acting_on(
    monkeypatch: pytest.MonkeyPatch, space: spaces.Space[Any], dtype: type, env_id: str
) -> tuple[VecEnv, Pool]:
    pool = Pool()
    monkeypatch.setattr(envs, "make_pool", lambda *_, **__: pool)
    is_discrete = tasks._action_choices(space) is not None
    actions = ActionSpace.of(space, dtype, is_discrete=is_discrete)
    monkeypatch.setattr(envs, "action_space_of", lambda _: actions)
    return VecEnv(config_of(env_id=env_id), [0, 1]), pool


def test_continuous_actions_are_clipped_to_each_components_bounds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    space = spaces.Box(np.array([-1, 0], np.float32), np.array([2, 0.5], np.float32))
    env, pool = acting_on(monkeypatch, space, np.float64, "Pendulum-v1")

    env.step(np.array([[-9, -9], [9, 0.25]], np.float32))

    np.testing.assert_array_equal(pool.seen, [[-1, 0], [2, 0.25]])
    assert pool.seen.dtype == np.float64
    assert pool.seen.flags["C_CONTIGUOUS"]


def test_choices_of_an_integer_box_are_counted_from_its_low(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    space = spaces.Box(np.array([-2, 5], np.int32), np.array([1, 6], np.int32), dtype=np.int32)
    env, pool = acting_on(monkeypatch, space, np.int32, "CartPole-v1")

    env.step(np.array([[0, 1], [3, 0]]))

    np.testing.assert_array_equal(pool.seen, [[-2, 6], [1, 5]])
    assert pool.seen.dtype == np.int32


def test_discrete_choices_are_counted_from_the_spaces_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    env, pool = acting_on(monkeypatch, spaces.Discrete(3, start=4), np.int32, "CartPole-v1")

    env.step(np.array([0, 2]))

    np.testing.assert_array_equal(pool.seen, [4, 6])


@pytest.mark.parametrize(
    ("space", "choices"),
    [
        (spaces.Discrete(5), (5,)),
        (spaces.MultiDiscrete([3, 4]), (3, 4)),
        (spaces.Box(0, np.array([1, 2]), dtype=np.int32), (2, 3)),
        (spaces.Box(-3, 3, (2, 2), np.int64), (7, 7, 7, 7)),
        (spaces.Box(-1, 1, (3,)), None),
        (spaces.Box(-1e29, 1e29, (1,)), None),
    ],
)
def test_choices_per_head_follow_the_action_space(
    space: spaces.Space[Any], choices: tuple[int, ...] | None
) -> None:
    assert tasks._action_choices(space) == choices


def box(low: Any, high: Any, dtype: type = np.float32) -> spaces.Box:
    """A Box whose bounds gymnasium itself would refuse."""
    made: Any = spaces.Box(-1, 1, np.shape(low), np.float32)
    made.dtype = np.dtype(dtype)
    made.low, made.high = np.asarray(low, dtype), np.asarray(high, dtype)
    assert isinstance(made, spaces.Box)
    return made


@pytest.mark.parametrize(
    ("space", "reason"),
    [
        (box([-np.inf], [1]), "unbounded action"),
        (box([0], [np.inf]), "unbounded action"),
        (box([np.nan], [1]), "unbounded action"),
        (box([2.2e-308], [1.8e308], np.float64), "unbounded action"),
        (box([-1e30], [1e30]), "unbounded action"),
        (box([1, -1], [-1, 1]), "inverted action bounds"),
        (box([0.5], [0.5]), "inverted action bounds"),
        (box([3], [1], np.int32), "integer action with bounds"),
        (box([-(2**31)], [2**31 - 1], np.int32), "integer action with bounds"),
        (spaces.MultiBinary(3), "MultiBinary is not Discrete, MultiDiscrete or Box"),
        (spaces.Dict({"a": spaces.Discrete(2)}), "Dict is not Discrete, MultiDiscrete or Box"),
    ],
)
def test_action_that_would_train_wrongly_is_refused(space: spaces.Space[Any], reason: str) -> None:
    with pytest.raises(Refusal, match=reason):
        tasks._action_choices(space)


@pytest.mark.parametrize(
    ("env_id", "reasons"),
    [
        ("D1Basic-v1", ["unbounded action"]),
        ("PointMaze_UMaze-v3", ["dict observation (observation, achieved_goal, desired_goal)"]),
        ("Chess-v1", ["2 players", "joint action mask"]),
        ("BabyAI-ActionObjDoor-v0", ["dict observation"]),
        ("FrozenLake-v1", ["observation Discrete is not a Box"]),
    ],
)
def test_task_is_refused_with_the_reason_and_where_to_look(env_id: str, reasons: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        describe(env_id)

    message = str(caught.value)
    assert message.startswith(f"env_id: {env_id!r} is refused: ")
    assert all(reason in message for reason in reasons)
    assert "fastppo doctor --envs" in message


def refusals(prefix: str) -> dict[str, str]:
    """Task ids of one EnvPool module that are refused, with the reason."""
    found = {}
    for env_id in tasks.all_env_ids():
        if registry.specs[env_id][0].split(".")[1] == prefix:
            try:
                classify(env_id)
            except Refusal as refusal:
                found[env_id] = str(refusal)
    return found


def test_players_masks_and_binary_observations_are_refused_at_once() -> None:
    """Every reason is given, not the first found."""
    reasons = refusals("pgx")

    assert len(reasons) >= 19
    assert all("action mask" in reason for reason in reasons.values())
    assert any(
        "players" in reason and "MultiBinary is not a Box" in reason for reason in reasons.values()
    )


def test_no_vizdoom_task_is_served() -> None:
    """Their action bounds are a type's limits: they would train wrongly in silence."""
    doom = [i for i in tasks.all_env_ids() if "vizdoom" in registry.specs[i][0]]

    refused = refusals("vizdoom")

    assert set(refused) == set(doom)
    assert sum("unbounded action" in reason for reason in refused.values()) >= 20


@pytest.mark.parametrize(
    ("env_id", "obs_shape", "dtype", "nvec", "dim"),
    [
        ("CartPole-v1", (4,), np.float32, (2,), 1),
        ("Pendulum-v1", (3,), np.float32, None, 1),
        ("Hopper-v4", (11,), np.float32, None, 3),
        ("Pong-v5", (4, 84, 84), np.uint8, (6,), 1),
        ("Blackjack-v1", (3,), np.float32, (2,), 1),
        ("CarRacing-v2", (96, 96, 3), np.uint8, None, 3),
    ],
)
def test_served_tasks_are_described(
    env_id: str, obs_shape: tuple[int, ...], dtype: type, nvec: tuple[int, ...] | None, dim: int
) -> None:
    spec = describe(env_id)

    assert (spec.obs_shape, spec.nvec, spec.action_dim) == (obs_shape, nvec, dim)
    assert spec.obs_dtype == np.dtype(dtype)
    assert spec.is_discrete == (nvec is not None)


@pytest.mark.slow
def test_every_task_is_served_or_refused_with_a_reason() -> None:
    served, reasons = [], {}
    for env_id in tasks.all_env_ids():
        try:
            served.append(classify(env_id))
        except Refusal as refusal:
            reasons[env_id] = str(refusal)

    assert len(served) + len(reasons) == 1651
    assert len(served) >= 1000
    assert all(reasons.values())
    assert all(spec.action_dim > 0 and spec.obs_shape for spec in served)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("CartPol-v1", "CartPole-v1"),
        ("cartpole-v1", "CartPole-v1"),
        ("pong-v5", "Pong-v5"),
        ("HalfCheeta-v4", "HalfCheetah-v4"),
    ],
)
def test_unknown_task_is_answered_with_near_matches(typed: str, meant: str) -> None:
    with pytest.raises(UserError) as caught:
        describe(typed)

    message = str(caught.value)
    assert message.startswith(f"env_id: {typed!r} is no EnvPool task; did you mean ")
    assert meant in message


def test_unknown_task_without_near_matches_says_where_to_look() -> None:
    with pytest.raises(UserError, match="fastppo doctor --envs"):
        describe("qqqqqqqqqqqqq")


def test_atari_options_reach_the_environment_and_the_spec() -> None:
    config = config_of(env_id="Pong-v5", frame_stack=2, frame_skip=3)
    env = VecEnv(config, SEEDS)

    obs = env.reset()
    env.close()

    assert obs.shape[1:] == spec_of(config).obs_shape == (2, 84, 84)
    assert env.pool.config["frame_skip"] == spec_of(config).frame_skip == 3


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("episodic_life", True),
        ("noop_max", 0),
        ("fire_reset", False),
        ("frame_skip", 2),
        ("frame_stack", 1),
        ("repeat_action_probability", 0.25),
    ],
)
def test_atari_option_for_another_environment_is_refused(field: str, value: Any) -> None:
    with pytest.raises(UserError, match=f"{field}: {value!r} is for Atari; CartPole-v1"):
        make_pool(config_of(env_id="CartPole-v1", **{field: value}), SEEDS)


def test_published_atari_preprocessing_is_the_default() -> None:
    pool = make_pool(config_of(env_id="Pong-v5"), SEEDS)
    options = pool.config
    pool.close()

    assert (options["img_height"], options["img_width"], options["stack_num"]) == (84, 84, 4)
    assert (options["frame_skip"], options["noop_max"]) == (4, 30)
    assert options["gray_scale"]
    assert options["use_fire_reset"]
    assert not options["reward_clip"]  # the sign is taken after the score is counted
    assert options["repeat_action_probability"] == 0.0


def trajectory(config: Config, seeds: list[int], columns: slice, steps: int) -> NDArray[Any]:
    """Observations of one environment each, [T + 1, columns, ...], under actions by its seed."""
    env = VecEnv(config, seeds)
    rows = [env.reset()[columns]]
    rng = np.random.default_rng(0)
    spec = describe(config.env_id)
    for _ in range(steps):
        if spec.nvec is not None:
            actions = np.full(len(seeds), rng.integers(spec.nvec[0]))
        else:
            one = rng.normal(size=spec.action_dim).astype(np.float32)
            actions = np.tile(one, (len(seeds), 1))
        rows.append(env.step(actions).obs[columns])
    env.close()
    return np.stack(rows)


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Hopper-v4", "Breakout-v5"])
def test_environments_follow_their_own_seed_and_not_their_place(env_id: str) -> None:
    """Environments 2 and 3 of four are 0 and 1 of two that have their seeds."""
    config = config_of(env_id=env_id)
    seeds = randomness.env_seeds(1, range(4))

    of_four = trajectory(config, seeds, slice(2, 4), 60)
    of_two = trajectory(config, seeds[2:], slice(0, 2), 60)
    others = trajectory(config, seeds, slice(0, 2), 60)

    np.testing.assert_array_equal(of_four, of_two)
    assert (others != of_two).any()


def test_same_seeds_replay_and_resume_seeds_do_not() -> None:
    config = config_of(env_id="CartPole-v1")
    first = randomness.env_seeds(1, range(2))
    resumed = randomness.env_seeds(1, range(2), start_update=5)
    evaluated = randomness.env_seeds(1, range(2), purpose="eval")

    runs = [
        trajectory(config, seeds, slice(0, 2), 50) for seeds in (first, first, resumed, evaluated)
    ]

    np.testing.assert_array_equal(runs[0], runs[1])
    assert (runs[0] != runs[2]).any()
    assert (runs[0] != runs[3]).any()
    assert (runs[2] != runs[3]).any()


def test_a_time_limit_that_envpool_would_ignore_is_refused() -> None:
    config = config_of(env_id="Catch-v0", max_episode_steps=5)

    with pytest.raises(UserError, match=r"max_episode_steps: 5 would not be kept.*toy_text"):
        VecEnv(config, [1, 2])
