"""What may be typed behind `fastppo gate simulate`."""

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import arg

from fastppo.bench.results.simulation import SimulationArgs


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulateArgs(SimulationArgs):
    """How often the gate is wrong, by its own rule on simulated machines."""

    rounds: Annotated[int, arg(metavar="N")] = 20
    """Pairs of a run."""
    tolerance: Annotated[float, arg(metavar="T")] = 0.05
    """Of the gate."""
