"""A picture per operation: time against size, with the machine's limit drawn in."""

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from matplotlib.figure import Figure

from fastppo.bench.kernels import COMPILED, COPY, OURS, TEXTBOOK, Timing

_STYLES = {
    OURS: {"color": "#0b6e4f", "marker": "o", "linewidth": 2.0},
    TEXTBOOK: {"color": "#c1121f", "marker": "s", "linewidth": 1.2},
    COMPILED: {"color": "#1d3557", "marker": "^", "linewidth": 1.2},
    COPY: {"color": "#6c757d", "linestyle": "--", "linewidth": 1.2},
}
_LABELS = {COPY: "limit: copy of the same bytes"}


_GROWING = {"gae": "N", "adam": "P"}
_CLOCKS = {"wall": "", "cold": "cold L2", "graph": "graph replay"}


def _family(timing: Timing) -> tuple[tuple[tuple[str, int | str], ...], str]:
    """What stays the same along a line: every size but the one that grows, and the clock."""
    growing = _GROWING.get(timing.case.operation, "B")
    fixed = tuple(item for item in timing.case.shape if item[0] != growing)
    return fixed, timing.clock


def _title(family: tuple[tuple[tuple[str, int | str], ...], str]) -> str:
    fixed, clock = family
    return " ".join([*(f"{name}={value}" for name, value in fixed), _CLOCKS[clock]])


def _abscissa(operation: str) -> str:
    return {
        "gae": "T x N",
        "adam": "parameters",
        "vocabulary": "B x A",
        "advantage_stats": "M x B",
    }.get(operation, "rows B")


def draw(timings: list[Timing], folder: Path) -> Iterator[Path]:
    """Writes <operation>.png and .svg into `folder`, one panel per fixed shape and clock."""
    folder.mkdir(parents=True, exist_ok=True)
    ordered = sorted(timings, key=lambda timing: timing.case.operation)
    for operation, group in groupby(ordered, key=lambda timing: timing.case.operation):
        members = sorted(group, key=lambda timing: (_family(timing), timing.case.size))
        families = [(family, list(part)) for family, part in groupby(members, key=_family)]
        figure = Figure(figsize=(max(5.0, 4.0 * len(families)), 4.0), layout="constrained")
        axes = figure.subplots(1, len(families), squeeze=False, sharey=True)[0]
        for axis, (family, part) in zip(axes, families, strict=True):
            for way, style in _STYLES.items():
                points = [(t.case.size, t.microseconds(way)) for t in part if way in t.samples]
                if points:
                    axis.plot(*zip(*points, strict=True), label=_LABELS.get(way, way), **style)
            axis.set(title=_title(family), xscale="log", yscale="log", xlabel=_abscissa(operation))
            axis.grid(visible=True, which="both", alpha=0.25)
        axes[0].set_ylabel("microseconds per call")
        handles = {
            label: handle
            for axis in axes
            for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
        }
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4)
        figure.suptitle(operation)
        for suffix in ("png", "svg"):
            path = folder / f"{operation}.{suffix}"
            figure.savefig(path, dpi=150)
            yield path
