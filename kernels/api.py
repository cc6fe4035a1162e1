"""The public face of the kernels: each operation on the backend that fits its tensors.

    backend   serves                                    is
    triton    CUDA (the CPU when interpreted)           one or two launches, gradients included
    numba     the CPU                                   one pass, gradients included
    torch     every floating dtype, every device        the specification

Nothing here waits for a GPU: counts, scales and statistics stay on the device. Every operation is
also `torch.ops.fastppo.<name>`, which is what torch.compile sees of it.
"""

import torch

from .act import act_categorical, act_gaussian
from .adam import clip_adam_
from .advantage_stats import advantage_stats
from .backends import BackendUnavailable, available_backends, implementations, resolve_backend
from .frames import gather_frames
from .gae import gae
from .gather import gather_rows
from .losses import categorical_ppo_loss, gaussian_ppo_loss
from .moments import normalize, update_moments_
from .reference_loss import STATS, Stats

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
    "normalize",
    "resolve_backend",
    "update_moments_",
    "warmup",
]


def warmup(device: torch.device | str = "cpu", backend: str = "auto") -> str:
    """Loads the kernels that serve float32 on `device`, so that no timed region does; their name.

    The numba kernels carry explicit signatures, so importing them compiles them (seconds, once per
    machine: they are cached on disk) and nothing can compile them again. Triton compiles per shape
    family at the first call: warm it up by one untimed update.
    """
    name = resolve_backend(backend, device, torch.float32)
    implementations(name)
    return name
