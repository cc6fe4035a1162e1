"""Randomness by key, not by stream: every draw is a pure function of what it is for.

Environments are seeded by (seed, global environment id), acting noise by (seed, global
environment id, step), shuffles by (seed, update, epoch). So one process with 8 environments and
two with 4 see the same trajectories, and a checkpoint has no generator state to save.
"""

import hashlib
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastppo.kernels import philox

Purpose = Literal["train", "eval"]
HALF_BITS = 15
HALF_MASK = (1 << HALF_BITS) - 1
FEISTEL_ROUNDS = 8


def _hash(*key: int | str) -> int:
    """63 bits of blake2b over the key."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def env_seeds(
    seed: int, env_ids: range, *, purpose: Purpose = "train", start_update: int = 0
) -> list[int]:
    """One int32 seed per global environment id, below 2^30 of them.

    Distinct for any two environments, because a permutation of the ids under a key makes them; and
    never one that trains and one that evaluates, because the lowest bit says which it is for.

    EnvPool cannot restore an environment, so a resumed run keys by the update it starts from:
    the same seeds would replay the episodes that the run began with.
    """
    ids = np.arange(env_ids.start, env_ids.stop, env_ids.step)
    assert ((ids >= 0) & (ids < 1 << 2 * HALF_BITS)).all(), env_ids
    keys = [_hash(purpose, seed, start_update, turn) for turn in range(FEISTEL_ROUNDS)]
    seeds: list[int] = (2 * _permute(ids, keys) + (purpose == "eval")).tolist()
    return seeds


def _permute(ids: NDArray[np.int64], keys: list[int]) -> NDArray[np.int64]:
    """A permutation of [0, 2^30) by a Feistel network (Luby and Rackoff, 1988).

    A round swaps the halves and adds, modulo 2, a function of one to the other: whatever the
    function, the next round undoes it. Here it is SplitMix64's finalizer (Steele et al., 2014).
    """
    left, right = ids >> HALF_BITS, ids & HALF_MASK
    for key in keys:
        x = right.astype(np.uint64) ^ np.uint64(key)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed = (x >> np.uint64(64 - HALF_BITS)).astype(np.int64)
        left, right = right, left ^ mixed
    return left << HALF_BITS | right


def shuffle(seed: int, update: int, epoch: int, batch_size: int, device: torch.device) -> Tensor:
    """A permutation of the rows of one rollout, [T * N] int64."""
    generator = torch.Generator(device).manual_seed(_hash("shuffle", seed, update, epoch))
    return torch.randperm(batch_size, generator=generator, device=device)


def init_seed(seed: int) -> int:
    """Seed of the initial weights."""
    return _hash("weights", seed)


def act_key(seed: int) -> int:
    """Key of the acting noise, for `kernels.api.act_categorical` and `act_gaussian`."""
    return _hash("act", seed)


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
