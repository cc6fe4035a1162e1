"""Philox-4x32-10, a counter-based generator, in plain torch integer arithmetic.

Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011). Words are 32 bits wide and
held in int64 tensors: torch has no unsigned arithmetic, but the low 64 bits of a product do not
depend on the sign.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

MASK = 0xFFFFFFFF
ROUND_A, ROUND_B = 0xD2511F53, 0xCD9E8D57
WEYL_A, WEYL_B = 0x9E3779B9, 0xBB67AE85


class Counter(NamedTuple):
    """Which numbers the rows of a batch draw: each a function of (key, environment, step)."""

    key: int
    """64 bits; a negative one stands for itself plus 2**64."""
    step: Tensor | int
    """Counts the decisions of an environment: >= 0, a number or a 0-d int64 tensor."""
    first_env: int
    """Global id of row 0's environment; row i belongs to `first_env + i`."""
    env_ids: Tensor | None = None
    """Or the id of each row, [B] int64; only the low 32 bits of an id count."""


def philox4x32(
    c0: Tensor, c1: Tensor, c2: Tensor, c3: Tensor, key: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Four 32-bit random words per counter (c0, c1, c2, c3), in the counters' broadcast shape.

    Args:
        c0, c1, c2, c3: int64 tensors with values below 2**32, broadcast against each other.
        key: 64 bits.
    """
    k0, k1 = key & MASK, (key >> 32) & MASK
    for _ in range(10):
        a, b = c0 * ROUND_A, c2 * ROUND_B
        c0, c1, c2, c3 = (
            ((b >> 32) & MASK) ^ c1 ^ k0,
            b & MASK,
            ((a >> 32) & MASK) ^ c3 ^ k1,
            a & MASK,
        )
        k0, k1 = (k0 + WEYL_A) & MASK, (k1 + WEYL_B) & MASK
    return c0, c1, c2, c3


def to_uniform(words: Tensor) -> Tensor:
    """Float32 in the open interval (0, 1) from the top 23 bits of each word.

    With 24 bits the largest value rounds to 1, whose logarithm breaks Gumbel and normal noise.
    """
    return ((words >> 9).float() + 0.5) * 2.0**-23


def uniforms(env: Tensor, step: Tensor, width: int, key: int) -> Tensor:
    """Uniform numbers in (0, 1), [..., width] float32, for each of env and step, broadcast.

    Number i is word i mod 4 of the counter (environment, low and high word of the step, i div 4).

    Args:
        env: int64, values below 2**32.
        step: int64, values >= 0.
        key: 64 bits.
    """
    block = torch.arange(-(-width // 4), device=env.device)
    env, step = env[..., None], step[..., None]
    words = philox4x32(env, step & MASK, step >> 32, block, key)
    bits = torch.stack(torch.broadcast_tensors(*words), dim=-1)
    return to_uniform(bits.flatten(start_dim=-2)[..., :width])


def to_gumbel(u: Tensor) -> Tensor:
    """Standard Gumbel numbers: argmax(logits + noise) draws from the softmax."""
    return -torch.log(-torch.log(u))


def to_normal(u: Tensor, width: int) -> Tensor:
    """Standard normal numbers, [..., width], by Box and Muller's transform.

    Args:
        u: [..., 2 * ceil(width / 2)]; the first half gives radii, the second angles.
    """
    pairs = u.shape[-1] // 2
    radius = torch.sqrt(-2.0 * torch.log(u[..., :pairs]))
    angle = (2.0 * math.pi) * u[..., pairs:]
    return torch.cat([radius * torch.cos(angle), radius * torch.sin(angle)], -1)[..., :width]


def row_uniforms(counter: Counter, rows: int, width: int, device: torch.device) -> Tensor:
    """The numbers of each row of a batch, [rows, width] float32."""
    env = counter.env_ids
    if env is None:
        env = torch.arange(counter.first_env, counter.first_env + rows, device=device)
    step = counter.step
    if not isinstance(step, Tensor):
        # filled on the device: a copy from the host would wait for it
        step = torch.full((), step, dtype=torch.int64, device=device)
    return uniforms(env & MASK, step, width, counter.key)
