"""Compiled code steps the environments as Python does, to the bit."""

import ctypes
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from fastppo import envs, mlp_player, pools
from fastppo.actions import ActionSpace
from fastppo.calls import Call
from fastppo.config import Config
from fastppo.errors import MachineError
from fastppo.kernels.mlp import numba_play
from fastppo.mlp_engine import MlpEngine
from fastppo.mlp_player import Patience
from fastppo.trainer import Trainer

TASKS: dict[str, dict[str, Any]] = {
    "CartPole-v1": {"max_episode_steps": 25},
    "Pendulum-v1": {"max_episode_steps": 7},
    "Acrobot-v1": {"num_envs": 1},
    "HalfCheetah-v4": {"norm_obs": True, "norm_reward": True, "max_episode_steps": 40},
    "Hopper-v4": {"norm_obs": True, "num_envs": 11},
    "BipedalWalker-v3": {},
    "Exit-v0": {},
    "Blackjack-v1": {},  # observations of integers: by Python either way
}


def config_of(env_id: str, **changes: Any) -> Config:
    sizes = {"num_envs": 6, "num_steps": 32, "num_minibatches": 2, "update_epochs": 2}
    fixed: dict[str, Any] = {"device": "cpu", "engine": "mlp", "total_timesteps": 10**6}
    return Config(env_id=env_id, **(sizes | fixed | changes))


def player_of(run: Trainer) -> mlp_player.Player | None:
    assert isinstance(run.engine, MlpEngine)
    return run.engine._player


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, f"{name}.{key}")
    elif isinstance(value, torch.Tensor):
        yield name, value


def trained(config: Config, updates: int) -> tuple[list[dict[str, Any]], dict[str, Any], bool]:
    """Metrics without times, the state, and whether compiled code played."""
    run = Trainer(config)
    try:
        rows = [run.run_update() for _ in range(updates)]
        state = dict(leaves(run.state()))
        for name in ("rewards", "terminated", "truncated", "valid", "actions", "log_probs"):
            state[name] = getattr(run.rollout, name).clone()
        return rows, state, player_of(run) is not None
    finally:
        run.close()


def is_time(name: str) -> bool:
    return name.startswith("time/") or name.endswith("_per_s") or name == "wall_time"


def assert_same(ours: Any, theirs: Any) -> None:
    for row, other in zip(ours[0], theirs[0], strict=True):
        assert {k: v for k, v in row.items() if not is_time(k)} == {
            k: v for k, v in other.items() if not is_time(k)
        }
    for name, tensor in ours[1].items():
        assert torch.equal(tensor, theirs[1][name]), name


@pytest.mark.parametrize("env_id", TASKS)
def test_a_run_is_the_same_to_the_bit(env_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(env_id, **TASKS[env_id])
    compiled = trained(config, 5)
    monkeypatch.setattr(pools, "DRIVEN", ())
    python = trained(config, 5)

    assert compiled[2] == (env_id != "Blackjack-v1")
    assert not python[2]
    assert_same(compiled, python)


STEPS, NUM_ENVS, NUM_STEPS = 24, 3, 8


class Script:
    """A pool that ignores actions: rows, ends, cuts and poison as the script says."""

    def __init__(
        self, seed: int, poison: dict[tuple[int, int], float], *, continuous: bool = False
    ) -> None:
        random = np.random.default_rng(seed)
        self.action_space: Any = spaces.Discrete(2)
        if continuous:
            self.action_space = spaces.Box(-0.5, 0.25, (1,), np.float32)
        self.dtype = np.float32 if continuous else np.int32
        self.all_env_ids = np.arange(NUM_ENVS, dtype=np.int32)
        self.env_id, width = ("Pendulum-v1", 3) if continuous else ("CartPole-v1", 4)
        self.obs = random.normal(size=(STEPS + 1, NUM_ENVS, width)).astype(np.float32)
        self.rewards = random.normal(size=(STEPS + 1, NUM_ENVS)).astype(np.float32)
        self.ends = random.random((STEPS + 1, NUM_ENVS)) < 0.1
        for (t, env), value in poison.items():
            if t % 2:
                self.obs[t, env, t % 4] = value
            else:
                self.rewards[t, env] = value
        self.t = 0
        self.seen: list[Any] = []
        self.delay = 0.0

    def reset(self, env_ids: Any = None) -> tuple[Any, ...]:
        return self.obs[self.t, slice(None) if env_ids is None else env_ids].copy(), {}

    def step(self, actions: Any, env_ids: Any = None) -> tuple[Any, ...]:
        time.sleep(self.delay)
        self.seen.append(actions.copy())
        self.t += 1
        some = slice(None) if env_ids is None else env_ids
        row = (self.obs, self.rewards, self.ends, np.zeros_like(self.ends))
        return *(field[self.t, some].copy() for field in row), {}

    def close(self) -> None:
        pass


class ScriptCalls:
    """C functions that step a Script, in place of EnvPool's."""

    refuses = False

    def __init__(self, pool: Script) -> None:
        shape = (NUM_ENVS, *pool.action_space.shape)
        self.actions = np.zeros(shape, pool.dtype)
        self.answers: dict[str, Any] = {
            "obs": np.zeros_like(pool.obs[0]),
            "reward": np.zeros(NUM_ENVS, np.float32),
            "done": np.zeros(NUM_ENVS, np.bool_),
            "trunc": np.zeros(NUM_ENVS, np.bool_),
        }

        def send(_: int) -> int:
            return int(self.refuses)

        def recv(_: int) -> int:
            for name, value in zip(self.answers, pool.step(self.actions)[:4], strict=True):
                self.answers[name][...] = value
            return 0

        kind = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)
        self._kept = [kind(send), kind(recv)]
        calls = [ctypes.cast(f, ctypes.c_void_p).value for f in self._kept]
        self.send, self.recv = (Call(address or 0, 0, [], []) for address in calls)


@contextmanager
def scripted(pool: Script, *, compiled: bool, **changes: Any) -> Iterator[Trainer]:
    config = config_of(
        pool.env_id, num_envs=NUM_ENVS, num_steps=NUM_STEPS, hidden_sizes=(8,), norm_obs=True,
        norm_reward=True, max_episode_steps=5, **changes,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(envs, "make_pool", lambda *_, **__: pool)
        is_discrete = isinstance(pool.action_space, spaces.Discrete)
        actions = ActionSpace.of(pool.action_space, pool.dtype, is_discrete=is_discrete)
        patch.setattr(envs, "action_space_of", lambda _: actions)
        patch.setattr("fastppo.mlp_engine.can_play", lambda _: compiled)
        patch.setattr(mlp_player, "Calls", ScriptCalls)
        patch.setattr(pools, "obs_key", lambda _: "obs")
        run = Trainer(config)
        try:
            yield run
        finally:
            run.close()


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000),
    poison=st.dictionaries(
        st.tuples(st.integers(0, STEPS), st.integers(0, NUM_ENVS - 1)),
        st.sampled_from([np.nan, np.inf, -np.inf]),
        max_size=10,
    ),
)
def test_poison_ends_and_cuts_are_met_alike(
    seed: int, poison: dict[tuple[int, int], float]
) -> None:
    results = []
    for compiled in (True, False):
        pool = Script(seed, poison)
        with scripted(pool, compiled=compiled) as run:
            rows = [run.run_update() for _ in range(STEPS // NUM_STEPS)]
            state = dict(leaves(run.state())) | {"lost": torch.from_numpy(run.env.gate.rows)}
            results.append((rows, state, np.concatenate([a.reshape(-1) for a in pool.seen])))
    assert_same(*results)
    np.testing.assert_array_equal(results[0][2], results[1][2])


def test_continuous_actions_reach_the_environments_clipped() -> None:
    seen = []
    for compiled in (True, False):
        pool = Script(0, {}, continuous=True)
        with scripted(pool, compiled=compiled, log_std_init=1.0) as run:
            run.run_update()
        seen.append(np.concatenate([a.reshape(-1) for a in pool.seen]))

    np.testing.assert_array_equal(seen[0], seen[1])
    assert seen[0].min() == -0.5
    assert seen[0].max() == 0.25


def test_a_call_that_is_refused_is_one_line() -> None:
    with scripted(Script(0, {}), compiled=True) as run:
        run.run_update()
        player = player_of(run)
        assert player is not None
        player._calls.refuses = True  # type: ignore[attr-defined]
        with pytest.raises(MachineError, match="refused a step in compiled code"):
            run.run_update()


class NoOperator(TorchDispatchMode):
    """Refuses every torch operator."""

    def __torch_dispatch__(self, func: Any, *_: Any) -> Any:
        raise AssertionError(f"{func} was called")


@pytest.mark.parametrize("versions", [pools.DRIVEN, ()])
def test_no_torch_operator_runs_between_two_steps(
    versions: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools, "DRIVEN", versions)
    run = Trainer(config_of("HalfCheetah-v4", norm_obs=True))
    run.run_update()
    run.rollout.open()
    t = 0
    t += run.engine.play(run.env, run.rollout, t, 32, run.timer)  # takes the rollout's views
    with NoOperator():  # type: ignore[no-untyped-call]
        while t < 32:
            t += run.engine.play(run.env, run.rollout, t, 32 + t, run.timer)
    run.close()

    assert (player_of(run) is None) == (versions == ())


def calls_per_update(run: Trainer, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    counted = 0
    kernel = numba_play.play_kernel

    def counting(*arguments: Any) -> None:
        nonlocal counted
        counted += 1
        kernel(*arguments)

    monkeypatch.setattr(mlp_player, "play_kernel", counting)

    def update() -> int:
        nonlocal counted
        counted = 0
        run.run_update()
        return counted

    return update


def test_python_looks_up_between_slow_steps_and_not_between_fast_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool = Script(0, {})
    pool.ends[:], pool.delay = False, 1.5 * mlp_player.CALL_S
    with scripted(pool, compiled=True) as run:
        stops = []
        run._check_stop = lambda: stops.append(1)
        run.run_update()
        slow = len(stops)
    config = config_of("CartPole-v1", num_steps=256)
    run = Trainer(config)
    update = calls_per_update(run, monkeypatch)
    for _ in range(8):  # until it knows how long a step takes
        run.run_update()
    fast = [update() for _ in range(9)]
    run.close()

    assert slow == NUM_STEPS
    # each cut costs a call, and the steps of a rollout take a few milliseconds
    assert sorted(fast)[4] <= 32


def run_patience(cost: Callable[[float], float], calls: int) -> list[float]:
    patience, tried = Patience(), []
    for _ in range(calls):
        tried.append(patience.seconds)
        patience.learn(cost(patience.seconds))
    return tried


def test_the_patience_that_costs_least_is_kept_and_the_others_tried_now_and_then() -> None:
    tried = run_patience(lambda seconds: 50e-6 + abs(seconds - 25e-6), 400)

    assert set(tried[:4]) == set(Patience.CANDIDATES)
    assert tried[4:].count(25e-6) > 0.9 * len(tried[4:])
    assert set(tried[100:]) == set(Patience.CANDIDATES)


def test_patience_follows_the_machine_and_is_none_for_long_steps() -> None:
    calls = 0

    def cost(seconds: float) -> float:
        nonlocal calls
        calls += 1
        return 50e-6 + (35e-6 - seconds if calls < 200 else seconds)

    tried = run_patience(cost, 600)

    assert tried[150:180].count(35e-6) >= 27
    assert tried[-30:].count(0.0) >= 27
    assert set(run_patience(lambda _: 2e-3, 50)) == {0.0}
