"""Learning curves: every seed, and the interquartile mean of the seeds, against steps and time."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastppo.bench.report.charts import (
    FAINT,
    Chart,
    Palette,
    legend,
    log_axis,
    panel,
    slug,
    style,
)
from fastppo.bench.report.charts_train import shorten, title_of
from fastppo.bench.report.data import Entry, Group, ResultFile, spoken
from fastppo.bench.report.numbers import count, short
from fastppo.bench.report.table import label_of
from fastppo.bench.results import statistics
from fastppo.bench.results.survival import survival

GRID_POINTS = 80
FAR = 5.0
"""How many times as long one may take before the others are squeezed to the left."""
AXES = {
    "env_steps": ("environment steps", "steps"),
    "wall_s": ("seconds of wall time", "time"),
}


def curves(group: Group, palette: Palette, against: str) -> Chart | None:
    """Return against `env_steps` or `wall_s`; thin: seeds; thick: their interquartile mean."""
    label, what = AXES[against]
    drawn = [(entry, _points(entry, against)) for entry in group.entries]
    drawn = [(entry, seeds) for entry, seeds in drawn if seeds]
    if not drawn:
        return None
    with style():
        figure, axes = panel(3.4 + 0.2 * ((len(drawn) + 1) // 3))
        for index, (entry, seeds) in enumerate(drawn):
            colour = palette.colour(entry.impl)
            for number, (x, y) in enumerate(seeds):
                (line,) = axes.plot(x, y, color=colour, linewidth=0.7, alpha=0.45)
                line.set_gid(f"data-seed-{index}-{number}")
            x, mean, low, high = mean_curve(seeds)
            (thick,) = axes.plot(x, mean, color=colour, linewidth=2.4, label=shorten(entry.impl))
            thick.set_gid(f"data-mean-{index}")
            if len(seeds) > 2:
                axes.fill_between(x, low, high, color=colour, alpha=0.16, linewidth=0)
        threshold = group.entries[0].detail.get("threshold")
        if threshold is not None:
            text = f"threshold {count(threshold)}"
            axes.axhline(threshold, color=FAINT, linestyle=(0, (4, 2)), linewidth=1.3, label=text)
        begins = [max(float(x[0]) for x, _ in seeds) for _, seeds in drawn]
        ends = [max(float(x[-1]) for x, _ in seeds) for _, seeds in drawn]
        _abscissa(axes, begins, ends)
        axes.grid()
        axes.set(xlabel=label, ylabel="return of whole games")
        legend(figure, axes, 3)
    return Chart(
        slug(group.title, what),
        f"Return against {label}",
        "Thin: single seeds. Thick: their interquartile mean, as far as half of the seeds go; "
        f"band: bootstrap over seeds, {label_of([group])}.",
        f"{title_of(group)}, final return: {spoken([entry for entry, _ in drawn])}.",
        figure,
        title_of(group),
    )


def _abscissa(axes: Any, begins: Sequence[float], ends: Sequence[float]) -> None:
    """From 0; logarithmic where the longest takes far more than the shortest.

    Args:
        begins, ends: of each implementation.
    """
    if max(ends) > FAR * min(ends) and min(begins) > 0:
        log_axis(axes.xaxis, [min(begins), max(ends)])
        return
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(short)
    axes.locator_params(axis="x", nbins=6)


def _points(entry: Entry, against: str) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Abscissa and return of each seed that finished a game."""
    found = []
    for curve in entry.detail.get("curves", ()):
        pairs = zip(curve[against], curve["returns"], strict=False)
        kept = [(x, y) for x, y in pairs if y is not None]
        if kept:
            found.append((np.array([x for x, _ in kept]), np.array([y for _, y in kept])))
    return found


def reached(group: Group, palette: Palette) -> Chart | None:
    """Share of the seeds that have reached the threshold, against wall time."""
    entries = [entry for entry in group.entries if entry.detail["curves"]]
    threshold = entries[0].detail["threshold"] if entries else None
    if threshold is None:
        return None
    parts = []
    with style():
        figure, axes = panel(3.4 + 0.2 * ((len(entries) + 1) // 3))
        for index, entry in enumerate(entries):
            curves = entry.detail["curves"]
            when = [curve["seconds_to_threshold"] for curve in curves]
            last = [curve["total_s"] for curve in curves]
            times = [end if at is None else at for at, end in zip(when, last, strict=True)]
            left = survival(times, [at is not None for at in when])
            x, y = [*left.times, max(last)], 100 * (1 - np.array([*left.fractions, 0]))
            y[-1] = y[-2]
            colour, label = palette.colour(entry.impl), shorten(entry.impl)
            (line,) = axes.step(x, y, where="post", color=colour, linewidth=2.2, label=label)
            line.set_gid(f"data-reached-{index}")
            parts.append(
                f"{entry.impl} {sum(at is not None for at in when)} of {len(curves)} seeds"
            )
        axes.set(xlabel=AXES["wall_s"][0], ylabel="seeds that have reached it, %", ylim=(-3, 103))
        lasts = [max(curve["total_s"] for curve in e.detail["curves"]) for e in entries]
        begins = [min(curve["wall_s"][0] for curve in e.detail["curves"]) for e in entries]
        _abscissa(axes, begins, lasts)
        axes.grid()
        legend(figure, axes, 3)
    return Chart(
        slug(group.title, "reached"),
        f"Time to a return of {count(threshold)}",
        "Share of the seeds whose return has reached the threshold (Kaplan-Meier: a run that was "
        "cut off counts as not yet there for as long as it was watched).",
        f"{title_of(group)}, reached {count(threshold)}: {'; '.join(parts)}.",
        figure,
        title_of(group),
    )


def profile(run: ResultFile, palette: Palette) -> Chart | None:
    """Share of the runs of all tasks that end above a normalised score."""
    profile = run.comparison.get("profile") or {}
    curves = profile.get("curves") or ()
    if not curves:
        return None
    taus = profile["taus"]
    with style():
        figure, axes = panel(3.4 + 0.2 * ((len(curves) + 1) // 3))
        for index, curve in enumerate(curves):
            colour, label = palette.colour(curve["impl"]), shorten(curve["impl"])
            above, low, high = ([100 * x for x in curve[k]] for k in ("fractions", "low", "high"))
            (line,) = axes.plot(taus, above, color=colour, linewidth=2.2, label=label)
            line.set_gid(f"data-profile-{index}")
            axes.fill_between(taus, low, high, color=colour, alpha=0.16, linewidth=0)
        axes.grid()
        axes.set(xlabel="normalised final return", ylabel="runs that end above it, %")
        axes.set_ylim(-3, 103)
        legend(figure, axes, 3)
    return Chart(
        slug("learn", run.name, "profile"),
        "Performance profile",
        "Share of the runs, averaged over tasks; bands by bootstrap over runs "
        f"({label_of(run.groups)}). Scale: {profile['scale']}.",
        "Performance profile of " + ", ".join(str(curve["impl"]) for curve in curves) + ".",
        figure,
    )


def mean_curve(
    seeds: Sequence[tuple[NDArray[Any], NDArray[Any]]],
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Interquartile mean over seeds on a common grid, and its pointwise bootstrap interval.

    A seed that ended early keeps its last value, up to where half of the seeds have ended.

    Args:
        seeds: (abscissa [k], return [k]) of each, ascending.

    Returns:
        Abscissa, mean, low and high, [GRID_POINTS] each.
    """
    start = max(float(x[0]) for x, _ in seeds)
    end = float(np.median([x[-1] for x, _ in seeds]))
    grid = np.linspace(min(start, end), end, GRID_POINTS)
    table = np.stack([np.interp(grid, x, y) for x, y in seeds])
    draws = np.random.default_rng(0).integers(len(table), size=(1000, len(table)))
    resampled = statistics.interquartile_mean(np.moveaxis(table[draws], 1, -1))
    low, high = statistics.percentiles(resampled, [table]) if len(table) > 1 else (table[0],) * 2
    return grid, statistics.interquartile_mean(table.T), low, high
