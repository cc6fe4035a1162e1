"""What may be typed behind `fastppo bench kernels`."""

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg

from fastppo.bench.publish import Outputs
from fastppo.paths import Folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Args(Outputs):
    """Every kernel at real shapes, next to eager and compiled torch and a plain copy."""

    operations: Annotated[
        tuple[str, ...], Positional, arg(metavar="[OP ...]", help_behavior_hint="(default: all)")
    ] = ()
    """Only these: gae, gather_*."""
    quick: bool = False
    """The ends of the grid, fewer rounds."""
    rounds: Annotated[
        int | None, arg(metavar="R", help_behavior_hint="(default: 21, with --quick 9)")
    ] = None
    """Interleaved slices of each way."""
    threads: Annotated[int | None, arg(metavar="T", help_behavior_hint="(default: all cores)")] = (
        None
    )
    """Of torch."""
    device: str = "auto"
    """cpu, cuda or auto."""
    pictures: Folder = None
    """Draw time against size here."""
