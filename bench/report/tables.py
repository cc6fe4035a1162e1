"""Every table of a result file, for the terminal, for markdown and for the page alike."""

from collections.abc import Iterable

from fastppo.bench.report.data import Group, ResultFile
from fastppo.bench.report.table import Table
from fastppo.bench.report.tables_env import environments
from fastppo.bench.report.tables_gate import verdicts
from fastppo.bench.report.tables_history import series
from fastppo.bench.report.tables_kernels import gpu_training, kernels
from fastppo.bench.report.tables_learn import learning
from fastppo.bench.report.tables_profile import profiles
from fastppo.bench.report.tables_runs import runs
from fastppo.bench.report.tables_static import compiled
from fastppo.bench.report.tables_tokens import tokens
from fastppo.bench.report.tables_train import training


def tables(run: ResultFile, *, narrow: bool = False) -> Iterable[Table]:
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
        elif kind == "profile":
            yield from profiles(groups, narrow)
        elif kind == "static":
            yield from compiled(groups)
        elif kind == "gate":
            yield from verdicts(groups)
        elif kind == "history":
            yield from series(groups)
        elif kind == "tokens":
            yield from tokens(groups, narrow)
        elif kind == "run":
            yield from runs(groups, narrow)
