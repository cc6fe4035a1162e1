"""What may be typed behind `fastppo profile`."""

from dataclasses import dataclass

from fastppo.bench.publish import Outputs
from fastppo.config import Options
from fastppo.paths import Folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Args(Options, Outputs):
    """Profile a few updates of `fastppo train` with the same settings, and say what bounds them."""

    updates: int = 3
    """Updates under the profiler, and as many without it."""
    out: Folder = None
    """Of the trace and, without --json, profile.json; default: runs/profile-<env>-<stamp>."""
