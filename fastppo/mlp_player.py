"""Plays an MLP policy in EnvPool's environments by compiled code, many steps a call.

Tested equal to `playing.play_one`, which defines what is done. It saves the Python between two
steps: on eight CartPoles it takes as long as the step, and meanwhile EnvPool's thread falls
asleep and has to be woken.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastppo import pools
from fastppo.calls import Calls, c_function
from fastppo.envs import VecEnv
from fastppo.errors import MachineError
from fastppo.kernels.mlp.numba_play import CUT, NOT_FINITE, REFUSED, play_kernel
from fastppo.kernels.mlp.records import Answers, Network, Normal, Rows, Stepper, empty
from fastppo.pools import Answer
from fastppo.rollout import Rollout
from fastppo.timing import PhaseTimer

CALL_S = 0.02
"""How long compiled code runs before Python looks up, for a signal for one."""
_DTYPES = {"int32": "choices", "float32": "actions32", "float64": "actions64"}


def can_play(env: VecEnv) -> bool:
    """Whether these environments can be stepped by compiled code."""
    pool = env.pool
    if not pools.is_known(pool) or env.has_own_flag or not hasattr(pool, "_xla"):
        return False
    obs = pools.obs_key(pool)
    dtypes = dict(zip(pool._state_keys, pool._spec._state_spec, strict=True))
    is_choice = env.actions.is_discrete == (env.actions.dtype == np.int32)
    return (
        np.dtype(dtypes[obs][0]) in (np.float32, np.float64)
        and env.actions.dtype.name in _DTYPES
        and is_choice
    )


class Patience:
    """How long to wait for an answer before asking EnvPool for it.

    EnvPool lets a thread sleep that waits for more than some 10 us, and where the machine is quiet
    its core goes to sleep too: to wake it takes 50 us, several times the step of eight CartPoles.
    A thread that waits here first stays awake. What is best depends on what else runs, so every
    now and then another candidate is tried.
    """

    CANDIDATES = (0.0, 15e-6, 25e-6, 35e-6)
    SHORT_S = 300e-6
    """Steps that take longer are not worth it."""
    EVERY = 16
    """Calls between two trials."""
    MEMORY = 0.3
    """Weight of the newest call in a candidate's mean."""

    def __init__(self) -> None:
        self._costs: list[float | None] = [None] * len(self.CANDIDATES)
        self._current = 0
        self._calls = 0

    @property
    def seconds(self) -> float:
        """Of the next call."""
        return self.CANDIDATES[self._current]

    def learn(self, step_s: float) -> None:
        """Takes what a step of the last call cost, and decides on the next call."""
        old = self._costs[self._current]
        new = step_s if old is None else old + self.MEMORY * (step_s - old)
        self._costs[self._current] = new
        self._calls += 1
        if step_s > self.SHORT_S:
            self._current = 0
        elif None in self._costs:
            self._current = self._costs.index(None)
        elif self._calls % self.EVERY == 0:
            self._current = self._calls // self.EVERY % len(self.CANDIDATES)
        else:
            known = [cost for cost in self._costs if cost is not None]
            self._current = known.index(min(known))


class Player:
    """Steps one set of environments.

    Args:
        env: of which `can_play` holds.
    """

    def __init__(self, env: VecEnv) -> None:
        self.env = env
        self._calls = Calls(env.pool)
        answers, actions = self._calls.answers, self._calls.actions
        rows = len(actions)
        obs = answers[pools.obs_key(env.pool)]
        self._answers = tuple(answers[name] for name in ("reward", "done", "trunc"))
        self._obs = obs
        flat: NDArray[Any] = obs.reshape(rows, -1)
        used = {_DTYPES[actions.dtype.name]: actions.reshape(rows, -1)}
        width = actions.reshape(rows, -1).shape[1]
        self._stepper = Stepper(
            self._calls.send.function,
            self._calls.send.frame,
            self._calls.recv.function,
            self._calls.recv.frame,
            c_function("clock_gettime"),
            flat if obs.dtype == np.float32 else empty(2, np.float32),
            flat if obs.dtype == np.float64 else empty(2, np.float64),
            answers["reward"],
            answers["done"],
            answers["trunc"],
            used.get("choices", empty(2, np.int32)),
            used.get("actions32", empty(2, np.float32)),
            used.get("actions64", empty(2, np.float64)),
            _bound(env.actions.low, width),
            _bound(0 if env.actions.high is None else env.actions.high, width),
        )
        self._steps_per_call = 1
        self._patience = Patience()
        self._seconds = np.zeros(2)
        self._outcome = np.zeros(2, np.int64)

    @property
    def is_ready(self) -> bool:
        """Whether the next step is a plain one."""
        return not (self.env.time_limit.resets_by_force or self.env.gate.is_blind)

    def play(
        self,
        network: Network,
        rows: Rows,
        normal: Normal,
        key: int,
        rollout: Rollout,
        t: int,
        step: int,
        timer: PhaseTimer,
    ) -> int:
        """Fills rows of the rollout from t on.

        Args:
            step: decisions before row t.

        Returns:
            How many.

        Raises:
            MachineError: EnvPool refuses.
        """
        env, begin = self.env, timer.now()
        last = min(t + self._steps_per_call, len(rollout.log_probs))
        ends, answers = env.time_limit.ends(), Answers(*rollout.host_rows)
        play_kernel(
            network, rows, normal, self._stepper, ends, answers,
            key, step - t, t, last, self._patience.seconds, self._seconds, self._outcome,
        )  # fmt: skip
        played, how = map(int, self._outcome)
        if how == REFUSED:
            raise MachineError("EnvPool: refused a step in compiled code; pass --engine eager")
        if played:
            block = slice(t, t + played)
            truncated = answers.truncated[block]
            env.time_limit.go_on(ends, truncated[-1].copy() if how == CUT else env.none)
            valid = answers.valid[block].copy()
            closes = (answers.terminated[block] | truncated) & valid
            env.episodes.add_rows(answers.rewards[block].copy(), valid, closes)
        if how == NOT_FINITE:
            reward, done, truncated = (part.copy() for part in self._answers)
            row: Answer = (self._obs.copy(), reward, done & ~truncated, truncated, {})
            rollout.write(t + played, env.settle(row))
            played += 1
        self._book(timer, timer.now() - begin, last - t, played)
        return played

    def _book(self, timer: PhaseTimer, seconds: float, steps: int, played: int) -> None:
        """The call's time by the shares that it measured: its own clock knows of no pause."""
        in_envs, in_all = self._seconds
        share = in_envs / in_all if in_all > 0 else 0.0
        timer.add("env", seconds * share)
        timer.add("policy", seconds * (1.0 - share))
        self._patience.learn(in_all / max(played, 1))
        target = self._steps_per_call * CALL_S / max(in_all, 1e-9)
        if steps == self._steps_per_call:
            self._steps_per_call = max(1, min(int(target), 2 * self._steps_per_call))


def _bound(values: Any, width: int) -> NDArray[np.float64]:
    return np.broadcast_to(np.asarray(values, np.float64).reshape(-1), width).copy()
