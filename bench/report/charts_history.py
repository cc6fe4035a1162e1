"""A series of nights: every value, the level between changes, and where they are."""

from itertools import pairwise

from fastppo.bench.report.charts import FAINT, Chart, Palette, panel, slug, style
from fastppo.bench.report.data import Group


def series(group: Group, palette: Palette) -> Chart | None:
    """Values in the order of their results; steps are the medians between changes."""
    (entry,) = group.entries
    if len(entry.samples) < 2:
        return None
    changes = entry.detail["changes"]
    edges = [0, *(int(one["index"]) for one in changes), len(entry.samples)]
    levels = [changes[0]["before"], *(one["after"] for one in changes)] if changes else []
    name = entry.id.removeprefix("history/")
    with style():
        figure, axes = panel(2.4)
        colour = palette.colour(entry.impl)
        (line,) = axes.plot(range(len(entry.samples)), entry.samples, "o", color=colour, ms=3.5)
        line.set_gid("data-values")
        for number, (start, stop) in enumerate(pairwise(edges)):
            if levels:
                (level,) = axes.plot([start, stop - 1], [levels[number]] * 2, color=colour)
                level.set_gid(f"data-level-{number}")
            if number > 0:
                axes.axvline(start - 0.5, color=FAINT, linestyle=(0, (4, 2)), linewidth=1.3)
        axes.set_ylim(bottom=0)
        axes.grid()
        axes.set(xlabel="result, oldest first", ylabel=entry.unit)
    said = f"{len(changes)} changes" if len(changes) != 1 else "1 change"
    return Chart(
        slug(group.title, "history"),
        name,
        "Points: results. Lines: medians between changes. Dashed: where it changed.",
        f"{name}: {len(entry.samples)} results, {said}.",
        figure,
        name,
    )
