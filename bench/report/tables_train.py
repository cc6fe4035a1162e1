"""Tables of a training benchmark: rates, phases, costs."""

from collections.abc import Iterable, Sequence

from fastppo.bench.contract import PHASES
from fastppo.bench.report.data import CEILINGS, Entry, Group, mismatches
from fastppo.bench.report.numbers import (
    count,
    mebibytes,
    of_ceiling,
    ratio,
    seconds,
    share,
    with_ends,
)
from fastppo.bench.report.table import Table, title
from fastppo.bench.results.intervals import heading


def training(groups: Sequence[Group], narrow: bool) -> Iterable[Table]:
    """Rates first."""
    yield _rates(groups, narrow)
    yield from _phases(groups)
    yield _costs(groups, narrow)


def _rates(groups: Sequence[Group], narrow: bool) -> Table:
    bases = {
        entry.detail["ratio"]["base"] for g in groups for entry in g.entries if _has_ratio(entry)
    }
    over = f"x {bases.pop()}" if len(bases) == 1 else "ratio"
    labels = heading(e.ratio.label for g in groups for e in g.entries if e.ratio)
    columns = ["env steps/s", over if narrow else f"{over} [{labels}]", "of EnvPool"]
    columns += [] if narrow else ["learning"]
    rows: list[tuple[str, ...]] = []
    for group in groups:
        rows.append((title(group),))
        for entry in group.entries:
            found = entry.ratio
            middle = ratio(found.value if found else None)
            rows.append(
                (
                    f"  {entry.impl}{'*' if mismatches(entry) else ''}",
                    count(entry.value.value) if entry.value else "-",
                    middle if narrow else with_ends(found),
                    of_ceiling(entry.detail["shares"].get("envpool")),
                    *(() if narrow else (entry.detail["learning"],)),
                )
            )
        rows += [
            (f"  {CEILINGS.get(name, name)}", count(rate))
            for name, rate in (group.entries[0].detail["ceilings"] if group.entries else {}).items()
        ]
        rows += [(f"  {failure['impl']}", "not measured") for failure in group.failures]
    return Table("training", columns, rows)


def _phases(groups: Sequence[Group]) -> Iterable[Table]:
    rows: list[tuple[str, ...]] = []
    for group in groups:
        split = [entry for entry in group.entries if entry.detail.get("phases")]
        if split:
            rows.append((title(group),))
        for entry in split:
            phases = entry.detail["phases"]
            wall = phases["wall"] or 1.0
            rows.append((f"  {entry.impl}", *(share(phases[phase] / wall) for phase in PHASES)))
    if rows:
        yield Table("wall time by phase", PHASES, rows)


def _costs(groups: Sequence[Group], narrow: bool) -> Table:
    columns = ("cold start", "compile", "peak memory", *(() if narrow else ("threads env, torch",)))
    rows: list[tuple[str, ...]] = []
    for group in groups:
        rows += [(title(group),)] if group.entries else []
        for entry in group.entries:
            wall, threads = entry.detail["wall"], entry.detail["threads"]
            rows.append(
                (
                    f"  {entry.impl}",
                    seconds(wall["cold_start_s"]),
                    seconds(wall["compile_s"]),
                    mebibytes(entry.detail["memory"]["process_peak_bytes"]),
                    *(() if narrow else (f"{threads['env'] or '?'}, {threads['torch'] or '?'}",)),
                )
            )
    return Table("costs", columns, rows)


def _has_ratio(entry: Entry) -> bool:
    return bool(entry.detail.get("ratio"))
