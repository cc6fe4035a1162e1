"""What may be typed behind `fastppo gpu-check`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from fastppo.bench.publish import Outputs
from fastppo.paths import Role


@dataclass(frozen=True, slots=True, kw_only=True)
class Args(Outputs):
    """All that only a GPU can tell: every kernel against float64, kernel times, training rates."""

    out: Annotated[Path, Role.FOLDER, arg(metavar="DIR")]
    """Gets gpu-check.json, with every sample, and gpu-check.md, the same as tables."""
    device: str = "cuda"
    """cpu rehearses the command without a GPU."""
    quick: bool = False
    """The ends of the grid, fewer rounds."""
    seconds: Annotated[float, arg(metavar="S")] = 450.0
    """For all of it."""
