"""Curves of training runs: a line per run or, of several seeds, their mean and its band."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastppo.bench.report.charts import FAINT, Chart, Palette, legend, panel, slug, style
from fastppo.bench.report.charts_learn import mean_curve
from fastppo.bench.report.charts_train import shorten, title_of
from fastppo.bench.report.data import Entry, Group
from fastppo.bench.report.numbers import count, short

AXES = {"global_step": "environment steps", "wall_time": "seconds of training"}
TOKENS = {
    "environment steps": "tokens",
    "env steps/s": "tokens/s",
    "return of whole games": "score",
}
"""What the same are on tokens."""
TITLES = {
    "episode/return": ("Return", "return of whole games"),
    "episode/exact_match": ("Exact match", "exactly right"),
    "episode/e_rate": ("Letters e", "share of letters"),
    "episode/total_variation": ("Distance from the optimum", "total variation"),
    "loss/ref_kl": ("KL from the model at the start", "nats a token"),
    "eval/mean_return": ("Return when evaluated", "return"),
    "env_steps_per_s": ("Rate", "env steps/s"),
    "loss/value_loss": ("Value loss", "value loss"),
    "loss/policy_loss": ("Policy loss", "policy loss"),
    "loss/entropy": ("Entropy", "entropy"),
    "loss/approx_kl": ("KL", "approximate KL"),
    "loss/clip_frac": ("Clip fraction", "clipped rows"),
    "loss/explained_variance": ("Explained variance", "explained variance"),
    "learning_rate": ("Learning rate", "step size"),
}
BAND = 3
"""Seeds from which on a band is drawn."""
Points = tuple[NDArray[Any], NDArray[Any]]


def charts(group: Group, palette: Palette) -> Iterator[Chart]:
    """Return against steps and time, the rate, and what the losses did."""
    drawn = [
        _chart(group, palette, "episode/return", "global_step"),
        _chart(group, palette, "episode/return", "wall_time"),
        *(_chart(group, palette, name, "global_step") for name in list(TITLES)[1:]),
    ]
    yield from (chart for chart in drawn if chart is not None)


def _chart(group: Group, palette: Palette, name: str, against: str) -> Chart | None:
    found = [(entry, _points(entry, name, against)) for entry in group.entries]
    found = [(entry, runs) for entry, runs in found if runs]
    if not found:
        return None
    title, label = TITLES[name]
    axis_label = AXES[against]
    if found[0][0].detail["env_id"].startswith("tokens/"):
        label, axis_label = TOKENS.get(label, label), TOKENS.get(axis_label, axis_label)
    with style():
        figure, axes = panel(2.7 + 0.2 * ((len(found) + 1) // 2))
        for index, (entry, runs) in enumerate(found):
            _draw(axes, index, runs, palette.colour(entry.impl), shorten(entry.impl))
        threshold = group.entries[0].detail.get("threshold")
        if threshold is not None and name.endswith("return"):
            text = f"solved at {count(threshold)}"
            axes.axhline(threshold, color=FAINT, linestyle=(0, (4, 2)), linewidth=1.3, label=text)
        axes.set_xlim(left=0)
        if name == "env_steps_per_s":
            axes.set_ylim(bottom=0)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(short)
        axes.locator_params(axis="x", nbins=6)
        axes.grid()
        axes.set(xlabel=axis_label, ylabel=label)
        if len(found) > 1 or (threshold is not None and name.endswith("return")):
            legend(figure, axes, 2)
    several = any(len(runs) > 1 for _, runs in found)
    banded = any(len(runs) >= BAND for _, runs in found)
    caption = "Thin: single seeds. Thick: their interquartile mean" if several else "One run"
    caption += "; band: bootstrap over seeds, 95%." if banded else "."
    ends = "; ".join(
        f"{entry.impl} {count(float(np.mean([y[-1] for _, y in runs])))}" for entry, runs in found
    )
    return Chart(
        slug(group.title, name, against),
        f"{title} against {axis_label}" if name == "episode/return" else title,
        caption,
        f"{title_of(group)}, {label} at the end: {ends}.",
        figure,
        title_of(group),
    )


def _draw(axes: Any, index: int, runs: list[Points], colour: str, label: str) -> None:
    if len(runs) == 1:
        (line,) = axes.plot(*runs[0], color=colour, linewidth=1.8, label=label)
        line.set_gid(f"data-run-{index}")
        return
    for number, (x, y) in enumerate(runs):
        (line,) = axes.plot(x, y, color=colour, linewidth=0.7, alpha=0.45)
        line.set_gid(f"data-seed-{index}-{number}")
    x, mean, low, high = mean_curve(runs)
    (thick,) = axes.plot(x, mean, color=colour, linewidth=2.4, label=label)
    thick.set_gid(f"data-mean-{index}")
    if len(runs) >= BAND:
        axes.fill_between(x, low, high, color=colour, alpha=0.16, linewidth=0)


def _points(entry: Entry, name: str, against: str) -> list[Points]:
    series = (curve["series"][name] for curve in entry.detail["curves"])
    return [(np.array(one[against]), np.array(one["value"])) for one in series if one["value"]]
