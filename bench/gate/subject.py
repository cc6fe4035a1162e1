"""What is gated: fastppo's own benchmarks (`own`), or the command of any project (`project`)."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Protocol

from fastppo.bench.gate.revisions import GateSide

Better = Literal["higher", "lower"]
Costs = dict[str, dict[str, float]]
"""By side and benchmark; more is worse."""
Failures = dict[tuple[str, str], str]
"""By benchmark and side: why it could not be measured."""
PREFIX = "command/"
"""Of benchmarks that are metrics of a project's command."""
EXACT = ("operators/", "bytes/", "syncs/", "modules/")
"""Kinds that are counted once and not timed."""


class Subject(Protocol):
    """Benchmarks of two trees."""

    missing: dict[str, str]
    """Why a benchmark that should be there is not, known after `names`."""
    better: Better
    """Of what is measured; costs are lower where it is better, always."""

    def names(self) -> list[str]:
        """All that there is."""
        ...

    def differs(self, name: str) -> bool:
        """Whether the two sides run other code; what does not passes untimed."""
        ...

    def tolerance(self, name: str, cost: float) -> float:
        """A slow-down by up to this part of `cost` is none, unless the user says otherwise."""
        ...

    def warm(self, names: Sequence[str]) -> Failures:
        """Brings both sides to where all launches are alike."""
        ...

    def costs(
        self, order: Sequence[GateSide], names: Iterable[str], seed: int
    ) -> tuple[Costs, Failures]:
        """One pair: fresh processes, the sides in this order."""
        ...

    def counts(self, names: Sequence[str]) -> list[Mapping[str, Any]]:
        """What is exact, of the base and of the head."""
        ...
