"""What may be typed behind `fastppo bench learn`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

from tyro.conf import Positional, UseAppendAction, arg

from fastppo.bench.publish import Outputs


@dataclass(frozen=True, slots=True, kw_only=True)
class Args(Outputs):
    """Return against env steps and time, over several seeds, and whether it is the base's."""

    renamed: ClassVar[Mapping[str, str]] = {"--preset": "--recipe"}

    env_ids: Annotated[
        tuple[str, ...], Positional, arg(metavar="ENV_ID ...", help_behavior_hint="")
    ] = ()
    """EnvPool tasks, such as CartPole-v1."""
    impl: Annotated[
        UseAppendAction[tuple[str, ...]],
        arg(metavar="LIST", help_behavior_hint="(default: fastppo,reference)"),
    ] = ()
    """fastppo, reference, a peer, peers (all of them), name=module:function, or name='program'."""
    base: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="(default: reference)")] = (
        None
    )
    """Whom the others are compared with."""
    seeds: Annotated[int, arg(metavar="N")] = 20
    """Runs of each, with seeds 1 to N."""
    total_timesteps: Annotated[
        int | None, arg(metavar="N", help_behavior_hint="(default: the preset's)")
    ] = None
    """Env steps of each run."""
    threshold: Annotated[
        float | None, arg(metavar="X", help_behavior_hint="(default: a table)")
    ] = None
    """Return to be reached."""
    recipe: Annotated[str | None, arg(metavar="LIST", help_behavior_hint="(default: paper)")] = None
    """Settings of every implementation: paper, wide, or NxT such as 8x128."""
    jobs: Annotated[int, arg(metavar="J")] = 1
    """Runs side by side; seconds suffer."""
