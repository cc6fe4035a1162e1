"""GAE on the GPU: a tile of time per iteration, backwards, one program per block of environments.

A thread owns one environment and STEPS consecutive steps, and loads them all before it stores any:
a store might alias the next load, so a loop that mixes the two waits for memory at every step.
CHUNKS threads share an environment: each folds its steps into one affine map A_first = a A_after +
b, a scan over the chunks hands each its A_after, and the thread replays its steps from registers.
CHUNKS = 1, enough parallelism for many environments, needs no scan. [T, N] time-major keeps
neighbouring threads on neighbouring addresses.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _apply(a, b, x):
    """a * x + b, with 0 * NaN = 0: nothing crosses an episode end, where a is 0."""
    return b + tl.where(a == 0.0, 0.0, a * x)


@triton.jit
def _compose(a1, b1, before_a1, before_b1, a2, b2, before_a2, before_b2):
    """Both scans of maps at once: including this chunk, and excluding it (`before`).

    The scan runs from late to early chunks: the first operand is later in time, applied first.
    """
    return (
        a1 * a2,
        _apply(a2, b2, b1),
        a1 * before_a2,
        _apply(before_a2, before_b2, b1),
    )


@triton.jit
def gae_kernel(
    rewards_ptr,  # [T, N] f32
    values_ptr,  # [T + 1, N] f32
    terminated_ptr,  # [T, N] bool
    truncated_ptr,  # [T, N] bool
    advantages_ptr,  # [T, N] f32, written
    returns_ptr,  # [T, N] f32, written
    num_steps,
    num_envs,
    gamma,
    decay,  # gamma * lambda
    STEPS: tl.constexpr,
    CHUNKS: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    # a Python float reaches the kernel as f64 under torch.compile, as f32 in eager mode
    gamma = tl.cast(gamma, tl.float32)
    decay = tl.cast(decay, tl.float32)
    # int64: an element offset past 2**31 wraps silently
    env = (tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N))[None, :]
    in_range = env < num_envs
    chunk = tl.arange(0, CHUNKS).to(tl.int64)[:, None]
    carry = tl.zeros([1, BLOCK_N], tl.float32)
    TILE_T: tl.constexpr = STEPS * CHUNKS
    num_tiles = tl.cdiv(num_steps, TILE_T)
    for tile in range(num_tiles):
        first = (num_tiles - 1 - tile) * TILE_T + chunk * STEPS  # [CHUNKS, 1]
        rewards = ()
        values = ()
        ends = ()
        cuts = ()
        for s in tl.static_range(STEPS):
            at = (first + s) * num_envs + env  # [CHUNKS, BLOCK_N]
            mask = in_range & (first + s < num_steps)
            rewards += (tl.load(rewards_ptr + at, mask, other=0.0),)
            values += (tl.load(values_ptr + at, in_range & (first + s <= num_steps), other=0.0),)
            terminated = tl.load(terminated_ptr + at, mask, other=0) != 0
            truncated = tl.load(truncated_ptr + at, mask, other=0) != 0
            ends += (terminated,)
            cuts += (terminated | truncated,)
        after = (first + STEPS) * num_envs + env
        next_value = tl.load(values_ptr + after, in_range & (first + STEPS <= num_steps), other=0.0)

        a = tl.full([CHUNKS, BLOCK_N], 1.0, tl.float32)
        b = tl.zeros([CHUNKS, BLOCK_N], tl.float32)
        deltas = ()  # latest step first
        decays = ()
        for k in tl.static_range(STEPS):
            value = values[STEPS - 1 - k]
            delta = rewards[STEPS - 1 - k] - value
            delta += gamma * tl.where(ends[STEPS - 1 - k], 0.0, next_value)
            # Past the rollout there is nothing to add; the carry is still 0 there.
            delta = tl.where(first + (STEPS - 1 - k) < num_steps, delta, 0.0)
            step_decay = tl.where(cuts[STEPS - 1 - k], 0.0, decay)
            b = _apply(step_decay, delta, b)
            a = a * step_decay
            deltas += (delta,)
            decays += (step_decay,)
            next_value = value
        advantage = tl.broadcast_to(carry, [CHUNKS, BLOCK_N])
        if CHUNKS > 1:
            ones = tl.full([CHUNKS, BLOCK_N], 1.0, tl.float32)
            zeros = tl.zeros([CHUNKS, BLOCK_N], tl.float32)
            through_a, through_b, before_a, before_b = tl.associative_scan(
                (a, b, ones, zeros), 0, _compose, reverse=True
            )
            advantage = _apply(before_a, before_b, advantage)
            through = _apply(through_a, through_b, carry)
            carry = tl.sum(tl.where(chunk == 0, through, 0.0), 0)[None, :]
        else:
            carry = _apply(a, b, carry)
        for k in tl.static_range(STEPS):
            at = (first + (STEPS - 1 - k)) * num_envs + env
            mask = in_range & (first + (STEPS - 1 - k) < num_steps)
            advantage = _apply(decays[k], deltas[k], advantage)
            tl.store(advantages_ptr + at, advantage, mask)
            tl.store(returns_ptr + at, advantage + values[STEPS - 1 - k], mask)


def tiling(num_steps: int, num_envs: int) -> dict[str, int]:
    """Constants of the kernel, and its warps, for this shape.

    Not measured on a GPU yet. By the model in research/triton.md: from some 32k environments on,
    one thread each fills the machine; below, chunks of time add the threads that are missing.
    """
    if num_envs >= 32768:
        return {"STEPS": 8, "CHUNKS": 1, "BLOCK_N": 128, "num_warps": 4}
    if num_steps > 128 and num_envs <= 64:
        return {"STEPS": 8, "CHUNKS": 64, "BLOCK_N": 4, "num_warps": 8}
    return {"STEPS": 8, "CHUNKS": 16, "BLOCK_N": 8, "num_warps": 4}


def gae(
    rewards: Tensor,
    values: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    *,
    gamma: float,
    gae_lambda: float,
) -> tuple[Tensor, Tensor]:
    """As `reference.gae`, for float32 on CUDA."""
    num_steps, num_envs = rewards.shape
    advantages = torch.empty(rewards.shape, device=rewards.device)
    returns = torch.empty(rewards.shape, device=rewards.device)
    constants = tiling(num_steps, num_envs)
    with torch.cuda.device_of(rewards):
        gae_kernel[(triton.cdiv(num_envs, constants["BLOCK_N"]),)](
            rewards.contiguous(),
            values.contiguous(),
            terminated.contiguous(),
            truncated.contiguous(),
            advantages,
            returns,
            num_steps,
            num_envs,
            float(gamma),
            gamma * gae_lambda,
            **constants,
        )
    return advantages, returns
