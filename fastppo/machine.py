"""What a number was measured on: machine and versions, for config.json and `fastppo doctor`."""

import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from fastppo import __version__, threads

PACKAGES = ("torch", "triton", "numba", "numpy", "envpool", "gymnasium", "wandb")


def versions() -> dict[str, str | None]:
    """Installed version of everything that can move a number; None where it is missing."""
    found: dict[str, str | None] = {"python": platform.python_version(), "fastppo": __version__}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def machine() -> dict[str, Any]:
    """Processor, cores, memory and GPUs."""
    return {
        "cpu": _cpu_model(),
        "cores": threads.available_cores(),
        "memory_gb": round(_memory_bytes() / 2**30, 1),
        "os": platform.platform(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }


def record() -> dict[str, Any]:
    """Machine, versions and command of this process."""
    return {"machine": machine(), "versions": versions(), "command": sys.argv}


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def _memory_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return 0
