"""Randomness by key, not by stream: every draw is a pure function of what it is for.

Environments are seeded by (seed, global environment id), acting noise by (seed, global
environment id, step), shuffles by (seed, update, epoch). So one process with 8 environments and
two with 4 see the same trajectories, and a checkpoint has no generator state to save.
"""

import hashlib

import torch
from torch import Tensor

from fastppo.kernels.tools import philox


def hashed(*key: int | str) -> int:
    """63 bits of blake2b over the key."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def env_seeds(
    seed: int, env_ids: range, *, purpose: str = "train", start_update: int = 0
) -> list[int]:
    """One int32 seed per global environment id, no two of a run equal.

    A hash of 31 bits, drawn again where a lower id has the same. Every process walks up from id 0,
    so all agree.

    EnvPool cannot restore an environment, so a resumed run keys by the update it starts from:
    the same seeds would replay the episodes that the run began with.
    """
    seeds: dict[int, None] = {}  # in the order of their ids
    for env_id in range(env_ids.stop):
        key: tuple[int | str, ...] = (purpose, seed, start_update, env_id)
        while (drawn := hashed(*key) >> 32) in seeds:
            key = (*key, "again")
        seeds[drawn] = None
    return list(seeds)[env_ids.start :]


def shuffle(seed: int, update: int, epoch: int, batch_size: int, device: torch.device) -> Tensor:
    """A permutation of the rows of one rollout, [T * N] int64."""
    generator = torch.Generator(device).manual_seed(hashed("shuffle", seed, update, epoch))
    return torch.randperm(batch_size, generator=generator, device=device)


def init_seed(seed: int) -> int:
    """Seed of the initial weights."""
    return hashed("weights", seed)


def act_key(seed: int) -> int:
    """Key of the acting noise, for `kernels.api.act_categorical` and `act_gaussian`."""
    return hashed("act", seed)


def uniforms(seed: int, env_ids: range, steps: range, width: int, device: torch.device) -> Tensor:
    """The numbers in (0, 1) that acting draws, [T, N, width] float32, keyed by `seed`."""
    step = torch.arange(steps.start, steps.stop, device=device)[:, None]
    env = torch.arange(env_ids.start, env_ids.stop, device=device)
    return philox.uniforms(env, step, width, act_key(seed))


def gumbels(seed: int, env_ids: range, steps: range, width: int, device: torch.device) -> Tensor:
    """Standard Gumbel noise, [T, N, width]: argmax(logits + noise) draws from the softmax."""
    return philox.to_gumbel(uniforms(seed, env_ids, steps, width, device))


def normals(seed: int, env_ids: range, steps: range, width: int, device: torch.device) -> Tensor:
    """Standard normal noise, [T, N, width], by Box and Muller's transform."""
    u = uniforms(seed, env_ids, steps, 2 * -(-width // 2), device)
    return philox.to_normal(u, width)
