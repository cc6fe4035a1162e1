"""Randomness by key, not by stream: every draw is a pure function of what it is for.

Environments are seeded by (seed, global environment id), acting noise by (seed, global
environment id, step), shuffles by (seed, update, epoch). So one process with 8 environments and
two with 4 see the same trajectories, and a checkpoint has no generator state to save.
"""

import hashlib
import math

import torch
from torch import Tensor

from fastppo.kernels import philox


def _hash(*key: int | str) -> int:
    """63 bits of blake2b over the key."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def env_seeds(
    seed: int, env_ids: range, *, purpose: str = "train", start_update: int = 0
) -> list[int]:
    """One int32 seed per global environment id.

    EnvPool cannot restore an environment, so a resumed run keys by the update it starts from:
    the same seeds would replay the episodes that the run began with.
    """
    return [_hash(purpose, seed, start_update, env_id) >> 32 for env_id in env_ids]


def shuffle(seed: int, update: int, epoch: int, batch_size: int, device: torch.device) -> Tensor:
    """A permutation of the rows of one rollout, [T * N] int64."""
    generator = torch.Generator(device).manual_seed(_hash("shuffle", seed, update, epoch))
    return torch.randperm(batch_size, generator=generator, device=device)


def init_seed(seed: int) -> int:
    """Seed of the initial weights."""
    return _hash("weights", seed)


def uniforms(seed: int, env_ids: range, steps: range, width: int, device: torch.device) -> Tensor:
    """Acting noise in (0, 1), [T, N, width] float32: Philox-4x32-10 keyed by `seed`.

    The counter is (environment id, low and high word of the step, block of four).
    """
    blocks = -(-width // 4)
    key = _hash("act", seed)

    def axis(start: int, length: int, dim: int) -> Tensor:
        shape = [1, 1, 1]
        shape[dim] = length
        return torch.arange(start, start + length, device=device).view(shape)

    step = axis(steps.start, len(steps), 0)
    env = axis(env_ids.start, len(env_ids), 1)
    block = axis(0, blocks, 2)
    words = philox.philox4x32(env, step & philox.MASK, step >> 32, block, key)
    bits = torch.stack(torch.broadcast_tensors(*words), dim=-1)
    return philox.to_uniform(bits.flatten(start_dim=2)[..., :width])


def gumbels(seed: int, env_ids: range, steps: range, width: int, device: torch.device) -> Tensor:
    """Standard Gumbel noise, [T, N, width]: argmax(logits + noise) draws from the softmax."""
    return -torch.log(-torch.log(uniforms(seed, env_ids, steps, width, device)))


def normals(seed: int, env_ids: range, steps: range, width: int, device: torch.device) -> Tensor:
    """Standard normal noise, [T, N, width], by Box and Muller's transform."""
    pairs = -(-width // 2)
    u = uniforms(seed, env_ids, steps, 2 * pairs, device)
    radius = torch.sqrt(-2.0 * torch.log(u[..., :pairs]))
    angle = (2.0 * math.pi) * u[..., pairs:]
    return torch.cat([radius * torch.cos(angle), radius * torch.sin(angle)], -1)[..., :width]
