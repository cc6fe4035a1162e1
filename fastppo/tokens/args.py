"""What may be typed behind `fastppo tokens`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from fastppo.run.args import RunArgs
from fastppo.token_config import TokenOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenArgs(TokenOptions, RunArgs):
    """Train a small language model with PPO: on one token, on reversing words, on shunning an e."""

    groups: ClassVar[Mapping[str, tuple[str, ...]]] = {**TokenOptions.groups, "run": ("run_dir",)}
