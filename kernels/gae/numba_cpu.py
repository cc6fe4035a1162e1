"""GAE on the CPU.

Time-major, time runs backwards over blocks of BLOCK environments, and each step of a block is one
SIMD loop: a block's carry and next values (16 KB) stay in the first cache while its rows, 8 KB at a
time, stream by. Env-major, a row is three loops: the deltas (SIMD), the scan (four rows
take turns), the returns (SIMD). With holes, or a lambda of its own, it is one scalar loop.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

import numpy as np
import torch
from numba import carray, njit
from torch import Tensor

from fastppo.kernels.tools.numba_memory import OPTIONS, address, dense, kernel, pointer

BLOCK = 2048  # environments
GROUP = 4  # env-major rows
_ZERO = np.float32(0.0)


# A function of its own, not inlined by hand: LLVM then proves once per row that the arrays do not
# overlap, and emits one vector loop.
@njit(**OPTIONS)
def _step(
    rewards, values, next_values, terminated, truncated, carry, gamma, decay, advantages, returns
):
    for n in range(rewards.shape[0]):
        next_value = _ZERO if terminated[n] != 0 else next_values[n]
        trace = _ZERO if (terminated[n] | truncated[n]) != 0 else carry[n]
        advantage = rewards[n] + gamma * next_value - values[n] + decay * trace
        advantages[n] = advantage
        returns[n] = advantage + values[n]


@kernel("void(" + ", ".join(["int64"] * 8) + ", float64, float64)")
def gae_kernel(
    rewards,  # [T, N] f32
    values,  # [T + 1, N] f32
    terminated,  # [T, N] bool, as truncated; read as bytes: two flags are one "or"
    truncated,
    advantages,  # [T, N] f32, written, as returns
    returns,
    num_steps,
    num_envs,
    gamma,
    decay,  # gamma * lambda
):
    shape = (num_steps, num_envs)
    rewards = carray(pointer(rewards), shape, np.float32)
    values = carray(pointer(values), (num_steps + 1, num_envs), np.float32)
    terminated = carray(pointer(terminated), shape, np.uint8)
    truncated = carray(pointer(truncated), shape, np.uint8)
    advantages = carray(pointer(advantages), shape, np.float32)
    returns = carray(pointer(returns), shape, np.float32)
    for low in range(0, num_envs, BLOCK):
        high = min(num_envs, low + BLOCK)
        carry = np.zeros(high - low, np.float32)
        for i in range(num_steps):
            t = num_steps - 1 - i
            _step(
                rewards[t, low:high],
                values[t, low:high],
                values[t + 1, low:high],
                terminated[t, low:high],
                truncated[t, low:high],
                carry,
                np.float32(gamma),
                np.float32(decay),
                advantages[t, low:high],
                returns[t, low:high],
            )
            carry = advantages[t, low:high]


@njit(**OPTIONS)
def _deltas(rewards, values, terminated, gamma, deltas):
    for t in range(rewards.shape[0]):
        next_value = _ZERO if terminated[t] != 0 else values[t + 1]
        deltas[t] = rewards[t] + gamma * next_value - values[t]


@njit(**OPTIONS)
def _scan(advantages, terminated, truncated, row, length, decay):
    """Turns the deltas of a row into advantages, in place."""
    carry = _ZERO
    for i in range(length):
        t = length - 1 - i
        trace = _ZERO if (terminated[row, t] | truncated[row, t]) != 0 else carry
        carry = advantages[row, t] + decay * trace
        advantages[row, t] = carry


# The scan of one row waits for its own last result; four take turns.
@njit(**OPTIONS)
def _scan_4(advantages, terminated, truncated, first, length, decay):
    """The same for rows first .. first + 4, a delta of 0 behind the end of each."""
    carry0 = carry1 = carry2 = carry3 = _ZERO
    for i in range(length):
        t = length - 1 - i
        trace0 = _ZERO if (terminated[first, t] | truncated[first, t]) != 0 else carry0
        trace1 = _ZERO if (terminated[first + 1, t] | truncated[first + 1, t]) != 0 else carry1
        trace2 = _ZERO if (terminated[first + 2, t] | truncated[first + 2, t]) != 0 else carry2
        trace3 = _ZERO if (terminated[first + 3, t] | truncated[first + 3, t]) != 0 else carry3
        carry0 = advantages[first, t] + decay * trace0
        carry1 = advantages[first + 1, t] + decay * trace1
        carry2 = advantages[first + 2, t] + decay * trace2
        carry3 = advantages[first + 3, t] + decay * trace3
        advantages[first, t] = carry0
        advantages[first + 1, t] = carry1
        advantages[first + 2, t] = carry2
        advantages[first + 3, t] = carry3


@njit(**OPTIONS)
def _add(values, advantages, returns):
    for t in range(returns.shape[0]):
        returns[t] = advantages[t] + values[t]


@kernel("void(" + ", ".join(["int64"] * 9) + ", float64, float64)")
def rows_kernel(
    rewards,  # [N, T] f32
    values,  # [N, T + 1] f32
    terminated,  # [N, T] bool, as truncated
    truncated,
    advantages,  # [N, T] f32, written, as returns
    returns,
    lengths,  # [N] i64, or 0 for all T
    num_rows,
    num_steps,
    gamma,
    decay,
):
    shape = (num_rows, num_steps)
    rewards = carray(pointer(rewards), shape, np.float32)
    values = carray(pointer(values), (num_rows, num_steps + 1), np.float32)
    terminated = carray(pointer(terminated), shape, np.uint8)
    truncated = carray(pointer(truncated), shape, np.uint8)
    advantages = carray(pointer(advantages), shape, np.float32)
    returns = carray(pointer(returns), shape, np.float32)
    limits = carray(pointer(lengths), (num_rows if lengths != 0 else 0,), np.int64)
    for low in range(0, num_rows, GROUP):
        high = min(num_rows, low + GROUP)
        longest = 0
        for n in range(low, high):
            length = num_steps
            if lengths != 0:
                length = max(0, min(num_steps, limits[n]))
            longest = max(longest, length)
            _deltas(
                rewards[n, :length],
                values[n],
                terminated[n],
                np.float32(gamma),
                advantages[n, :length],
            )
            advantages[n, length:] = _ZERO
        if high - low == GROUP:
            _scan_4(advantages, terminated, truncated, low, longest, np.float32(decay))
        else:
            for n in range(low, high):
                _scan(advantages, terminated, truncated, n, longest, np.float32(decay))
        for n in range(low, high):
            length = num_steps
            if lengths != 0:
                length = max(0, min(num_steps, limits[n]))
            _add(values[n], advantages[n], returns[n, :length])
            returns[n, length:] = _ZERO


@kernel("void(" + ", ".join(["int64"] * 11) + ", float64, float64)")
def holes_kernel(
    rewards,  # [N, T] f32
    values,  # [N, T + 1] f32
    terminated,  # [N, T] bool, as truncated
    truncated,
    advantages,  # [N, T] f32, written, as returns
    returns,
    lengths,  # [N] i64, or 0 for all T
    valid,  # [N, T] bool, or 0 for all
    lambdas,  # [N] f32, or 0
    num_rows,
    num_steps,
    gamma,
    decay,  # gamma * lambda, without lambdas
):
    shape = (num_rows, num_steps)
    rewards = carray(pointer(rewards), shape, np.float32)
    values = carray(pointer(values), (num_rows, num_steps + 1), np.float32)
    terminated = carray(pointer(terminated), shape, np.uint8)
    truncated = carray(pointer(truncated), shape, np.uint8)
    advantages = carray(pointer(advantages), shape, np.float32)
    returns = carray(pointer(returns), shape, np.float32)
    limits = carray(pointer(lengths), (num_rows if lengths != 0 else 0,), np.int64)
    flags = carray(pointer(valid), (num_rows if valid != 0 else 0, num_steps), np.uint8)
    own = carray(pointer(lambdas), (num_rows if lambdas != 0 else 0,), np.float32)
    for n in range(num_rows):
        length = max(0, min(num_steps, limits[n])) if lengths != 0 else num_steps
        step_decay = np.float32(gamma) * own[n] if lambdas != 0 else np.float32(decay)
        advantages[n, length:] = _ZERO
        returns[n, length:] = _ZERO
        carry = _ZERO
        next_value = values[n, length]
        for i in range(length):
            t = length - 1 - i
            if valid != 0 and flags[n, t] == 0:
                advantages[n, t] = _ZERO
                returns[n, t] = _ZERO
                continue
            behind = _ZERO if terminated[n, t] != 0 else next_value
            trace = _ZERO if (terminated[n, t] | truncated[n, t]) != 0 else carry
            delta = rewards[n, t] + np.float32(gamma) * behind - values[n, t]
            carry = delta + step_decay * trace
            next_value = values[n, t]
            advantages[n, t] = carry
            returns[n, t] = carry + next_value


def gae(
    rewards: Tensor,
    values: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    lengths: Tensor | None = None,
    *,
    gamma: float,
    gae_lambda: float,
    layout: str = "TN",
    valid: Tensor | None = None,
    lambdas: Tensor | None = None,
    out: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """As `spec.gae`, for float32 and bfloat16 on the CPU."""
    rewards, values = dense(rewards.float()), dense(values.float())
    terminated, truncated = dense(terminated), dense(truncated)
    shape = first, second = rewards.shape
    if out is None:
        out = (
            torch.empty(shape, dtype=torch.float32, device="cpu"),
            torch.empty(shape, dtype=torch.float32, device="cpu"),
        )
    advantages, returns = out
    tensors = (rewards, values, terminated, truncated, advantages, returns)
    addresses = [tensor.data_ptr() for tensor in tensors]
    numbers = first, second, float(gamma), float(gamma) * float(gae_lambda)
    if layout == "TN":
        gae_kernel(*addresses, *numbers)
        return advantages, returns
    limits = None if lengths is None else dense(lengths.long())
    if valid is None and lambdas is None:
        rows_kernel(*addresses, address(limits), *numbers)
        return advantages, returns
    holes = None if valid is None else dense(valid)
    own = None if lambdas is None else dense(lambdas.float())
    holes_kernel(*addresses, address(limits), address(holes), address(own), *numbers)
    return advantages, returns
