"""A table of text, and what names its rows and columns."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fastppo.bench.report.data import Group
from fastppo.bench.results.intervals import heading


@dataclass(frozen=True, slots=True)
class Table:
    """Cells of text. A row of one cell names the rows below it."""

    heading: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, ...]]
    marked: frozenset[tuple[int, int]] = frozenset()
    """Row and column, both from 0, of cells that differ from the base's."""
    is_wide: bool = False
    """Whether nothing may be folded: a narrower terminal wraps whole lines."""


def label_of(groups: Iterable[Group]) -> str:
    """What the ends of these results' intervals are."""
    return heading(e.value.label for group in groups for e in group.entries if e.value)


def title(group: Group) -> str:
    """train/Pong-v5/8x128 as Pong-v5 8x128."""
    return " ".join(group.title.split("/")[1:]) or group.title
