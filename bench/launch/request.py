"""What a measured program of ours is asked to do: the settings, and the threads it may use."""

from collections.abc import Mapping
from typing import Any

from fastppo.config import Config

Request = Mapping[str, Any]


def config_of(request: Request) -> Config:
    """The settings asked for, on the device and with the EnvPool threads asked for."""
    values = dict(request["config"]) | {
        "device": request["device"],
        "env_threads": request["env_threads"],
        "torch_threads": request["torch_threads"][0],
    }
    return Config.from_dict(values)
