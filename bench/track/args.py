"""What may be typed behind `fastppo track push` and `fastppo track sync`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from fastppo.paths import Role

SYNC_SECONDS = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PushArgs:
    """Turn result files and run directories into W&B runs."""

    files: Annotated[
        tuple[Path, ...], Role.SOURCE, Positional, arg(metavar="FILE ...", help_behavior_hint="")
    ] = ()
    """Result files or run directories."""
    online: bool = False
    """Send at once; else they are recorded offline."""
    project: Annotated[str, arg(metavar="NAME")] = "fastppo"
    """W&B project of result files."""
    against: Annotated[Path | None, Role.SOURCE, arg(metavar="F", help_behavior_hint="")] = None
    """Result file they are compared to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncArgs:
    """Upload offline runs, the parts of each in order."""

    dirs: Annotated[
        tuple[Path, ...],
        Role.SOURCE,
        Positional,
        arg(metavar="[DIR ...]", help_behavior_hint="(default: runs and here)"),
    ] = ()
    """Folders to search."""
    dry_run: bool = False
    """Only say what would be done."""
    timeout: Annotated[float, arg(metavar="S")] = SYNC_SECONDS
    """Per part."""
