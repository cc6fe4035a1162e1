"""What may be typed behind `fastppo bench train`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from tyro.conf import Positional, UseAppendAction, arg

from fastppo.bench.publish import Outputs
from fastppo.paths import Role


@dataclass(frozen=True, slots=True, kw_only=True)
class Args(Outputs):
    """Env steps per second of fastppo and other libraries, side by side."""

    renamed: ClassVar[Mapping[str, str]] = {"--pairs": "--rounds", "--preset": "--recipe"}

    env_ids: Annotated[
        tuple[str, ...],
        Positional,
        arg(metavar="[ENV_ID ...]", help_behavior_hint="(default: the standard set)"),
    ] = ()
    """EnvPool tasks."""
    impl: Annotated[
        UseAppendAction[tuple[str, ...]],
        arg(metavar="LIST", help_behavior_hint="(default: fastppo,reference,peers)"),
    ] = ()
    """fastppo, reference, a peer, peers (all of them), name=module:function, or name='program'."""
    base: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="(default: reference)")] = (
        None
    )
    """Whom ratios compare with."""
    recipe: Annotated[str | None, arg(metavar="LIST", help_behavior_hint="(default: paper)")] = None
    """Settings of every implementation: paper, wide, or NxT such as 8x128."""
    seconds: Annotated[float | None, arg(metavar="S", help_behavior_hint="(default: 1)")] = None
    """Least length of a slice."""
    rounds: Annotated[int | None, arg(metavar="N", help_behavior_hint="(default: 8)")] = None
    """Rounds of one slice each."""
    launches: Annotated[int | None, arg(metavar="L", help_behavior_hint="(default: 4)")] = None
    """Fresh processes that the rounds are spread over."""
    seed: int = 1
    """Of every implementation."""
    device: str = "auto"
    """cpu, cuda, or auto: a GPU where there is one."""
    cores: Annotated[str | None, arg(metavar="LIST", help_behavior_hint="(default: all)")] = None
    """Pin everything to these, such as 0,1."""
    quick: bool = False
    """Three environments, short slices, no tuning: for CI."""
    allow_mismatch: bool = False
    """Measure different work, too, with the differences spelled out."""
    fail_below: Annotated[float | None, arg(metavar="RATIO", help_behavior_hint="")] = None
    """Exit with 1 where an implementation's ratio to the base is below this for certain."""
    parity: Annotated[
        tuple[Path, ...], Role.SOURCE, arg(metavar="F ...", help_behavior_hint="")
    ] = ()
    """More results of `bench learn`: rates whose learning passed are marked verified."""
