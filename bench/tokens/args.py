"""What may be typed behind `fastppo bench tokens`."""

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg

from fastppo.bench.publish import Outputs


@dataclass(frozen=True, slots=True, kw_only=True)
class Args(Outputs):
    """What each library computes from the same tokens, and time and memory of their losses."""

    libraries: Annotated[
        tuple[str, ...],
        Positional,
        arg(metavar="[NAME ...]", help_behavior_hint="(default: all; not installed is said so)"),
    ] = ()
    """fastppo, chunked, compile, and the peers of `fastppo bench peers list`."""
    rounds: int = 15
    """Turns of each library and of plain torch; 0 times nothing."""
    threads: int = 1
    """Of torch."""
