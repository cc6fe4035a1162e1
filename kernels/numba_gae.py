"""GAE on the CPU: time runs backwards, and each row of environments is one SIMD loop.

[T, N] time-major keeps the environments of a step contiguous. A rollout of 128 x 64 is 0.1 MB, so
one core streams it from its cache in the time a second thread would take to wake up.
"""

from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor

# No "nnan" or "ninf": a NaN reward must stay one.
_OPTIONS: dict[str, Any] = {
    "fastmath": {"contract"},
    "error_model": "numpy",
    "nogil": True,
    "cache": True,
}
_F32_ROW = "float32[::1]"
_F32 = "float32[:, ::1]"
_BOOL = "boolean[:, ::1]"
_ZERO = np.float32(0.0)


# A function of its own, not inlined by hand: LLVM then proves once per row that the six arrays do
# not overlap, and emits one vector loop.
@njit(
    f"void({_F32_ROW}, {_F32_ROW}, {_F32_ROW}, boolean[::1], boolean[::1], {_F32_ROW}, "
    f"float32, float32, {_F32_ROW}, {_F32_ROW})",
    **_OPTIONS,
)
def _step(
    rewards, values, next_values, terminated, truncated, carry, gamma, decay, advantages, returns
):
    for n in range(rewards.shape[0]):
        next_value = _ZERO if terminated[n] else next_values[n]
        trace = _ZERO if terminated[n] or truncated[n] else carry[n]
        advantage = rewards[n] + gamma * next_value - values[n] + decay * trace
        advantages[n] = advantage
        returns[n] = advantage + values[n]


@njit(
    f"void({_F32}, {_F32}, {_BOOL}, {_BOOL}, float64, float64, {_F32}, {_F32})",
    **_OPTIONS,
)
def gae_kernel(rewards, values, terminated, truncated, gamma, gae_lambda, advantages, returns):
    num_steps, num_envs = rewards.shape
    decay = np.float32(gamma * gae_lambda)
    carry = np.zeros(num_envs, np.float32)
    for i in range(num_steps):
        t = num_steps - 1 - i
        _step(
            rewards[t],
            values[t],
            values[t + 1],
            terminated[t],
            truncated[t],
            carry,
            np.float32(gamma),
            decay,
            advantages[t],
            returns[t],
        )
        carry = advantages[t]


def gae(
    rewards: Tensor,
    values: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    *,
    gamma: float,
    gae_lambda: float,
) -> tuple[Tensor, Tensor]:
    """As `reference.gae`, for float32 on the CPU."""
    advantages = torch.empty(rewards.shape, dtype=torch.float32)
    returns = torch.empty(rewards.shape, dtype=torch.float32)
    gae_kernel(
        rewards.detach().contiguous().numpy(),
        values.detach().contiguous().numpy(),
        terminated.contiguous().numpy(),
        truncated.contiguous().numpy(),
        gamma,
        gae_lambda,
        advantages.numpy(),
        returns.numpy(),
    )
    return advantages, returns
