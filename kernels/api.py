"""The public face of the kernels: each operation on the backend that fits its tensors.

    backend   serves                                    is
    triton    CUDA (the CPU when interpreted)           one or two launches, gradients included
    numba     the CPU                                   one pass, gradients included
    torch     every floating dtype, every device        the specification

Nothing here waits for a GPU: counts, scales and statistics stay on the device. Every operation is
also `torch.ops.fastppo.<name>`, which is what torch.compile sees of it.
"""

from collections.abc import Iterable

import torch

from fastppo.kernels.act.op import act_categorical, act_gaussian
from fastppo.kernels.adam.op import clip_adam_
from fastppo.kernels.advantage_stats.op import advantage_stats
from fastppo.kernels.backends import (
    OPERATIONS,
    BackendUnavailable,
    available_backends,
    load,
    resolve_backend,
)
from fastppo.kernels.frames.op import gather_frames
from fastppo.kernels.gae.op import gae
from fastppo.kernels.gather.op import gather_rows
from fastppo.kernels.loss.computed import unit_gradient
from fastppo.kernels.loss.linear import linear_token_ppo_loss
from fastppo.kernels.loss.op import categorical_ppo_loss, gaussian_ppo_loss
from fastppo.kernels.loss.spec import STATS, Stats
from fastppo.kernels.moments.op import normalize, update_moments_
from fastppo.kernels.token_log_probs.op import token_log_probs
from fastppo.kernels.token_rewards import kl_estimate, shape_rewards, whiten

__all__ = [
    "STATS",
    "BackendUnavailable",
    "Stats",
    "act_categorical",
    "act_gaussian",
    "advantage_stats",
    "available_backends",
    "categorical_ppo_loss",
    "clip_adam_",
    "gae",
    "gather_frames",
    "gather_rows",
    "gaussian_ppo_loss",
    "kl_estimate",
    "linear_token_ppo_loss",
    "normalize",
    "resolve_backend",
    "shape_rewards",
    "token_log_probs",
    "unit_gradient",
    "update_moments_",
    "warmup",
    "whiten",
]


def warmup(
    device: torch.device | str = "cpu",
    backend: str = "auto",
    operations: Iterable[str] = OPERATIONS,
) -> str:
    """Loads the kernels that serve float32 on `device`, so that no timed region does; their name.

    The numba kernels carry explicit signatures, so importing them compiles them (seconds, once per
    machine: they are cached on disk) and nothing can compile them again. Triton compiles per shape
    family at the first call: warm it up by one untimed update.
    """
    name = resolve_backend(backend, device, torch.float32)
    load(name, operations)
    return name
