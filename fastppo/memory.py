"""How much memory a run needs, checked before any of it is taken."""

from collections.abc import Iterator

import torch

from fastppo import limits
from fastppo.config import Config
from fastppo.errors import MachineError
from fastppo.normalize import ObsNormalizer
from fastppo.policy import ActorCritic
from fastppo.rollout import Rollout
from fastppo.tasks import EnvSpec

META = torch.device("meta")
COPIES = 4
"""Of the network: weights, gradients, and Adam's two moments."""


def network_bytes(config: Config, spec: EnvSpec) -> int:
    """Bytes of the policy and its optimizer."""
    with META:  # shapes without memory
        policy = ActorCritic(spec, config)
    return COPIES * sum(weights.nbytes for weights in policy.parameters())


def rollout_bytes(config: Config, spec: EnvSpec) -> int:
    """Bytes of the rollout buffer; what an update takes besides is not among them."""
    with META:
        normalizer = ObsNormalizer(spec.obs_shape, config.obs_clip) if config.norm_obs else None
        rollout = Rollout(config, spec, META, normalizer)
    parts = [rollout, rollout.store]
    tensors = {id(one): one for part in parts for one in _tensors(part)}
    return sum(one.nbytes for one in tensors.values())


def check(config: Config, spec: EnvSpec, device: torch.device) -> None:
    """Refuses a run that cannot fit; called before anything is allocated.

    Raises:
        MachineError: names the settings, the need, and what is free.
    """
    if device.type == "cuda":
        free, where = torch.cuda.mem_get_info(device)[0], f" on {device}"
    else:
        free, where = limits.available_bytes(), ""
    needs = (
        ("hidden_sizes", "the network and its optimizer need", network_bytes),
        ("num_envs, num_steps", "the rollout needs", rollout_bytes),
    )
    for fields, what, count in needs:
        try:
            need = count(config, spec)
        except RuntimeError:  # the number of bytes does not fit into 64 bits
            need = 1 << 63
        if need > free:
            raise MachineError(
                f"{fields}: {what} {_shown(need)} and {_shown(free)} are free{where}; lower them, "
                "or free memory"
            )
        free -= need


def _tensors(owner: object) -> Iterator[torch.Tensor]:
    for value in vars(owner).values():
        if isinstance(value, torch.Tensor):
            yield value


def _shown(count: int) -> str:
    return f"{count:,} bytes ({count / 2**30:,.1f} GiB)"
