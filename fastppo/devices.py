"""Which device a run trains on."""

import torch

from fastppo.config import Config, RunConfig
from fastppo.errors import UserError
from fastppo.kernels import api


def is_gpu(name: str) -> bool:
    """Whether a run whose config has this device trains on a GPU."""
    return name.startswith("cuda") or (name == "auto" and torch.cuda.is_available())


def resolve_device(name: str) -> torch.device:
    """The device named, or the GPU (else the CPU) for `auto`.

    Raises:
        UserError: no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(
            f"device: {name!r} is not a device; use auto, cpu, cuda or cuda:N"
        ) from None
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"device: {name!r} is not served; use auto, cpu, cuda or cuda:N")
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if count == 0:
            raise UserError(f"device: {name!r} asked for, and torch sees no GPU; use --device cpu")
        if (device.index or 0) >= count:
            raise UserError(f"device: {name!r} asked for, and torch sees {count} GPU(s)")
    return device


def set_precision(config: Config, device: torch.device, *, images: bool) -> str:
    """Sets how products and convolutions round on this device; its name, float32 or tf32.

    Args:
        images: whether the policy reads images by a CNN.

    Raises:
        UserError: tf32 on a CPU, which has none.
    """
    if device.type != "cuda":
        if config.precision == "tf32":
            raise UserError("precision: 'tf32' is a GPU's; use auto, or --device cuda")
        return "float32"
    tf32 = config.precision == "tf32" or (config.precision == "auto" and images)
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32
    return "tf32" if tf32 else "float32"


def check_backend(config: RunConfig, device: torch.device) -> str:
    """The kernel backend that will serve the run.

    Raises:
        UserError: the backend asked for cannot serve this device.
    """
    try:
        return api.resolve_backend(config.backend, device, torch.float32)
    except api.BackendUnavailable as error:
        raise UserError(f"backend: {config.backend!r} cannot serve: {error}") from None
