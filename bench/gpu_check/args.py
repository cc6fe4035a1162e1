"""What may be typed behind `fastppo gpu-check`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from fastppo.bench.publish import Outputs
from fastppo.paths import Role


@dataclass(frozen=True, slots=True, kw_only=True)
class Args(Outputs):
    """All that only a GPU can tell: training rates, every kernel against float64, kernel times."""

    out: Annotated[Path, Role.FOLDER, arg(metavar="DIR")]
    """Gets gpu-check.json, with every sample, gpu-check.md, the same as tables, and stages/."""
    device: str = "cuda"
    """cpu rehearses the command without a GPU."""
    quick: bool = False
    """The ends of the grid, fewer rounds."""
    compile: bool = True
    """Whether torch.compile's kernels are timed too; compiling them takes most of that stage."""
    seconds: Annotated[float, arg(metavar="S")] = 450.0
    """For all of it."""
    only: Annotated[tuple[str, ...], arg(metavar="PATTERN...")] = ()
    """Stages to run: train, check, kernels, tilings, tests, or patterns of their full names."""
    sha: Annotated[str | None, arg(metavar="SHA")] = None
    """The revision that is checked, where this is a copy without git."""
