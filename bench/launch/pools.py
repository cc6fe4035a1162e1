"""EnvPool alone: a pool stepped with random actions, and its transitions counted."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastppo import randomness
from fastppo.config import Config
from fastppo.pools import make_pool

MIN_TURNS = 3
"""Answers that a slice waits for at least."""
DRAWN = 1024
"""Different actions; more would not be more random to an environment."""


@dataclass(frozen=True, slots=True, order=True)
class Setting:
    """One way to run N environments."""

    num_envs: int
    batch_size: int
    """Rows per answer; below num_envs EnvPool is asynchronous: whoever is done first answers."""
    num_threads: int

    @property
    def is_async(self) -> bool:
        return self.batch_size < self.num_envs

    @property
    def name(self) -> str:
        """Its part of a result's id."""
        return f"n{self.num_envs}-b{self.batch_size}-t{self.num_threads}"


@dataclass(frozen=True, slots=True)
class PoolSlice:
    """What one turn measured."""

    env_steps: int
    """Transitions; reset rows do not count."""
    rows: int
    """Rows received, reset rows among them."""
    seconds: float

    @property
    def env_steps_per_s(self) -> float:
        return self.env_steps / self.seconds


def open_pool(config: Config, setting: Setting) -> Any:
    """The pool of a setting, with the environments that a training run would get."""
    seeds = randomness.env_seeds(config.seed, range(setting.num_envs))
    return make_pool(config, seeds, num_threads=setting.num_threads, batch_size=setting.batch_size)


class Stepper:
    """Steps a pool at full speed, in slices.

    Between slices nothing is in flight, so that pools can take turns without disturbing each
    other. A slice brings the pool to its steady state before the clock starts: as many batches
    in flight as there will be when it stops, so that no row is timed without its work.

    Args:
        pool: from `open_pool`, not yet reset.
        setting: what it was opened with.
    """

    def __init__(self, pool: Any, setting: Setting, *, seed: int = 1) -> None:
        self.pool = pool
        self.setting = setting
        self._actions = draw_actions(pool, setting.batch_size, seed)
        self._turn = 0
        # an environment's first row is a reset, as is every row after one that was done
        self._done = np.ones(setting.num_envs, np.bool_)
        self._held: list[NDArray[np.int32]] = []  # environments that wait for an action
        self._in_flight = setting.num_envs
        pool.async_reset()
        self._drain()

    def run(self, seconds: float) -> PoolSlice:
        """Steps for `seconds`, and for MIN_TURNS answers at least."""
        while len(self._held) > 1:
            self._send(self._held.pop())
        for _ in range(2 * -(-self.setting.num_envs // self.setting.batch_size)):
            self._step()
        env_steps = turns = 0
        start = now = time.perf_counter()
        while turns < MIN_TURNS or now - start < seconds:
            env_steps += self._step()
            turns += 1
            now = time.perf_counter()
        self._drain()
        return PoolSlice(env_steps, turns * self.setting.batch_size, now - start)

    def close(self) -> None:
        """Lets go of the pool: EnvPool frees environments and threads with the last reference."""
        self.pool.close()
        del self.pool

    def _step(self) -> int:
        self._send(self._held.pop())
        return self._receive()

    def _send(self, env_ids: NDArray[np.int32]) -> None:
        self.pool.send(self._actions[self._turn], env_ids)
        self._turn = (self._turn + 1) % len(self._actions)
        self._in_flight += len(env_ids)

    def _receive(self) -> int:
        """Transitions among the rows of one answer, which come in any order of environments."""
        _, _, terminated, truncated, info = self.pool.recv()
        env_ids = info["env_id"]
        resets = int(np.count_nonzero(self._done[env_ids]))
        # a game over cut by the time limit is done either way: no need to tell them apart
        self._done[env_ids] = terminated | truncated
        self._held.append(env_ids)
        self._in_flight -= len(env_ids)
        return len(env_ids) - resets

    def _drain(self) -> None:
        while self._in_flight >= self.setting.batch_size:
            self._receive()


def draw_actions(pool: Any, batch_size: int, seed: int) -> NDArray[Any]:
    """Random actions of any kind of space, [64, batch_size, ...]."""
    space = pool.action_space
    space.seed(seed)
    dtype = pool.spec.action_array_spec["action"].dtype
    drawn = np.asarray([space.sample() for _ in range(DRAWN)], dtype=dtype)
    return drawn[np.random.default_rng(seed).integers(DRAWN, size=(64, batch_size))]


def bytes_per_env(config: Config, num_envs: int = 8) -> int:
    """Memory of one environment, estimated from above by building a few and dropping them."""
    open_pool(config, Setting(1, 1, 1)).reset()  # loads what all environments share
    before = _resident_bytes()
    setting = Setting(num_envs, num_envs, 1)
    stepper = Stepper(open_pool(config, setting), setting)
    grown = _resident_bytes() - before
    stepper.close()
    # twice: EnvPool's queue of answers is touched only as it turns over
    return 2 * max(grown, 0) // num_envs


def _resident_bytes() -> int:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0  # not Linux
    found = [int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:")]
    return found[0] if found else 0
