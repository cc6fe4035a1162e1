"""The report as one HTML page: no script, nothing fetched, light and dark."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from fastppo.bench.report import (
    charts_history,
    charts_kernels,
    charts_learn,
    charts_runs,
    charts_train,
)
from fastppo.bench.report.charts import SERIES, Chart, Palette, unique
from fastppo.bench.report.data import NOT_VERIFIED, Group, ResultFile, implementations
from fastppo.bench.report.full import full_tables, sample_table
from fastppo.bench.report.notes import findings, notes, reservations, sentences
from fastppo.bench.report.numbers import MISSING
from fastppo.bench.report.table import Table
from fastppo.bench.report.tables import tables

KINDS = {
    "run": "Training runs",
    "train": "Training rates",
    "learn": "Learning",
    "kernel": "Kernels",
    "gpu-check": "GPU check",
    "env": "EnvPool alone",
    "profile": "Profile",
    "static": "Compiled kernels",
    "gate": "Performance gate",
    "history": "History",
    "tokens": "Tokens",
}


@dataclass(frozen=True)
class PagePart:
    """What one group of results shows."""

    title: str
    charts: Sequence[Chart]
    tables: Sequence[Table]
    unverified: Sequence[str]
    failures: Sequence[str]


@dataclass(frozen=True)
class Section:
    """One result file."""

    anchor: str
    title: str
    name: str
    facts: dict[str, str]
    tables: Sequence[Table]
    parts: Sequence[PagePart]
    doubts: Sequence[str]
    notes: Sequence[str]


def group_charts(group: Group, palette: Palette) -> Iterator[Chart]:
    """The charts of one group."""
    found: list[Chart | None] = []
    if group.kind == "train":
        found = [
            charts_train.rates(group, palette),
            charts_train.phases(group),
            charts_train.pairs(group, palette),
        ]
    elif group.kind == "learn":
        found = [charts_learn.curves(group, palette, against) for against in charts_learn.AXES]
        found.append(charts_learn.reached(group, palette))
    elif group.kind == "kernel":
        found = list(charts_kernels.rooflines(group, palette))
    elif group.kind == "env":
        found = [charts_kernels.environments(group)]
    elif group.kind == "history":
        found = [charts_history.series(group, palette)]
    elif group.kind == "run":
        found = [*charts_runs.charts(group, palette)]
    yield from (chart for chart in found if chart is not None)


def charts(runs: Sequence[ResultFile]) -> list[Chart]:
    """Every chart of a report, in the order of the page, under names of their own."""
    return [chart for of_run in drawn_groups(runs) for of_group in of_run for chart in of_group]


def drawn_groups(runs: Sequence[ResultFile]) -> list[list[list[Chart]]]:
    """Charts by run and group; of each run last those of all its groups together."""
    palette = Palette(tuple(implementations(runs)))
    drawn = [
        [
            *(list(group_charts(group, palette)) for group in run.groups),
            [one for one in (charts_learn.profile(run, palette),) if one is not None],
        ]
        for run in runs
    ]
    named = iter(unique(chart for of_run in drawn for of_group in of_run for chart in of_group))
    return [[[next(named) for _ in of_group] for of_group in of_run] for of_run in drawn]


def html(runs: Sequence[ResultFile]) -> str:
    """The page."""
    drawn = zip(runs, drawn_groups(runs), strict=True)
    sections = [_section(i, run, of_run) for i, (run, of_run) in enumerate(drawn)]
    shared = {
        name: value
        for name, value in (runs[0].facts().items() if runs else ())
        if all(run.facts()[name] == value for run in runs)
    }
    return page(sentences(runs), sections, shared)


def page(said: Sequence[str], sections: Sequence[Section], shared: dict[str, str]) -> str:
    """The page of some sections.

    Args:
        said: the verdict first.
        shared: facts that all sections have.
    """
    environment = Environment(
        loader=PackageLoader("fastppo.bench.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["inline"] = lambda chart: Markup(chart.inline())
    verdict, *others = said
    return environment.get_template("report.html.jinja").render(
        verdict=verdict,
        others=others,
        sections=sections,
        shared=shared,
        series=SERIES,
        missing=(MISSING, ""),
    )


def _section(number: int, run: ResultFile, drawn: Sequence[Sequence[Chart]]) -> Section:
    *of_groups, of_all = drawn
    parts = [_part(group, mine) for group, mine in zip(run.groups, of_groups, strict=True)]
    parts += [PagePart("All tasks together", of_all, [], [], [])] if of_all else []
    if run.groups and all(group.kind == "kernel" for group in run.groups):
        # an operation has one chart or two: together they fill the page
        together = [chart for part in parts for chart in part.charts]
        parts = [
            PagePart("Time against size", together, [t for p in parts for t in p.tables], [], [])
        ]
    if run.kind == "tokens":
        parts = []  # it has no charts: its tables say it all
    return Section(
        f"run-{number + 1}",
        KINDS[run.kind],
        run.name,
        run.facts(),
        list(tables(run)),
        parts,
        [*findings(run), *reservations(run)],
        notes(run),
    )


def _part(group: Group, drawn: Sequence[Chart]) -> PagePart:
    kept = list(full_tables(group)) or ([sample_table(group)] if group.entries else [])
    return PagePart(
        charts_train.title_of(group) if "/" in group.title else group.title,
        drawn,
        kept,
        [entry.impl for entry in group.entries if entry.detail.get("learning") == NOT_VERIFIED],
        [f"{failure['impl']}: {failure['reason']}" for failure in group.failures],
    )
