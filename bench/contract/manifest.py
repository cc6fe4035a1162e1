"""The work manifest: what one update computes, so that only equal work is compared."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from fastppo.bench import contract
from fastppo.config import Config
from fastppo.policy import is_image
from fastppo.tasks import EnvSpec

# Two counts of the same layers agree exactly; libraries may add a scalar here or there.
COMPARED = tuple(name for name in contract.WORK_FIELDS if name != "network")
UNITS = {"forward_flops": "FLOPs per observation", "obs_bytes": "bytes per observation"}


def of_trainer(
    config: Config, spec: EnvSpec, network: nn.Module, forward: Callable[[torch.Tensor], Any]
) -> dict[str, Any]:
    """The manifest of a trainer that does what `config` says, on the network it made.

    Args:
        forward: actor and critic on observations [1, ...] in the environment's dtype.
    """
    dtype = torch.uint8 if spec.obs_dtype == "uint8" else torch.float32
    device = next(network.parameters()).device
    image = is_image(spec.obs_shape)
    example = torch.zeros(1, *spec.obs_shape, dtype=dtype, device=device)
    return {
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "forward_flops": contract.forward_flops(forward, example),
        "rows_per_update": config.batch_size,
        "minibatch_rows": config.minibatch_size,
        "epochs": config.update_epochs,
        "gradient_steps_per_update": config.update_epochs * config.num_minibatches,
        "precision": contract.precision(image=image, on_gpu=device.type == "cuda"),
        "obs_bytes": example.numel() * example.element_size(),
        "trains_on_reset_rows": False,
        "wrappers": contract.wrappers(config.to_dict(), atari=spec.family == "atari"),
        "network": contract.network(config.to_dict(), image=image),
    }


def flops_per_update(work: dict[str, Any]) -> int:
    """Of the layers' products in one update.

    Acting passes forward once over every row, each epoch once forward and twice backward (with
    respect to inputs and weights).
    """
    passes = 1 + 3 * int(work["epochs"])
    return int(work["rows_per_update"]) * int(work["forward_flops"]) * passes


def gradient_steps_per_env_step(work: dict[str, Any]) -> float:
    """Optimizer steps per row of the rollout."""
    return float(work["gradient_steps_per_update"]) / float(work["rows_per_update"])


def differences(work: dict[str, Any], base: dict[str, Any]) -> list[str]:
    """Every field in which two implementations do different work, spelled out; [] for the same."""
    differences = []
    for name in COMPARED:
        ours, theirs = work[name], base[name]
        if ours == theirs:
            continue
        if name == "wrappers":
            without = ", ".join(sorted(set(theirs) - set(ours)))
            added = ", ".join(sorted(set(ours) - set(theirs)))
            parts = [f"without {without}" if without else "", f"with {added}" if added else ""]
            differences.append(" and ".join(filter(None, parts)))
        elif name == "trains_on_reset_rows":
            differences.append("trains on reset rows" if ours else "does not train on reset rows")
        elif isinstance(ours, int):
            differences.append(f"{UNITS.get(name, name.replace('_', ' '))} {ours:,} for {theirs:,}")
        else:
            differences.append(f"{name} {ours} for {theirs}")
    return differences
