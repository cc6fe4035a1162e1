"""What may be typed behind `fastppo gate` and `fastppo gate simulate`."""

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg

from fastppo.bench.publish import Outputs
from fastppo.bench.results.simulation import SimulationArgs


@dataclass(frozen=True, slots=True, kw_only=True)
class GateArgs(Outputs):
    """Whether HEAD is slower than BASE: pairs of fresh processes, a rule of known error rates."""

    base: Annotated[str, Positional, arg(metavar="BASE")]
    """Revision to compare with; HEAD is compared with the merge base of the two."""
    head: Annotated[
        str, Positional, arg(metavar="[HEAD]", help_behavior_hint="(default: HEAD)")
    ] = "HEAD"
    """Revision that is judged."""
    worktree: bool = False
    """Judge the files as they are, uncommitted ones too, in place of HEAD."""
    only: Annotated[str, arg(metavar="PATTERN", help_behavior_hint="(default: all)")] = "*"
    """Only benchmarks whose name matches, such as kernel/gae*."""
    rounds: Annotated[int, arg(metavar="N")] = 20
    """Pairs at most; a benchmark that is settled after 6 or 12 is not measured further."""
    tolerance: Annotated[
        float | None,
        arg(metavar="T", help_behavior_hint="(default: 0.05, of rates and the start 0.1)"),
    ] = None
    """A slow-down by up to this part is not a finding."""
    strict: bool = False
    """Exit with 5 where something stays inconclusive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulateArgs(SimulationArgs):
    """How often the gate is wrong, by its own rule on simulated machines."""

    rounds: Annotated[int, arg(metavar="N")] = 20
    """Pairs of a run."""
    tolerance: Annotated[float, arg(metavar="T")] = 0.05
    """Of the gate."""
