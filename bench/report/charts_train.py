"""Charts of a training benchmark: rates under their ceilings, where the time goes, drift."""

import math

from matplotlib.axes import Axes

from fastppo.bench.contract import PHASES
from fastppo.bench.report.charts import (
    FAINT,
    GRID,
    INK,
    ON_LIGHT,
    PAPER,
    PHASE_COLOURS,
    Chart,
    Palette,
    legend,
    log_axis,
    panel,
    slug,
    style,
)
from fastppo.bench.report.data import CEILINGS, Entry, Group, base_of, round_ratios, spoken
from fastppo.bench.report.numbers import count, ratio, share, short
from fastppo.bench.report.table import label_of

DASHES = {"envpool": (0, (5, 2)), "rollout": (0, (1, 1.5)), "update": (0, (6, 2, 1, 2))}
FAR = 4.0
"""A ceiling above so many times the best rate is written, not drawn: the bars would be slivers."""
LONGEST = 15
"""Characters of a name next to a bar."""


def title_of(group: Group) -> str:
    """`train/Pong-v5/8x128` as Pong-v5, 8x128."""
    return ", ".join(group.title.split("/")[1:]) or group.title


def shorten(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"


def rates(group: Group, palette: Palette) -> Chart | None:
    """Bars of rates with intervals, and lines for the ceilings of the first implementation."""
    entries = [entry for entry in group.entries if entry.value is not None]
    if not entries:
        return None
    stored = (entry.detail.get("ceilings") for entry in entries)
    ceilings: dict[str, float] = next((found for found in stored if found), {})
    with style():
        figure, axes = panel(1.5 + 0.4 * len(entries))
        best = max(_bar(axes, i, entry, palette) for i, entry in enumerate(entries))
        drawn = {name: rate for name, rate in ceilings.items() if 0 < rate <= FAR * best}
        for name, rate in drawn.items():
            label = f"{CEILINGS.get(name, name)}: {count(rate)}"
            axes.axvline(rate, color=INK, linestyle=DASHES.get(name, "-"), lw=1.4, label=label)
        axes.set_yticks(range(len(entries)), [shorten(entry.impl) for entry in entries])
        axes.invert_yaxis()
        axes.tick_params(axis="y", length=0)
        axes.set_xlim(0, max(1.28 * best, *(1.06 * rate for rate in drawn.values()), 1e-9))
        axes.xaxis.set_major_formatter(short)
        axes.locator_params(axis="x", nbins=5)
        axes.grid(axis="x")
        axes.set_xlabel("environment steps per second")
        legend(figure, axes, 2)
    far = [f"{CEILINGS.get(n, n)} {count(r)}" for n, r in ceilings.items() if n not in drawn]
    beyond = f" Ceilings beyond the axis: {', '.join(far)}." if far else ""
    lines = " Lines: ceilings measured in the same run." if drawn else ""
    return Chart(
        slug(group.title, "rates"),
        "Rate",
        f"Steady-state environment steps per second, with {label_of([group])}; longer is better."
        f"{lines}{beyond}",
        f"{title_of(group)}, environment steps per second: {spoken(entries)}.",
        figure,
        title_of(group),
    )


def _bar(axes: Axes, row: int, entry: Entry, palette: Palette) -> float:
    """Draws one bar with its interval and number; returns how far it reaches."""
    value = entry.value
    assert value is not None
    (bar,) = axes.barh(row, value.value, 0.66, color=palette.colour(entry.impl))
    bar.set_gid(f"data-bar-{row}")
    end = value.value
    if math.isfinite(value.low) and math.isfinite(value.high):
        axes.hlines(row, value.low, value.high, color=INK, linewidth=1.3)
        ends = [value.low, value.high]
        axes.plot(ends, [row, row], "|", color=INK, markersize=7)
        end = max(end, value.high)
    axes.annotate(
        count(value.value), (end, row), (5, 0), textcoords="offset points", va="center",
        bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 1.0},
    )  # fmt: skip
    return end


def phases(group: Group) -> Chart | None:
    """Stacked bars: microseconds per environment step by phase."""
    rows = [(entry, _per_step(entry)) for entry in group.entries]
    split = [(entry, parts) for entry, parts in rows if parts]
    if not split:
        return None
    with style():
        figure, axes = panel(1.95 + 0.4 * len(split))
        for phase in PHASES:
            lefts = [sum(list(parts.values())[: PHASES.index(phase)]) for _, parts in split]
            widths = [parts[phase] for _, parts in split]
            colour = PHASE_COLOURS[phase]
            bars = axes.barh(
                range(len(split)), widths, 0.66, lefts, color=colour, label=phase, edgecolor=PAPER,
                linewidth=0.6,
            )  # fmt: skip
            for row, bar in enumerate(bars):
                bar.set_gid(f"data-phase-{phase}-{row}")
        longest = max(sum(parts.values()) for _, parts in split)
        for row, (_, parts) in enumerate(split):
            _label(axes, row, parts, longest)
        axes.set_yticks(range(len(split)), [shorten(entry.impl) for entry, _ in split])
        axes.invert_yaxis()
        axes.tick_params(axis="y", length=0)
        axes.set_xlim(0, 1.18 * longest or 1.0)
        axes.locator_params(axis="x", nbins=5)
        axes.grid(axis="x")
        axes.set_xlabel("microseconds per environment step")
        legend(figure, axes, 4)
    missing = [entry.impl for entry, parts in rows if not parts]
    return Chart(
        slug(group.title, "phases"),
        "Where the time goes",
        "Wall time per environment step, in microseconds, by phase; shorter is better."
        + (f" Not split by phase: {', '.join(missing)}." if missing else ""),
        f"{title_of(group)}, share of the wall time: " + "; ".join(_shares(e) for e, _ in split),
        figure,
        title_of(group),
    )


def _per_step(entry: Entry) -> dict[str, float]:
    """Microseconds per environment step by phase; empty where they are not known."""
    phases, steps = entry.detail.get("phases"), entry.env_steps
    if not phases or not steps:
        return {}
    return {phase: 1e6 * max(0.0, phases[phase]) / steps for phase in PHASES}


def _label(axes: Axes, row: int, parts: dict[str, float], longest: float) -> None:
    left, total = 0.0, sum(parts.values())
    for width in parts.values():
        if width > 0.11 * longest:
            middle = left + width / 2
            text = share(width / total)
            axes.text(middle, row, text, ha="center", va="center", color=ON_LIGHT, fontsize=9)
        left += width
    axes.annotate(count(total), (total, row), (5, 0), textcoords="offset points", va="center")


def _shares(entry: Entry) -> str:
    phases = entry.detail["phases"]
    wall = phases["wall"] or sum(phases[phase] for phase in PHASES) or 1.0
    parts = ", ".join(f"{phase} {share(phases[phase] / wall)}" for phase in PHASES if phases[phase])
    return f"{entry.impl}: {parts}"


def pairs(group: Group, palette: Palette) -> Chart | None:
    """The ratio of every round against the time since the start: a slope or a step is drift."""
    found: list[tuple[Entry, str, list[tuple[float, float]]]] = []
    for entry in group.entries:
        stored = entry.detail.get("ratio")
        base = base_of(group, str(stored["base"])) if stored else None
        if base is not None and base is not entry:
            rounds = [(at, q) for at, q in round_ratios(entry, base) if at is not None]
            if rounds:
                found.append((entry, base.impl, rounds))
    if not found:
        return None
    with style():
        figure, axes = panel(3.3 + 0.2 * ((len(found) + 1) // 3))
        for index, (entry, _, rounds) in enumerate(found):
            (line,) = axes.plot(
                *zip(*rounds, strict=True), palette.marker(entry.impl), label=shorten(entry.impl),
                color=palette.colour(entry.impl), linestyle="-", linewidth=0.6, markersize=4.5,
            )  # fmt: skip
            line.set_gid(f"data-pairs-{index}")
        every = [quotient for _, _, rounds in found for _, quotient in rounds]
        log_axis(axes.yaxis, [*every, 1.0])
        axes.axhline(1.0, color=FAINT, linestyle=(0, (4, 2)), linewidth=1.2)
        axes.grid(color=GRID)
        axes.set_xlabel("seconds since the run's start")
        axes.set_ylabel(f"rate over {shorten(found[0][1])}")
        legend(figure, axes, 3)
    summary = "; ".join(
        f"{entry.impl} {len(rounds)} rounds from {ratio(min(q for _, q in rounds))} to "
        f"{ratio(max(q for _, q in rounds))}"
        for entry, _, rounds in found
    )
    return Chart(
        slug(group.title, "pairs"),
        "Every round, over time",
        f"Rate over that of {found[0][1]} in the same round, logarithmic; a slope or a step is "
        "drift of the machine or of an implementation.",
        f"{title_of(group)}, ratios of single rounds: {summary}.",
        figure,
        title_of(group),
    )
