"""What a measurement ran on: processor, cores, load, versions."""

import os
import platform
from importlib.metadata import version
from typing import Any

from fastppo.threads import available_cores

PACKAGES = ("torch", "envpool", "numpy", "numba")


def cpu_model() -> str:
    """The processor's name as the kernel tells it, else its architecture."""
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                key, _, value = line.partition(":")
                if key.strip() == "model name":
                    return value.strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def describe_machine() -> dict[str, Any]:
    """Facts to print above a table and to store beside its samples.

    `cores` are those this process may use; `load` is the system's load average over 1, 5 and
    15 minutes, before the measurement adds to it.
    """
    return {
        "cpu": cpu_model(),
        "cores": available_cores(),
        "load": [round(value, 2) for value in os.getloadavg()],
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
        # it decides by itself whether two torch threads help or hurt on a busy machine
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "unset"),
    }
