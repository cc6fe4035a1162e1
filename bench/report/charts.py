"""Charts of the report: one look, one colour per implementation, as PNG, as SVG and inside HTML.

Inside a page the colours are CSS variables, so that one chart serves light and dark; the text stays
text. Nothing in an SVG depends on the time, the process or the order of drawing.
"""

import io
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from matplotlib import style as mpl_style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter

from fastppo import files
from fastppo.bench.report.numbers import short

WIDTH = 4.4
"""Inches. At 72 units an inch, a chart fills a telephone's width at a scale of about 1."""
INK, FAINT, GRID, PAPER = "#1b1f24", "#59636e", "#d9dde2", "#ffffff"
# (light, dark) by slot: Okabe and Ito's and Tol's sets, which differ under every colour blindness
SERIES = (
    ("#0072b2", "#4db3f0"),
    ("#d98200", "#f2a93b"),
    ("#008a63", "#2fc79a"),
    ("#c4568f", "#ea8fbd"),
    ("#c24a00", "#ff8a4c"),
    ("#3a9fd6", "#8ed0f5"),
    ("#8a8420", "#cfc655"),
    ("#882255", "#d5729f"),
    ("#5a4fcf", "#a9a1ff"),
    ("#2a8f8f", "#6ad1d1"),
    ("#7a5c3e", "#c9a680"),
    ("#6b7280", "#a3abb8"),
)
SLOTS = {
    "fastppo": 0, "reference": 1, "sb3": 2, "sbx": 3, "rl_games": 4, "torchrl": 5, "tianshou": 6,
    "cleanrl": 7, "leanrl": 8, "eager": 4, "compile": 8, "copy": 11, "envpool": 11,
}  # fmt: skip
SPARE = (9, 10, 3, 6, 7, 2, 5)
MARKERS = "osD^vP*XphdH"
# light colours with dark text on them, in the order of the phases; Tol's "light" set
PHASE_COLOURS = {
    "env": "#77aadd", "policy": "#ee8866", "copy": "#eedd88", "gae": "#ffaabb",
    "update": "#99ddff", "logging": "#bbcc33", "other": "#c9c9c9",
}  # fmt: skip
ON_LIGHT = "#101418"  # text on a phase's colour, in both modes
STYLE: Any = {
    "svg.hashsalt": "fastppo",
    "svg.fonttype": "none",
    "font.family": ["DejaVu Sans"],
    "font.size": 10.5,
    "axes.titlesize": 11,
    "axes.labelsize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.facecolor": "none",
    "axes.axisbelow": True,
    "figure.facecolor": PAPER,
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 10,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
}
VARIABLES = {
    INK: "--ink", FAINT: "--faint", GRID: "--grid", PAPER: "--card",
    **{light: f"--series-{slot}" for slot, (light, _) in enumerate(SERIES)},
}  # fmt: skip


@dataclass(frozen=True)
class Palette:
    """A colour and a marker per implementation, the same on every chart of a report."""

    names: tuple[str, ...]

    def slot(self, name: str) -> int:
        return SLOTS[name] if name in SLOTS else SPARE[self._stranger(name) % len(SPARE)]

    def colour(self, name: str) -> str:
        return SERIES[self.slot(name)][0]

    def marker(self, name: str) -> str:
        # from the end, so that a stranger that shares a colour has a shape of its own
        place = SLOTS[name] if name in SLOTS else -1 - self._stranger(name)
        return MARKERS[place % len(MARKERS)]

    def _stranger(self, name: str) -> int:
        """Its place among the names that have no colour of their own."""
        strangers = [other for other in self.names if other not in SLOTS]
        return strangers.index(name) if name in strangers else 0


@dataclass(frozen=True)
class Chart:
    """A figure with everything that a page says about it."""

    name: str
    """Of the files, and what makes its ids unique on a page."""
    title: str
    caption: str
    """What is drawn, in what unit."""
    alt: str
    """The numbers in words, for who cannot see them."""
    figure: Figure
    subject: str = ""
    """What the page says above the chart; files say it themselves."""

    def svg(self) -> str:
        """A file of its own."""
        target = io.StringIO()
        with style():
            nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
            self.figure.savefig(target, format="svg", metadata=nothing)
        return target.getvalue()

    def inline(self) -> str:
        """An <svg> element for a page: no header, ids of its own, colours by CSS variables."""
        text = self.svg()
        text = text[text.index("<svg") :]
        text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
        text = re.sub(r"<style[^>]*>.*?</style>", "", text, flags=re.DOTALL)
        text = re.sub(r'<g id="patch_1">.*?</g>', "", text, count=1, flags=re.DOTALL)  # the paper
        box = re.search(r'viewBox="0 0 ([\d.]+) ', text)
        assert box is not None, "matplotlib writes a viewBox"
        opening = (
            f'<svg viewBox="{text[box.start() + 9 : text.index(chr(34), box.start() + 9)]}" '
            f'role="img" aria-labelledby="{self.name}-alt" style="max-width: '
            f'{1.3 * float(box[1]):.0f}px"><title id="{self.name}-alt">{_escape(self.alt)}</title>'
        )
        text = opening + text[text.index(">", box.end()) + 1 :]
        text = text.replace("xlink:href", "href")
        text = _own_ids(text, self.name)
        for colour, variable in VARIABLES.items():
            text = text.replace(colour, f"var({variable})")
        return text.replace("'DejaVu Sans'", "inherit").replace("inherit, sans-serif", "inherit")

    def write(self, folder: Path) -> Iterator[Path]:
        """Writes NAME.png and NAME.svg with a heading, each whole or not at all."""
        with style():
            heading = ": ".join(filter(None, (self.subject, self.title)))
            self.figure.suptitle(heading, fontsize=11.5, fontweight="bold", x=0.02, ha="left")
        for suffix in ("png", "svg"):
            path = folder / f"{self.name}.{suffix}"
            if suffix == "svg":
                files.write(path, self.svg())
            else:
                with style(), files.replacing(path) as file:
                    self.figure.savefig(file, format="png", dpi=180, metadata={"Software": None})
            yield path


def style() -> AbstractContextManager[None]:
    """The look; matplotlib reads some of it when an artist is made, the rest when it is saved."""
    # from the defaults: a matplotlibrc of the user's would draw grids, or call LaTeX
    return mpl_style.context(["default", STYLE])


def slug(*parts: str) -> str:
    """A file name and id from a result's id; lower case, [a-z0-9-]."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-") or "chart"


def unique(charts: Iterable[Chart]) -> list[Chart]:
    """The charts, those of a name that is taken renamed."""
    found: dict[str, Chart] = {}
    for chart in charts:
        name, number = chart.name, 1
        while name in found:
            number += 1
            name = f"{chart.name}-{number}"
        found[name] = replace(chart, name=name)
    return list(found.values())


def panel(height: float) -> tuple[Figure, Axes]:
    """A figure with one panel."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots()


def legend(figure: Figure, axes: Axes, columns: int = 3) -> None:
    """Below the panel, so that it never covers a point."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower left", ncols=columns, columnspacing=1.2)


def log_axis(axis: Any, values: Sequence[float]) -> None:
    """A logarithmic axis with plain numbers, also where it spans less than a decade."""
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    low, high = min(values), max(values)
    if high / low > 500:
        axis.set_major_locator(LogLocator(10, numticks=8))
    else:
        steps = (1, 1.5, 2, 3, 5, 7) if high / low < 12 else (1, 3)
        ticks = (m * 10.0**e for e in range(-12, 13) for m in steps)
        margin = (high / low) ** 0.1
        inside = [tick for tick in ticks if low / margin <= tick <= high * margin]
        axis.set_major_locator(FixedLocator(inside if len(inside) > 1 else [low, high]))
    axis.set_major_formatter(FuncFormatter(short))
    axis.set_minor_formatter(NullFormatter())


def _own_ids(text: str, name: str) -> str:
    """Prefixes the ids that are referred to or that we gave (`data-...`); drops the others."""
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', text)) | {f"{name}-alt"}
    used |= set(re.findall(r'id="(data-[^"]+)"', text))

    def rewrite(match: re.Match[str]) -> str:
        found = match[1]
        if found == f"{name}-alt":
            return match[0]
        return f' id="{name}-{found}"' if found in used else ""

    text = re.sub(r'\sid="([^"]*)"', rewrite, text)
    text = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', text)
    return re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", text)


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
