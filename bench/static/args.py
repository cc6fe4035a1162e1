"""What may be typed behind `fastppo static`."""

from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import UseAppendAction, arg

from fastppo.bench.publish import Outputs


@dataclass(frozen=True, slots=True, kw_only=True)
class Args(Outputs):
    """What the compilers make of every kernel, gated without a GPU or a driver."""

    check: bool = False
    """Compare with bench/static/expected."""
    update: bool = False
    """Write that; commit it."""
    base: Annotated[str | None, arg(metavar="REF", help_behavior_hint="")] = None
    """Compare with another revision of this clone."""
    compiler: Annotated[
        Literal["triton", "numba"] | None,
        arg(metavar="{triton,numba}", help_behavior_hint="(default: both)"),
    ] = None
    """Only the kernels of this one."""
    arch: Annotated[
        UseAppendAction[tuple[Literal[80, 90, 100], ...]],
        arg(help_behavior_hint="(default: all; repeatable)"),
    ] = ()
    """Only this compute capability times ten."""
    kernel: Annotated[str, arg(metavar="TEXT", help_behavior_hint="(default: all)")] = ""
    """Only kernels whose name contains TEXT."""
    tolerance: Annotated[float, arg(metavar="PART")] = 0.05
    """Part by which a kernel's instructions may grow."""
    jobs: Annotated[int | None, arg(metavar="N", help_behavior_hint="(default: the cores)")] = None
    """Processes."""
