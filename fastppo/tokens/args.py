"""What may be typed behind `fastppo tokens`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from fastppo.paths import Folder, Role
from fastppo.token_config import TokenOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenArgs(TokenOptions):
    """Train a small language model with PPO: on one token, on reversing words, on shunning an e."""

    groups: ClassVar[Mapping[str, tuple[str, ...]]] = {**TokenOptions.groups, "run": ("run_dir",)}

    run_dir: Folder = None
    """Folder of the run; default: runs/tokens_<task>-<seed>-<stamp>."""
    resume: Annotated[Path | None, Role.SOURCE, tyro.conf.arg(metavar="RUN_DIR")] = None
    """Go on from the newest checkpoint of this run; takes no TASK and no settings."""
    config: Annotated[Path | None, Role.SOURCE, tyro.conf.arg(metavar="F")] = None
    """Settings from a TOML, YAML or JSON file, such as a run's config.json; flags go before it."""
    seeds: int = 1
    """Train so many seeds, --seed and the next ones, each in a folder and process of its own."""
    jobs: int = 1
    """Seeds that train side by side."""
    quiet: bool = False
    """Show no progress."""
    show_config: bool = False
    """Print every resolved setting as JSON and stop."""
