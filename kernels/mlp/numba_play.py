"""Steps of a policy and its environments in compiled code: act, step, write, and again.

Between two steps of eight CartPoles a Python loop takes 20 us, in which the environments' thread
falls asleep and has to be woken. Here it is 7 us. Rare events (a number that is not
finite, an episode that is cut) are left to the caller.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

import numpy as np
from numba import njit

from fastppo.kernels.mlp.numba_cpu import act_kernel
from fastppo.kernels.mlp.records import (
    Answers,
    Doubles,
    Ends,
    Ints,
    Network,
    Normal,
    Rows,
    Stepper,
)
from fastppo.kernels.tools.numba_memory import OPTIONS, address_of, call_c, kernel_of_records

PLAYED, NOT_FINITE, CUT, REFUSED = range(4)
"""How a call ended: with all steps taken; at a row that is not finite, which was not kept; at an
episode cut by the limit; refused by the environments."""
LARGEST = float(np.finfo(np.float32).max)
MONOTONIC = 1


@njit(**OPTIONS)
def _seconds(clock, time):
    call_c(clock, MONOTONIC, address_of(time))
    return time[0] + 1e-9 * time[1]


@njit(**OPTIONS)
def _choose(chosen, low, out):
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            out[i, j] = chosen[i, j] + np.int64(low[j])


@njit(**OPTIONS)
def _clip(actions, low, high, out):
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            a = np.float64(actions[i, j])
            # a NaN stays one
            a = low[j] if a < low[j] else a
            out[i, j] = high[j] if a > high[j] else a


@njit(**OPTIONS)
def _copy_finite(source, out):
    """Casts to float32; whether every number is finite there."""
    finite = True
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            x = source[i, j]
            finite &= abs(x) <= LARGEST
            out[i, j] = x
    return finite


@njit(**OPTIONS)
def _mark(stepper, ends, answers, t):
    """Rewards and flags of row t; whether an episode was cut by the limit."""
    any_cut = False
    for i in range(ends.done.shape[0]):
        cut = stepper.truncated[i]
        over = stepper.done[i] and not cut
        if ends.limit > 0:
            steps = 0 if ends.done[i] else ends.steps[i] + 1
            ends.steps[i] = steps
            cut = steps >= ends.limit and not over
            any_cut |= cut
        answers.rewards[t, i] = stepper.rewards[i]
        answers.terminated[t, i] = over
        answers.truncated[t, i] = cut
        answers.valid[t, i] = not ends.done[i]
        ends.done[i] = over or cut
    return any_cut


@kernel_of_records
def play_kernel(
    network: Network,
    rows: Rows,
    normal: Normal,
    stepper: Stepper,
    ends: Ends,
    answers: Answers,
    key: int,
    first_step: int,  # decisions before row 0
    first: int,  # the row to begin with
    last: int,  # the row to stop before
    patience: float,  # seconds to wait for an answer before asking for it
    seconds: Doubles,  # [2], written: in the environments, and in all
    outcome: Ints,  # [2], written: rows kept, and how it ended
):
    time = np.zeros(2, np.int64)
    begin = _seconds(stepper.clock, time)
    in_envs = 0.0
    kept, ended = 0, PLAYED
    for t in range(first, last):
        act_kernel(network, rows, normal, t, key, first_step + t, 0)
        if stepper.choices.shape[0] > 0:
            _choose(rows.choices[t], stepper.low, stepper.choices)
        elif stepper.actions32.shape[0] > 0:
            _clip(rows.actions[t], stepper.low, stepper.high, stepper.actions32)
        else:
            _clip(rows.actions[t], stepper.low, stepper.high, stepper.actions64)
        sent = _seconds(stepper.clock, time)
        refused = call_c(stepper.send, stepper.send_frame, 0)
        while _seconds(stepper.clock, time) - sent < patience:
            pass
        if refused == 0:
            refused = call_c(stepper.recv, stepper.recv_frame, 0)
        in_envs += _seconds(stepper.clock, time) - sent
        if refused != 0:
            ended = REFUSED
            break
        if stepper.obs32.shape[0] > 0:
            finite = _copy_finite(stepper.obs32, rows.obs[t + 1])
        else:
            finite = _copy_finite(stepper.obs64, rows.obs[t + 1])
        for i in range(stepper.rewards.shape[0]):
            finite &= abs(stepper.rewards[i]) <= LARGEST
        if not finite:
            ended = NOT_FINITE
            break
        kept += 1
        if _mark(stepper, ends, answers, t):
            ended = CUT
            break
    seconds[0] = in_envs
    seconds[1] = _seconds(stepper.clock, time) - begin
    outcome[0] = kept
    outcome[1] = ended
