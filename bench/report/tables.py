"""Every table of a result file, for the terminal, for markdown and for the page alike."""

from collections.abc import Iterable, Sequence

from fastppo.bench.report.data import Group, Run
from fastppo.bench.report.numbers import amount, ends
from fastppo.bench.report.table import Table, label_of
from fastppo.bench.report.tables_env import environments
from fastppo.bench.report.tables_kernels import gpu_training, kernels
from fastppo.bench.report.tables_learn import learning
from fastppo.bench.report.tables_train import training


def tables(run: Run, *, narrow: bool = False) -> Iterable[Table]:
    """Every table of a file; `narrow` leaves the intervals out."""
    by_kind: dict[str, list[Group]] = {}
    for group in run.groups:
        by_kind.setdefault(group.kind, []).append(group)
    if run.kind == "gpu-check":
        yield from gpu_training(run)
    for kind, groups in by_kind.items():
        if kind == "train":
            yield from training(groups, narrow)
        elif kind == "learn":
            yield from learning(run, groups, narrow)
        elif kind == "kernel":
            yield kernels(groups, narrow)
        elif kind == "env":
            yield environments(groups, narrow)
        else:
            yield _others(groups, narrow)


def _others(groups: Sequence[Group], narrow: bool) -> Table:
    rows: list[tuple[str, ...]] = []
    for group in groups:
        rows.append((group.title,))
        ranked = sorted(group.entries, key=lambda e: -(e.value.value if e.value else 0.0))
        for entry in ranked:
            value, unit = entry.value, entry.unit
            reach = ends(value, lambda x, u=unit: amount(x, u))
            text = f"{amount(value.value, unit)}" if value else "-"
            rows.append((f"  {entry.id} {entry.impl}", text, *([] if narrow else [reach]), unit))
        rows += [(f"  {f['impl']}", "not measured") for f in group.failures]
    columns = ["median", *([] if narrow else [label_of(groups)]), "unit"]
    return Table("setting", columns, rows)
