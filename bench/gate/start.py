"""One short training run from its first import on: how long it takes, and what it takes along."""

import resource
import sys
import tempfile
import time
from typing import Any

TIMESTEPS = 1024
"""One update of the preset."""


def run(env_id: str, started: float) -> dict[str, Any]:
    """Trains for one update by the command line of the tree.

    Args:
        started: when the process was launched, on time.monotonic's clock.

    Returns:
        costs: seconds from the launch to the end, and the largest resident size in bytes.
        modules: what the run has imported, by the first two parts of the name.
    """
    from fastppo.cli import main

    with tempfile.TemporaryDirectory() as folder:
        words = ["train", env_id, "--total-timesteps", str(TIMESTEPS), "--run-dir", f"{folder}/run"]
        code = main(words)
    if code != 0:
        raise RuntimeError(f"fastppo {' '.join(words)}: exit code {code}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    costs = {f"start/{env_id}": time.monotonic() - started, f"memory/{env_id}": float(peak)}
    modules = sorted({".".join(name.split(".")[:2]) for name in sys.modules if name[:1] != "_"})
    return {"costs": costs, "modules": modules}
