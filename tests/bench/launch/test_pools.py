"""EnvPool alone: its transitions are counted right, in order of environments or not."""

import argparse
import time
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from fastppo.bench.env.rounds import config_of
from fastppo.bench.launch import pools as env_pools
from fastppo.bench.launch.pools import Setting, Stepper, open_pool


class CountingPool:
    """Counts on its own: by the environments' ids and their elapsed_step, on its own clock."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self.env_steps = 0
        self.per_env: dict[int, int] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def recv(self) -> Any:
        answer = self._pool.recv()
        info = answer[4]
        # without episodic_life, a row whose counter stands at 0 is a reset
        for env_id, elapsed in zip(info["env_id"], info["elapsed_step"], strict=True):
            if elapsed > 0:
                self.env_steps += 1
                self.per_env[int(env_id)] = self.per_env.get(int(env_id), 0) + 1
        return answer


@pytest.mark.parametrize("batch_size", [8, 4, 3], ids=["sync", "async", "async-uneven"])
def test_the_rate_agrees_with_an_independent_count(batch_size: int) -> None:
    setting = Setting(8, batch_size, 2)
    pool = CountingPool(open_pool(config_of("CartPole-v1"), setting))
    stepper = Stepper(pool, setting)
    errors = []
    for _ in range(3):  # the machine may stop us between the two clocks
        before, start = pool.env_steps, time.perf_counter()
        taken = stepper.run(0.5)
        counted = (pool.env_steps - before) / (time.perf_counter() - start)
        errors.append(abs(taken.env_steps_per_s / counted - 1.0))
    stepper.close()

    assert min(errors) < 0.03
    # CartPole falls over every twenty steps or so: the resets are there to be left out
    assert 0.90 * taken.rows < taken.env_steps < 0.98 * taken.rows
    assert set(pool.per_env) == set(range(8))


class ScriptedPool:
    """Environments that are done after every third step, answering in an odd order."""

    action_space = spaces.Discrete(2)

    def __init__(self, num_envs: int, batch_size: int) -> None:
        self.num_envs, self.batch_size = num_envs, batch_size
        self.waiting: list[int] = []
        self.age = np.full(num_envs, -1)  # steps since the reset row
        self.transitions = 0
        self.order = np.random.default_rng(0)

    @property
    def spec(self) -> Any:
        return argparse.Namespace(action_array_spec={"action": np.zeros(1, np.int64)})

    def async_reset(self) -> None:
        self.waiting = list(range(self.num_envs))

    def send(self, actions: Any, env_ids: Any) -> None:
        assert len(actions) == len(env_ids)
        assert not set(env_ids) & set(self.waiting)
        self.waiting += [int(env) for env in env_ids]

    def recv(self) -> Any:
        assert len(self.waiting) >= self.batch_size, "would wait forever"
        picked = self.order.permutation(len(self.waiting))[: self.batch_size]
        env_ids = np.array([self.waiting[i] for i in picked], np.int32)
        self.waiting = [env for env in self.waiting if env not in env_ids]
        self.age[env_ids] += 1
        self.transitions += int((self.age[env_ids] > 0).sum())
        done = self.age[env_ids] == 3
        self.age[env_ids[done]] = -1
        return None, None, done, np.zeros_like(done), {"env_id": env_ids}

    def close(self) -> None: ...


@pytest.mark.parametrize(("num_envs", "batch_size"), [(6, 6), (6, 3), (7, 2), (5, 4)])
def test_reset_rows_are_told_by_environment_in_any_order(num_envs: int, batch_size: int) -> None:
    pool = ScriptedPool(num_envs, batch_size)
    stepper = Stepper(pool, Setting(num_envs, batch_size, 1))
    counted = 0
    receive = stepper._receive

    def tallied() -> int:
        nonlocal counted
        counted += (found := receive())
        return found

    stepper._receive = tallied  # type: ignore[method-assign]
    for _ in range(3):
        taken = stepper.run(0.005)
        assert 0 < taken.env_steps < taken.rows

    assert counted == pool.transitions
    assert len(pool.waiting) < batch_size  # nothing in flight that another pool would feel


def test_actions_are_valid_for_every_kind_of_space() -> None:
    for env_id in ("CartPole-v1", "HalfCheetah-v4"):
        pool = open_pool(config_of(env_id), Setting(2, 2, 1))
        actions = env_pools.draw_actions(pool, 2, seed=1)

        assert actions.shape == (64, 2, *pool.action_space.shape)
        assert all(pool.action_space.contains(action) for row in actions for action in row)
        assert len(np.unique(actions)) > 1
