"""One stage in a process of its own: `child STAGE FILE DEVICE SECONDS quick|full compile|eager`."""

import sys
from pathlib import Path
from time import monotonic

import torch

from fastppo.bench.gpu_check import stages


def main(arguments: list[str]) -> None:
    """Runs the stage; its findings are in the file at any time."""
    name, target, device, seconds, grid, rivals = arguments
    deadline = monotonic() + float(seconds)
    task = stages.Task(
        torch.device(device), grid == "quick", rivals == "compile", deadline, Path(target)
    )
    stages.run(name, task)


if __name__ == "__main__":
    main(sys.argv[1:])
