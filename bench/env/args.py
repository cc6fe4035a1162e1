"""What may be typed behind `fastppo bench env`."""

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg

from fastppo.bench.publish import Outputs

WIDE = 64
"""Environments of the grid's second part; the first has the preset's number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Args(Outputs):
    """EnvPool alone, over environments, batch sizes and threads."""

    env_ids: Annotated[
        tuple[str, ...], Positional, arg(metavar="ENV_ID ...", help_behavior_hint="")
    ] = ()
    """EnvPool tasks."""
    num_envs: Annotated[
        str | None,
        arg(metavar="N,..", help_behavior_hint=f"(default: the preset's, and {WIDE})"),
    ] = None
    """Environments."""
    batch_sizes: Annotated[
        str | None, arg(metavar="B,..", help_behavior_hint="(default: N, N/2, N/4)")
    ] = None
    """Rows per answer; N is sync."""
    threads: Annotated[
        str | None,
        arg(metavar="T,..", help_behavior_hint="(default: powers of two up to the cores)"),
    ] = None
    """EnvPool's threads."""
    seconds: Annotated[float, arg(metavar="S")] = 30.0
    """Of measuring per task, all settings together."""
    rounds: Annotated[int, arg(metavar="R")] = 9
    """Turns of each setting; fewer than six give a range only."""
