"""GAE on the GPU: a tile of time per iteration, backwards, one program per block of environments.

A thread owns one environment and STEPS consecutive steps, and loads them all before it stores any:
a store might alias the next load, so a loop that mixes the two waits for memory at every step.
CHUNKS threads share an environment: each folds its steps into one affine map A_first = a A_after +
b, a scan over the chunks hands each its A_after, and the thread replays its steps from registers.
CHUNKS = 1, enough parallelism for many environments, needs no scan. [T, N] time-major keeps
neighbouring threads on neighbouring addresses.

Env-major data, [N, T], gets one program per row, and tl.associative_scan the same three phases.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# mypy: disable-error-code="assignment,var-annotated"

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastppo.kernels.tools.triton_options import OPTIONS
from fastppo.kernels.tools.triton_rows import dense_rows


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
    rewards_ptr,  # [T, N] f32 or bf16
    values_ptr,  # [T + 1, N] f32 or bf16
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
            rewards += (tl.load(rewards_ptr + at, mask, other=0.0).to(tl.float32),)
            value = tl.load(values_ptr + at, in_range & (first + s <= num_steps), other=0.0)
            values += (value.to(tl.float32),)
            terminated = tl.load(terminated_ptr + at, mask, other=0) != 0
            truncated = tl.load(truncated_ptr + at, mask, other=0) != 0
            ends += (terminated,)
            cuts += (terminated | truncated,)
        after = (first + STEPS) * num_envs + env
        in_rollout = in_range & (first + STEPS <= num_steps)
        next_value = tl.load(values_ptr + after, in_rollout, other=0.0).to(tl.float32)

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


@triton.jit
def _compose_rows(a1, b1, a2, b2):
    """The map of both: the first operand is later in time, applied first."""
    return a1 * a2, _apply(a2, b2, b1)


@triton.jit
def _nearest(has1, value1, has2, value2):
    """The value of the nearest later step that has one: the first operand is later in time."""
    return has1 | has2, tl.where(has2 != 0, value2, value1)


@triton.jit
def gae_rows_kernel(
    rewards_ptr,  # [N, T] f32 or bf16
    values_ptr,  # [N, T + 1] f32 or bf16
    terminated_ptr,  # [N, T] bool
    truncated_ptr,  # [N, T] bool
    lengths_ptr,  # [N] i64 or i32, or None for all T
    valid_ptr,  # [N, T] bool, or None for all
    lambdas_ptr,  # [N] f32, or None
    advantages_ptr,  # [N, T] f32, written
    returns_ptr,  # [N, T] f32, written
    num_steps,
    rewards_stride,  # elements from one row to the next, as the next five
    values_stride,
    terminated_stride,
    truncated_stride,
    valid_stride,
    written_stride,
    gamma,
    decay,  # gamma * lambda, without lambdas
    BLOCK_T: tl.constexpr,
):
    # a Python float reaches the kernel as f64 under torch.compile, as f32 in eager mode
    gamma = tl.cast(gamma, tl.float32)
    decay = tl.cast(decay, tl.float32)
    # int64: an element offset past 2**31 wraps silently
    row = tl.program_id(0).to(tl.int64)
    rewards_ptr += row * rewards_stride
    values_ptr += row * values_stride
    terminated_ptr += row * terminated_stride
    truncated_ptr += row * truncated_stride
    advantages_ptr += row * written_stride
    returns_ptr += row * written_stride
    if valid_ptr is not None:
        valid_ptr += row * valid_stride
    if lambdas_ptr is not None:
        decay = gamma * tl.load(lambdas_ptr + row)
    length = num_steps
    if lengths_ptr is not None:
        length = tl.minimum(tl.load(lengths_ptr + row), num_steps)
    rounded = tl.cdiv(length, 16) * 16
    lane = tl.arange(0, BLOCK_T).to(tl.int64)
    carry = 0.0
    carried_value = 0.0  # with holes: of the nearest valid step behind the tile's end
    num_tiles = tl.cdiv(num_steps, BLOCK_T)
    for tile in range(num_tiles):
        t = (num_tiles - 1 - tile).to(tl.int64) * BLOCK_T + lane
        live = t < length
        # A mask that changes at multiples of 16 only allows loads of 128 bits.
        loaded = (t < rounded) & (t < num_steps)
        reward = tl.load(rewards_ptr + t, loaded, other=0.0).to(tl.float32)
        value = tl.load(values_ptr + t, loaded, other=0.0).to(tl.float32)
        next_value = tl.load(values_ptr + 1 + t, loaded, other=0.0).to(tl.float32)
        terminated = tl.load(terminated_ptr + t, loaded, other=0) != 0
        truncated = tl.load(truncated_ptr + t, loaded, other=0) != 0
        if valid_ptr is not None:
            live = live & (tl.load(valid_ptr + t, loaded, other=0) != 0)
            inside = loaded & (t + 1 < length)
            follows = tl.load(valid_ptr + t + 1, inside, other=0) != 0
            follows = (follows & inside) | (t + 1 == length)
            own = tl.where(follows, next_value, 0.0)
            has, nearest = tl.associative_scan(
                (follows.to(tl.int32), own), 0, _nearest, reverse=True
            )
            next_value = tl.where(has != 0, nearest, carried_value)
            carried_value = tl.sum(tl.where(lane == 0, next_value, 0.0), 0)
        # Behind the end of the row the delta is 0, and so is the carry.
        value = tl.where(live, value, 0.0)
        delta = reward - value + gamma * tl.where(terminated, 0.0, next_value)
        delta = tl.where(live, delta, 0.0)
        step_decay = tl.where(terminated | truncated, 0.0, decay)
        if valid_ptr is not None:
            step_decay = tl.where(live, step_decay, 1.0)  # a hole passes everything through
        a, b = tl.associative_scan((step_decay, delta), 0, _compose_rows, reverse=True)
        advantage = _apply(a, b, carry)
        carry = tl.sum(tl.where(lane == 0, advantage, 0.0), 0)
        written = t < num_steps
        if valid_ptr is not None:
            advantage = tl.where(live, advantage, 0.0)
        tl.store(advantages_ptr + t, advantage, written)
        tl.store(returns_ptr + t, advantage + value, written)


def tiling(num_steps: int, num_envs: int) -> dict[str, int]:
    """Constants of the kernel, and its warps, for this shape.

    Not measured on a GPU yet. By a model of latencies and bandwidth: from some 32k environments on,
    one thread each fills the machine; below, chunks of time add the threads that are missing.
    """
    if num_envs >= 32768:
        return {"STEPS": 8, "CHUNKS": 1, "BLOCK_N": 128, "num_warps": 4}
    if num_steps > 128 and num_envs <= 64:
        return {"STEPS": 8, "CHUNKS": 64, "BLOCK_N": 4, "num_warps": 8}
    return {"STEPS": 8, "CHUNKS": 16, "BLOCK_N": 8, "num_warps": 4}


def row_tiling(num_steps: int) -> dict[str, int]:
    """Constants of the row kernel, and its warps: 8 steps a thread, as far as the row goes."""
    block_t = max(256, min(1024, triton.next_power_of_2(num_steps)))
    return {"BLOCK_T": block_t, "num_warps": block_t // 256}


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
    """As `spec.gae`, for float32 and bfloat16 on CUDA."""
    first, second = rewards.shape
    if out is None:
        shape, device = rewards.shape, rewards.device
        out = (
            torch.empty(shape, dtype=torch.float32, device=device),
            torch.empty(shape, dtype=torch.float32, device=device),
        )
    advantages, returns = out
    inputs = (rewards, values, terminated, truncated)
    with torch.cuda.device_of(rewards):
        if layout == "TN":
            constants = tiling(first, second)
            gae_kernel[(triton.cdiv(second, constants["BLOCK_N"]),)](
                *(tensor.contiguous() for tensor in inputs),
                advantages,
                returns,
                first,
                second,
                float(gamma),
                float(gamma) * float(gae_lambda),
                **constants,
                **OPTIONS,
            )
            return advantages, returns
        inputs = tuple(dense_rows(tensor) for tensor in inputs)
        holes = None if valid is None else dense_rows(valid)
        gae_rows_kernel[(first,)](
            *inputs,
            None if lengths is None else lengths.contiguous(),
            holes,
            None if lambdas is None else lambdas.float().contiguous(),
            advantages,
            returns,
            second,
            *(tensor.stride(0) for tensor in inputs),
            0 if holes is None else holes.stride(0),
            second,
            float(gamma),
            float(gamma) * float(gae_lambda),
            **row_tiling(second),
            **OPTIONS,
        )
    return advantages, returns
