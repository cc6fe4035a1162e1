"""Kernel rooflines and the grid of EnvPool settings."""

from collections.abc import Iterable, Iterator
from statistics import median
from typing import Any

from matplotlib.figure import Figure

from fastppo.bench.report.charts import (
    FAINT,
    INK,
    Chart,
    Palette,
    legend,
    log_axis,
    panel,
    slug,
    style,
)
from fastppo.bench.report.data import Entry, Group
from fastppo.bench.report.numbers import count, seconds, short
from fastppo.bench.report.tables_env import setting
from fastppo.bench.results.intervals import heading

COPY = "copy"
_GROWING = {"gae": "N", "adam": "P"}
_CLOCKS = {"wall": "", "cold": "GPU events, cold L2 cache", "graph": "CUDA graph replay"}
_ABSCISSAS = {
    "gae": "elements, steps T times environments N",
    "adam": "parameters",
    "vocabulary": "logits, rows B times choices A",
    "advantage_stats": "advantages, minibatches M times rows B",
}
MOST = 16
"""Settings of EnvPool in one chart; the table has all."""


def rooflines(group: Group, palette: Palette) -> Iterator[Chart]:
    """Time against size, one chart for every fixed shape and clock of an operation."""
    entries = [entry for entry in group.entries if entry.samples and entry.raw.get("size")]
    families: dict[tuple[tuple[tuple[str, str], ...], str], list[Entry]] = {}
    for entry in entries:
        families.setdefault(_family(entry), []).append(entry)
    for (fixed, clock), part in families.items():
        yield _roofline(group.title, fixed, clock, part, palette)


def _family(entry: Entry) -> tuple[tuple[tuple[str, str], ...], str]:
    """What stays the same along a line: every size but the one that grows, and the clock."""
    growing = _GROWING.get(str(entry.raw.get("operation")), "B")
    shape: dict[str, Any] = entry.raw.get("shape", {})
    return tuple((k, str(v)) for k, v in shape.items() if k != growing), entry.clock


def _roofline(
    operation: str,
    fixed: Iterable[tuple[str, str]],
    clock: str,
    entries: list[Entry],
    palette: Palette,
) -> Chart:
    title = " ".join([operation, *(f"{name}={value}" for name, value in fixed)])
    lines: dict[str, list[tuple[float, float]]] = {}
    for entry in sorted(entries, key=lambda entry: float(entry.raw["size"])):
        point = (float(entry.raw["size"]), 1e6 * median(entry.samples))
        lines.setdefault(entry.impl, []).append(point)
    summary = "; ".join(
        f"{impl} {', '.join(f'{seconds(y / 1e6)} at {count(x)}' for x, y in points)}"
        for impl, points in lines.items()
    )
    note = _CLOCKS.get(clock, clock)
    return Chart(
        slug("kernel", operation, *(f"{n}{v}" for n, v in fixed), clock if note else ""),
        f"{title} ({note})" if note else title,
        "Median time of a call against its size, both logarithmic; lower is better. Dashed: the "
        "time to copy as many bytes as the operation must move.",
        f"{title}: {summary}.",
        _draw_lines(lines, _ABSCISSAS.get(operation, "rows B"), palette),
    )


def _draw_lines(
    lines: dict[str, list[tuple[float, float]]], abscissa: str, palette: Palette
) -> Figure:
    with style():
        figure, axes = panel(3.5)
        for index, (impl, points) in enumerate(lines.items()):
            limit = impl == COPY
            (line,) = axes.plot(
                *zip(*points, strict=True),
                color=FAINT if limit else palette.colour(impl),
                marker="" if limit and len(points) > 1 else palette.marker(impl),
                linestyle=(0, (4, 2)) if limit else "-",
                label="limit: copy of the same bytes" if limit else impl,
            )
            line.set_gid(f"data-kernel-{index}")
        log_axis(axes.xaxis, [x for points in lines.values() for x, _ in points])
        log_axis(axes.yaxis, [y for points in lines.values() for _, y in points])
        axes.grid()
        axes.set(xlabel=abscissa, ylabel="microseconds per call")
        legend(figure, axes, 2)
    return figure


def environments(group: Group) -> Chart | None:
    """EnvPool's rate by setting, the best first."""
    ranked = [entry for entry in group.entries if entry.value is not None]
    ranked.sort(key=lambda entry: -entry.value.value if entry.value else 0.0)
    if not ranked:
        return None
    palette = Palette(())
    with style():
        shown = ranked[:MOST]
        figure, axes = panel(1.2 + 0.31 * len(shown))
        for row, entry in enumerate(shown):
            assert entry.value is not None
            (bar,) = axes.barh(row, entry.value.value, 0.7, color=palette.colour("fastppo"))
            bar.set_gid(f"data-setting-{row}")
            axes.annotate(
                count(entry.value.value), (max(entry.value.value, entry.value.high), row), (5, 0),
                textcoords="offset points", va="center", fontsize=9.5,
            )  # fmt: skip
            if entry.value.low == entry.value.low:
                axes.hlines(row, entry.value.low, entry.value.high, color=INK, linewidth=1.3)
        axes.set_yticks(range(len(shown)), [setting(entry.detail) for entry in shown])
        axes.invert_yaxis()
        axes.tick_params(axis="y", length=0)
        reach = [max(e.value.value, e.value.high) for e in shown if e.value]
        axes.set_xlim(0, 1.3 * max(*reach, 1e-9))
        axes.xaxis.set_major_formatter(short)
        axes.locator_params(axis="x", nbins=4)
        axes.grid(axis="x")
        axes.set_xlabel("environment steps per second, random actions")
    return Chart(
        slug(group.title, "grid"),
        f"EnvPool alone: {group.title.split('/', 1)[-1]}",
        f"Environments / batch size / threads; the best {len(shown)} of {len(ranked)} settings, "
        f"with {heading(e.value.label for e in shown if e.value)}. A batch smaller than the "
        "environments is EnvPool's asynchronous mode.",
        "; ".join(f"{setting(e.detail)}: {count(e.value.value)}" for e in shown if e.value),
        figure,
    )
