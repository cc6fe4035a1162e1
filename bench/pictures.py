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


def _family(timing: Timing) -> str:
    """What stays the same along a line: every size but the one that grows."""
    growing = "N" if timing.case.operation == "gae" else "B"
    fixed = [f"{name}={value}" for name, value in timing.case.shape if name != growing]
    return " ".join([*fixed, timing.clock])


def draw(timings: list[Timing], folder: Path) -> Iterator[Path]:
    """Writes <operation>.png and .svg into `folder`, one panel per fixed shape and clock."""
    folder.mkdir(parents=True, exist_ok=True)
    ordered = sorted(timings, key=lambda timing: timing.case.operation)
    for operation, group in groupby(ordered, key=lambda timing: timing.case.operation):
        members = sorted(group, key=lambda timing: (_family(timing), timing.case.size))
        families = [(name, list(part)) for name, part in groupby(members, key=_family)]
        figure = Figure(figsize=(4.2 * len(families), 3.6), layout="constrained")
        axes = figure.subplots(1, len(families), squeeze=False, sharey=True)[0]
        for axis, (name, part) in zip(axes, families, strict=True):
            for way, style in _STYLES.items():
                points = [(t.case.size, t.microseconds(way)) for t in part if way in t.samples]
                if points:
                    axis.plot(*zip(*points, strict=True), label=_LABELS.get(way, way), **style)
            axis.set(title=name, xscale="log", yscale="log", xlabel="size")
            axis.grid(visible=True, which="both", alpha=0.25)
        axes[0].set_ylabel("microseconds per call")
        axes[0].legend(fontsize="small")
        figure.suptitle(operation)
        for suffix in ("png", "svg"):
            path = folder / f"{operation}.{suffix}"
            figure.savefig(path, dpi=150)
            yield path
